//! Image names: `nginx` means `docker.io/library/nginx:latest`.
//!
//! Owns: parsing and the normal form, as Docker's reference grammar has it.
//! Called by: the image store and the CRI service.
//! Never: asks a registry.

use super::ImageError;

pub(super) const DEFAULT_REGISTRY: &str = "docker.io";
const NAME_CHARS_MAX: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl Reference {
    pub fn parse(name: &str) -> Result<Self, ImageError> {
        parse(name).ok_or_else(|| ImageError::Reference(name.into()))
    }

    /// Registry and repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name())?;
        match (&self.tag, &self.digest) {
            // A digest says all; a tag beside it is for people.
            (_, Some(digest)) => write!(f, "@{digest}"),
            (Some(tag), None) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

fn parse(name: &str) -> Option<Reference> {
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.to_string()).filter(|d| is_digest(d))),
        None => (name, None),
    };
    if name.contains('@') && digest.is_none() {
        return None;
    }
    let (path, tag) = match rest.rsplit_once(':') {
        // A colon before the last slash is a port.
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_string())),
        _ => (rest, None),
    };
    if tag.as_deref().is_some_and(|t| !is_tag(t)) || path.len() > NAME_CHARS_MAX {
        return None;
    }
    let (registry, repository) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_string()),
        Some(_) => (DEFAULT_REGISTRY, path.to_string()),
        None => (DEFAULT_REGISTRY, format!("library/{path}")),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if !repository.split('/').all(is_component)
        || !registry.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        || !registry.chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]".contains(c))
    {
        return None;
    }
    let tag = if tag.is_none() && digest.is_none() { Some("latest".into()) } else { tag };
    Some(Reference { registry: registry.into(), repository, tag, digest })
}

fn is_component(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || "._-".contains(c))
}

fn is_tag(text: &str) -> bool {
    const TAG_CHARS_MAX: usize = 128;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= TAG_CHARS_MAX && text.starts_with(word) && text.chars().all(|c| word(c) || ".-".contains(c))
}

/// `sha256:` and 64 hexadecimal digits; the only algorithm images use.
pub fn is_digest(text: &str) -> bool {
    const HEX_CHARS: usize = 64;
    let lower_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.strip_prefix("sha256:").is_some_and(|h| h.len() == HEX_CHARS && h.chars().all(lower_hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: &str) {
        assert_eq!(Reference::parse(name).map(|r| r.to_string()).unwrap_or_else(|e| e.to_string()), expected);
    }

    #[test]
    fn short_names_are_docker_hubs() {
        check("nginx", "docker.io/library/nginx:latest");
        check("minik/hello:1", "docker.io/minik/hello:1");
        check("localhost:5000/a/b", "localhost:5000/a/b:latest");
        check("registry.example.com/x:y", "registry.example.com/x:y");
        check("localhost/x", "localhost/x:latest");
        let digest = format!("sha256:{}", "a".repeat(64));
        check(&format!("busybox:1@{digest}"), &format!("docker.io/library/busybox@{digest}"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in ["", "UPPER", "a//b", "../x", "a:b:c", "x@sha256:short", "a b", "-x"] {
            check(bad, &format!("couldn't parse image name {bad:?}: invalid reference format"));
        }
    }
}
