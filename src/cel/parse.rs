//! From words to a tree.
//!
//! Owns: CEL's grammar and precedence, and how deep an expression may nest.
//! Called by: the compilation of a program.
//! Never: checks types.

use crate::ast::{Entry, Expr, Field, Item, Kind, Literal, Presence, Selection};
use crate::environment::Bindings;
use crate::fault::Fault;
use crate::lex::{self, Token, Word};
use crate::macros;

/// Upstream's limits on the text and on nesting.
const CHARACTERS_MAX: usize = 100_000;
const DEPTH_MAX: usize = 250;
/// How deep a tree may be, which long chains (`a + b + ...`) and folds make deeper than the text nests. Ours alone:
/// what walks a tree does so on a thread's stack.
const TREE_DEPTH_MAX: usize = 300;

/// Brackets that any stack has room for, and the stack that `DEPTH_MAX` of them need.
const SHALLOW: usize = 50;
const STACK_BYTES: usize = 16 << 20;

/// Levels of operators, loosest first.
const OR: u8 = 1;
const AND: u8 = 2;
const RELATION: u8 = 3;
const SUM: u8 = 4;
const PRODUCT: u8 = 5;

const PRIMARY: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Numbers nodes while a tree is made.
pub struct Nodes {
    pub count: usize,
    /// Whether `cel.bind` is a macro.
    pub bindings: Bindings,
}

impl Nodes {
    pub fn node(&mut self, at: usize, kind: Kind) -> Expr {
        self.count += 1;
        let depth = 1 + kind.parts().map(|part| part.depth).max().unwrap_or(0);
        Expr { id: self.count - 1, at, depth, kind }
    }
    pub fn call(&mut self, at: usize, function: &str, args: Vec<Expr>) -> Expr {
        self.node(at, Kind::Call { target: None, function: function.into(), args })
    }
    pub fn ident(&mut self, at: usize, name: &str) -> Expr {
        self.node(at, Kind::Ident(name.into()))
    }
    pub fn literal(&mut self, at: usize, literal: Literal) -> Expr {
        self.node(at, Kind::Literal(literal))
    }
}

/// The tree and how many nodes it has.
pub fn parse(text: &str, bindings: Bindings) -> Result<(Expr, usize), Fault> {
    let length = text.chars().count();
    if length > CHARACTERS_MAX {
        let what = format!("expression code point size exceeds limit: size: {length}, limit {CHARACTERS_MAX}");
        return Err(Fault { at: 0, what });
    }
    let words = lex::words(text)?;
    if nesting(&words) <= SHALLOW {
        return tree(words, bindings);
    }
    // What nests deeply gets a stack of its own, so that no caller's decides how deep a text may nest.
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = builder.spawn_scoped(scope, || tree(words, bindings)).ok();
        thread.and_then(|thread| thread.join().ok())
    })
    .unwrap_or_else(|| Err(Fault { at: 0, what: format!("expression recursion limit exceeded: {DEPTH_MAX}") }))
}

