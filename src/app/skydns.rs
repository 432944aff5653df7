//! Keeps the zone's records in etcd for CoreDNS, while this balancer takes clients.
//!
//! In: the catalog, and this balancer as it announces itself. Out: a task that holds keys.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::tasks::Tasks;
use crate::catalog::Catalog;
use crate::config::{Config, Registry};
use crate::dns::named_services::NamedServices;
use crate::dns::skydns::{self, Keys};
use crate::model::{HostPort, Zone};
use crate::register::leased_keys;
use crate::replica::known::Replicas;
use crate::replica::record::State;
use crate::telemetry::Counters;

/// The parts from which the records are made.
struct Records {
    prefix: String,
    zone: Zone,
    catalog: Catalog,
    replicas: watch::Receiver<Arc<Replicas>>,
    counters: Arc<Counters>,
    keys_tx: watch::Sender<Arc<Keys>>,
}

/// How often the records are looked at: at most one write in this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Starts the tasks, if the operator wants the records. They hold the keys until `withdraw` is
/// cancelled. Returns a token that is cancelled once no key is left.
pub(super) fn start(
    tasks: &mut Tasks,
    config: &Config,
    catalog: &Catalog,
    replicas: watch::Receiver<Arc<Replicas>>,
    counters: &Arc<Counters>,
    withdraw: &CancellationToken,
) -> Option<CancellationToken> {
    let (Some(prefix), Registry::Etcd(connect)) = (&config.dns.skydns_prefix, &config.registry)
    else {
        return None;
    };
    let (keys_tx, keys_rx) = watch::channel(Arc::default());
    let (prefix, zone) = (prefix.clone(), config.zone.clone());
    let (catalog, counters) = (catalog.clone(), counters.clone());
    let below = prefix.clone();
    let records = Records { prefix, zone, catalog, replicas, counters, keys_tx };
    tasks.spawn("skydns records", records.follow());
    let (connect, stop, withdrawn) = (connect.clone(), withdraw.clone(), CancellationToken::new());
    let done = withdrawn.clone();
    tasks.spawn("skydns", async move {
        leased_keys::run(connect, below, keys_rx, stop.cancelled()).await;
        done.cancel();
        // It ends before the other parts do.
        std::future::pending().await
    });
    Some(withdrawn)
}

impl Records {
    async fn follow(self) {
        let changes = self.catalog.watch_changes();
        let mut services = NamedServices::default();
        let (mut looked_at, mut warned) = (None, false);
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = (*changes.borrow(), self.own());
            if looked_at.as_ref() == Some(&now) {
                continue;
            }
            let (keys, left_out) = match &now.1 {
                Some(own) => {
                    let services = services.look(&self.catalog, &self.zone).await;
                    skydns::keys(&self.prefix, &self.zone, own, &services)
                }
                None => (Keys::new(), 0),
            };
            looked_at = Some(now);
            if left_out > 0 && !std::mem::replace(&mut warned, true) {
                tracing::warn!(
                    left_out,
                    "too many services for records in etcd: lookaside's own DNS names all"
                );
            }
            self.counters.skydns_keys.set(keys.len());
            self.keys_tx.send_if_modified(|known| {
                let new = **known != keys;
                if new {
                    *known = Arc::new(keys);
                }
                new
            });
        }
    }

    /// Returns the address of this balancer, while it takes clients of other hosts.
    fn own(&self) -> Option<HostPort> {
        let replicas = self.replicas.borrow();
        let own = replicas.rows.first()?;
        let takes_clients = matches!(own.state, State::Ready | State::Stale) && !own.host_only;
        own.address.clone().filter(|_| takes_clients)
    }
}
