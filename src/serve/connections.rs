//! Tracks the open connections, limits their number, and tells them to leave.
//!
//! In: connections that open and close, the order to drain, and how many streams are to go
//! to other balancers. Out: the request to leave, sent to one connection after the other.
//! Nothing here waits, except [`Connections::close_all`].

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lookaside_http2::GracefulClose;
use smallvec::SmallVec;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::model::Network;
use crate::telemetry::Counters;

use super::limits;
use super::peers::Peer;
use asked::Asked;
use certificates::Certificates;
use ends::Ends;

mod asked;
mod certificates;
mod ends;

/// All open connections.
pub(super) struct Connections {
    max: usize,
    /// How many connections one network may have; 0 means no limit of its own.
    per_peer: usize,
    counters: Arc<Counters>,
    inner: Mutex<Inner>,
}

struct Inner {
    origin: Instant,
    /// The open connections by id, so the oldest is first.
    open: BTreeMap<u64, Open>,
    ends: Ends,
    certificates: Certificates,
    next: u64,
    /// The id at which the search for a connection without a stream continues.
    at: u64,
    peers: HashMap<Network, NetworkState>,
    /// The number of networks at which idle ones are forgotten.
    cleanup_at: usize,
    /// The network with the most connections, and until when this is assumed.
    largest: Option<(Network, Instant)>,
    /// The connections that were asked to go to other balancers.
    asked: Asked,
}

/// An open connection. There are many, so it is kept small.
struct Open {
    close: Arc<GracefulClose>,
    peer: Arc<Peer>,
    /// When it was admitted, in seconds since the origin, rounded up.
    since: u32,
    /// How often its client has been asked to go to another balancer, and came back.
    returns: u8,
}

/// The state and the open connections of one network.
struct NetworkState {
    peer: Arc<Peer>,
    open: SmallVec<[u64; 1]>,
}

/// One admitted connection, from its acceptance to the end of its task. Each task holds one,
/// so what is rarely needed is looked up.
pub(super) struct Admitted {
    all: Arc<Connections>,
    id: u64,
    pub(super) close: Arc<GracefulClose>,
}

/// The interval at which some connections are told to leave during a drain.
const TICK: Duration = Duration::from_millis(10);
/// How many connections may still be leaving after newer ones were admitted in their stead:
/// at most 1/16 of all, and at most 64. They use reserved descriptors.
const LEAVING_SHARE: usize = 16;
const LEAVING_MAX: usize = 64;
/// How many connections one search for one without a stream looks at.
const SEARCHED_MAX: usize = 256;
/// How long a network counts as the one with the most connections.
const LARGEST_FOR: Duration = Duration::from_millis(100);
/// The least number of networks at which idle ones are searched for and forgotten.
const CLEANUP_AT: usize = 1_024;

impl Connections {
    pub(super) fn new(max: u64, per_peer: u64, counters: Arc<Counters>) -> Arc<Self> {
        let bound = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let (max, per_peer) = (bound(max), bound(per_peer));
        Arc::new(Self { max, per_peer, counters, inner: Mutex::new(Inner::new(Instant::now())) })
    }

