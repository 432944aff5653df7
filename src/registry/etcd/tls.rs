//! TLS with etcd: which certificates to trust, and which one to present, in PEM.
//!
//! In: the content of the files. Out: the settings of a connection, or why there can be
//! none.

use etcd_client::{Certificate, Identity, TlsOptions};
use tonic::transport::Endpoint;

use super::connect::{ConnectError, EtcdError};

/// Certificates in PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// The authorities that may have signed etcd's certificate. Empty: those that the
    /// system trusts.
    pub ca: Vec<u8>,
    /// The client certificate and its key, if etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// Checks that the certificates and the key can be used.
    ///
    /// # Errors
    /// If they cannot, or if the system's authorities are to be used and there are
    /// none.
    pub fn check(&self) -> Result<(), ConnectError> {
        let has = |pem: &[u8], label: &str| String::from_utf8_lossy(pem).contains(label);
        if !self.ca.is_empty() && !has(&self.ca, "BEGIN CERTIFICATE") {
            let reason = "the authority's file holds no certificate in PEM";
            return Err(ConnectError::Tls(reason.into()));
        }
        let trial = Endpoint::from_static("https://etcd:2379").tls_config(self.options());
        let reason = |error| EtcdError::from(etcd_client::Error::from(error)).0;
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
