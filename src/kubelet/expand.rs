//! `$(NAME)` in commands, arguments, environment values and subPathExpr.
//!
//! Owns: the syntax.
//! Called by: `env`, `container_config`, volume mounts.
//! Never: fails; what cannot be resolved stays as it was written.

/// `$(A)` becomes what `lookup` says, `$$` a dollar that begins no reference.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The first `$(NAME)` without a value: subPathExpr must have none.
pub fn unresolved<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let missing = std::cell::RefCell::new(None);
    expand(text, |name| {
        let value = lookup(name);
        if value.is_none() {
            missing.borrow_mut().get_or_insert_with(|| name.to_string());
        }
        value
    });
    missing.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let lookup = |name: &str| match name {
            "A" => Some("one"),
            "EMPTY" => Some(""),
            "REF" => Some("$(A)"),
            _ => None,
        };
        assert_eq!(expand(text, lookup), expected);
    }

    #[test]
    fn references_are_replaced_once_and_the_unknown_stays() {
        check("$(A)-$(B)-$(EMPTY)!", "one-$(B)-!");
        check("$(REF)", "$(A)");
    }

    #[test]
    fn a_doubled_dollar_escapes() {
        check("$$(A) $$$(A) $$$$", "$(A) $one $$");
    }

    #[test]
    fn what_is_no_reference_is_text() {
        check("$A ${A} $( $(A", "$A ${A} $( $(A");
        check("cost: 5$", "cost: 5$");
    }

    #[test]
    fn the_missing_name_is_told() {
        assert_eq!(unresolved("$(X)/y", |_| None), Some("X".into()));
        assert_eq!(unresolved("$$(X)/y", |_| None), None);
    }
}
