//! Certificates and keys from PEM files, and the TLS configurations made of them. One provider for all: ring.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A client's TLS configuration that trusts `ca` and, if given, shows a certificate.
pub fn client(ca: &Path, identity: Option<(&Path, &Path)>) -> Result<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots
            .add(certificate)
            .with_context(|| format!("{}: not usable as an authority", ca.display()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_root_certificates(roots);
    let Some((certificate, key)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("{}: cannot read a private key in PEM", key.display()))?;
    builder
        .with_client_auth_cert(certificates(certificate)?, private)
        .with_context(|| format!("{}: does not fit its key", certificate.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let certificates =
        read().with_context(|| format!("{}: cannot read certificates in PEM", path.display()))?;
    anyhow::ensure!(!certificates.is_empty(), "{}: has no certificate", path.display());
    Ok(certificates)
}
