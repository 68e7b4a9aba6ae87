//! What is wrong with an expression, with the place shown under its text.
//!
//! Owns: that form, which is the one of upstream's compiler.
//! Called by: the parser and the checker.
//! Never: decides what is wrong.

/// A fault at an offset in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: usize,
    pub what: String,
}

/// All faults, one under the other.
pub fn display(text: &str, faults: &[Fault]) -> String {
    faults.iter().map(|fault| show(text, fault)).collect::<Vec<_>>().join("\n")
}

fn show(text: &str, fault: &Fault) -> String {
    if text.is_empty() {
        // There is no place to point at.
        return format!("ERROR: <input>:1:0: {}", fault.what);
    }
    let (mut line, mut column) = (1, 0);
    for c in text.chars().take(fault.at) {
        (line, column) = if c == '\n' { (line + 1, 0) } else { (line, column + 1) };
    }
    let snippet = text.split('\n').nth(line - 1).unwrap_or("").replace('\t', " ");
    let dots = ".".repeat(column);
    format!("ERROR: <input>:{line}:{}: {}\n | {snippet}\n | {dots}^", column + 1, fault.what)
}
