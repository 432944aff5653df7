//! The TLS of a server, and how it verifies the certificates of its clients.
//!
//! In: a configuration, and the chain that a client has shown. Out: whether the newest files
//! accept that chain. It reads no file.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{Error, ServerConfig};

/// The chain that a client has shown, its own certificate first.
pub type Chain = Arc<[CertificateDer<'static>]>;

/// What a server needs for TLS; cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// What a handshake needs.
    pub config: Arc<ServerConfig>,
    /// What verifies clients' certificates; `None` if clients are not asked for one.
    pub clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerTls {
    /// Verifies a chain as the handshake of a new connection does. `now` is the time since
    /// 1970.
    ///
    /// # Errors
    /// Why the chain is refused.
    pub fn verify(&self, chain: &Chain, now: Duration) -> Result<(), Error> {
        let (Some(clients), Some((own, others))) = (&self.clients, chain.split_first()) else {
            return Ok(());
        };
        let now = UnixTime::since_unix_epoch(now);
        clients.verify_client_cert(own, others, now).map(|_| ())
    }
}
