//! What the admin server shows of xDS: its clients beside those of grpclb, and the bootstrap
//! file by which clients find this balancer.
//!
//! In: the lists of clients, the configuration and the bound addresses. Out: functions for
//! the admin server's state.

use std::sync::Arc;

use crate::admin::XdsBootstrap;
use crate::config::Config;
use crate::dns::zone::balancer_name;
use crate::telemetry::{CountStreams, ListClients};
use crate::xds::bootstrap::{Bootstrap, ID};

use super::Addresses;

/// Returns a function that lists the clients of both protocols.
pub(super) fn all_clients(grpclb: ListClients, xds: ListClients) -> ListClients {
    Arc::new(move || {
        let mut all = grpclb();
        all.extend(xds());
        all
    })
}

/// Returns a function that counts the open streams of both protocols.
pub(super) fn all_streams(grpclb: CountStreams, xds: CountStreams) -> CountStreams {
    Arc::new(move || grpclb() + xds())
}

/// Returns a function that makes the bootstrap file of clients.
pub(super) fn bootstrap(config: &Config, addresses: &Addresses) -> XdsBootstrap {
    let port = addresses.grpclb.port();
    // Only a name stands for all replicas, which clients need when one of them stops.
    let fixed = addresses.fixed(config.replica.advertise.as_ref());
    let own = match fixed.filter(|_| config.dns_listen.is_none()) {
        Some(own) => format!("dns:///{own}"),
        None => format!("dns:///{}:{port}", balancer_name(&config.zone)),
    };
    let tls = config.tls.is_some();
    Arc::new(move |server, zone| {
        let server = server.unwrap_or_else(|| own.clone());
        let id = ID.to_owned();
        Bootstrap { server, tls, ca: None, zone, id, cluster: None }.json()
    })
}
