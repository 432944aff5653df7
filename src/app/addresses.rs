//! The addresses that the sockets are bound to.
//!
//! In: bound sockets. Out: their addresses, as shown at the start and as others reach them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::watch;

use crate::admin;
use crate::dns;
use crate::model::{Host, HostPort};

/// The bound addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC: grpclb, health and reflection.
    pub grpclb: SocketAddr,
    /// DNS by UDP and TCP.
    pub dns: Option<SocketAddr>,
    /// The admin HTTP server.
    pub admin: admin::Address,
    /// The embedded registry's etcd API.
    pub registry: Option<SocketAddr>,
}

impl Addresses {
    /// Returns the address that DNS answers with for this balancer when it does not share
    /// etcd with other replicas.
    pub(super) fn advertised(&self, advertise: Option<&HostPort>) -> dns::Advertised {
        let Some(own) = self.fixed(advertise) else {
            return dns::Advertised::Arrival { listen: self.grpclb };
        };
        // The sender is dropped; the receiver keeps the only value.
        let (_, balancers_rx) = watch::channel(Arc::from([own]));
        dns::Advertised::Known(balancers_rx)
    }

    /// Returns this balancer's address; `None` if it listens on a wildcard address, so that
    /// clients can use the address that they asked.
    pub(super) fn fixed(&self, advertise: Option<&HostPort>) -> Option<HostPort> {
        let listen = || HostPort::new(Host::Ip(self.grpclb.ip()), self.grpclb.port()).ok();
        advertise.cloned().or_else(listen)
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