/// How deep the brackets of a text nest.
fn nesting(words: &[Word]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for word in words {
        match word.token {
            Token::Sign("(" | "[" | "{" | "?") => depth += 1,
            Token::Sign(")" | "]" | "}") => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn tree(words: Vec<Word>, bindings: Bindings) -> Result<(Expr, usize), Fault> {
    let mut parser = Parser { words, next: 0, depth: 0, nodes: Nodes { count: 0, bindings } };
    let tree = parser.expr()?;
    if parser.token() != &Token::End {
        return Err(parser.unexpected("<EOF>"));
    }
    Ok((tree, parser.nodes.count))
}

struct Parser {
    words: Vec<Word>,
    next: usize,
    depth: usize,
    nodes: Nodes,
}

type Parsed = Result<Expr, Fault>;

impl Parser {
    fn token(&self) -> &Token {
        &self.words[self.next].token
    }
    fn at(&self) -> usize {
        self.words[self.next].at
    }
    fn is(&self, sign: &str) -> bool {
        matches!(self.token(), Token::Sign(s) if *s == sign)
    }
    fn step(&mut self) -> usize {
        let at = self.at();
        if self.next + 1 < self.words.len() {
            self.next += 1;
        }
        at
    }
    fn accept(&mut self, sign: &str) -> Option<usize> {
        self.is(sign).then(|| self.step())
    }
    fn unexpected(&self, expecting: &str) -> Fault {
        let shown = self.token().shown();
        let what = match self.token() {
            Token::End => format!("Syntax error: mismatched input '<EOF>' expecting {expecting}"),
            _ if expecting == "<EOF>" => format!("Syntax error: extraneous input '{shown}' expecting <EOF>"),
            _ => format!("Syntax error: mismatched input '{shown}' expecting {expecting}"),
        };
        Fault { at: self.at(), what }
    }
    fn expect(&mut self, sign: &str) -> Result<usize, Fault> {
        self.accept(sign).ok_or_else(|| self.unexpected(&format!("'{sign}'")))
    }

    fn expr(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault { at: self.at(), what: format!("expression recursion limit exceeded: {DEPTH_MAX}") });
        }
        let condition = self.binary(OR)?;
        let parsed = match self.accept("?") {
            None => condition,
            Some(at) => {
                let yes = self.binary(OR)?;
                self.expect(":")?;
                let no = self.expr()?;
                self.nodes.call(at, "_?_:_", vec![condition, yes, no])
            }
        };
        self.depth -= 1;
        Ok(parsed)
    }

    /// Operators that bind at least as tightly as `least`. One function for all levels: a text that nests deeply
    /// would otherwise need a deep stack.
    fn binary(&mut self, least: u8) -> Parsed {
        let mut left = self.unary()?;
        while let Some((function, level)) = self.operator().filter(|(_, level)| *level >= least) {
            if level <= AND {
                left = self.chain(left, function, level)?;
                continue;
            }
            let at = self.step();
            let right = self.binary(level + 1)?;
            left = self.nodes.call(at, function, vec![left, right]);
            self.bounded(&left)?;
        }
        Ok(left)
    }

    fn operator(&self) -> Option<(&'static str, u8)> {
        Some(match self.token() {
            Token::Sign("||") => ("_||_", OR),
            Token::Sign("&&") => ("_&&_", AND),
            Token::Sign("<") => ("_<_", RELATION),
            Token::Sign("<=") => ("_<=_", RELATION),
            Token::Sign(">") => ("_>_", RELATION),
            Token::Sign(">=") => ("_>=_", RELATION),
            Token::Sign("==") => ("_==_", RELATION),
            Token::Sign("!=") => ("_!=_", RELATION),
            Token::Ident(word) if word == "in" => ("@in", RELATION),
            Token::Sign("+") => ("_+_", SUM),
            Token::Sign("-") => ("_-_", SUM),
            Token::Sign("*") => ("_*_", PRODUCT),
            Token::Sign("/") => ("_/_", PRODUCT),
            Token::Sign("%") => ("_%_", PRODUCT),
            _ => return None,
        })
    }

    /// A chain of `&&` or `||`, balanced so that a long one does not nest deeply.
    fn chain(&mut self, first: Expr, function: &'static str, level: u8) -> Parsed {
        let mut operands = vec![Some(first)];
        let mut signs = Vec::new();
        while self.operator() == Some((function, level)) {
            signs.push(self.step());
            operands.push(Some(self.binary(level + 1)?));
        }
        let last = operands.len() - 1;
        Ok(self.balanced(function, &mut operands, &signs, 0, last))
    }

    fn bounded(&self, tree: &Expr) -> Result<(), Fault> {
        if tree.depth <= TREE_DEPTH_MAX {
            return Ok(());
        }
        Err(Fault { at: tree.at, what: format!("expression recursion limit exceeded: {TREE_DEPTH_MAX}") })
    }

    fn balanced(
        &mut self,
        function: &str,
        operands: &mut [Option<Expr>],
        signs: &[usize],
        low: usize,
        high: usize,
    ) -> Expr {
        if low == high {
            return operands[low].take().expect("each operand is used once");
        }
        let middle = (low + high).div_ceil(2);
        let left = self.balanced(function, operands, signs, low, middle - 1);
        let right = self.balanced(function, operands, signs, middle, high);
        self.nodes.call(signs[middle - 1], function, vec![left, right])
    }

    fn unary(&mut self) -> Parsed {
        for (sign, function) in [("!", "!_"), ("-", "-_")] {
            if !self.is(sign) {
                continue;
            }
            let at = self.at();
            let mut count = 0;
            while self.accept(sign).is_some() {
                count += 1;
            }
            let number = matches!(self.token(), Token::Int(_) | Token::Double(_));
            // The smallest int has no positive twin, so a sign before a number belongs to it.
            let operand = if sign == "-" && number && count % 2 == 1 { self.member("-")? } else { self.member("")? };
            let folded = sign == "-" && number;
            let negate = count % 2 == 1 && !folded;
            return Ok(if negate { self.nodes.call(at, function, vec![operand]) } else { operand });
        }
        self.member("")
    }

    fn member(&mut self, minus: &str) -> Parsed {
        let mut left = self.primary(minus)?;
        loop {
            if let Some(at) = self.accept(".") {
                left = self.dotted(left, at)?;
            } else if let Some(at) = self.accept("[") {
                let function = if self.accept("?").is_some() { "_[?_]" } else { "_[_]" };
                let index = self.expr()?;
                self.expect("]")?;
                left = self.nodes.call(at, function, vec![left, index]);
            } else {
                return Ok(left);
            }
            self.bounded(&left)?;
        }
    }

    /// What follows a dot: a field, an optional field, a call.
    fn dotted(&mut self, left: Expr, at: usize) -> Parsed {
        if self.accept("?").is_some() {
            let (name_at, field) = self.field_name()?;
            let name = self.nodes.literal(name_at, Literal::String(field));
            return Ok(self.nodes.call(at, "_?._", vec![left, name]));
        }
        let (_, field) = self.field_name()?;
        let Some(open) = self.accept("(") else {
            return Ok(self.nodes.node(at, Kind::Select { operand: Box::new(left), field, mode: Selection::Value }));
        };
        let args = self.arguments()?;
        macros::method(&mut self.nodes, open, left, field, args)
    }

    fn field_name(&mut self) -> Result<(usize, String), Fault> {
        let at = self.at();
        let name = match self.token() {
            Token::Ident(name) if name != "in" && !matches!(name.as_str(), "true" | "false" | "null") => name.clone(),
            Token::Quoted(name) => name.clone(),
            Token::End => return Err(Fault { at, what: "Syntax error: no viable alternative at input '.'".into() }),
            _ => return Err(self.unexpected("{'?', IDENTIFIER, ESC_IDENTIFIER}")),
        };
        self.step();
        Ok((at, name))
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, Fault> {
        let mut args = Vec::new();
        if self.accept(")").is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.accept(",").is_none() {
                self.expect(")")?;
                return Ok(args);
            }
        }
    }

    fn primary(&mut self, minus: &str) -> Parsed {
        let at = self.at();
        let literal = match self.token().clone() {
            Token::Sign("(") => {
                self.step();
                let inner = self.expr()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Sign("[") => return self.list(),
            Token::Sign("{") => return self.map(),
            Token::Sign(".") => {
                self.step();
                return self.name(true);
            }
            Token::Ident(word) => match word.as_str() {
                "true" => Literal::Bool(true),
                "false" => Literal::Bool(false),
                "null" => Literal::Null,
                _ => return self.name(false),
            },
            Token::Int(text) => Literal::Int(int(&format!("{minus}{text}")).ok_or_else(|| wrong(at, "int"))?),
            Token::Uint(text) => Literal::Uint(uint(&text).ok_or_else(|| wrong(at, "uint"))?),
            Token::Double(text) => Literal::Double(format!("{minus}{text}").parse().map_err(|_| wrong(at, "double"))?),
            Token::Text(text) => Literal::String(text),
            Token::Bytes(bytes) => Literal::Bytes(bytes),
            Token::Sign(_) | Token::Quoted(_) | Token::End => return Err(self.unexpected(PRIMARY)),
        };
        self.step();
        Ok(self.nodes.literal(at, literal))
    }

    /// An identifier, a call of a function, or a message `a.b{...}`.
    fn name(&mut self, rooted: bool) -> Parsed {
        let at = self.at();
        let Token::Ident(name) = self.token().clone() else { return Err(self.unexpected("IDENTIFIER")) };
        if name == "in" {
            return Err(self.unexpected(PRIMARY));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(Fault { at, what: format!("reserved identifier: {name}") });
        }
        self.step();
        if let Some(message) = self.message(&name)? {
            return Ok(message);
        }
        let name = if rooted { format!(".{name}") } else { name };
        match self.accept("(") {
            Some(open) => {
                let args = self.arguments()?;
                macros::function(&mut self.nodes, open, name, args)
            }
            None => Ok(self.nodes.ident(at, &name)),
        }
    }

    /// `A.B{field: value}`, when the words after `name` spell that.
    fn message(&mut self, name: &str) -> Result<Option<Expr>, Fault> {
        let mut full = name.to_string();
        let mut ahead = self.next;
        while let (Token::Sign("."), Some(Token::Ident(part))) =
            (&self.words[ahead].token, self.words.get(ahead + 1).map(|w| &w.token))
        {
            full = format!("{full}.{part}");
            ahead += 2;
        }
        if self.words[ahead].token != Token::Sign("{") {
            return Ok(None);
        }
        self.next = ahead;
        let at = self.step();
        let mut fields = Vec::new();
        while self.accept("}").is_none() {
            let presence = self.presence();
            let (_, name) = self.field_name()?;
            let at = self.expect(":")?;
            let value = self.expr()?;
            fields.push(Field { at, name, value, presence });
            if self.accept(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        Ok(Some(self.nodes.node(at, Kind::Struct { name: full, fields })))
    }

    fn presence(&mut self) -> Presence {
        if self.accept("?").is_some() { Presence::IfPresent } else { Presence::Always }
    }

    fn list(&mut self) -> Parsed {
        let at = self.step();
        let mut items = Vec::new();
        while self.accept("]").is_none() {
            let presence = self.presence();
            items.push(Item { value: self.expr()?, presence });
            if self.accept(",").is_none() {
                self.expect("]")?;
                break;
            }
        }
        Ok(self.nodes.node(at, Kind::List(items)))
    }

    fn map(&mut self) -> Parsed {
        let at = self.step();
        let mut entries = Vec::new();
        while self.accept("}").is_none() {
            let presence = self.presence();
            let key = self.expr()?;
            self.expect(":")?;
            entries.push(Entry { key, value: self.expr()?, presence });
            if self.accept(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        Ok(self.nodes.node(at, Kind::Map(entries)))
    }
}

fn wrong(at: usize, what: &str) -> Fault {
    Fault { at, what: format!("invalid {what} literal") }
}

fn int(text: &str) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16).ok(),
        None => text.parse().ok(),
    }
}

fn uint(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}
