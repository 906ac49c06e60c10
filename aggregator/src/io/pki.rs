//! Certificates: a development authority of one's own, and the TLS configuration of the server.
//!
//! There is no mode without TLS. `pki init` makes an authority and the aggregator's certificate; `pki issue` makes an
//! agent's, which names it by the URI `urn:catchment:agent:NAME`. Keys are Ed25519 and readable by their owner
//! alone. The authority's key stays in the folder: good for development and small fleets, and said so.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use catchment_common::limits::AGENT_NAME_BYTES_MAX;
use catchment_common::wire::{ALPN, v1};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::io::config::Tls;

/// What an agent's URI begins with; its name follows.
const AGENT_URI: &str = "urn:catchment:agent:";
const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Makes an authority and the aggregator's certificate in `directory`. Refuses to replace an authority.
pub fn init(directory: &Path, server_names: &[String]) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("{}: cannot make the folder", directory.display()))?;
    if directory.join("ca.pem").exists() {
        bail!(
            "{}: there is an authority already; name another folder to make a new one",
            directory.display()
        );
    }
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "Catchment development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ED25519)?)?;
    let mut params = CertificateParams::new(server_names)?;
    params
        .subject_alt_names
        .push(SanType::IpAddress([127, 0, 0, 1].into()));
    params
        .subject_alt_names
        .push(SanType::IpAddress(std::net::Ipv6Addr::LOCALHOST.into()));
    params
        .subject_alt_names
        .push(SanType::DnsName("localhost".try_into()?));
    params
        .distinguished_name
        .push(DnType::CommonName, "catchment-aggregator");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let certificate = params.signed_by(&key, &authority)?;
    write(
        &directory.join("ca.key"),
        &authority.key().serialize_pem(),
        SECRET,
    )?;
    write(&directory.join("server.key"), &key.serialize_pem(), SECRET)?;
    write(&directory.join("server.pem"), &certificate.pem(), PUBLIC)?;
    write(&directory.join("ca.pem"), &authority.pem(), PUBLIC)
}

/// Makes a certificate for the agent called `name`, signed by the authority in `directory`, into `out`.
pub fn issue(directory: &Path, name: &str, out: &Path) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    ensure!(
        !name.is_empty()
            && name.len() <= AGENT_NAME_BYTES_MAX
            && name.bytes().all(plain)
            && !name.starts_with('.'),
        "an agent's name has 1 to {AGENT_NAME_BYTES_MAX} letters, digits and `-_.`, and does not start with `.`"
    );
    let read = |file: &str| {
        let path = directory.join(file);
        fs::read_to_string(&path).with_context(|| {
            format!(
                "{}: cannot read the authority; make one with `catchment-aggregator pki init`",
                path.display()
            )
        })
    };
    let authority = Issuer::from_ca_cert_pem(&read("ca.pem")?, KeyPair::from_pem(&read("ca.key")?)?)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
        .subject_alt_names
        .push(SanType::URI(format!("{AGENT_URI}{name}").try_into()?));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let certificate = params.signed_by(&key, &authority)?;
    fs::create_dir_all(out).with_context(|| format!("{}: cannot make the folder", out.display()))?;
    write(&out.join(format!("{name}.key")), &key.serialize_pem(), SECRET)?;
    write(&out.join(format!("{name}.pem")), &certificate.pem(), PUBLIC)
}

/// The server's TLS configuration: only agents with a certificate of the authority get in.
pub fn server(tls: &Tls) -> Result<rustls::ServerConfig> {
    let (ca, certificate, key) = tls.files();
    let hint = || {
        format!(
            "{}: cannot read certificates; make them with `catchment-aggregator pki init`",
            ca.display()
        )
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(&ca).with_context(hint)? {
        roots
            .add(authority)
            .with_context(|| format!("{}: not usable as an authority", ca.display()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .context("the authority cannot verify clients")?;
    let private = PrivateKeyDer::from_pem_file(&key)
        .with_context(|| format!("{}: cannot read a private key in PEM", key.display()))?;
    let chain = certificates(&certificate)
        .with_context(|| format!("{}: cannot read certificates in PEM", certificate.display()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private)
        .with_context(|| format!("{}: does not fit its key", certificate.display()))?;
    config.alpn_protocols = vec![ALPN.to_vec(), v1::ALPN.to_vec()];
    Ok(config)
}

/// The agent's name in its certificate, or why there is none.
pub fn agent_name(certificates: &[CertificateDer<'_>]) -> Result<String, &'static str> {
    let certificate = certificates.first().ok_or("no certificate")?;
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| "the certificate is not X.509")?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| "the certificate's names cannot be read")?;
    let names = names.ok_or("the certificate names nobody")?;
    let mut agents = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(AGENT_URI),
        _ => None,
    });
    match (agents.next(), agents.next()) {
        (Some(name), None) if !name.is_empty() && name.len() <= AGENT_NAME_BYTES_MAX => Ok(name.to_owned()),
        _ => Err("the certificate does not name exactly one agent"),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    ensure!(!certificates.is_empty(), "no certificate in the file");
    Ok(certificates)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    made.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("{}: cannot write the file", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_authority_issues_names_that_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let pki = folder.path().join("pki");
        init(&pki, &["catchment-aggregator".into()]).unwrap();
        assert!(
            init(&pki, &[])
                .unwrap_err()
                .to_string()
                .contains("there is an authority already")
        );
        issue(&pki, "gw-17", &pki).unwrap();
        assert!(issue(&pki, "../gw", &pki).is_err());
        let agent = certificates(&pki.join("gw-17.pem")).unwrap();
        assert_eq!(agent_name(&agent), Ok("gw-17".into()));
        let server_certificate = certificates(&pki.join("server.pem")).unwrap();
        assert_eq!(
            agent_name(&server_certificate),
            Err("the certificate does not name exactly one agent")
        );
        let mode = fs::metadata(pki.join("gw-17.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SECRET);
        let tls = Tls {
            pki: Some(pki),
            ca: None,
            certificate: None,
            key: None,
        };
        assert_eq!(server(&tls).unwrap().alpn_protocols, [ALPN, v1::ALPN]);
        let nothing = Tls {
            pki: Some(folder.path().into()),
            ca: None,
            certificate: None,
            key: None,
        };
        assert!(format!("{:#}", server(&nothing).unwrap_err()).contains("pki init"));
    }
}
