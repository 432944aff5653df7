//! Asks connections to go to other balancers, and remembers which clients came back.
//!
//! In: how many streams are to go, connections that open, and the time. Out: the request to
//! leave.
//! A client that is asked connects to the first address that DNS gave it last, and only then
//! asks DNS again. So the next connection from its network counts as its return, and is
//! asked again once its client has the new answer.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::{Connections, Inner, Open};
use crate::model::Network;
use crate::replica::spread::{self, PerSecond, Returned};

/// The clients that were asked.
#[derive(Default)]
pub(super) struct Asked {
    /// The clients of each network that were asked and may come back: until when, and how
    /// often they will have come back then.
    left: HashMap<Network, VecDeque<(Instant, u8)>>,
    /// The connections that came back, and when they are asked again.
    returned: VecDeque<(Instant, u64)>,
    /// The id at which the search for connections to ask continues.
    at: u64,
}

/// How long a client may take to come back. It does so at once, unless it is busy.
const RETURN_WITHIN: Duration = Duration::from_secs(5);
/// How long after it came or came back a client is asked. Clients ask DNS at most every 30 s,
/// so after that time each has an answer that is newer than its connection.
const ASK_AFTER: Duration = Duration::from_secs(35);
/// How often a client that comes back is asked again. Some always choose the same balancer,
/// because their system sorts the addresses of an answer.
const RETURNS_MAX: u8 = 5;
/// The most connections at which one call looks, because it holds the lock meanwhile. The next
/// call goes on where it ends.
const LOOKS_MAX: usize = 2_000;

impl Asked {
    /// Records that a connection came. Returns how often its client has come back.
    pub(super) fn came(&mut self, network: Network, id: u64, now: Instant) -> u8 {
        let Some(left) = self.left.get_mut(&network) else { return 0 };
        while left.front().is_some_and(|(until, _)| *until <= now) {
            left.pop_front();
        }
        let returns = left.pop_front().map_or(0, |(_, returns)| returns);
        if left.is_empty() {
            self.left.remove(&network);
        }
        if (1..RETURNS_MAX).contains(&returns) {
            self.returned.push_back((now + ASK_AFTER, id));
        }
        returns
    }
}

impl Connections {
    /// Asks connections to leave, of which in the end `leaving` of `own` streams are to go to
    /// other balancers, at most so many as may in `interval`. Returns how many connections it
    /// asked.
    pub(in crate::serve) fn spread(
        &self,
        leaving: u64,
        own: u64,
        per: PerSecond,
        interval: Duration,
    ) -> usize {
        self.lock().spread(leaving, own, per, interval, Instant::now())
    }
}

impl Inner {
    fn spread(
        &mut self,
        leaving: u64,
        own: u64,
        per: PerSecond,
        interval: Duration,
        now: Instant,
    ) -> usize {
        self.asked.left.retain(|_, left| left.back().is_some_and(|(until, _)| now < *until));
        if leaving == 0 {
            self.asked.returned.clear();
            return 0;
        }
        let open = &self.open;
        self.asked.returned.retain(|(_, id)| open.contains_key(id));
        let (mut asked, mut rest) = (0, leaving);
        let asks = spread::asks(leaving, own, self.returned(now), per, interval);
        let mut budget = asks.again;
        while budget > 0
            && let Some((due, id)) = self.asked.returned.front().copied()
            && due <= now
        {
            self.asked.returned.pop_front();
            if let Some(streams) = self.ask(id, rest, now) {
                budget = budget.saturating_sub(streams);
                rest -= streams;
                asked += 1;
            }
        }
        let mut budget = asks.first;
        for _ in 0..LOOKS_MAX.min(self.open.len()) {
            let next = self.open.range(self.asked.at..).next();
            let Some((&id, open)) = next.or_else(|| self.open.first_key_value()) else { break };
            if budget == 0 {
                break;
            }
            self.asked.at = id + 1;
            let since = self.origin + Duration::from_secs(open.since.into());
            let settled = now >= since + ASK_AFTER && open.returns == 0;
            if settled && let Some(streams) = self.ask(id, rest, now) {
                budget = budget.saturating_sub(streams);
                rest -= streams;
                asked += 1;
            }
        }
        asked
    }

