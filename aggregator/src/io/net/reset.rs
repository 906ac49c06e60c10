//! Stateless resets: how a restarted aggregator tells agents that their connections are gone.
//!
//! After a crash agents go on sending on connections that nobody knows any more, and would notice only when their idle
//! time is over, a minute later. A QUIC endpoint answers such packets with a reset, which the agent believes when it
//! carries the token that it was given at the start. Tokens, and the connection ids that they belong to, are made from
//! a secret. Here that secret comes out of the server's private key, so that it is the same after a restart and known
//! to nobody else.

use std::sync::Arc;

use anyhow::{Context, Result};
use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::io::config::Tls;

/// What each secret is for: one must not be computable from the other.
const TOKENS: &[u8] = b"catchment stateless reset tokens";
const CONNECTION_IDS: &[u8] = b"catchment connection ids";

/// The configuration of an endpoint whose resets are recognised across restarts.
pub fn endpoint(tls: &Tls) -> Result<EndpointConfig> {
    let (_, _, key) = tls.files();
    let private = PrivateKeyDer::from_pem_file(&key)
        .with_context(|| format!("{}: cannot read a private key in PEM", key.display()))?;
    Ok(from_secret(private.secret_der()))
}

fn from_secret(secret: &[u8]) -> EndpointConfig {
    let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tokens = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, TOKENS).as_ref());
    let ids = hmac::sign(&root, CONNECTION_IDS);
    let ids = ids
        .as_ref()
        .iter()
        .take(8)
        .fold(0, |key, &byte| key << 8 | u64::from(byte));
    let mut config = EndpointConfig::new(Arc::new(tokens));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quinn::crypto::rustls::QuicClientConfig;
    use tokio::time::timeout;

    use super::*;
    use crate::io::net::quic;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn tls() -> (rustls::ServerConfig, rustls::ClientConfig) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (server, client)
    }

    #[test]
    fn a_restarted_server_resets_the_connections_of_the_one_before() {
        let client_runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        client_runtime.block_on(async {
            let (server, client) = tls();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let first = runtime.spawn(async move {
                let endpoint =
                    quic::bind("127.0.0.1:0".parse().unwrap(), server, from_secret(b"one")).unwrap();
                (endpoint.local_addr().unwrap(), endpoint)
            });
            let (address, endpoint) = first.await.unwrap();
            let accepted = runtime.spawn(async move {
                let connection = endpoint.accept().await.unwrap().await.unwrap();
                (endpoint, connection)
            });
            let mut transport = quinn::TransportConfig::default();
            transport
                .keep_alive_interval(Some(Duration::from_millis(50)))
                .max_idle_timeout(None);
            let crypto = QuicClientConfig::try_from(client).unwrap();
            let mut config = quinn::ClientConfig::new(Arc::new(crypto));
            config.transport_config(Arc::new(transport));
            let agent = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            let connecting = agent.connect_with(config, address, "localhost").unwrap();
            let connection = timeout(PATIENCE, connecting).await.unwrap().unwrap();
            let held = accepted.await.unwrap();
            // Without its runtime the first server can send nothing any more, not even a good-bye, like a killed
            // process.
            runtime.shutdown_background();
            drop(held);
            // The port is free once the last task of the first server is gone.
            let bind = async {
                loop {
                    let (server, _) = tls();
                    match quic::bind(address, server, from_secret(b"one")) {
                        Ok(endpoint) => break endpoint,
                        Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                }
            };
            let _second = timeout(PATIENCE, bind).await.expect("the port comes free");
            let ended = timeout(PATIENCE, connection.closed())
                .await
                .expect("the agent is told");
            assert!(matches!(ended, quinn::ConnectionError::Reset), "{ended}");
        });
    }
}
