//! The addresses that the sockets are bound to.
//!
//! In: bound sockets. Out: their addresses, as shown at the start and as others reach them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::watch;

use crate::dns;
use crate::model::{Host, HostPort};

/// The bound addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC: grpclb, health and reflection.
    pub grpclb: SocketAddr,
    /// DNS by UDP and TCP.
    pub dns: Option<SocketAddr>,
    /// The admin HTTP server.
    pub admin: SocketAddr,
    /// The embedded registry's etcd API.
    pub registry: Option<SocketAddr>,
}

impl Addresses {
    /// Returns the address that DNS answers with for this balancer when it does not share
    /// etcd with other replicas.
    pub(super) fn advertised(&self, advertise: Option<&HostPort>) -> dns::Advertised {
        let own = match advertise {
            Some(own) => own.clone(),
            None => match HostPort::new(Host::Ip(self.grpclb.ip()), self.grpclb.port()) {
                Ok(own) => own,
                // A wildcard address: clients can use the address that they asked.
                Err(_) => return dns::Advertised::Arrival { listen: self.grpclb },
            },
        };
        // The sender is dropped; the receiver keeps the only value.
        let (_, balancers_rx) = watch::channel(Arc::from([own]));
        dns::Advertised::Known(balancers_rx)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listening grpclb={}", self.grpclb)?;
        if let Some(dns) = self.dns {
            write!(f, " dns={dns}")?;
        }
        write!(f, " admin={}", self.admin)?;
        if let Some(registry) = self.registry {
            write!(f, " registry={registry}")?;
        }
        Ok(())
    }
}

/// Returns an address at which this machine reaches `addr`: loopback for a wildcard.
pub(super) fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}
