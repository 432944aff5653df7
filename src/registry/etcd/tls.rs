//! Whom we believe to be etcd, and what we show it: certificates in PEM.
//!
//! In: what files hold. Out: settings for a connection, or why there can be none.

use etcd_client::{Certificate, Identity, TlsOptions};
use tonic::transport::Endpoint;

use super::connect::{ConnectError, Trouble};

/// Certificates in PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Those that may have signed etcd's. Empty: those that the system trusts.
    pub ca: Vec<u8>,
    /// Ours and its key, where etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// Whether certificates and key can be used.
    ///
    /// # Errors
    /// When not, or when the system is to be trusted and trusts nobody.
    pub fn check(&self) -> Result<(), ConnectError> {
        let has = |pem: &[u8], label: &str| String::from_utf8_lossy(pem).contains(label);
        if !self.ca.is_empty() && !has(&self.ca, "BEGIN CERTIFICATE") {
            let reason = "the authority's file holds no certificate in PEM";
            return Err(ConnectError::Tls(reason.into()));
        }
        let trial = Endpoint::from_static("https://etcd:2379").tls_config(self.options());
        let reason = |error| Trouble::from(etcd_client::Error::from(error)).0;
        trial.map(drop).map_err(|error| ConnectError::Tls(reason(error)))
    }

    pub(super) fn options(&self) -> TlsOptions {
        let mut options = match self.ca.is_empty() {
            false => TlsOptions::new().ca_certificate(Certificate::from_pem(&self.ca)),
            true => TlsOptions::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            options = options.identity(Identity::from_pem(certificate, key));
        }
        options
    }
}
