//! A real etcd with registrations, which reports when it delivers changes.
//!
//! In: services and backends. Out: puts that run beside the load, and the moment at
//! which etcd's own watch delivered each revision.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use etcd_client::{Client, DeleteOptions, PutOptions, Txn, TxnOp, WatchOptions};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::PORT;
use super::start::WAIT_MAX;
use super::start::etcd::Etcd;
use super::wire;

/// An etcd of its own. Dropping the value stops it.
pub(crate) struct Registry {
    etcd: Etcd,
    runtime: Runtime,
    client: Client,
    delivered: mpsc::Receiver<(i64, Instant)>,
    moments: HashMap<i64, Instant>,
    /// How often each service was changed.
    versions: HashMap<String, u16>,
    /// The present content: services, and the number of backends of each.
    filled: (Vec<String>, usize),
    /// The number of leases so far.
    leased: u8,
}

/// A put that is on its way.
pub(crate) struct Put {
    pub(crate) begun: Instant,
    answer: JoinHandle<(i64, Instant)>,
}

/// A put that etcd has acknowledged.
pub(crate) struct Acknowledged {
    pub(crate) revision: i64,
    pub(crate) at: Instant,
}

const PREFIX: &str = "/etcd3_naming/";
/// etcd takes at most 128 operations in a transaction.
const AT_ONCE: usize = 100;

impl Registry {
    pub(crate) fn start() -> Self {
        let etcd = Etcd::start_with(&["--quota-backend-bytes", "4294967296"]);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let client = runtime.block_on(Client::connect([etcd.url()], None)).expect("etcd serves");
        let (moments_tx, delivered) = mpsc::channel(100_000);
        let mut watcher = client.watch_client();
        runtime.spawn(async move {
            let options = WatchOptions::new().with_prefix();
            let mut stream = watcher.watch(PREFIX, Some(options)).await.expect("etcd serves");
            while let Ok(Some(response)) = stream.message().await {
                let revision = response.header().map_or(0, |header| header.revision());
                if !response.events().is_empty() {
                    // Moments may be lost while no scene asks for them.
                    let _ = moments_tx.try_send((revision, Instant::now()));
                }
            }
        });
        let (moments, versions, filled) = Default::default();
        Self { etcd, runtime, client, delivered, moments, versions, filled, leased: 0 }
    }

    pub(crate) fn url(&self) -> String {
        self.etcd.url()
    }

    /// Fills the registry with this number of backends for each service, and nothing else.
    pub(crate) fn fill(&mut self, services: &[String], backends: usize) {
        let wanted = (services.to_vec(), backends);
        if self.filled == wanted {
            return;
        }
        self.filled = wanted;
        self.versions.clear();
        let all = services.iter().flat_map(|service| {
            (0..backends).map(move |index| (key(service, index), value(index, PORT)))
        });
        let all: Vec<_> = all.collect();
        let client = self.client.clone();
        self.runtime.block_on(async {
            let everything = Some(DeleteOptions::new().with_prefix());
            client.kv_client().delete(PREFIX, everything).await.expect("etcd serves");
            for some in all.chunks(AT_ONCE) {
                client.kv_client().txn(puts(some)).await.expect("etcd serves");
            }
        });
    }

    /// Fills the registry with one service that has this number of backends in each zone.
    pub(crate) fn fill_zones(&mut self, service: &str, zones: &[String], backends: usize) {
        self.fill(&[], 0);
        self.filled = Default::default();
        let all: Vec<_> = (0..zones.len() * backends)
            .map(|index| {
                let zone = &zones[index / backends];
                (key(service, index), value_in_zone(index, PORT, zone))
            })
            .collect();
        let client = self.client.clone();
        self.runtime.block_on(async {
            for some in all.chunks(AT_ONCE) {
                client.kv_client().txn(puts(some)).await.expect("etcd serves");
            }
        });
    }

    /// Gives one backend of each zone another port, in one transaction. `backends` is the
    /// number of each zone's.
    pub(crate) fn change_zones(&mut self, service: &str, zones: &[String], backends: usize) -> Put {
        let version = self.versions.entry(service.to_owned()).or_default();
        *version += 1;
        let port = PORT + *version % 2;
        let changed = zones.iter().enumerate().map(|(at, zone)| {
            (key(service, at * backends), value_in_zone(at * backends, port, zone))
        });
        let (mut kv, txn) = (self.client.kv_client(), puts(&changed.collect::<Vec<_>>()));
        let begun = Instant::now();
        let answer = self.runtime.spawn(async move {
            let answer = kv.txn(txn).await.expect("etcd serves");
            (answer.header().expect("answers have one").revision(), Instant::now())
        });
        Put { begun, answer }
    }

