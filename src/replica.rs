//! The balancers of one DNS zone: announces this one, and lists the others.
//!
//! In: how to reach etcd, the address of this balancer, and its state. Out: all balancers,
//! including this one, with what each says of itself. An outage of etcd removes none. A
//! balancer that may not write its keys runs on without being announced.

use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use crate::catalog::RegistryStatus;
use crate::model::{Host, HostPort, Zone, text};
use crate::register::{self, Held, KeyValue, Status};
use crate::registry::Key;
use crate::registry::etcd::{self, Connect, FollowOptions, Range, backoff};
use crate::telemetry::CountStreams;
use crate::{clock, seed};

pub mod hosts;
pub mod known;
pub mod order;
pub mod record;
pub mod route;
pub mod spread;

use hosts::BalancerHosts;
use known::{Announced, Decoded, Known, Moment, Own, Replicas};
use record::{Record, State};

/// The balancer to announce.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to reach etcd; `None`: this balancer is not announced and lists no others.
    pub connect: Option<Connect>,
    /// The DNS zone. Balancers of one zone answer for each other.
    pub zone: Zone,
    /// The address that the operator set, at which clients reach this balancer.
    pub advertise: Option<HostPort>,
    /// The hosts that count in other balancers' announcements.
    pub hosts: BalancerHosts,
    /// The address at which it listens; it decides if no address is set.
    pub listen: SocketAddr,
    /// The zone in which it runs, if the operator named one.
    pub own_zone: Option<String>,
    /// The version of this program.
    pub version: &'static str,
}

/// The state of this balancer, as its parts know it.
#[derive(Clone)]
pub struct Vitals {
    /// Whether it takes clients.
    pub ready: watch::Receiver<bool>,
    /// How far it has read the registry.
    pub registry: watch::Receiver<RegistryStatus>,
    /// Returns its open streams.
    pub streams: CountStreams,
}

/// The address to announce.
struct Address {
    address: HostPort,
    /// Whether only programs on this host reach it.
    host_only: bool,
}

/// The keys of this balancer in etcd.
struct Holding {
    held: Held,
    status_rx: watch::Receiver<Status>,
}

/// The length of the queue of events: balancers start and stop one at a time.
const QUEUE: usize = 16;
/// How often the number of streams is read.
const TICK: Duration = Duration::from_secs(1);
/// How many ticks pass between two writes of a record in which only numbers changed.
/// Others use them to spread new clients, which they do well with old numbers too.
const TICKS_PER_WRITE: u32 = 5;
/// Why a balancer is not announced until etcd has answered.
const UNANSWERED: &str = "etcd has not answered yet";
/// How many failures lengthen the pause before the address is looked for again.
const FAILURES_MAX: u32 = 6;

/// Announces this balancer and follows the others until `stop` is ready. Then removes its
/// record: from `replicas_tx` at once, from etcd within some seconds. Returns when both are
/// done; the last value sent stays. Sends only changes.
pub async fn run(
    options: Options,
    vitals: Vitals,
    replicas_tx: watch::Sender<Arc<Replicas>>,
    stop: impl Future<Output = ()>,
) {
    let (events_tx, mut events_rx) = mpsc::channel(QUEUE);
    let source = follow(options.clone(), events_tx);
    let mut this = This::new(options, vitals, replicas_tx);
    this.publish(None);
    let (mut source, mut stop) = (pin!(source), pin!(stop));
    let (obstacle_tx, mut obstacle_rx) = watch::channel(String::new());
    let mut looking: Pin<Box<dyn Future<Output = Address> + Send>> =
        Box::pin(look_for_address(this.options.clone(), obstacle_tx));
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut held: Option<Holding> = None;
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            found = &mut looking, if held.is_none() => {
                held = this.announce(found).await;
                looking = Box::pin(std::future::pending());
            }
            Ok(()) = obstacle_rx.changed() => {
                this.announced = Announced::Failing(obstacle_rx.borrow_and_update().clone());
            }
            () = &mut source => {}
            Some(event) = events_rx.recv() => {
                let streams = (this.vitals.streams)() as u64;
                this.known.apply(event, Moment { at: clock::now(), streams });
            }
            Ok(()) = this.vitals.ready.changed() => {}
            Ok(()) = this.vitals.registry.changed() => {}
            () = next_status(&mut held) => {}
            _ = tick.tick() => this.ticks = this.ticks.saturating_add(1),
        }
        this.publish(held.as_ref());
    }
    this.stopping = true;
    this.publish(held.as_ref());
    // A failed removal was logged, and the keys end with their lease.
    if let Some(Holding { held, .. }) = held {
        let _ = held.withdraw().await;
    }
}

