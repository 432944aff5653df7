//! Keeps DNS servers up to date that have a copy of the zone (secondaries).
//!
//! In: the catalog and the balancers. Out: a new version of the zone for each change of its
//! records, at most one in a second, and a notice of it to each secondary.
//! It waits for no secondary, and sends nobody a zone that was never read.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Answers;
use super::answer::transfer::{self, Content, SERIAL_NONE, ZoneCopy};
use super::named_services::NamedServices;
use super::zone;
use crate::telemetry::Counters;
use crate::{clock, seed};

/// The secondaries, and what they get.
pub(super) struct Secondaries {
    /// Where each takes notices. It may have the zone from the same IP address.
    addresses: Vec<SocketAddr>,
    /// The newest version of the zone; `None` until the registry was read.
    copy_tx: watch::Sender<Option<Arc<ZoneCopy>>>,
}

/// How often the zone is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often in a row no balancer can be named before the log says so. At the start, the own
/// address comes a moment later than the registry.
const NAMELESS_MAX: u32 = 10;
/// How long a secondary may take to acknowledge a notice, and how often it is sent. Then the
/// secondary finds out by itself when it next asks.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(2);
const NOTICES_MAX: u32 = 5;
/// The longest answer to a notice, in bytes.
const ANSWER_MAX: usize = 512;

impl Secondaries {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, copy_tx: watch::Sender::new(None) }
    }

    /// Returns the zone, if this asker may have it.
    pub(super) fn copy_for(&self, asker: IpAddr) -> Option<Arc<ZoneCopy>> {
        let asker = asker.to_canonical();
        let known = self.addresses.iter().any(|known| known.ip() == asker);
        known.then(|| self.copy_tx.borrow().clone()).flatten()
    }

    /// Returns the zone's serial number.
    pub(super) fn serial(&self) -> u32 {
        self.copy_tx.borrow().as_ref().map_or(SERIAL_NONE, |copy| copy.serial)
    }
}

/// Keeps all secondaries up to date. Never returns.
pub(super) async fn keep(answers: &Answers, local: IpAddr) -> Infallible {
    let secondaries = &answers.secondaries;
    if secondaries.addresses.is_empty() {
        return std::future::pending().await;
    }
    let notices = secondaries.addresses.iter().map(|secondary| {
        let copy_rx = secondaries.copy_tx.subscribe();
        notify(answers, *secondary, local, copy_rx)
    });
    let (never, _) = tokio::join!(renew(answers, local), join_all(notices));
    never
}

/// Makes a new version of the zone for each change. `local` is the address of the DNS server.
async fn renew(answers: &Answers, local: IpAddr) -> Infallible {
    let changes = answers.catalog.watch_changes();
    let mut services = NamedServices::default();
    let (mut looked_at, mut nameless) = (None, 0);
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if answers.catalog.status().revision == 0 {
            continue;
        }
        let Some(mut balancers) = answers.balancers_in_copies(local) else {
            nameless += 1;
            if nameless == NAMELESS_MAX {
                tracing::warn!(
                    "secondaries get no new copy of the zone, because this balancer knows no \
                     address at which clients reach it: give --advertise HOST:PORT"
                );
            }
            continue;
        };
        nameless = 0;
        balancers.sort_unstable_by_key(ToString::to_string);
        let now = (*changes.borrow(), balancers.clone());
        if looked_at.as_ref() == Some(&now) {
            continue;
        }
        let targets = zone::srv_targets(&balancers, &answers.zone);
        let content =
            Content { targets, services: services.look(&answers.catalog, &answers.zone).await };
        looked_at = Some(now);
        answers.secondaries.copy_tx.send_if_modified(|copy| {
            let same = copy.as_ref().is_some_and(|copy| copy.content == content);
            !same && {
                // Replicas make their versions at about the same moments, so the number of
                // one is no news to a secondary that has that of another.
                let wall = u32::try_from(clock::wall().as_secs()).unwrap_or(u32::MAX);
                let before = copy.as_ref().map_or(SERIAL_NONE, |copy| copy.serial);
                let serial = wall.max(before.wrapping_add(1));
                *copy = Some(Arc::new(ZoneCopy { serial, content }));
                true
            }
        });
    }
}

/// Tells one secondary of each new version. Never returns.
async fn notify(
    answers: &Answers,
    secondary: SocketAddr,
    local: IpAddr,
    mut copy_rx: watch::Receiver<Option<Arc<ZoneCopy>>>,
) {
    let mut silent = false;
    loop {
        // The sender lives as long as the answers.
        if copy_rx.changed().await.is_err() {
            return std::future::pending().await;
        }
        let copy = copy_rx.borrow_and_update().clone();
        let Some(copy) = copy else { continue };
        let mut acknowledged = false;
        for _ in 0..NOTICES_MAX {
            acknowledged = send(answers, secondary, local, &copy).await;
            // A newer version has a notice of its own.
            if acknowledged || copy_rx.has_changed().unwrap_or(true) {
                break;
            }
        }
        note(&answers.counters, secondary, acknowledged, &mut silent);
    }
}

fn note(counters: &Counters, secondary: SocketAddr, acknowledged: bool, silent: &mut bool) {
    if !acknowledged {
        counters.dns_notices_failed.increment();
    }
    match (acknowledged, *silent) {
        (false, false) => tracing::warn!(
            %secondary,
            "a secondary does not acknowledge that the zone has changed: it must take NOTIFY from \
             this balancer"
        ),
        (true, true) => tracing::info!(%secondary, "a secondary acknowledges changes again"),
        _ => {}
    }
    *silent = !acknowledged;
}

/// Sends one notice. Returns whether the secondary acknowledges it.
async fn send(answers: &Answers, secondary: SocketAddr, local: IpAddr, copy: &ZoneCopy) -> bool {
    let id = seed::random() as u16;
    let Some(notice) = transfer::notice(id, copy, &answers.zone) else { return false };
    let answered = async {
        // From the address of the DNS server, by which the secondary knows it.
        let local = match (local.is_unspecified(), secondary) {
            (false, _) => local,
            (true, SocketAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
            (true, SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((local, 0)).await?;
        socket.connect(secondary).await?;
        socket.send(&notice).await?;
        let mut answer = [0; ANSWER_MAX];
        let length = socket.recv(&mut answer).await?;
        Ok::<_, std::io::Error>(transfer::acknowledges(&answer[..length], id))
    };
    match timeout(ACKNOWLEDGED_WITHIN, answered).await {
        Ok(Ok(acknowledged)) => acknowledged,
        // Nobody listens there: a next notice at once would be in vain too.
        Ok(Err(_)) => {
            tokio::time::sleep(ACKNOWLEDGED_WITHIN).await;
            false
        }
        Err(_) => false,
    }
}
