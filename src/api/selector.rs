//! Which objects a request or a controller means: label selectors and field selectors.
//!
//! Owns: both syntaxes, the `LabelSelector` struct, and Kubernetes' words for what cannot be parsed.
//! Called by: list and watch, controllers, the scheduler, the CLI.
//! Never: knows which fields a kind can be selected by.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::names;
use crate::status::FieldError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

/// All requirements must hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// Several faults as apimachinery prints an aggregate: one plain, more in brackets, no text twice.
fn aggregate(faults: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for fault in faults {
        let text = format!("{}: {}", fault.path, fault.body());
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

impl Requirement {
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, String> {
        let mut faults = Vec::new();
        let key_faults = names::qualified_name(key);
        if !key_faults.is_empty() {
            faults.push(FieldError::invalid("key", &key.into(), key_faults.join("; ")));
        }
        let count_fault = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(text) = count_fault {
            faults.push(FieldError::invalid("values", &values.clone().into(), text));
        }
        for (i, value) in values.iter().enumerate() {
            let ordered = matches!(operator, Operator::GreaterThan | Operator::LessThan);
            if ordered && value.parse::<i64>().is_err() {
                let text = "for 'Gt', 'Lt' operators, the value must be an integer";
                faults.push(FieldError::invalid(format!("values[{i}]"), &value.as_str().into(), text));
            }
        }
        for (i, value) in values.iter().enumerate() {
            let texts = names::label_value(value);
            if !texts.is_empty() {
                let path = format!("values[{i}][{key}]");
                faults.push(FieldError::invalid(path, &value.as_str().into(), texts.join("; ")));
            }
        }
        if faults.is_empty() { Ok(Self { key: key.into(), operator, values }) } else { Err(aggregate(&faults)) }
    }

    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let (Some(Ok(have)), Some(Ok(want))) =
                    (value.map(str::parse::<i64>), self.values.first().map(|v| v.parse::<i64>()))
                else {
                    return false;
                };
                if self.operator == Operator::GreaterThan { have > want } else { have < want }
            }
        }
    }
}

impl LabelSelector {
    pub fn everything() -> Self {
        Self::default()
    }
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// The string form: `app=web,tier in (a,b),!legacy`. Error texts are apimachinery's.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Parser { tokens: lex(text), position: 0 }.parse()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// A `metav1.LabelSelector`: null selects nothing, an empty object everything.
    pub fn from_object(selector: &Value) -> Result<Self, String> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or("").to_string();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or("") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let values = strings(&expression["values"]);
            requirements.push(Requirement::new(expression["key"].as_str().unwrap_or(""), operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// A plain map, as in a Service or ReplicationController; null or empty selects everything.
    pub fn from_map(labels: &Value) -> Self {
        let requirement = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.as_str().unwrap_or("").to_string()],
        };
        let requirements = labels.as_object().into_iter().flatten().map(requirement).collect();
        Self { requirements, nothing: false }
    }

    pub fn from_requirements(requirements: Vec<Requirement>) -> Self {
        Self { requirements, nothing: false }
    }

