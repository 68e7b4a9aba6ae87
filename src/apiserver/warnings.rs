//! What a client is warned of, as headers of the answer.
//!
//! Owns: their form and how much of them there may be.
//! Called by: the pipeline, once a request has been answered.
//! Never: warns.

use http::HeaderValue;

/// Characters of all texts together, from which on each is cut.
const CHARACTERS_MAX: usize = 4096;
/// What a text is then cut to.
const CUT: usize = 256;

/// In the order of the texts. Clients could not read one with control characters, so there is no header for it.
pub fn headers(texts: &[String]) -> Vec<HeaderValue> {
    let texts: Vec<&String> = texts.iter().filter(|t| !t.is_empty() && !t.contains(char::is_control)).collect();
    let lengths: Vec<usize> = texts.iter().map(|text| text.chars().count()).collect();
    let mut sum = 0;
    let excess = lengths.iter().position(|length| {
        sum += length;
        sum > CHARACTERS_MAX
    });
    let Some(excess) = excess else { return texts.into_iter().filter_map(|text| header(text)).collect() };
    // What had been said before there was too much is still said, cut; then others until that is too much again.
    let mut written = 0;
    let mut told = Vec::new();
    for (index, text) in texts.into_iter().enumerate() {
        if index > excess && written >= CHARACTERS_MAX {
            break;
        }
        written += lengths[index].min(CUT);
        told.extend(header(&text.chars().take(CUT).collect::<String>()));
    }
    told
}

fn header(text: &str) -> Option<HeaderValue> {
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(texts: &[String]) -> Vec<String> {
        headers(texts).iter().map(|h| String::from_utf8_lossy(h.as_bytes()).into_owned()).collect()
    }

    #[test]
    fn a_text_is_quoted_and_may_be_of_any_script() {
        assert_eq!(told(&[r#"a "b" \ ü"#.into(), "two\nlines".into(), String::new()]), [r#"299 - "a \"b\" \\ ü""#]);
    }

    #[test]
    fn what_is_too_much_is_cut() {
        let texts = |count: usize, length: usize| (0..count).map(|_| "ü".repeat(length)).collect::<Vec<_>>();
        let length = |text: &str| text.chars().count() - r#"299 - """#.len();
        let whole = told(&texts(4, 1024));
        assert_eq!((whole.len(), length(&whole[0])), (4, 1024), "as much as there may be");
        let cut = told(&texts(5, 1024));
        assert_eq!((cut.len(), length(&cut[0]), length(&cut[4])), (5, 256, 256));
        let many = told(&texts(100, 300));
        assert_eq!((many.len(), length(&many[15])), (16, 256), "the sixteenth fills it");
        let short = told(&texts(1000, 5));
        assert_eq!(short.len(), 820, "all that were told before, then no more");
    }
}
