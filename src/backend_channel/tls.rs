//! TLS towards backends.
//!
//! In: the authority that signed their certificates, and a client certificate if they want
//! one. Out: a client's TLS configuration, or the reason why there is none.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::clock;

/// A client certificate and its key, in PEM.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The certificate, and those between it and its authority.
    pub certificate: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
}

/// The TLS configurations in use, by the file of their authority.
#[derive(Debug, Default)]
pub struct TlsConfigs(HashMap<Option<Arc<str>>, Known>);

/// A configuration and when it was made. `None` if the file cannot be used.
#[derive(Debug)]
struct Known {
    at: Instant,
    config: Option<Arc<ClientConfig>>,
    /// Why there is none, as it was logged last.
    trouble: Option<String>,
}

/// How old a configuration from a file may be. A new file is used within this time.
const REREAD_EVERY: Duration = Duration::from_secs(60);
/// The most files. Settings name one or a few.
const FILES_MAX: usize = 100;

/// Makes a TLS configuration that trusts an authority, in PEM, or those of the system.
///
/// # Errors
/// If a certificate or key cannot be used.
pub fn config(
    authority: Option<&[u8]>,
    identity: Option<Identity<'_>>,
) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let trusted = match authority {
        Some(pem) => certificates(pem)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(trusted);
    if roots.is_empty() {
        return Err("there is no certificate of an authority".to_owned());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| error.to_string())?;
            let chain = certificates(certificate)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        }
    };
    // gRPC servers require ALPN `h2`.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Returns the name that a certificate must have.
///
/// # Errors
/// If the text is no name of a server.
pub fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned()).map_err(|error| format!("{name:?}: {error}"))
}

/// Returns the name of a backend in its certificate: the configured name, or its address.
///
/// # Errors
/// If the text is no name of a server.
pub fn name_or_address(name: Option<&str>, ip: IpAddr) -> Result<ServerName<'static>, String> {
    name.map_or_else(|| Ok(ServerName::from(ip)), server_name)
}

impl TlsConfigs {
    /// Returns the configuration that trusts the authority in a file, or those of the
    /// system. Reads a file again at most every minute. Returns `None` if it cannot be used,
    /// and logs why, once.
    pub async fn get(&mut self, ca: Option<&Arc<str>>) -> Option<Arc<ClientConfig>> {
        let key = ca.cloned();
        let now = clock::now();
        let known = self.0.get(&key);
        if let Some(known) = known.filter(|known| {
            // The system's authorities are read only once, because that takes long.
            now - known.at < REREAD_EVERY || (ca.is_none() && known.config.is_some())
        }) {
            return known.config.clone();
        }
        let before = known.and_then(|known| known.trouble.clone());
        let made = match ca {
            None => config(None, None),
            Some(file) => match tokio::fs::read(&**file).await {
                Ok(pem) => config(Some(&pem), None),
                Err(error) => Err(error.to_string()),
            },
        };
        let (config, trouble) = match made {
            Ok(config) => (Some(config), None),
            Err(trouble) => {
                if before.as_ref() != Some(&trouble) {
                    let file = ca.map_or("the authorities of the system", |file| file);
                    tracing::warn!(
                        file,
                        trouble,
                        "health.ca cannot be used: backends are not checked"
                    );
                }
                (None, Some(trouble))
            }
        };
        if self.0.len() >= FILES_MAX {
            self.0.clear();
        }
        self.0.insert(key, Known { at: now, config: config.clone(), trouble });
        config
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err("it holds no certificate in PEM".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(error.to_string()),
    }
}
