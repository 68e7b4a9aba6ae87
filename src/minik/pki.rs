//! Keys and certificates of a cluster, made in memory and sent to each node's volume.
//!
//! Owns: the cluster's certificate authorities, which identity gets which subject, and which node gets which file.
//! Called by: `start` and `node add`.
//! Never: writes to the host's disk; the only copies are in the nodes' volumes and the user's kubeconfig.

use std::net::{Ipv4Addr, SocketAddrV4};

use minik_node::config::{API_PORT, CLUSTER_DOMAIN, KUBERNETES_SERVICE, NodeConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};

/// Local clusters outlive any renewal a user would think of; ten years is kubeadm's lifetime for authorities.
const VALID_YEARS: i32 = 10;

#[derive(Debug, thiserror::Error)]
#[error("could not make the certificate of {subject}")]
pub struct PkiError {
    subject: String,
    source: rcgen::Error,
}

/// A file for a node's volume; paths are below `/var/lib/minik`.
pub struct NodeFile {
    pub path: String,
    pub bytes: Vec<u8>,
    pub mode: u32,
}

impl NodeFile {
    pub fn public(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), bytes: bytes.into(), mode: 0o644 }
    }
    pub fn secret(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), bytes: bytes.into(), mode: 0o600 }
    }
}

/// A certificate with its key, both PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

pub struct Authority {
    pub certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

enum Usage {
    Client,
    Server(Vec<String>),
}

impl Authority {
    pub fn create(name: &str) -> Result<Self, PkiError> {
        let failed = |source| PkiError { subject: name.into(), source };
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        validity(&mut params);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        let pem = key.serialize_pem();
        Ok(Self { certificate, key: pem, issuer: Issuer::new(params, key) })
    }

    /// The authority of a cluster that exists already.
    pub fn load(certificate: &str, key: &str) -> Result<Self, PkiError> {
        let failed = |source| PkiError { subject: "the cluster's authority".into(), source };
        let pair = KeyPair::from_pem(key).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, pair).map_err(failed)?;
        Ok(Self { certificate: certificate.into(), key: key.into(), issuer })
    }

