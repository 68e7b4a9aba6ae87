//! The name of an image, as far as it decides when the image is pulled.
//!
//! Owns: what is a reference (`registry/path:tag@digest`), after github.com/distribution/reference.
//! Called by: defaulting.
//! Never: looks for an image.

/// Upstream's limit of a tag.
const TAG_LENGTH_MAX: usize = 128;
const DIGEST_LENGTH_MIN: usize = 32;

/// `Always` for what may become another image: the tag is `latest`, said or meant. What is no reference has no tag.
pub(super) fn pull_policy(image: &str) -> &'static str {
    if tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// The tag, `latest` when there is neither a tag nor a digest.
fn tag(image: &str) -> Option<&str> {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[last..].split_once(':') {
        Some((name, tag)) => (&rest[..last + name.len()], Some(tag)),
        None => (rest, None),
    };
    let sound = is_name(name) && digest.is_none_or(is_digest) && tag.is_none_or(is_tag);
    let meant = if digest.is_none() { Some("latest") } else { None };
    if sound { tag.or(meant) } else { None }
}

fn is_name(name: &str) -> bool {
    let path = match name.split_once('/') {
        Some((host, path)) if is_host(host) => path,
        _ => name,
    };
    path.split('/').all(is_component) && !(path.len() == 64 && path == name && path.bytes().all(is_hex))
}

/// What stands before the first slash is a host when it could not be the beginning of a path.
fn is_host(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let label = |l: &str| {
        l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let known = host.split('.').all(label) || address.is_some_and(|a| a.bytes().all(|b| is_hex(b) || b == b':'));
    let is_marked = text.contains(['.', ':']) || text == "localhost" || text.bytes().any(|b| b.is_ascii_uppercase());
    is_marked && known && port.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case words, joined by a dot, one or two underscores, or dashes.
fn is_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [component.bytes().next(), component.bytes().next_back()];
    let joints = component.split(|c: char| c.is_ascii() && is_word(c as u8)).filter(|joint| !joint.is_empty());
    ends.iter().all(|end| end.is_some_and(is_word))
        && joints.into_iter().all(|joint| matches!(joint, "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=TAG_LENGTH_MAX).contains(&tag.len())
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, sum)) = digest.split_once(':') else { return false };
    let part = |p: &str| {
        p.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && p.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(part) && sum.len() >= DIGEST_LENGTH_MIN && sum.bytes().all(is_hex)
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reference_can_mean_the_latest_image() {
        let sum = "0123456789abcdef".repeat(4);
        let digest = format!("sha256:{sum}");
        for always in ["nginx", "a/b-c__d.e", "localhost:5000/a", "Host/a:latest", "[::1]:80/a", "reg.io/x/y:latest"] {
            assert_eq!(pull_policy(always), "Always", "{always}");
        }
        assert_eq!(pull_policy(&format!("a:latest@{digest}")), "Always");
        for there in ["nginx:1", "reg.io:80/a:1", "Not valid!", "", "A", "a/B", "a___b", "-a", "a:", &sum] {
            assert_eq!(pull_policy(there), "IfNotPresent", "{there}");
        }
        assert_eq!(pull_policy(&format!("a@{digest}")), "IfNotPresent");
    }
}