/// Returns what a balancer knows before it has asked anybody: itself.
#[must_use]
pub fn alone(options: &Options) -> Arc<Replicas> {
    let (own, announced) = (own(options), unannounced(options));
    Arc::new(Known::default().replicas(&own, options.version, announced, clock::now()))
}

/// Returns this balancer as it starts.
fn own(options: &Options) -> Own {
    Own {
        address: options.advertise.clone(),
        host_only: false,
        key: None,
        state: State::Starting,
        zone: options.own_zone.clone(),
        streams: 0,
        revision: 0,
    }
}

fn unannounced(options: &Options) -> Announced {
    match &options.connect {
        None => Announced::Off("it shares no etcd with others, or --announce is off"),
        Some(_) => Announced::Failing(UNANSWERED.to_owned()),
    }
}

/// This balancer, and the others as it knows them.
struct This {
    options: Options,
    vitals: Vitals,
    replicas_tx: watch::Sender<Arc<Replicas>>,
    known: Known,
    own: Own,
    announced: Announced,
    started: u64,
    stopping: bool,
    /// Whether it was ready once.
    was_ready: bool,
    /// The ticks since its record was last written.
    ticks: u32,
    /// The keys that etcd is to hold; `None` before the address is known.
    wanted_tx: Option<watch::Sender<Arc<[KeyValue]>>>,
    /// The record as it was last written.
    written: Option<Record>,
}

impl This {
    fn new(options: Options, vitals: Vitals, replicas_tx: watch::Sender<Arc<Replicas>>) -> Self {
        let (own, announced) = (own(&options), unannounced(&options));
        Self {
            options,
            vitals,
            replicas_tx,
            known: Known::default(),
            own,
            announced,
            started: u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX),
            stopping: false,
            was_ready: false,
            ticks: 0,
            wanted_tx: None,
            written: None,
        }
    }

    /// Starts to hold the keys of this balancer.
    async fn announce(&mut self, found: Address) -> Option<Holding> {
        let connect = self.options.connect.clone()?;
        let Address { address, host_only } = found;
        let zone = &self.options.zone;
        let key = record::record_key(zone, &address, seed::random());
        self.own.key = Some(Key::new(key.as_bytes()));
        (self.own.address, self.own.host_only) = (Some(address.clone()), host_only);
        self.announced = Announced::Failing(UNANSWERED.to_owned());
        let mut keys = vec![KeyValue { key, value: None }];
        if host_only {
            info!(%address, "this balancer is announced to this host only: --advertise names \
                             an address that other hosts reach");
        } else {
            // Withdrawn first: it has no state that could say that its balancer stops.
            let key = record::address_key(zone, &address);
            keys.insert(0, KeyValue { key, value: None });
        }
        let (wanted_tx, wanted_rx) = watch::channel(Arc::from(keys));
        self.wanted_tx = Some(wanted_tx);
        self.write();
        let held = register::hold_keys(connect, register::TTL_DEFAULT, wanted_rx).await;
        let held =
            held.inspect_err(|error| warn!(%error, "this balancer is not announced")).ok()?;
        let status_rx = held.status();
        Some(Holding { held, status_rx })
    }

    /// Reads the state of this balancer, and publishes and writes what changed.
    fn publish(&mut self, holding: Option<&Holding>) {
        match holding.map(|holding| holding.status_rx.borrow().clone()) {
            Some(Status::Registered) => self.announced = Announced::Yes,
            Some(Status::Trying { reason }) if !reason.is_empty() => {
                self.announced = Announced::Failing(reason);
            }
            _ => {}
        }
        let ready = *self.vitals.ready.borrow_and_update();
        self.was_ready |= ready;
        {
            let registry = self.vitals.registry.borrow_and_update();
            self.own.revision = registry.revision;
            self.own.state = match (self.stopping, ready, &registry.stale) {
                (true, ..) => State::Draining,
                (false, false, _) => State::Starting,
                (false, true, Some(_)) => State::Stale,
                (false, true, None) => State::Ready,
            };
        }
        self.own.streams = (self.vitals.streams)() as u64;
        let (version, announced) = (self.options.version, self.announced.clone());
        let replicas = self.known.replicas(&self.own, version, announced, clock::now());
        self.replicas_tx.send_if_modified(|now| {
            **now != replicas && {
                let new = |one: &&(Key, String)| !now.rejected.contains(one);
                for (key, reason) in replicas.rejected.iter().filter(new) {
                    let key = text::shown(&key.to_string());
                    warn!(
                        key,
                        reason = text::shown(reason),
                        "no balancer is announced by this key"
                    );
                }
                *now = Arc::new(replicas);
                true
            }
        });
        self.write();
    }

    /// Gives the record to its holder: at once if the state changed, else now and then.
    fn write(&mut self) {
        let (Some(wanted_tx), Some(address)) = (&self.wanted_tx, &self.own.address) else { return };
        let record = Record {
            address: address.clone(),
            host_only: self.own.host_only,
            state: self.own.state,
            zone: self.own.zone.clone(),
            version: self.options.version.to_owned(),
            streams: self.own.streams,
            revision: self.own.revision,
            started: self.started,
        };
        if let Some(written) = &self.written {
            // A write moves etcd's revision, so another revision alone is no reason to write.
            let moved = written.streams != record.streams && self.ticks >= TICKS_PER_WRITE;
            if written.state == record.state && !moved {
                return;
            }
        }
        let (was_ready, value) = (self.was_ready, record.value());
        wanted_tx.send_modify(|keys| {
            let mut all = keys.to_vec();
            if let Some((record, addresses)) = all.split_last_mut() {
                record.value = Some(value);
                for one in addresses {
                    one.value = was_ready.then(|| address.to_string());
                }
            }
            *keys = all.into();
        });
        (self.written, self.ticks) = (Some(record), 0);
    }
}

