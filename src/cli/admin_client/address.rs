//! The admin address, as the commands reach it.
//!
//! In: the text of `--admin`, and the file of an authority. Out: the URLs of paths, and a
//! client that can ask them. It never shows a password in the text.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::unix::{NoNames, UnixConnector};
use crate::model::text;

/// An admin address.
pub(super) enum Address {
    /// `http://HOST:PORT`.
    Plain(Authority),
    /// `https://HOST:PORT`.
    Tls(Authority),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// The limit for connecting. An admin address is near, so a longer silence means that no
/// balancer is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The limit for a whole answer: 100,000 clients are 40 MB.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Address {
    /// Parses `http://HOST:PORT`, `HOST:PORT`, `https://HOST:PORT` or `unix:/PATH`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return path.starts_with('/').then(|| Self::Unix(PathBuf::from(path)));
        }
        let text = text.trim_end_matches('/');
        let (tls, authority) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://").unwrap_or(text)),
        };
        let authority: Authority = authority.parse().ok()?;
        authority.port_u16()?;
        Some(if tls { Self::Tls(authority) } else { Self::Plain(authority) })
    }

    /// Returns the URL of a path, which begins with `/`.
    pub(super) fn url(&self, path: &str) -> String {
        match self {
            Self::Plain(authority) => format!("http://{authority}{path}"),
            Self::Tls(authority) => format!("https://{authority}{path}"),
            Self::Unix(_) => format!("http://localhost{path}"),
        }
    }

    /// Returns whether a token would cross a network that others may read.
    pub(super) fn shows_tokens(&self) -> bool {
        let Self::Plain(authority) = self else { return false };
        let host = authority.host().trim_matches(['[', ']']);
        let ip = host.parse::<IpAddr>();
        !ip.map_or(host == "localhost", |ip| ip.to_canonical().is_loopback())
    }

    /// Returns whether it is asked by TCP without TLS.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Returns a client. It believes certificates of the authority in the file `ca`, or those
    /// that the system trusts.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub(super) fn agent(&self, ca: Option<&str>) -> Result<ureq::Agent, String> {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            // The environment's proxies are for outside addresses.
            .proxy(None);
        match self {
            Self::Plain(_) => Ok(config.build().new_agent()),
            Self::Tls(_) => {
                let tls = TlsConfig::builder()
                    .provider(TlsProvider::Rustls)
                    .root_certs(roots(ca)?)
                    .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
                    .build();
                Ok(config.tls_config(tls).build().new_agent())
            }
            Self::Unix(path) => {
                let connector = UnixConnector(path.clone());
                Ok(ureq::Agent::with_parts(config.build(), connector, NoNames))
            }
        }
    }
}

/// Returns the authorities in a file, or those of the system.
fn roots(ca: Option<&str>) -> Result<RootCerts, String> {
    let Some(file) = ca else {
        let found = rustls_native_certs::load_native_certs().certs;
        if found.is_empty() {
            return Err("--admin-ca is missing, and this system trusts no authority: install the \
                        package ca-certificates, or name the authority's file"
                .to_owned());
        }
        return Ok(trusted(&found));
    };
    let pem = std::fs::read(file);
    let pem = pem.map_err(|error| format!("--admin-ca: cannot read {file:?}: {error}"))?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if found.is_empty() => {
            Err(format!("--admin-ca: {file:?} holds no certificate in PEM"))
        }
        Ok(found) => Ok(trusted(&found)),
        Err(error) => Err(format!("--admin-ca: cannot read {file:?}: {error}")),
    }
}

fn trusted(found: &[CertificateDer<'_>]) -> RootCerts {
    let certificate = |der: &CertificateDer<'_>| Certificate::from_der(der).to_owned();
    RootCerts::Specific(Arc::new(found.iter().map(certificate).collect()))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            _ => f.write_str(&text::without_password(&self.url(""))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_shown_to_other_hosts_only_without_tls() {
        let check = |text: &str, expected| {
            assert_eq!(Address::parse(text).unwrap().shows_tokens(), expected, "{text}");
        };
        check("127.0.0.1:1", false);
        check("http://[::1]:1", false);
        check("http://localhost:1", false);
        check("https://10.0.0.1:1", false);
        check("unix:/a", false);
        check("10.0.0.1:1", true);
        check("http://localhost.example.com:1", true);
    }
}
