//! Who a client is: its address, and the names in its verified certificate.
//!
//! In: values that the transport has verified. Out: [`ClientIdentity`]. It decides nothing.

use std::net::SocketAddr;
use std::sync::Arc;

/// The identity of the client at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The client's address.
    pub addr: SocketAddr,
    /// The names in its certificate; `None` if it showed no certificate, or one without names.
    pub certificate: Option<Arc<CertificateNames>>,
}

/// The names in a certificate (`subjectAltName`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// Its URIs, such as SPIFFE IDs, as they stand.
    pub uris: Box<[Box<str>]>,
    /// Its DNS names, in lower case.
    pub dns: Box<[Box<str>]>,
}

impl ClientIdentity {
    /// Returns the names of the certificate as rules of settings write them: URIs as they
    /// stand, and DNS names after `dns:`.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let names = self.certificate.iter();
        let uris = names.clone().flat_map(|names| names.uris.iter().map(ToString::to_string));
        uris.chain(names.flat_map(|names| names.dns.iter().map(|name| format!("dns:{name}"))))
    }
}

/// An identity without a certificate.
impl From<SocketAddr> for ClientIdentity {
    fn from(addr: SocketAddr) -> Self {
        Self { addr, certificate: None }
    }
}