    /// Adds this number of backends to each service under one lease, at local addresses
    /// where nothing listens. Returns the lease.
    pub(crate) fn add_leased(&mut self, services: &[String], backends: usize) -> i64 {
        self.filled = Default::default();
        self.leased = self.leased.wrapping_add(1);
        let leased = self.leased;
        let all = services.iter().flat_map(|service| {
            (0..backends).map(move |index| {
                let [a, b] = u16::try_from(index).expect("there are not so many").to_be_bytes();
                let value = format!("127.{leased}.{a}.{b}:{PORT}");
                (format!("{PREFIX}{service}/{leased:03}-{index:05}"), value)
            })
        });
        let all: Vec<_> = all.collect();
        let mut client = self.client.clone();
        self.runtime.block_on(async {
            let lease = client.lease_grant(3_600, None).await.expect("etcd serves").id();
            for some in all.chunks(AT_ONCE) {
                let options = || Some(PutOptions::new().with_lease(lease));
                let put = |(key, value): &(String, String)| {
                    TxnOp::put(key.as_str(), value.as_str(), options())
                };
                let txn = Txn::new().and_then(some.iter().map(put).collect::<Vec<_>>());
                client.txn(txn).await.expect("etcd serves");
            }
            lease
        })
    }

    /// Revokes a lease, which deletes all its keys at one revision.
    pub(crate) fn revoke(&mut self, lease: i64) -> Put {
        let mut client = self.client.clone();
        let begun = Instant::now();
        let answer = self.runtime.spawn(async move {
            let answer = client.lease_revoke(lease).await.expect("etcd serves");
            (answer.header().expect("answers have one").revision(), Instant::now())
        });
        Put { begun, answer }
    }

    /// Gives one backend of a service another port, so that the service's list has other
    /// content of the same length.
    pub(crate) fn change(&mut self, service: &str) -> Put {
        self.change_after(service, Duration::ZERO)
    }

    /// Does what [`Self::change`] does, after a delay.
    pub(crate) fn change_after(&mut self, service: &str, after: Duration) -> Put {
        let version = self.versions.entry(service.to_owned()).or_default();
        *version += 1;
        let port = PORT + *version % 2;
        self.put(key(service, 0), value(0, port), after)
    }

    /// Adds a backend, after a delay.
    pub(crate) fn add(&mut self, service: &str, index: usize, after: Duration) -> Put {
        self.filled = Default::default();
        self.put(key(service, index), value(index, PORT), after)
    }

    /// Changes a backend of each of these services, in one transaction after another, at a
    /// fixed rate. The task returns the number of changes.
    pub(crate) fn churn(
        &mut self,
        services: Vec<String>,
        per_second: u32,
        time: Duration,
    ) -> JoinHandle<u32> {
        self.filled = Default::default();
        let kv = self.client.kv_client();
        self.runtime.spawn(async move {
            let until = Instant::now() + time;
            let pause = Duration::from_secs(AT_ONCE as u64) / per_second;
            let mut tick = tokio::time::interval(pause);
            let (mut done, mut port) = (0, PORT);
            loop {
                port = if port == PORT { PORT + 1 } else { PORT };
                for some in services.chunks(AT_ONCE) {
                    tick.tick().await;
                    if Instant::now() > until {
                        return done;
                    }
                    let some: Vec<_> =
                        some.iter().map(|service| (key(service, 0), value(0, port))).collect();
                    kv.clone().txn(puts(&some)).await.expect("etcd serves");
                    done += some.len() as u32;
                }
            }
        })
    }

    pub(crate) fn wait<T>(&self, task: JoinHandle<T>) -> T {
        self.runtime.block_on(task).expect("it does not panic")
    }

    /// Waits for a put. Returns its revision, and when etcd acknowledged it.
    pub(crate) fn acknowledged(&self, put: Put) -> Acknowledged {
        let (revision, at) = self.wait(put.answer);
        Acknowledged { revision, at }
    }

    /// Returns when etcd's watch delivered a revision.
    pub(crate) fn delivered(&mut self, revision: i64) -> Instant {
        let Self { runtime, delivered, moments, .. } = self;
        while !moments.contains_key(&revision) {
            let next = async { tokio::time::timeout(WAIT_MAX, delivered.recv()).await };
            let (revision, at) = runtime.block_on(next).ok().flatten().expect("etcd delivers");
            moments.insert(revision, at);
        }
        moments[&revision]
    }

    fn put(&self, key: String, value: String, after: Duration) -> Put {
        let mut kv = self.client.kv_client();
        let begun = Instant::now() + after;
        let answer = self.runtime.spawn(async move {
            tokio::time::sleep_until(begun.into()).await;
            let answer = kv.put(key, value, None).await.expect("etcd serves");
            (answer.header().expect("answers have one").revision(), Instant::now())
        });
        Put { begun, answer }
    }
}

fn key(service: &str, index: usize) -> String {
    format!("{PREFIX}{service}/{index:05}")
}

fn value(index: usize, port: u16) -> String {
    let [a, b, c, d] = wire::address(index);
    format!("{a}.{b}.{c}.{d}:{port}")
}

fn value_in_zone(index: usize, port: u16, zone: &str) -> String {
    format!(r#"{{"Op":0,"Addr":"{}","Metadata":{{"zone":"{zone}"}}}}"#, value(index, port))
}

fn puts(some: &[(String, String)]) -> Txn {
    let put = |(key, value): &(String, String)| TxnOp::put(key.as_str(), value.as_str(), None);
    Txn::new().and_then(some.iter().map(put).collect::<Vec<_>>())
}