    fn issue(&self, name: &str, groups: &[&str], usage: Usage) -> Result<Identity, PkiError> {
        let failed = |source| PkiError { subject: name.into(), source };
        let mut params = CertificateParams::default();
        let mut purposes = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Usage::Server(names) = usage {
            params = CertificateParams::new(names).map_err(failed)?;
            purposes = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
        params.distinguished_name = rcgen::DistinguishedName::new();
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = purposes;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    /// What the user gets: every right.
    pub fn admin(&self) -> Result<Identity, PkiError> {
        self.issue("kubernetes-admin", &["system:masters"], Usage::Client)
    }
}

fn validity(params: &mut CertificateParams) {
    let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    // A day earlier than now: virtual machines wake up with clocks that lag.
    let from = now.yesterday().expect("now is far from the calendar's first day").date();
    params.not_before = rcgen::date_time_ymd(i32::from(from.year()), from.month() as u8, from.day() as u8);
    // 29 February has no anniversary in most years; the 28th always has.
    let day = from.day().min(28) as u8;
    params.not_after = rcgen::date_time_ymd(i32::from(from.year()) + VALID_YEARS, from.month() as u8, day);
}

/// Everything secret of one cluster, as made by its first `start`.
pub struct ClusterKeys {
    pub ca: Authority,
    front_proxy: Authority,
    token_key: KeyPair,
}

impl ClusterKeys {
    pub fn create() -> Result<Self, PkiError> {
        let token_key =
            KeyPair::generate().map_err(|source| PkiError { subject: "service account tokens".into(), source })?;
        Ok(Self { ca: Authority::create("kubernetes")?, front_proxy: Authority::create("front-proxy-ca")?, token_key })
    }

    /// What an API server on its own had before; the front proxy's authority is new each time, as no one keeps it.
    pub fn load(ca: &str, ca_key: &str, token_key: &str) -> Result<Self, PkiError> {
        let token_key = KeyPair::from_pem(token_key)
            .map_err(|source| PkiError { subject: "service account tokens".into(), source })?;
        Ok(Self { ca: Authority::load(ca, ca_key)?, front_proxy: Authority::create("front-proxy-ca")?, token_key })
    }

    /// Files only the control plane has. `address` is where other nodes reach it.
    pub fn control_plane_files(&self, node: &str, address: SocketAddrV4) -> Result<Vec<NodeFile>, PkiError> {
        let ca = &self.ca;
        let server = ca.issue("kube-apiserver", &[], Usage::Server(api_server_names(node, *address.ip())))?;
        let kubelet_client = ca.issue("kube-apiserver-kubelet-client", &["kubeadm:cluster-admins"], Usage::Client)?;
        let front_proxy = self.front_proxy.issue("front-proxy-client", &[], Usage::Client)?;
        let api = format!("https://{address}");
        let mut files = vec![
            NodeFile::secret("pki/ca.key", ca.key.as_str()),
            NodeFile::secret("pki/sa.key", self.token_key.serialize_pem()),
            NodeFile::public("pki/sa.pub", spki_pem(&self.token_key)),
            NodeFile::public("pki/front-proxy-ca.crt", self.front_proxy.certificate.as_str()),
        ];
        for (name, identity) in [
            ("apiserver", &server),
            ("apiserver-kubelet-client", &kubelet_client),
            ("front-proxy-client", &front_proxy),
        ] {
            files.push(NodeFile::public(&format!("pki/{name}.crt"), identity.certificate.as_str()));
            files.push(NodeFile::secret(&format!("pki/{name}.key"), identity.key.as_str()));
        }
        for (file, user) in
            [("scheduler", "system:kube-scheduler"), ("controller-manager", "system:kube-controller-manager")]
        {
            let identity = ca.issue(user, &[], Usage::Client)?;
            files.push(kubeconfig_file(file, user, &api, &ca.certificate, &identity));
        }
        Ok(files)
    }
}

/// Files every node has: its own identities and the authority that everybody trusts.
pub fn node_files(ca: &Authority, node: &NodeConfig) -> Result<Vec<NodeFile>, PkiError> {
    let api = format!("https://{}:{API_PORT}", node.api_address);
    let user = format!("system:node:{}", node.name);
    let names = vec![node.name.clone(), node.address.to_string(), "localhost".into(), "127.0.0.1".into()];
    let server = ca.issue(&user, &["system:nodes"], Usage::Server(names))?;
    let client = ca.issue(&user, &["system:nodes"], Usage::Client)?;
    let proxy = ca.issue("system:kube-proxy", &["system:node-proxier"], Usage::Client)?;
    let dns = ca.issue("system:kube-dns", &[], Usage::Client)?;
    let provisioner = ca.issue("system:volume-provisioner", &[], Usage::Client)?;
    let config = serde_json::to_vec_pretty(node).expect("a node's configuration is plain data");
    Ok(vec![
        NodeFile::public("node.json", config),
        NodeFile::public("pki/ca.crt", ca.certificate.as_str()),
        NodeFile::public("pki/kubelet.crt", server.certificate),
        NodeFile::secret("pki/kubelet.key", server.key),
        kubeconfig_file("kubelet", &user, &api, &ca.certificate, &client),
        kubeconfig_file("proxy", "system:kube-proxy", &api, &ca.certificate, &proxy),
        kubeconfig_file("dns", "system:kube-dns", &api, &ca.certificate, &dns),
        kubeconfig_file("provisioner", "system:volume-provisioner", &api, &ca.certificate, &provisioner),
    ])
}

/// The admin's kubeconfig also lies in the control plane, so that a lost one on the host can be written again.
pub fn admin_file(ca: &Authority, address: SocketAddrV4, admin: &Identity) -> NodeFile {
    let api = format!("https://{address}");
    kubeconfig_file("admin", "kubernetes-admin", &api, &ca.certificate, admin)
}

fn api_server_names(node: &str, address: Ipv4Addr) -> Vec<String> {
    let fixed = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "host.docker.internal"];
    let mut names: Vec<String> = fixed.iter().map(ToString::to_string).collect();
    names.push(format!("kubernetes.default.svc.{CLUSTER_DOMAIN}"));
    names.push(node.into());
    names.extend(["127.0.0.1".into(), KUBERNETES_SERVICE.to_string(), address.to_string()]);
    names
}

fn spki_pem(key: &KeyPair) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(key.subject_public_key_info());
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|c| std::str::from_utf8(c).expect("base64 is ASCII")).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

/// JSON is YAML, so a kubeconfig needs no YAML writer.
fn kubeconfig_file(name: &str, user: &str, api: &str, ca: &str, identity: &Identity) -> NodeFile {
    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "default",
        "clusters": [{"name": "default", "cluster": {"server": api, "certificate-authority-data": encode(ca)}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": encode(&identity.certificate), "client-key-data": encode(&identity.key)}}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": user}}],
    });
    NodeFile::secret(&format!("{name}.kubeconfig"), config.to_string())
}
