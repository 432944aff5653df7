//! Starts the announcement of this balancer, and decides which balancers its DNS names.
//!
//! In: the configuration, the bound addresses, and the state of the parts. Out: a task, and
//! the balancers that it knows.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
use super::tasks::Tasks;
use crate::config::{Config, Registry};
use crate::dns;
use crate::replica::known::Replicas;
use crate::replica::{self, Options, Vitals};

/// The balancers of the zone, as this one knows them.
pub(super) struct Wired {
    /// The balancers that DNS names.
    pub(super) advertised: dns::Advertised,
    /// All balancers, for operators.
    pub(super) replicas: watch::Receiver<Arc<Replicas>>,
    /// Cancelled once the announcement is withdrawn; `None` if there is none.
    pub(super) withdrawn: Option<CancellationToken>,
}

/// Starts the task that announces this balancer until `withdraw` is cancelled.
pub(super) fn start(
    tasks: &mut Tasks,
    config: &Config,
    addresses: &Addresses,
    vitals: Vitals,
    withdraw: &CancellationToken,
) -> Wired {
    let connect = match &config.registry {
        Registry::Etcd(connect) if config.replica.announce => Some(connect.clone()),
        _ => None,
    };
    let shared = connect.is_some();
    let advertise = config.replica.advertise.clone();
    let options = Options {
        connect,
        zone: config.zone.clone(),
        advertise: advertise.clone(),
        hosts: config.replica.hosts.clone(),
        listen: addresses.grpclb,
        own_zone: config.replica.zone.clone(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let (replicas_tx, replicas) = watch::channel(replica::alone(&options));
    let (withdraw, withdrawn) = (withdraw.clone(), CancellationToken::new());
    let done = withdrawn.clone();
    tasks.spawn("replica", async move {
        replica::run(options, vitals, replicas_tx, withdraw.cancelled()).await;
        done.cancel();
    });
    let advertised = match shared {
        true => dns::Advertised::Replicas {
            replicas: replicas.clone(),
            own: addresses.fixed(advertise.as_ref()),
            listen: addresses.grpclb,
        },
        false => addresses.advertised(advertise.as_ref()),
    };
    Wired { advertised, replicas, withdrawn: shared.then_some(withdrawn) }
}
