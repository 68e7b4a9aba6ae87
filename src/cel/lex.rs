//! Words of an expression.
//!
//! Owns: CEL's lexical grammar: numbers, strings with their escapes and prefixes, operators, comments.
//! Called by: the parser.
//! Never: knows what may follow what.

use crate::fault::Fault;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Ident(String),
    /// Between backquotes: a field name that is no identifier.
    Quoted(String),
    Int(String),
    Uint(String),
    Double(String),
    Text(String),
    Bytes(Vec<u8>),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

impl Token {
    /// As messages show it.
    pub fn shown(&self) -> String {
        match self {
            Self::Ident(s) | Self::Int(s) | Self::Uint(s) | Self::Double(s) => s.clone(),
            Self::Quoted(s) => format!("`{s}`"),
            Self::Text(s) => format!("\"{s}\""),
            Self::Bytes(_) => "b\"\"".into(),
            Self::Sign(s) => (*s).into(),
            Self::End => "<EOF>".into(),
        }
    }
}

/// A word and the offset it begins at.
#[derive(Clone, Debug)]
pub struct Word {
    pub token: Token,
    pub at: usize,
}

const SIGNS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "[", "]", "{", "}", "(", ")", ".", ",", "?", ":", "+", "-", "*", "/", "%", "<",
    ">", "!", "=", "|",
];

pub fn words(text: &str) -> Result<Vec<Word>, Fault> {
    let mut lexer = Lexer { text: text.chars().collect(), at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.at;
        let token = lexer.next()?;
        let ended = token == Token::End;
        found.push(Word { token, at });
        if ended {
            return Ok(found);
        }
    }
}

struct Lexer {
    text: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.text.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn skip_blank(&mut self) {
        while self.at < self.text.len() {
            match self.peek(0) {
                ' ' | '\t' | '\r' | '\n' | '\u{c}' => self.at += 1,
                '/' if self.peek(1) == '/' => {
                    while self.at < self.text.len() && self.peek(0) != '\n' {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn next(&mut self) -> Result<Token, Fault> {
        if self.at >= self.text.len() {
            return Ok(Token::End);
        }
        let first = self.peek(0);
        if let Some(prefix) = self.string_prefix() {
            return self.string(prefix);
        }
        if first.is_ascii_digit() || (first == '.' && self.peek(1).is_ascii_digit()) {
            return Ok(self.number());
        }
        if first.is_ascii_alphabetic() || first == '_' {
            return Ok(Token::Ident(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_')));
        }
        if first == '`' {
            return self.quoted();
        }
        for sign in SIGNS {
            if sign.chars().enumerate().all(|(i, c)| self.peek(i) == c) && sign != "=" && sign != "|" {
                self.at += sign.len();
                return Ok(Token::Sign(sign));
            }
        }
        Err(Fault { at: self.at, what: format!("Syntax error: token recognition error at: '{first}'") })
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.at < self.text.len() && keep(self.peek(0)) {
            self.at += 1;
        }
        self.text[start..self.at].iter().collect()
    }

    fn quoted(&mut self) -> Result<Token, Fault> {
        let at = self.at;
        self.at += 1;
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || "_.-/ ".contains(c));
        if self.peek(0) != '`' || name.is_empty() {
            return Err(Fault { at, what: "Syntax error: token recognition error at: '`'".into() });
        }
        self.at += 1;
        Ok(Token::Quoted(name))
    }

    fn number(&mut self) -> Token {
        let start = self.at;
        if self.peek(0) == '0' && self.peek(1) == 'x' && self.peek(2).is_ascii_hexdigit() {
            self.at += 2;
            self.take_while(|c| c.is_ascii_hexdigit());
        } else {
            self.take_while(|c| c.is_ascii_digit());
            let mut double = false;
            if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
                double = true;
                self.at += 1;
                self.take_while(|c| c.is_ascii_digit());
            }
            let sign = usize::from(matches!(self.peek(1), '+' | '-'));
            if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + sign).is_ascii_digit() {
                double = true;
                self.at += 1 + sign;
                self.take_while(|c| c.is_ascii_digit());
            }
            if double {
                return Token::Double(self.text[start..self.at].iter().collect());
            }
        }
        let text: String = self.text[start..self.at].iter().collect();
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return Token::Uint(text);
        }
        Token::Int(text)
    }

    /// How many letters stand before the quote of a string that begins here.
    fn string_prefix(&self) -> Option<usize> {
        let quote = |c: char| c == '"' || c == '\'';
        let letter = |c: char| matches!(c, 'r' | 'R' | 'b' | 'B');
        if quote(self.peek(0)) {
            return Some(0);
        }
        if letter(self.peek(0)) && quote(self.peek(1)) {
            return Some(1);
        }
        (letter(self.peek(0)) && letter(self.peek(1)) && quote(self.peek(2))).then_some(2)
    }

    fn string(&mut self, prefix: usize) -> Result<Token, Fault> {
        let at = self.at;
        let letters: String = self.text[at..at + prefix].iter().collect::<String>().to_ascii_lowercase();
        let (raw, bytes) = (letters.contains('r'), letters.contains('b'));
        self.at += prefix;
        let quote = self.peek(0);
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        self.at += if triple { 3 } else { 1 };
        let mut found = Vec::new();
        loop {
            let c = self.peek(0);
            if self.at >= self.text.len() || (!triple && c == '\n') {
                let shown: String = self.text[at..].iter().collect();
                return Err(Fault { at, what: format!("Syntax error: token recognition error at: '{shown}'") });
            }
            if c == quote && (!triple || (self.peek(1) == quote && self.peek(2) == quote)) {
                self.at += if triple { 3 } else { 1 };
                break;
            }
            if c == '\\' && !raw {
                self.escape(bytes, &mut found)?;
                continue;
            }
            self.at += 1;
            found.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        if bytes {
            return Ok(Token::Bytes(found));
        }
        String::from_utf8(found).map(Token::Text).map_err(|_| Fault { at, what: "invalid string literal".into() })
    }

    fn escape(&mut self, bytes: bool, found: &mut Vec<u8>) -> Result<(), Fault> {
        let at = self.at;
        let wrong = || Fault { at, what: "Syntax error: token recognition error at: '\\'".to_string() };
        let letter = self.peek(1);
        self.at += 2;
        let plain = match letter {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => letter as u8,
            _ => 0,
        };
        if plain != 0 {
            found.push(plain);
            return Ok(());
        }
        let (digits, radix) = match letter {
            'x' | 'X' => (2, 16),
            'u' if !bytes => (4, 16),
            'U' if !bytes => (8, 16),
            '0'..='3' => {
                self.at -= 1;
                (3, 8)
            }
            _ => return Err(wrong()),
        };
        let end = (self.at + digits).min(self.text.len());
        let text: String = self.text[self.at..end].iter().collect();
        let code = u32::from_str_radix(&text, radix).ok().filter(|_| text.len() == digits).ok_or_else(wrong)?;
        self.at = end;
        if bytes {
            found.push(u8::try_from(code).map_err(|_| wrong())?);
        } else {
            let c = char::from_u32(code).ok_or_else(wrong)?;
            found.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }
}
