//! How gRPC clients are met: TLS from PEM files.
//!
//! In: the files that settings name. Out: an acceptor, or every problem.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

/// `None` without certificate and key, or where there are problems.
pub(super) fn acceptor(
    cert: Option<&str>,
    key: Option<&str>,
    client_ca: Option<&str>,
    problems: &mut Vec<String>,
) -> Option<TlsAcceptor> {
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => {
            if client_ca.is_some() {
                problems.push("--tls-client-ca needs --tls-cert and --tls-key".into());
            }
            return None;
        }
        _ => {
            problems.push("--tls-cert and --tls-key need each other".into());
            return None;
        }
    };
    let chain = certificates("--tls-cert", cert, problems);
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| problems.push(format!("--tls-key: cannot read {key:?}: {error}")))
        .ok();
    let clients = client_ca.map(|file| certificates("--tls-client-ca", file, problems));
    let (chain, key) = (chain?, key?);
    let clients = match clients {
        None => None,
        Some(certificates) => Some(certificates?),
    };
    match config(chain, key, clients) {
        Ok(config) => Some(TlsAcceptor::from(Arc::new(config))),
        Err(error) => {
            problems.push(format!("--tls-cert, --tls-key, --tls-client-ca: {error}"));
            None
        }
    }
}

fn certificates(
    flag: &str,
    file: &str,
    problems: &mut Vec<String>,
) -> Option<Vec<CertificateDer<'static>>> {
    let read =
        CertificateDer::pem_file_iter(file).and_then(|all| all.collect::<Result<Vec<_>, _>>());
    match read {
        Ok(all) if all.is_empty() => {
            problems.push(format!("{flag}: {file:?} holds no certificate in PEM"));
            None
        }
        Ok(all) => Some(all),
        Err(error) => {
            problems.push(format!("{flag}: cannot read {file:?}: {error}"));
            None
        }
    }
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<Vec<CertificateDer<'static>>>,
) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(certificates) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                roots.add(certificate)?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    // gRPC clients insist on it.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
