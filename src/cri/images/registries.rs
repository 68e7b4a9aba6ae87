//! How registries are reached: which of them in plain HTTP, and which others stand in for them.
//!
//! Owns: the order in which an image's sources are asked, and the notation of a mirror on the command line.
//! Called by: pulling; whoever configures a runtime.
//! Never: asks a registry.

use serde::{Deserialize, Serialize};

use super::reference::DEFAULT_REGISTRY;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    /// Registries (host or host:port) that are spoken to in plain HTTP.
    pub insecure: Vec<String>,
    pub mirrors: Vec<Mirror>,
}

/// A registry that is asked first for the images of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    pub of: String,
    pub host: String,
    pub plain: bool,
}

/// Where an image may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `None` is the registry that the image's name says.
    pub mirror: Option<String>,
    pub plain: bool,
}

impl Mirror {
    /// `REGISTRY=http://HOST[:PORT]`; without `REGISTRY=` it is Docker Hub's.
    pub fn parse(text: &str) -> Result<Mirror, String> {
        let (of, url) = match text.split_once('=') {
            Some((of, url)) => (of, url),
            None => (DEFAULT_REGISTRY, text),
        };
        let (plain, host) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(host), _) => (true, host),
            (_, Some(host)) => (false, host),
            _ => return Err(format!("{url:?} is no address such as https://mirror.example.com")),
        };
        let host = host.trim_end_matches('/');
        let is_host = |text: &str| !text.is_empty() && !text.contains(['/', '@', ' ']);
        if !is_host(host) || !is_host(of) {
            return Err(format!("{text:?} is not of the form REGISTRY=https://HOST[:PORT]"));
        }
        Ok(Mirror { of: of.into(), host: host.into(), plain })
    }
}

impl Registries {
    /// Mirrors in the order they were given, then the registry itself.
    pub(super) fn sources(&self, registry: &str) -> Vec<Source> {
        let mirrors = self.mirrors.iter().filter(|m| m.of == registry);
        mirrors
            .map(|m| Source { mirror: Some(m.host.clone()), plain: m.plain })
            .chain([Source { mirror: None, plain: self.is_plain(registry) }])
            .collect()
    }

    fn is_plain(&self, registry: &str) -> bool {
        let host = registry.split(':').next().unwrap_or(registry);
        host == "localhost"
            || host.starts_with("127.")
            || self.insecure.iter().any(|insecure| insecure == registry || insecure == host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mirror: &str, expected: &str) {
        let shown = Mirror::parse(mirror).map(|m| format!("{} <- {} plain={}", m.of, m.host, m.plain));
        assert_eq!(shown.unwrap_or_else(|why| why), expected);
    }

    #[test]
    fn a_mirror_is_written_as_an_address() {
        check("registry.example.com=http://10.0.0.1:5000/", "registry.example.com <- 10.0.0.1:5000 plain=true");
        check("https://mirror.example.com", "docker.io <- mirror.example.com plain=false");
        check("a=b", "\"b\" is no address such as https://mirror.example.com");
        check("=https://b", "\"=https://b\" is not of the form REGISTRY=https://HOST[:PORT]");
        check("a=https://b/c", "\"a=https://b/c\" is not of the form REGISTRY=https://HOST[:PORT]");
    }

    #[test]
    fn mirrors_are_asked_before_the_registry() {
        let registries = Registries {
            insecure: vec!["plain.example.com".into()],
            mirrors: vec![Mirror { of: "plain.example.com".into(), host: "m".into(), plain: false }],
        };
        let mirror = Source { mirror: Some("m".into()), plain: false };
        let own = |plain| Source { mirror: None, plain };
        assert_eq!(registries.sources("plain.example.com"), [mirror, own(true)]);
        assert_eq!(registries.sources("plain.example.com:5000"), [own(true)]);
        assert_eq!(registries.sources("localhost:5000"), [own(true)]);
        assert_eq!(registries.sources("docker.io"), [own(false)]);
    }
}