    /// `labels` is the labels object, or null.
    pub fn matches(&self, labels: &Value) -> bool {
        self.matches_with(|key| labels.get(key).and_then(Value::as_str))
    }
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|v| v.as_str().unwrap_or("").to_string()).collect()
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.values.clone();
        sorted.sort();
        let one = sorted.first().map_or("", String::as_str);
        match self.operator {
            Operator::In => write!(f, "{} in ({})", self.key, sorted.join(",")),
            Operator::NotIn => write!(f, "{} notin ({})", self.key, sorted.join(",")),
            Operator::Equals => write!(f, "{}={one}", self.key),
            Operator::DoubleEquals => write!(f, "{}=={one}", self.key),
            Operator::NotEquals => write!(f, "{}!={one}", self.key),
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::GreaterThan => write!(f, "{}>{one}", self.key),
            Operator::LessThan => write!(f, "{}<{one}", self.key),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.requirements.iter().map(Requirement::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

/// `metav1.FormatLabelSelector`: what the SELECTOR column of a Table shows.
pub fn format_object(selector: &Value) -> String {
    match LabelSelector::from_object(selector) {
        Ok(s) if s.is_nothing() => "<none>".into(),
        Ok(s) if s.is_everything() => "<none>".into(),
        Ok(s) => s.to_string(),
        Err(_) => "<error>".into(),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    End,
    Identifier(String),
    /// One of the operators and punctuation marks.
    Symbol(&'static str),
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::End => "",
            Token::Identifier(s) => s,
            Token::Symbol(s) => s,
        }
    }
    fn is(&self, symbol: &str) -> bool {
        matches!(self, Token::Symbol(s) if *s == symbol)
    }
}

fn lex(text: &str) -> Vec<Token> {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let special = |c: char| "=!(),><".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(blank);
    // A NUL ends the text, as it does upstream.
    while !rest.is_empty() && !rest.starts_with('\0') {
        if rest.starts_with(special) {
            let symbol = SYMBOLS.into_iter().find(|s| rest.starts_with(s)).expect("each special character is a symbol");
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else {
            let end = rest.find(|c| special(c) || blank(c) || c == '\0').unwrap_or(rest.len());
            tokens.push(Token::Identifier(rest[..end].to_string()));
            rest = &rest[end..];
        }
        rest = rest.trim_start_matches(blank);
    }
    tokens.push(Token::End);
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.position).unwrap_or(&Token::End)
    }
    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.position += 1;
        token
    }

    fn parse(&mut self) -> Result<Vec<Requirement>, String> {
        let starts = |t: &Token| matches!(t, Token::Identifier(_)) || t.is("!");
        let mut requirements = Vec::new();
        loop {
            if *self.peek() == Token::End {
                return Ok(requirements);
            }
            if !starts(self.peek()) {
                return Err(format!("found '{}', expected: !, identifier, or 'end of string'", self.peek().text()));
            }
            let requirement = self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
            requirements.push(requirement);
            match self.next() {
                Token::End => return Ok(requirements),
                t if t.is(",") => {
                    if !starts(self.peek()) {
                        return Err(format!("found '{}', expected: identifier after ','", self.peek().text()));
                    }
                }
                t => return Err(format!("found '{}', expected: ',' or 'end of string'", t.text())),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let negated = token.is("!");
        if negated {
            token = self.next();
        }
        let Token::Identifier(key) = token else {
            return Err(format!("found '{}', expected: identifier", token.text()));
        };
        let faults = names::qualified_name(&key);
        if !faults.is_empty() {
            // Upstream checks here with no path at hand, which prints as `<nil>`.
            let fault = FieldError::invalid("<nil>", &key.as_str().into(), faults.join("; "));
            return Err(aggregate(&[fault]));
        }
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        if *self.peek() == Token::End || self.peek().is(",") {
            return Requirement::new(&key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(&key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, String> {
        let token = self.next();
        Ok(match token.text() {
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            "=" => Operator::Equals,
            "==" => Operator::DoubleEquals,
            "!=" => Operator::NotEquals,
            ">" => Operator::GreaterThan,
            "<" => Operator::LessThan,
            other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if *self.peek() == Token::End || self.peek().is(",") {
            return Ok(String::new());
        }
        match self.next() {
            Token::Identifier(value) => Ok(value),
            token => Err(format!("found '{}', expected: identifier", token.text())),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if !open.is("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        if self.peek().is(")") {
            self.next();
            return Ok(vec![String::new()]);
        }
        if !matches!(self.peek(), Token::Identifier(_)) && !self.peek().is(",") {
            return Err(format!("found '{}', expected: ',', ')' or identifier", self.peek().text()));
        }
        let mut set = BTreeSet::new();
        loop {
            match self.next() {
                Token::Identifier(value) => {
                    set.insert(value);
                    if self.peek().is(")") {
                        break;
                    }
                    if !self.peek().is(",") {
                        return Err(format!("found '{}', expected: ',' or ')'", self.peek().text()));
                    }
                }
                t if t.is(",") => {
                    // Nothing before, after or between commas counts as the empty value.
                    if set.is_empty() || self.peek().is(",") {
                        set.insert(String::new());
                    }
                    if self.peek().is(")") {
                        set.insert(String::new());
                        break;
                    }
                }
                t => return Err(format!("found '{}', expected: ',', or identifier", t.text())),
            }
        }
        self.next();
        Ok(set.into_iter().collect())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldOperator {
    Equals,
    NotEquals,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    pub path: String,
    pub operator: FieldOperator,
    pub value: String,
}

/// `status.phase=Running,spec.nodeName!=a`. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Vec::new();
        let mut terms = split_terms(text);
        terms.sort_unstable();
        for term in terms.into_iter().filter(|t| !t.is_empty()) {
            let Some((path, operator, value)) = split_term(term) else {
                return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            requirements.push(FieldRequirement { path: path.into(), operator, value: unescape(value)? });
        }
        Ok(Self { requirements })
    }

    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// `get` answers the value of a field; a field that is missing reads as empty, as upstream does.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<Cow<'a, str>>) -> bool {
        self.requirements.iter().all(|r| {
            let same = get(&r.path).unwrap_or_default() == r.value.as_str();
            same == (r.operator == FieldOperator::Equals)
        })
    }

    /// The value a field must have exactly, when one is asked for: `metadata.name=x` makes a list a get.
    pub fn exact(&self, path: &str) -> Option<&str> {
        let found = self.requirements.iter().find(|r| r.path == path && r.operator == FieldOperator::Equals);
        found.map(|r| r.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |r: &FieldRequirement| {
            let operator = if r.operator == FieldOperator::Equals { "=" } else { "!=" };
            let value = r.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            format!("{}{operator}{value}", r.path)
        };
        f.write_str(&self.requirements.iter().map(text).collect::<Vec<_>>().join(","))
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == ',' {
            terms.push(&text[start..i]);
            start = i + 1;
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, FieldOperator, &str)> {
    let at =
        term.char_indices().map(|(i, _)| i).find(|i| term[*i..].starts_with("!=") || term[*i..].starts_with('='))?;
    let (path, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((path, FieldOperator::NotEquals, value));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((path, FieldOperator::Equals, value))
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(format!("invalid field selector: invalid escape sequence: \\{c}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".into()),
            },
            // Upstream prints the character as its number.
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {}", c as u32)),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_label_selector_selects_by_all_its_requirements() {
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (web,api)", true),
            ("app notin (web)", false),
            ("!app", false),
            ("!gone", true),
            ("tier", true),
            ("n>4", true),
            ("n<4", false),
            ("gone!=x", true),
            ("x in (),app", false),
            ("app = web , tier", true),
            ("in in (in)", false),
            ("app=", false),
        ];
        for (text, expected) in cases {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&labels), expected, "{text}");
        }
        assert!(LabelSelector::from_object(&json!({})).unwrap().matches(&labels));
        assert!(!LabelSelector::from_object(&Value::Null).unwrap().matches(&labels));
    }

    #[test]
    fn what_cannot_be_parsed_is_answered_in_kubernetes_words() {
        let cases = [
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a,", "found '', expected: identifier after ','"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ];
        for (text, expected) in cases {
            assert_eq!(LabelSelector::parse(text).unwrap_err(), expected, "{text}");
        }
        let message = LabelSelector::parse("a=-").unwrap_err();
        assert!(
            message.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label"),
            "{message}"
        );
    }

    #[test]
    fn a_selector_is_printed_as_kubectl_shows_it() {
        let object = json!({"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]});
        assert_eq!(format_object(&object), "a in (x,y),b=1");
        assert_eq!(format_object(&json!({})), "<none>");
    }

    #[test]
    fn a_field_selector_knows_escapes_and_negation() {
        let selector = FieldSelector::parse("spec.nodeName!=a,status.phase==Running,x=a\\,b").unwrap();
        assert_eq!(selector.to_string(), "spec.nodeName!=a,status.phase=Running,x=a\\,b");
        assert!(selector.matches_with(|path| match path {
            "status.phase" => Some("Running".into()),
            "x" => Some("a,b".into()),
            _ => None,
        }));
        assert_eq!(FieldSelector::parse("a").unwrap_err(), "invalid selector: 'a'; can't understand 'a'");
    }
}