/// Follows the balancers' keys; without etcd, does nothing for ever.
async fn follow(options: Options, events: mpsc::Sender<crate::registry::Event<Decoded>>) {
    let Options { connect, zone, hosts, .. } = options;
    if let Some(connect) = connect {
        let prefix = record::prefix(&zone);
        let ranges = vec![Range::below(&prefix)];
        let decode: etcd::Decode<Decoded> = Arc::new(move |stored| {
            let below = stored.key.get(prefix.len()..).unwrap_or_default();
            record::decode(below, stored.value, stored.lease != 0, &hosts)
        });
        let what = "balancers";
        etcd::follow(FollowOptions { connect, what, ranges, decode }, events).await;
    }
    std::future::pending().await
}

/// Returns the address to announce, once it is known; never without etcd. Until then, sends
/// why it is not known.
async fn look_for_address(options: Options, obstacle_tx: watch::Sender<String>) -> Address {
    let Options { connect: Some(connect), advertise, listen, .. } = options else {
        return std::future::pending().await;
    };
    if let Some(address) = advertise {
        return Address { address, host_only: false };
    }
    let mut failures = 0;
    loop {
        let ip: Result<IpAddr, String> = match listen.ip() {
            ip if ip.is_unspecified() => route::source_address(&connect, ip.is_ipv4()).await,
            ip => Ok(ip.to_canonical()),
        };
        let found = ip.and_then(|ip| {
            let address = HostPort::new(Host::Ip(ip), listen.port());
            let address = address.map_err(|error| error.to_string())?;
            Ok(Address { address, host_only: ip.is_loopback() })
        });
        match found {
            Ok(address) => return address,
            Err(reason) => {
                if failures == 0 {
                    warn!(
                        reason,
                        "no address is known that other hosts reach, so this balancer \
                                   is not announced yet: --advertise names one"
                    );
                }
                obstacle_tx.send_replace(format!(
                    "no address is known that other hosts reach: {reason}; --advertise names one"
                ));
                failures += 1;
                sleep(backoff(failures.min(FAILURES_MAX), seed::random())).await;
            }
        }
    }
}

/// Returns when the status of the keys changes; never without keys.
async fn next_status(holding: &mut Option<Holding>) {
    let Some(Holding { status_rx, .. }) = holding else { return std::future::pending().await };
    // The sender is dropped only when the keys are removed.
    if status_rx.changed().await.is_err() {
        std::future::pending().await
    }
}
