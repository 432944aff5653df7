//! Builds the TLS configuration of a server from PEM files.
//!
//! In: the files that settings name. Out: a server configuration that follows the files
//! when they change, or all problems.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

use crate::reload::{File, Loaded, Reloading, ServerTls, expiry};
use crate::settings::Settings;

/// Verifies clients' certificates.
type Verifier = Arc<dyn ClientCertVerifier>;

/// A file that a setting may name, after its flag.
pub(super) type Named<'a> = (&'static str, Option<&'a str>);

/// What a server shows to its clients, and asks them for.
pub(super) struct Server<'a> {
    /// The use of the certificate, in one word.
    pub(super) used_for: &'static str,
    pub(super) cert: Named<'a>,
    pub(super) key: Named<'a>,
    /// What clients' certificates are checked with, if clients can show one.
    pub(super) clients: Option<Clients<'a>>,
    /// The protocol that it speaks, as ALPN names it.
    pub(super) protocol: &'static [u8],
}

/// What clients' certificates are checked with.
pub(super) struct Clients<'a> {
    /// Their authority.
    pub(super) ca: Named<'a>,
    /// The lists of revoked ones.
    pub(super) crl: Named<'a>,
}

impl Server<'_> {
    /// Returns the TLS configuration. Returns `None` without certificate and key, or if there
    /// are problems, which it adds to `problems`.
    pub(super) fn config(&self, problems: &mut Vec<String>) -> Option<Reloading<ServerTls>> {
        let (cert, key) = (self.cert, self.key);
        let mut named = vec![cert, key];
        if let Some(Clients { ca, crl }) = &self.clients {
            if ca.1.is_none() && crl.1.is_some() {
                problems.push(format!("{} needs {}", crl.0, ca.0));
                return None;
            }
            if ca.1.is_some() && cert.1.is_none() && key.1.is_none() {
                problems.push(format!("{} needs {} and {}", ca.0, cert.0, key.0));
            }
            named.extend([*ca, *crl]);
        }
        match (cert.1, key.1) {
            (Some(_), Some(_)) => {}
            (None, None) => return None,
            _ => {
                problems.push(format!("{} and {} need each other", cert.0, key.0));
                return None;
            }
        }
        let file = |(flag, path): Named<'_>| Some(File { flag, path: path?.into() });
        let files: Vec<File> = named.into_iter().filter_map(file).collect();
        let (known, used_for, protocol) = (files.clone(), self.used_for, self.protocol);
        let make = move |contents: &[Vec<u8>]| make(used_for, protocol, &known, contents);
        Reloading::open(used_for, files, make).map_err(|found| problems.extend(found)).ok()
    }
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
fn make(
    used_for: &'static str,
    protocol: &[u8],
    files: &[File],
    contents: &[Vec<u8>],
) -> Result<Loaded<ServerTls>, Vec<String>> {
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
    let config = config(chain, key, clients.flatten(), revoked.unwrap_or_default());
    let (mut config, clients) = config.map_err(|error| {
        let flags: Vec<_> = files.iter().map(|file| file.flag).collect();
        vec![format!("{}: {error}", flags.join(", "))]
    })?;
    config.alpn_protocols = vec![protocol.to_vec()];
    let ends = [
        (used_for, expiry(&contents[0])),
        ("client_ca", contents.get(2).and_then(|pem| expiry(pem))),
    ];
    let ends = ends.into_iter().filter_map(|(used_for, end)| Some((used_for, end?)));
    let value = ServerTls { config: Arc::new(config), clients };
    Ok(Loaded { value, expiries: ends.collect() })
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
) -> Result<(ServerConfig, Option<Verifier>), Box<dyn std::error::Error>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let verifier = match clients {
        None => None,
        Some(certificates) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                roots.add(certificate)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            // With lists, a certificate whose authority has none is refused.
            let verifier = verifier.with_crls(revoked).only_check_end_entity_revocation();
            Some(verifier.build()?)
        }
    };
    let builder = match verifier.clone() {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    Ok((builder.with_single_cert(chain, key)?, verifier))
}
