//! The server's own certificate authority and certificate, made anew at every start.
//!
//! A lab's API server proves itself with a certificate for every name and address it is reached by; the CA goes into
//! the kubeconfig. Keys never touch a disk. Clients prove themselves by bearer token (see [`crate::router`]).

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::Error;

/// Names every API server answers to, as Kubernetes' certificates list them.
const NAMES: &[&str] = &[
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// What the server needs to speak TLS, and clients to trust it.
pub struct Tls {
    /// The CA certificate, PEM.
    pub ca_pem: String,
    /// rustls' configuration, ALPN included.
    pub config: Arc<rustls::ServerConfig>,
}

impl Tls {
    /// Makes a CA and a certificate for the usual names and `addresses`.
    pub fn generate(addresses: &[IpAddr]) -> Result<Self, Error> {
        let mut ca = CertificateParams::new(Vec::<String>::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::CrlSign,
        ];
        ca.distinguished_name
            .push(DnType::CommonName, "parfait-lab-ca");
        let ca_key = KeyPair::generate()?;
        let ca_certificate = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);

        let names: Vec<String> = NAMES.iter().map(|n| (*n).to_owned()).collect();
        let mut server = CertificateParams::new(names)?;
        let loopback = [
            IpAddr::from([127, 0, 0, 1]),
            IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1]),
        ];
        let mut sans: Vec<IpAddr> = loopback
            .into_iter()
            .chain(addresses.iter().copied())
            .collect();
        sans.sort();
        sans.dedup();
        server
            .subject_alt_names
            .extend(sans.into_iter().map(SanType::IpAddress));
        server
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        server.use_authority_key_identifier_extension = true;
        server.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server_key = KeyPair::generate()?;
        let certificate = server.signed_by(&server_key, &issuer)?;

        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls {
            ca_pem: ca_certificate.pem(),
            config: Arc::new(config),
        })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_certificate_is_made() {
        let tls = super::Tls::generate(&["192.168.77.1".parse().expect("an address")])
            .expect("keys can be made");
        assert!(tls.ca_pem.starts_with("-----BEGIN CERTIFICATE-----"));
        assert_eq!(tls.config.alpn_protocols[0], b"h2");
    }
}
