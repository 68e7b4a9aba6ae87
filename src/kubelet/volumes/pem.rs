//! Certificates and keys as text.
//!
//! Owns: writing PEM, and reading certificates out of it without anything between them.
//! Called by: trust bundles and pod certificates.
//! Never: judges a certificate; the API server has done that.

use base64::Engine;

/// RFC 7468.
const LINE: usize = 64;

pub fn encode(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(LINE) {
        pem.extend(line.iter().map(|b| *b as char));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// The certificates in a text, in order.
pub fn certificates(text: &str) -> Vec<Vec<u8>> {
    rustls_pemfile::certs(&mut text.as_bytes()).flatten().map(|der| der.to_vec()).collect()
}

/// The same certificates with no comments or headers between them.
pub fn clean_chain(text: &str) -> String {
    certificates(text).iter().map(|der| encode("CERTIFICATE", der)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_loses_everything_but_its_certificates() {
        let one = encode("CERTIFICATE", &[7; 100]);
        assert_eq!(one.lines().map(str::len).max(), Some(LINE));
        assert_eq!(clean_chain(&format!("subject: x\n{one}\n# issuer\n{one}")), format!("{one}{one}"));
    }
}
