//! A pod's names: its hostname and the hosts file its containers see.
//!
//! Owns: the text of /etc/hosts and the rules for hostname, subdomain and FQDN.
//! Called by: `sandbox_config` and the start of containers.
//! Never: writes the file.

use std::fmt::Write;

use crate::pod::Pod;

/// HOST_NAME_MAX of Linux.
const HOSTNAME_MAX: usize = 64;
const LABEL_MAX: usize = 63;

#[derive(Clone, Debug, PartialEq)]
pub struct Names {
    /// What `hostname` prints in the pod.
    pub hostname: String,
    /// First label, for the hosts file.
    pub short: String,
    /// `host.sub.ns.svc.domain` when the pod has a subdomain.
    pub fqdn: Option<String>,
}

#[derive(Debug, thiserror::Error, PartialEq)]
#[error(
    "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({HOSTNAME_MAX} characters is the max, {length} characters requested)"
)]
pub struct FqdnTooLong {
    fqdn: String,
    length: usize,
}

pub fn names(pod: &Pod, cluster_domain: &str) -> Result<Names, FqdnTooLong> {
    if let Some(name) = pod.spec.hostname_override.as_ref().filter(|n| !n.is_empty()) {
        return Ok(Names { hostname: name.clone(), short: name.clone(), fqdn: None });
    }
    let own = pod.spec.hostname.as_deref().filter(|h| !h.is_empty());
    let short = own.map_or_else(|| truncated(pod.name()), String::from);
    let subdomain = pod.spec.subdomain.as_deref().filter(|s| !s.is_empty());
    let fqdn = subdomain.map(|sub| format!("{short}.{sub}.{}.svc.{cluster_domain}", pod.namespace()));
    let hostname = match (&fqdn, pod.spec.set_hostname_as_fqdn) {
        (Some(fqdn), Some(true)) if fqdn.len() > HOSTNAME_MAX => {
            return Err(FqdnTooLong { fqdn: fqdn.clone(), length: fqdn.len() });
        }
        (Some(fqdn), Some(true)) => fqdn.clone(),
        (Some(_) | None, _) => short.clone(),
    };
    Ok(Names { hostname, short, fqdn })
}

/// A pod name may be longer than a DNS label.
fn truncated(name: &str) -> String {
    let end = name.len().min(LABEL_MAX);
    name[..end].trim_end_matches(['-', '.']).to_string()
}

/// The hosts file of a pod with its own network.
pub fn pod_hosts(pod: &Pod, names: &Names, ips: &[String]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        let _ = match &names.fqdn {
            Some(fqdn) => writeln!(text, "{ip}\t{fqdn}\t{}", names.short),
            None => writeln!(text, "{ip}\t{}", names.short),
        };
    }
    text + &aliases(pod)
}

/// The hosts file of a pod in its node's network: the node's, and the pod's aliases.
pub fn node_hosts(pod: &Pod, node_file: &str) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{node_file}{}", aliases(pod))
}

fn aliases(pod: &Pod) -> String {
    let mut text = String::new();
    for alias in pod.spec.host_aliases.iter().flatten() {
        if text.is_empty() {
            text.push_str("\n# Entries added by HostAliases.\n");
        }
        let names: Vec<&str> = alias.hostnames.iter().flatten().map(String::as_str).collect();
        let _ = writeln!(text, "{}\t{}", alias.ip, names.join("\t"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod;

    #[test]
    fn a_subdomain_gives_the_pod_a_full_name() {
        let spec = "{containers: [], hostname: web-0, subdomain: web, setHostnameAsFQDN: true, hostAliases: [{ip: 1.2.3.4, hostnames: [a, b]}]}";
        let pod = pod(spec);
        let names = names(&pod, "cluster.local").expect("short enough");
        assert_eq!(names.hostname, "web-0.web.ns.svc.cluster.local");
        let file = pod_hosts(&pod, &names, &["10.244.0.2".into()]);
        assert!(file.ends_with(
            "10.244.0.2\tweb-0.web.ns.svc.cluster.local\tweb-0\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        ));
    }

    #[test]
    fn a_full_name_beyond_64_characters_is_refused() {
        let spec = format!("{{containers: [], hostname: {}, subdomain: s, setHostnameAsFQDN: true}}", "x".repeat(60));
        let error = names(&pod(&spec), "cluster.local").expect_err("too long");
        assert!(
            error.to_string().ends_with("is too long (64 characters is the max, 83 characters requested)"),
            "{error}"
        );
    }

    #[test]
    fn a_long_pod_name_is_cut_to_a_label() {
        let mut pod = pod("containers: []");
        pod.key.name = format!("{}-tail", "a".repeat(62));
        assert_eq!(names(&pod, "d").expect("fits").hostname, "a".repeat(62));
    }
}