    /// Returns how many streams the connections have that came back.
    fn returned(&self, now: Instant) -> Returned {
        let mut returned = Returned::default();
        for (due, id) in &self.asked.returned {
            let streams = self.open.get(id).map_or(0, |open| open.close.streams().into());
            returned.all += streams;
            returned.due += if *due <= now { streams } else { 0 };
        }
        returned
    }

    /// Asks a connection to leave. Returns how many streams it has; `None` if it has none, or
    /// more than are to leave, or was asked already.
    fn ask(&mut self, id: u64, most: u64, now: Instant) -> Option<u64> {
        let Open { close, peer, returns, .. } = self.open.get(&id)?;
        let streams = u64::from(close.streams());
        if streams == 0 || streams > most || close.is_requested() {
            return None;
        }
        close.request();
        let left = self.asked.left.entry(peer.network).or_default();
        left.push_back((now + RETURN_WITHIN, returns + 1));
        Some(streams)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use tokio::time::advance;

    use super::super::Admitted;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// Ten percent in a second.
    const PER: PerSecond = 100_000;

    fn ip(last: usize) -> IpAddr {
        [10, 0, 0, u8::try_from(last).unwrap()].into()
    }

    fn open(connections: &Arc<Connections>, last: usize, streams: u32) -> Admitted {
        let admitted = connections.admit(ip(last)).unwrap();
        admitted.close.set_streams(streams);
        admitted
    }

    fn requested(all: &[Admitted]) -> Vec<usize> {
        let requested = |(at, one): (usize, &Admitted)| one.close.is_requested().then_some(at);
        all.iter().enumerate().filter_map(requested).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_comes_back_is_asked_again_before_others() {
        let connections = Connections::new(1_000, 0, Arc::default());
        let mut all: Vec<_> = (0..20).map(|n| open(&connections, n, 1)).collect();
        // A client that came just now has a new answer of DNS.
        assert_eq!(connections.spread(10, 20, PER, SECOND), 0);
        advance(ASK_AFTER).await;
        assert_eq!(connections.spread(10, 20, PER, SECOND), 2);
        assert_eq!(requested(&all), [0, 1]);
        // One comes back, the other does not. A client from elsewhere is no return.
        all[0] = open(&connections, 0, 1);
        all[1] = open(&connections, 99, 1);
        assert_eq!(connections.spread(2, 20, PER, SECOND), 1);
        assert_eq!(requested(&all), [2]);
        drop(all.remove(2));
        advance(ASK_AFTER).await;
        assert_eq!(connections.spread(1, 20, PER, SECOND), 1);
        assert_eq!(requested(&all), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_always_comes_back_is_left_alone_in_the_end() {
        let connections = Connections::new(1_000, 0, Arc::default());
        let mut one = open(&connections, 1, 1);
        let mut asked = 0;
        for _ in 0..20 {
            advance(ASK_AFTER).await;
            if connections.spread(1, 20, PER, SECOND) == 1 {
                assert!(one.close.is_requested());
                asked += 1;
                one = open(&connections, 1, 1);
            }
        }
        assert_eq!(asked, RETURNS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_more_streams_than_are_to_leave_stays() {
        let connections = Connections::new(1_000, 0, Arc::default());
        let all = [100, 3, 0, 1].map(|streams| open(&connections, 1, streams));
        advance(ASK_AFTER).await;
        assert_eq!(connections.spread(50, 104, PER, SECOND), 2);
        assert_eq!(requested(&all), [1, 3]);
        // Nobody is asked twice, and nobody once streams are even.
        assert_eq!(connections.spread(50, 104, PER, SECOND), 0);
        assert_eq!(connections.spread(0, 104, PER, SECOND), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_stops_and_goes_on_later() {
        let connections = Connections::new(10_000, 0, Arc::default());
        let idle: Vec<_> = (0..2 * LOOKS_MAX).map(|_| open(&connections, 1, 0)).collect();
        let one = open(&connections, 2, 1);
        advance(ASK_AFTER).await;
        let asked = || connections.spread(1, 1, PER, SECOND);
        assert_eq!([asked(), asked(), asked()], [0, 0, 1]);
        assert!(one.close.is_requested() && requested(&idle).is_empty());
    }
}