    /// Admits one more connection if there is room, or if another one can be told to
    /// leave. Returns `None` when the connection must be refused.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Admitted> {
        let network = Network::from(ip);
        let mut inner = self.lock();
        let own = inner.peers.get(&network).map_or(0, |state| state.open.len());
        if self.per_peer > 0 && own >= self.per_peer {
            return None;
        }
        if inner.open.len() >= self.max {
            if inner.open.len() >= self.max.saturating_add(self.leaving_max()) {
                return None;
            }
            let leaves = inner.oldest_idle().or_else(|| inner.newest_of_largest(own))?;
            leaves.request();
            self.counters.connections_replaced.increment();
        }
        self.counters.connections_open.increment();
        let close = Arc::new(GracefulClose::default());
        let id = inner.next;
        inner.next += 1;
        let now = Instant::now();
        let returns = inner.asked.came(network, id, now);
        let since = now.duration_since(inner.origin).as_millis().div_ceil(1_000);
        let since = u32::try_from(since).unwrap_or(u32::MAX);
        let peer = inner.add(network, id);
        inner.open.insert(id, Open { close: close.clone(), peer, since, returns });
        Some(Admitted { all: self.clone(), id, close })
    }

    /// Tells all connections to leave, spread over some time, because other balancers must
    /// accept them.
    pub(super) async fn close_all(&self) {
        let all: Vec<_> = self.lock().open.values().map(|open| open.close.clone()).collect();
        let ticks = limits::drain_time(all.len()).as_millis() / TICK.as_millis() + 1;
        let at_once = all.len().div_ceil(usize::try_from(ticks).unwrap_or(1)).max(1);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for some in all.chunks(at_once) {
            tick.tick().await;
            some.iter().for_each(|close| close.request());
        }
    }

    /// Tells connections to leave whose time is over.
    pub(super) fn end_old(&self, now: Instant) {
        let mut inner = self.lock();
        while let Some(id) = inner.ends.pop(now) {
            if let Some(open) = inner.open.get(&id) {
                open.close.request();
                self.counters.connections_ended.increment();
            }
        }
    }

    fn leaving_max(&self) -> usize {
        (self.max / LEAVING_SHARE).clamp(1, LEAVING_MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn new(origin: Instant) -> Self {
        Self {
            origin,
            open: BTreeMap::new(),
            ends: Ends::default(),
            certificates: Certificates::default(),
            next: 0,
            at: 0,
            peers: HashMap::new(),
            cleanup_at: 0,
            largest: None,
            asked: Asked::default(),
        }
    }

    /// Returns the oldest connection without a stream, if one is found among the next
    /// [`SEARCHED_MAX`]. The search goes round, so a new client opens its stream long
    /// before its turn.
    fn oldest_idle(&mut self) -> Option<Arc<GracefulClose>> {
        let from = self.at;
        let all = self.open.range(from..).chain(self.open.range(..from));
        for (id, Open { close, .. }) in all.take(SEARCHED_MAX) {
            self.at = id + 1;
            if close.is_idle() && !close.is_requested() {
                return Some(close.clone());
            }
        }
        None
    }

    /// Returns the newest connection of the network with the most, if that network
    /// still has at least as many as the newcomer's network afterwards. `own` is how
    /// many the newcomer's network has now.
    fn newest_of_largest(&mut self, own: usize) -> Option<Arc<GracefulClose>> {
        let now = Instant::now();
        let known = self.largest.filter(|(_, until)| now < *until).map(|(network, _)| network);
        let largest = known.or_else(|| {
            let largest = self.peers.iter().max_by_key(|(_, state)| state.open.len());
            largest.map(|(network, _)| *network)
        })?;
        if known.is_none() {
            self.largest = Some((largest, now + LARGEST_FOR));
        }
        let state = self.peers.get(&largest)?;
        if state.open.len() <= own + 1 {
            return None;
        }
        let leaves = state.open.iter().rev().filter_map(|id| self.open.get(id));
        let mut leaves = leaves.take(LEAVING_MAX + 1).map(|open| &open.close);
        leaves.find(|close| !close.is_requested()).cloned()
    }

    fn add(&mut self, network: Network, id: u64) -> Arc<Peer> {
        if self.peers.len() >= self.cleanup_at.max(CLEANUP_AT) {
            self.peers.retain(|_, state| !state.open.is_empty() || !state.peer.is_fresh());
            self.cleanup_at = self.peers.len() * 2;
        }
        let new = || NetworkState { peer: Peer::new(network), open: SmallVec::new() };
        let state = self.peers.entry(network).or_insert_with(new);
        state.open.push(id);
        state.peer.clone()
    }

    fn remove(&mut self, id: u64) {
        self.ends.forget(id);
        self.certificates.forget(id);
        let Some(Open { peer, .. }) = self.open.remove(&id) else { return };
        let network = peer.network;
        let Some(state) = self.peers.get_mut(&network) else { return };
        state.open.retain(|open| *open != id);
        // The table and this function hold the peer. So may a connection that ends, whose
        // handshake is counted only then.
        let is_held = Arc::strong_count(&state.peer) > 2;
        if state.open.is_empty() && state.peer.is_fresh() && !is_held {
            self.peers.remove(&network);
        }
    }
}

impl Admitted {
    /// Limits the time until the connection is told to leave. The shortest one counts.
    pub(super) fn end_within(&self, time: Duration) {
        if let Some(at) = Instant::now().checked_add(time) {
            self.all.lock().ends.limit(self.id, at);
        }
    }

    /// Returns what the connections of the client's network share.
    pub(super) fn peer(&self) -> Arc<Peer> {
        self.all.lock().open[&self.id].peer.clone()
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.all.lock().remove(self.id);
        self.all.counters.connections_open.decrement();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    /// The positions of the connections that were told to leave.
    fn requested(all: &[Admitted]) -> Vec<usize> {
        let requested = |(at, one): (usize, &Admitted)| one.close.is_requested().then_some(at);
        all.iter().enumerate().filter_map(requested).collect()
    }

    fn full(peers: &[u8], with_streams: bool) -> (Arc<Connections>, Vec<Admitted>) {
        let connections = Connections::new(peers.len() as u64, 0, Arc::default());
        let open: Vec<_> = peers.iter().map(|n| connections.admit(ip(*n)).unwrap()).collect();
        open.iter().for_each(|one| one.close.set_streams(with_streams.into()));
        (connections, open)
    }

    #[tokio::test]
    async fn what_is_counted_after_the_only_connection_ended_counts() {
        let connections = Connections::new(10, 0, Arc::default());
        let only = connections.admit(ip(1)).unwrap();
        let peer = only.peer();
        drop(only);
        peer.handshakes().failed();
        assert!(Arc::ptr_eq(&peer, &connections.admit(ip(1)).unwrap().peer()));
    }

    #[tokio::test]
    async fn those_without_a_stream_go_first_and_the_oldest_before_all() {
        let (connections, open) = full(&[1; 48], false);
        open[0].close.set_streams(1);
        let newcomers: Vec<_> = (0..3).map(|_| connections.admit(ip(1)).unwrap()).collect();
        assert_eq!(requested(&open), [1, 2, 3]);
        assert!(requested(&newcomers).is_empty());
        assert_eq!(connections.counters.connections_replaced.total(), 3);
    }

    #[tokio::test]
    async fn where_all_have_streams_the_network_with_the_most_makes_room() {
        let (connections, open) = full(&[1, 1, 1, 1, 2], true);
        let newcomer = connections.admit(ip(3)).unwrap();
        newcomer.close.set_streams(1);
        assert_eq!(requested(&open), [3]);
        // A network does not make room for its own connections, and few may leave at a
        // time.
        assert!(connections.admit(ip(1)).is_none() && connections.admit(ip(4)).is_none());
        drop((open, newcomer));
        assert!(connections.lock().peers.is_empty());
        assert_eq!(connections.counters.connections_open.now(), 0);
    }

    #[tokio::test]
    async fn equals_do_not_take_each_others_place() {
        let (connections, open) = full(&[1, 1, 2, 2], true);
        assert!(connections.admit(ip(1)).is_none());
        // 2 and 0 differ by more than 1 and 1.
        assert!(connections.admit(ip(3)).is_some());
        assert_eq!(requested(&open).len(), 1);
    }

    #[tokio::test]
    async fn only_so_many_are_on_their_way_out_at_a_time() {
        let (connections, _open) = full(&[1; 160], false);
        let newcomers: Vec<_> = (0..100).filter_map(|_| connections.admit(ip(2))).collect();
        assert_eq!(newcomers.len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_told_to_leave_when_its_time_is_over() {
        let connections = Connections::new(10, 0, Arc::default());
        let mut open: Vec<_> = (0..3).map(|_| connections.admit(ip(1)).unwrap()).collect();
        let seconds = |n| Duration::from_secs(n);
        open[0].end_within(seconds(60));
        open[1].end_within(seconds(60));
        // The earlier end counts.
        open[0].end_within(seconds(10));
        open[0].end_within(seconds(90));
        let now = Instant::now();
        connections.end_old(now + seconds(9));
        assert!(requested(&open).is_empty());
        connections.end_old(now + seconds(10));
        assert_eq!(requested(&open), [0]);
        open.remove(1);
        assert!(connections.lock().ends.is_empty());
        connections.end_old(now + seconds(100));
        assert_eq!(connections.counters.connections_ended.total(), 1);
        open[1].end_within(Duration::MAX);
        assert!(connections.lock().ends.is_empty(), "no time is as long as the longest");
    }

    #[tokio::test]
    async fn a_share_bounds_each_network_alone() {
        let connections = Connections::new(100, 2, Arc::default());
        let open: Vec<_> = (0..4).filter_map(|_| connections.admit(ip(1))).collect();
        assert_eq!(open.len(), 2);
        assert!(connections.admit(ip(2)).is_some());
        drop(open);
        assert!(connections.admit(ip(1)).is_some());
    }
}
