//! Builds the TLS configuration of a server from PEM files.
//!
//! In: the files that settings name. Out: a server configuration that follows the files
//! when they change, or all problems.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

use crate::reload::{File, Loaded, Reloading, expiry};

/// A file that a setting may name, after its flag.
pub(super) type Named<'a> = (&'static str, Option<&'a str>);

/// What a server shows to its clients, and asks them for.
pub(super) struct Server<'a> {
    /// The use of the certificate, in one word.
    pub(super) used_for: &'static str,
    pub(super) cert: Named<'a>,
    pub(super) key: Named<'a>,
    /// The authority of clients' certificates.
    pub(super) client_ca: Option<Named<'a>>,
    /// The protocol that it speaks, as ALPN names it.
    pub(super) protocol: &'static [u8],
}

impl Server<'_> {
    /// Returns the TLS configuration. Returns `None` without certificate and key, or if there
    /// are problems, which it adds to `problems`.
    pub(super) fn config(
        &self,
        problems: &mut Vec<String>,
    ) -> Option<Reloading<Arc<ServerConfig>>> {
        let (cert, key, ca) = (self.cert, self.key, self.client_ca);
        let ca = ca.filter(|(_, path)| path.is_some());
        match (cert.1, key.1) {
            (Some(_), Some(_)) => {}
            (None, None) => {
                if let Some((flag, _)) = ca {
                    problems.push(format!("{flag} needs {} and {}", cert.0, key.0));
                }
                return None;
            }
            _ => {
                problems.push(format!("{} and {} need each other", cert.0, key.0));
                return None;
            }
        }
        let file = |(flag, path): Named<'_>| Some(File { flag, path: path?.into() });
        let named = [Some(cert), Some(key), ca].into_iter().flatten();
        let files: Vec<File> = named.filter_map(file).collect();
        let (known, used_for, protocol) = (files.clone(), self.used_for, self.protocol);
        let make = move |contents: &[Vec<u8>]| make(used_for, protocol, &known, contents);
        Reloading::open(used_for, files, make).map_err(|found| problems.extend(found)).ok()
    }
}

/// Builds the configuration from certificate, key and optionally the clients' authority,
/// in this order.
fn make(
    used_for: &'static str,
    protocol: &[u8],
    files: &[File],
    contents: &[Vec<u8>],
) -> Result<Loaded<Arc<ServerConfig>>, Vec<String>> {
    let mut problems = Vec::new();
    let chain = certificates(&files[0], &contents[0], &mut problems);
    let key = PrivateKeyDer::from_pem_slice(&contents[1])
        .map_err(|error| problems.push(cannot_read(&files[1], &error)))
        .ok();
    let clients = contents.get(2).map(|pem| certificates(&files[2], pem, &mut problems));
    let (Some(chain), Some(key), true) = (chain, key, problems.is_empty()) else {
        return Err(problems);
    };
    let mut value = config(chain, key, clients.flatten()).map_err(|error| {
        let flags: Vec<_> = files.iter().map(|file| file.flag).collect();
        vec![format!("{}: {error}", flags.join(", "))]
    })?;
    value.alpn_protocols = vec![protocol.to_vec()];
    let ends = [
        (used_for, expiry(&contents[0])),
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

fn cannot_read(File { flag, path }: &File, error: &dyn std::fmt::Display) -> String {
    format!("{flag}: cannot read {path:?}: {error}")
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
    Ok(builder.with_single_cert(chain, key)?)
}
