//! What the admin server shows of xDS: its clients beside those of grpclb, and the bootstrap
//! file by which clients find this balancer.
//!
//! In: the lists of clients, the configuration and the bound addresses. Out: functions for
//! the admin server's state.

use std::sync::Arc;

use crate::admin::{XdsBootstrap, XdsClients};
use crate::config::Config;
use crate::dns::zone::balancer_name;
use crate::telemetry::{CountStreams, ListClients};
use crate::xds::bootstrap::{Bootstrap, ID, TlsFiles};

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

/// Returns a function that makes the bootstrap file of clients. It names all balancers by the
/// name that DNS gives them, if this balancer takes part in DNS, and else this one alone.
pub(super) fn bootstrap(config: &Config, addresses: &Addresses) -> XdsBootstrap {
    let port = addresses.grpclb.port();
    // Only a name stands for all replicas, which clients need when one of them stops. Clients
    // use one server of several, and mostly stay with it for ever.
    let named = config.dns.listen.is_some() || config.dns.skydns_prefix.is_some();
    let fixed = addresses.fixed(config.replica.advertise.as_ref());
    let own = match fixed.filter(|_| !named) {
        Some(own) => format!("dns:///{own}"),
        None => format!("dns:///{}:{port}", balancer_name(&config.zone)),
    };
    let tls = config.tls.is_some();
    Arc::new(move |XdsClients { server, zone, ca, cert, key, refresh }| {
        let files = TlsFiles::new(ca, cert, key, refresh.as_deref(), "")?;
        let server = server.unwrap_or_else(|| own.clone());
        let tls = (tls || files.any()).then_some(files);
        Ok(Bootstrap { server, tls, zone, id: ID.to_owned(), cluster: None }.json())
    })
}
