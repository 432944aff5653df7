//! The balancers of one zone: announces this one, and lists the others.
//!
//! In: how to reach etcd, and the address of this balancer. Out: the sorted addresses
//! of all live balancers, including this one until it stops. An outage of etcd removes
//! none. A balancer that may not write its key runs on without being announced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::warn;

use crate::model::{HostPort, Meta, ServiceName, Weight, Zone};
use crate::register::{self, Held};
use crate::registry::etcd::{self, Connect, FollowOptions, Range};
use crate::registry::record::Format;
use crate::registry::{Change, Entry, Event, Key, Registration};

/// The balancer to announce.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to reach etcd.
    pub connect: Connect,
    /// The zone. Balancers of one zone answer for each other.
    pub zone: Zone,
    /// The address at which clients reach this balancer.
    pub own: HostPort,
}

/// The prefix of the balancers' keys: `{PREFIX}{zone}/{host:port}`.
pub const PREFIX: &str = "/lookaside/balancers/";
/// The length of the queue of events: balancers start and stop one at a time.
const QUEUE: usize = 16;

/// Announces this balancer and follows the others until `stop` is ready. Then removes
/// its address: from `balancers_tx` at once, from etcd within some seconds. Returns
/// when both are done; the last value sent stays. Sends only changes.
pub async fn run(
    options: Options,
    balancers_tx: watch::Sender<Arc<[HostPort]>>,
    stop: impl Future<Output = ()>,
) {
    let (events_tx, mut events_rx) = mpsc::channel(QUEUE);
    let source = etcd::follow(
        FollowOptions {
            connect: options.connect.clone(),
            what: "balancers",
            ranges: vec![Range::below(&format!("{PREFIX}{}/", options.zone))],
            decode: Arc::new(|stored| balancer(stored.value)),
        },
        events_tx,
    );
    let mut known = KnownBalancers { own: options.own.clone(), stopping: false, keys: None };
    known.publish(&balancers_tx);
    let held = announce(options).await;
    let follow = async {
        while let Some(event) = events_rx.recv().await {
            known.apply(event);
            known.publish(&balancers_tx);
        }
    };
    tokio::select! {
        () = stop => {}
        () = async { tokio::join!(source, follow); } => {}
    }
    known.stopping = true;
    known.publish(&balancers_tx);
    // A failed removal was logged, and the key ends with its lease.
    if let Some(held) = held {
        let _ = held.withdraw().await;
    }
}

async fn announce(options: Options) -> Option<Held> {
    let service = ServiceName::new(options.zone.as_str()).ok()?;
    let registration = Registration {
        service,
        id: options.own.to_string().into(),
        address: options.own,
        weight: Weight::DEFAULT,
        meta: Arc::new(Meta::new()),
    };
    let held = register::hold(register::Options {
        connect: options.connect,
        prefix: PREFIX.to_owned(),
        registration,
        ttl: register::TTL_DEFAULT,
        format: Format::Plain,
    });
    held.await.inspect_err(|error| warn!(%error, "this balancer does not announce itself")).ok()
}

/// The address of a balancer, decoded from a value.
type Balancer = Option<HostPort>;

/// The balancers that announced themselves.
struct KnownBalancers {
    own: HostPort,
    /// Whether this balancer is stopping.
    stopping: bool,
    /// The balancers by key; `None` before etcd was read.
    keys: Option<BTreeMap<Key, Balancer>>,
}

impl KnownBalancers {
    fn apply(&mut self, event: Event<Balancer>) {
        match event {
            Event::Reset { all, .. } => {
                self.keys = Some(all.into_iter().map(keyed).collect());
            }
            Event::Apply { changes, .. } => {
                let keys = self.keys.get_or_insert_default();
                for change in changes {
                    match change {
                        Change::Put(entry) => keys.extend([keyed(entry)]),
                        Change::Delete(key, _) => drop(keys.remove(&key)),
                    }
                }
            }
            Event::Stale { .. } => {}
        }
    }

    /// Sends the addresses. A balancer that is stopping names only the others. If there
    /// are none, it still names itself: clients that find no balancer leave grpclb, and
    /// return late to the next one. If it never read etcd, it names none, so that
    /// resolvers ask another balancer.
    fn publish(&self, balancers_tx: &watch::Sender<Arc<[HostPort]>>) {
        let keys = self.keys.iter().flat_map(BTreeMap::values).flatten();
        let mut all: BTreeSet<&HostPort> = keys.chain([&self.own]).collect();
        if self.stopping && (all.len() > 1 || self.keys.is_none()) {
            all.remove(&self.own);
        }
        let all: Arc<[HostPort]> = all.into_iter().cloned().collect();
        balancers_tx.send_if_modified(|now| {
            *now != all && {
                *now = all;
                true
            }
        });
    }
}

/// Returns the address, or `None` if the value is no address.
fn balancer(value: &[u8]) -> Balancer {
    HostPort::parse(std::str::from_utf8(value).ok()?.trim()).ok()
}

fn keyed(entry: Entry<Balancer>) -> (Key, Balancer) {
    (entry.key, entry.decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Cause;
    use std::time::Instant;

    fn entry(address: &str) -> Entry<Balancer> {
        let key = format!("{PREFIX}zone/{address}");
        let decoded = balancer(address.as_bytes());
        Entry { key: Key::new(key.as_bytes()), decoded, leased: true }
    }

    #[test]
    fn own_is_always_there_and_trouble_takes_nobody_out() {
        let (tx, rx) = watch::channel(Arc::from([]));
        let own = HostPort::parse("10.0.0.2:1").unwrap();
        let mut known = KnownBalancers { own, stopping: false, keys: None };
        let mut check = |event: Option<Event<Balancer>>, expected: &[&str]| {
            event.into_iter().for_each(|event| known.apply(event));
            known.publish(&tx);
            let found: Vec<_> = rx.borrow().iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        };
        check(None, &["10.0.0.2:1"]);
        let all = vec![entry("10.0.0.3:1"), entry("10.0.0.1:1"), entry("nonsense")];
        let three = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"];
        check(Some(Event::Reset { revision: 1, all, went_back: false }), &three);
        check(Some(Event::Stale { since: Instant::now(), reason: String::new() }), &three);
        let changes = vec![
            Change::Delete(entry("10.0.0.3:1").key, Cause::InDoubt),
            Change::Put(entry("10.0.0.2:1")),
        ];
        check(Some(Event::Apply { revision: 2, changes }), &three[..2]);
        check(Some(Event::Reset { revision: 3, all: vec![], went_back: false }), &["10.0.0.2:1"]);
    }

    #[test]
    fn one_that_goes_names_the_others() {
        let (tx, rx) = watch::channel(Arc::from([]));
        let check = |event: Option<Event<Balancer>>, expected: &[&str]| {
            let own = HostPort::parse("10.0.0.2:1").unwrap();
            let mut known = KnownBalancers { own, stopping: false, keys: None };
            event.into_iter().for_each(|event| known.apply(event));
            known.stopping = true;
            known.publish(&tx);
            let found: Vec<_> = rx.borrow().iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        };
        let reset = |addresses: &[&str]| {
            let all = addresses.iter().map(|address| entry(address)).collect();
            Some(Event::Reset { revision: 1, all, went_back: false })
        };
        check(reset(&["10.0.0.1:1", "10.0.0.2:1"]), &["10.0.0.1:1"]);
        check(reset(&["10.0.0.2:1"]), &["10.0.0.2:1"]);
        check(reset(&[]), &["10.0.0.2:1"]);
        check(None, &[]);
    }
}
