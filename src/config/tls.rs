//! Builds the TLS configuration of the gRPC server from PEM files.
//!
//! In: the files that settings name. Out: a server configuration that follows the files
//! when they change, or all problems.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

use crate::reload::{File, Loaded, Reloading, expiry};
use crate::settings::Settings;

/// Returns the TLS configuration. Returns `None` without certificate and key, or if there
/// are problems, which it adds to `problems`.
pub(super) fn server(
    cert: Option<&str>,
    key: Option<&str>,
    client_ca: Option<&str>,
    client_crl: Option<&str>,
    problems: &mut Vec<String>,
) -> Option<Reloading<Arc<ServerConfig>>> {
    if client_crl.is_some() && client_ca.is_none() {
        problems.push("--tls-client-crl needs --tls-client-ca".into());
        return None;
    }
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
    let named = [
        Some(("--tls-cert", cert)),
        Some(("--tls-key", key)),
        client_ca.map(|file| ("--tls-client-ca", file)),
        client_crl.map(|file| ("--tls-client-crl", file)),
    ];
    let file = |(flag, path): (&'static str, &str)| File { flag, path: path.into() };
    let files: Vec<File> = named.into_iter().flatten().map(file).collect();
    let known = files.clone();
    let server = Reloading::open("serve", files, move |contents| make(&known, contents));
    server.map_err(|found| problems.extend(found)).ok()
}

/// Finds a rule that names certificates although clients show none.
pub(super) fn client_certificates(shown: bool, settings: &Settings, problems: &mut Vec<String>) {
    if let (false, Some((place, rule))) = (shown, settings.rule_of_certificates()) {
        problems.push(format!(
            "{place}: {rule:?} names certificates, and clients show theirs only with \
             --tls-client-ca: give that, or name networks"
        ));
    }
}

/// Builds the configuration from certificate, key and optionally the clients' authority and
/// the lists of revoked certificates, in this order.
fn make(files: &[File], contents: &[Vec<u8>]) -> Result<Loaded<Arc<ServerConfig>>, Vec<String>> {
    let mut problems = Vec::new();
    let chain = certificates(&files[0], &contents[0], &mut problems);
    let key = PrivateKeyDer::from_pem_slice(&contents[1])
        .map_err(|error| problems.push(cannot_read(&files[1], &error)))
        .ok();
    let clients = contents.get(2).map(|pem| certificates(&files[2], pem, &mut problems));
    let revoked = contents.get(3).and_then(|pem| revoked(&files[3], pem, &mut problems));
    let (Some(chain), Some(key), true) = (chain, key, problems.is_empty()) else {
        return Err(problems);
    };
    let value =
        config(chain, key, clients.flatten(), revoked.unwrap_or_default()).map_err(|error| {
            let flags: Vec<_> = files.iter().map(|file| file.flag).collect();
            vec![format!("{}: {error}", flags.join(", "))]
        })?;
    let ends = [
        ("serve", expiry(&contents[0])),
        ("client_ca", contents.get(2).and_then(|pem| expiry(pem))),
    ];
    let ends = ends.into_iter().filter_map(|(used_for, end)| Some((used_for, end?)));
    Ok(Loaded { value: Arc::new(value), expiries: ends.collect() })
}

fn certificates(
    file: &File,
    pem: &[u8],
    problems: &mut Vec<String>,
) -> Option<Vec<CertificateDer<'static>>> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(all) if all.is_empty() => {
            let File { flag, path } = file;
            problems.push(format!("{flag}: {path:?} holds no certificate in PEM"));
            None
        }
        Ok(all) => Some(all),
        Err(error) => {
            problems.push(cannot_read(file, &error));
            None
        }
    }
}

fn revoked(
    file: &File,
    pem: &[u8],
    problems: &mut Vec<String>,
) -> Option<Vec<CertificateRevocationListDer<'static>>> {
    match CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(all) if all.is_empty() => {
            let File { flag, path } = file;
            problems.push(format!("{flag}: {path:?} holds no list of revoked certificates in PEM"));
            None
        }
        Ok(all) => Some(all),
        Err(error) => {
            problems.push(cannot_read(file, &error));
            None
        }
    }
}

fn cannot_read(File { flag, path }: &File, error: &dyn std::fmt::Display) -> String {
    format!("{flag}: cannot read {path:?}: {error}")
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<Vec<CertificateDer<'static>>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
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
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            // With lists, a certificate whose authority has none is refused.
            let verifier = verifier.with_crls(revoked).only_check_end_entity_revocation();
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    // gRPC clients require ALPN `h2`.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
