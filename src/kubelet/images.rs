//! Getting a container's image onto the node.
//!
//! Owns: pull policies, pull secrets, and the events about them.
//! Called by: the start of a container.
//! Never: keeps the back-off; that is the pod worker's memory.

use std::time::Instant;

use base64::Engine;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;
use serde_json::Value;

use crate::cri::Cri;
use crate::events::PodEvents;
use crate::memory::FailureKind;
use crate::security::ImageUser;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// How the runtime wants it named in a create request.
    pub reference: String,
    pub user: ImageUser,
}

/// A waiting reason with its message.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageError {
    pub kind: FailureKind,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

fn policy(container: &core::Container, image: &str) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        // The API server defaults it; this is for objects that came another way.
        _ if image.ends_with(":latest") => PullPolicy::Always,
        _ => PullPolicy::IfNotPresent,
    }
}

/// `name` with `:latest` where neither tag nor digest is given; `None` when it is no image name.
pub fn with_tag(name: &str) -> Option<String> {
    let (path, digest) = name.split_once('@').map_or((name, None), |(p, d)| (p, Some(d)));
    let last = path.rsplit('/').next().unwrap_or(path);
    let (_, tag) = last.split_once(':').map_or((last, None), |(n, t)| (n, Some(t)));
    let repository = &path[..path.len() - tag.map_or(0, |t| t.len() + 1)];
    let good_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            && part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && part.bytes().next_back().is_some_and(|b| b.is_ascii_alphanumeric())
    };
    let (host, rest) = match repository.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), rest),
        _ => (None, repository),
    };
    let good_host = host.is_none_or(|h| h.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b)));
    let good_tag = tag.is_none_or(|t| {
        !t.is_empty() && t.len() <= 128 && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    });
    let good_digest = digest.is_none_or(|d| {
        d.split_once(':')
            .is_some_and(|(a, hex)| !a.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    if !good_host || !good_tag || !good_digest || !rest.split('/').all(good_part) {
        return None;
    }
    Some(if tag.is_none() && digest.is_none() { format!("{name}:latest") } else { name.to_string() })
}

pub struct Request<'a> {
    pub cri: &'a Cri,
    pub container: &'a core::Container,
    pub field_path: String,
    pub events: &'a PodEvents,
    /// Secrets of types dockerconfigjson and dockercfg.
    pub pull_secrets: &'a [std::sync::Arc<Value>],
    pub sandbox_config: &'a cri::PodSandboxConfig,
}

pub async fn ensure(request: &Request<'_>) -> Result<Image, ImageError> {
    let name = request.container.image.as_deref().unwrap_or_default();
    let path = || Some(request.field_path.clone());
    let Some(full) = with_tag(name) else {
        let message = format!(
            "Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: invalid reference format"
        );
        request.events.warning(path(), "InspectFailed", &message);
        return Err(ImageError { kind: FailureKind::Config, reason: "InvalidImageName", message });
    };
    let spec = cri::ImageSpec { image: full.clone(), user_specified_image: name.into(), ..Default::default() };
    let policy = policy(request.container, &full);
    let present = status(request.cri, &spec).await.map_err(|status| {
        let message = format!("Failed to inspect image {name:?}: {}", status.message());
        request.events.warning(path(), "InspectFailed", &message);
        ImageError { kind: FailureKind::Config, reason: "ImageInspectError", message }
    })?;
    match (policy, present) {
        (PullPolicy::IfNotPresent | PullPolicy::Never, Some(image)) => {
            let message = format!("Container image {name:?} already present on machine and can be accessed by the pod");
            request.events.normal(path(), "Pulled", &message);
            Ok(image)
        }
        (PullPolicy::Never, None) => {
            let message = format!("Container image {name:?} is not present with pull policy of Never");
            request.events.warning(path(), "ErrImageNeverPull", &message);
            Err(ImageError { kind: FailureKind::Config, reason: "ErrImageNeverPull", message })
        }
        (PullPolicy::Always, _) | (PullPolicy::IfNotPresent, None) => pull(request, name, spec).await,
    }
}

async fn status(cri: &Cri, spec: &cri::ImageSpec) -> Result<Option<Image>, tonic::Status> {
    let request = cri::ImageStatusRequest { image: Some(spec.clone()), verbose: false };
    let answer = cri.images().image_status(request).await?.into_inner();
    Ok(answer.image.map(image))
}

fn image(found: cri::Image) -> Image {
    let user = ImageUser { uid: found.uid.map(|v| v.value), username: found.username };
    Image { reference: found.id, user }
}

async fn pull(request: &Request<'_>, name: &str, spec: cri::ImageSpec) -> Result<Image, ImageError> {
    let path = || Some(request.field_path.clone());
    request.events.normal(path(), "Pulling", &format!("Pulling image {name:?}"));
    let started = Instant::now();
    // One set of credentials after the other, and none at last, until one is let in.
    let mut candidates: Vec<Option<cri::AuthConfig>> =
        credentials(&spec.image, request.pull_secrets).into_iter().map(Some).collect();
    candidates.push(None);
    let mut refused = tonic::Status::unknown("not tried");
    for auth in candidates {
        let pull = cri::PullImageRequest {
            image: Some(spec.clone()),
            auth,
            sandbox_config: Some(request.sandbox_config.clone()),
        };
        match request.cri.images().pull_image(pull).await {
            Ok(answer) => {
                let reference = answer.into_inner().image_ref;
                return Ok(pulled(request, name, &spec, reference, started).await);
            }
            Err(status) => refused = status,
        }
    }
    let why = refused.message();
    request.events.warning(path(), "Failed", &format!("Failed to pull image {name:?}: {why}"));
    request.events.warning(path(), "Failed", "Error: ErrImagePull");
    Err(ImageError { kind: FailureKind::Pull, reason: "ErrImagePull", message: why.to_string() })
}

async fn pulled(
    request: &Request<'_>,
    name: &str,
    spec: &cri::ImageSpec,
    reference: String,
    started: Instant,
) -> Image {
    let found = cri::ImageStatusRequest { image: Some(spec.clone()), verbose: false };
    let found = request.cri.images().image_status(found).await.ok().and_then(|a| a.into_inner().image);
    let took = go_seconds(started.elapsed());
    let size = found.as_ref().map_or(0, |i| i.size);
    let message =
        format!("Successfully pulled image {name:?} in {took} ({took} including waiting). Image size: {size} bytes.");
    request.events.normal(Some(request.field_path.clone()), "Pulled", &message);
    let user = found.map(image).unwrap_or_default().user;
    Image { reference, user }
}

/// `123ms` or `1.234s`, as Go prints durations rounded to milliseconds.
fn go_seconds(took: std::time::Duration) -> String {
    let millis = took.as_millis().max(1);
    if millis < 1000 { format!("{millis}ms") } else { format!("{}s", millis as f64 / 1000.0) }
}

/// What the secrets hold for this image's registry, the most specific path first.
fn credentials(image: &str, secrets: &[std::sync::Arc<Value>]) -> Vec<cri::AuthConfig> {
    let mut found: Vec<(usize, cri::AuthConfig)> = Vec::new();
    for secret in secrets {
        let data = |key: &str| {
            let text = secret["data"][key].as_str()?;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok()
        };
        let auths = match data(".dockerconfigjson") {
            Some(config) => config["auths"].clone(),
            None => data(".dockercfg").unwrap_or_default(),
        };
        for (registry, entry) in auths.as_object().into_iter().flatten() {
            let place = place(registry);
            if matches(&place, &full_name(image)) {
                found.push((place.len(), auth(registry, entry)));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

/// `host/path` of a registry key, which may be a URL; Docker Hub has an old name.
fn place(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2");
    if matches!(bare, "index.docker.io" | "registry-1.docker.io") { "docker.io".into() } else { bare.into() }
}

fn full_name(image: &str) -> String {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => image.to_string(),
        Some(_) => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    }
}

/// A prefix by path components; `*` stands for one label of the host.
fn matches(place: &str, image: &str) -> bool {
    let (place_host, place_path) = place.split_once('/').unwrap_or((place, ""));
    let (host, path) = image.split_once('/').unwrap_or((image, ""));
    let labels = |h: &str| h.split('.').map(String::from).collect::<Vec<_>>();
    let (wanted, given) = (labels(place_host), labels(host));
    let same_host = wanted.len() == given.len() && wanted.iter().zip(&given).all(|(w, g)| w == "*" || w == g);
    let same_path =
        place_path.is_empty() || path.strip_prefix(place_path).is_some_and(|r| r.starts_with(['/', ':', '@']));
    same_host && same_path
}

fn auth(registry: &str, entry: &Value) -> cri::AuthConfig {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_string();
    let pair = base64::engine::general_purpose::STANDARD.decode(text("auth")).ok();
    let pair = pair.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let (user, password) = pair.split_once(':').unwrap_or(("", ""));
    let or = |own: String, other: &str| if own.is_empty() { other.to_string() } else { own };
    cri::AuthConfig {
        username: or(text("username"), user),
        password: or(text("password"), password),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        server_address: registry.into(),
        auth: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_get_a_tag_and_nonsense_is_refused() {
        let check = |name: &str, expected: Option<&str>| assert_eq!(with_tag(name).as_deref(), expected, "{name}");
        check("nginx", Some("nginx:latest"));
        check("localhost:5000/a/b", Some("localhost:5000/a/b:latest"));
        check("localhost:5000/a/b:1", Some("localhost:5000/a/b:1"));
        let digest = format!("a@sha256:{}", "0".repeat(64));
        check(&digest, Some(&digest));
        for bad in ["", "UPPER", "a b", "a:", "a//b", "http://a", "a@sha256:xyz"] {
            check(bad, None);
        }
    }

    #[test]
    fn credentials_are_found_by_registry_and_path() {
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "reg.example.com/team": {"username": "t", "password": "p"},
            "*.example.com": {"username": "wild", "password": "p"},
        }});
        let data = base64::engine::general_purpose::STANDARD.encode(config.to_string());
        let secrets = [std::sync::Arc::new(json!({"data": {".dockerconfigjson": data}}))];
        let users =
            |image: &str| -> Vec<String> { credentials(image, &secrets).into_iter().map(|a| a.username).collect() };
        assert_eq!(users("nginx:1"), ["hub"]);
        assert_eq!(users("reg.example.com/team/x:1"), ["t", "wild"]);
        assert_eq!(users("reg.example.com/teams/x:1"), ["wild"]);
        assert_eq!(users("other.io/x:1"), [] as [String; 0]);
    }
}
