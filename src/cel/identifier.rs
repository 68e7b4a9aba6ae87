//! Names in expressions.
//!
//! Owns: the words of the language, and what fields are called whose names are no identifiers.
//! Called by: whoever declares types and variables.
//! Never: parses.

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
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

/// Whether a variable may be called so.
pub fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED.contains(&name)
}

/// The identifier a field has in expressions; `None` for a name that cannot be one.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c)) {
        return None;
    }
    let name = name.replace("__", "__underscores__");
    Some(name.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_identifiers() {
        let escaped = |name: &str| escape(name).unwrap_or_default();
        assert_eq!(escaped("spec"), "spec");
        assert_eq!(escaped("namespace"), "__namespace__");
        assert_eq!(escaped("a-b.c/d"), "a__dash__b__dot__c__slash__d");
        assert_eq!(escaped("a__b"), "a__underscores__b");
        assert_eq!(escape("a b"), None);
    }

    #[test]
    fn words_of_the_language_are_no_variables() {
        assert!(is_identifier("_a1") && !is_identifier("1a") && !is_identifier("loop") && !is_identifier(""));
    }
}
