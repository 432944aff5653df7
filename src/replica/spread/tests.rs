//! The bounds of the rule, and a simulation of balancers and clients that follow it.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::order::{Candidate, ordered};
use super::*;

const INTERVAL: Duration = Duration::from_secs(5);
/// The default of `--spread`: a fifth of a percent.
const PER: PerSecond = 2_000;
/// How many intervals pass before a client that came back is asked again: 35 s.
const AGAIN_AFTER: usize = 7;

#[test]
fn few_leave_and_only_to_where_there_is_room() {
    for (own, others, expected) in [
        (5_000, &[5_000, 0][..], 1_666),
        (0, &[5_000, 5_000], 0),
        (5_000, &[], 0),
        // All are within 5 % and a few.
        (1_050, &[1_000, 1_000], 0),
        (12, &[0], 0),
        // All but one are over the mean a little, and share the room that it has.
        (1_050, &[1_050, 1_050, 850], 50),
        (90, &[0], 45),
        (u64::MAX, &[u64::MAX, 0], u64::MAX / 3),
    ] {
        assert_eq!(leaving(own, others), expected, "{own} {others:?}");
    }
}

#[test]
fn those_who_came_back_go_first_and_nobody_waits_in_vain() {
    let asks = |leaving, all, due| {
        let Asks { again, first } = asks(leaving, 5_000, Returned { all, due }, PER, INTERVAL);
        (again, first)
    };
    // The rate is 50 in five seconds.
    assert_eq!(asks(1_666, 0, 0), (0, 50));
    assert_eq!(asks(1_666, 350, 20), (20, 30));
    assert_eq!(asks(1_666, 1_666, 50), (50, 0));
    assert_eq!(asks(10, 350, 20), (10, 0));
    assert_eq!(asks(0, 350, 20), (0, 0));
    assert_eq!(super::asks(90, 100, Returned::default(), PER, INTERVAL).first, 1);
    assert_eq!(super::asks(90, 100, Returned::default(), 0, INTERVAL).first, 0);
    assert_eq!(super::asks(90, 100, Returned::default(), PER, Duration::ZERO).first, 0);
}

/// A client: the first balancer in the newest answer of DNS that it has.
type Client = usize;

/// Balancers, the clients of each, and the clients of each that came back, by when.
struct Play {
    clients: Vec<VecDeque<Client>>,
    returned: Vec<VecDeque<(usize, Client)>>,
    now: usize,
    seed: usize,
    asked: u64,
    moved: u64,
}

impl Play {
    /// Each client has the list that led it to its balancer.
    fn new(streams: &[usize]) -> Self {
        let clients = |(at, count): (usize, &usize)| (0..*count).map(|_| at).collect();
        Self {
            clients: streams.iter().enumerate().map(clients).collect(),
            returned: streams.iter().map(|_| VecDeque::new()).collect(),
            now: 0,
            seed: 1,
            asked: 0,
            moved: 0,
        }
    }

    fn streams(&self) -> Vec<u64> {
        let count = |at: usize| (self.clients[at].len() + self.returned[at].len()) as u64;
        (0..self.clients.len()).map(count).collect()
    }

    /// Lets balancers ask and clients move, with records that are one interval old.
    fn step(&mut self) {
        self.now += 1;
        let records = self.streams();
        for own in 0..records.len() {
            let mut others = records.clone();
            others.remove(own);
            let streams = self.streams()[own];
            let due = self.returned[own].iter().filter(|(due, _)| *due <= self.now).count() as u64;
            let returned = Returned { all: self.returned[own].len() as u64, due };
            let leaving = leaving(streams, &others);
            if leaving == 0 {
                let back: Vec<_> = self.returned[own].drain(..).map(|(_, client)| client).collect();
                self.clients[own].extend(back);
            }
            let Asks { again, first } = asks(leaving, streams, returned, PER, INTERVAL);
            for _ in 0..again {
                let (_, client) = self.returned[own].pop_front().expect("so many are due");
                self.leave(own, client, &records);
            }
            for _ in 0..first.min(self.clients[own].len() as u64) {
                let client = self.clients[own].pop_front().expect("so many are there");
                self.leave(own, client, &records);
            }
        }
    }

    /// The client connects to the first balancer that it knows, and then asks DNS again.
    fn leave(&mut self, own: usize, to: Client, records: &[u64]) {
        self.asked += 1;
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let candidates = records.iter().enumerate();
        let candidates = candidates.map(|(name, &streams)| Candidate {
            name,
            near: true,
            streams: Some(streams),
        });
        let next = ordered(candidates.collect(), self.seed >> 33)[0];
        if to == own {
            self.returned[own].push_back((self.now + AGAIN_AFTER, next));
        } else {
            self.moved += 1;
            self.clients[to].push_back(next);
        }
    }
}

#[test]
fn a_balancer_that_was_added_fills_up_slowly_until_it_is_even() {
    // A restarted balancer, an added one, and one of two.
    for begin in [&[5_000, 5_000, 0][..], &[2_500, 2_500, 2_500, 2_500, 0], &[4_000, 0]] {
        let mut play = Play::new(begin);
        let (total, mean) =
            (begin.iter().sum::<usize>() as u64, begin.iter().sum::<usize>() / begin.len());
        let mean = mean as u64;
        for _ in 0..400 {
            let before = play.asked;
            play.step();
            // A hundredth of all clients in each interval.
            assert!((play.asked - before) * 100 <= total + 100 * begin.len() as u64);
        }
        for streams in play.streams() {
            assert!(streams.abs_diff(mean) * 10 <= mean, "{begin:?} {:?}", play.streams());
        }
        // DNS lets each client choose by chance, so some go to a balancer that is full, and
        // are asked again: up to two and a half moves for each stream that the added one lacks.
        assert!(play.moved * 4 <= total * 3, "{begin:?}: {} moved", play.moved);
        let before = play.asked;
        (0..100).for_each(|_| play.step());
        assert!(play.asked - before <= mean / 20, "{begin:?}: {} asked", play.asked - before);
    }
}

/// The figures of docs/replicas.md: 10,000 clients, and one of three balancers restarted.
#[test]
fn three_balancers_are_even_again_after_eleven_minutes() {
    let mut play = Play::new(&[5_000, 5_000, 0]);
    let mut is_even = || {
        play.step();
        play.streams().iter().all(|streams| streams.abs_diff(3_333) * 10 <= 3_333)
    };
    let intervals = (1..400).find(|_| is_even()).expect("it becomes even");
    let minutes = (INTERVAL * intervals).as_secs_f64() / 60.0;
    assert!((10.5..11.5).contains(&minutes), "{minutes}");
    (0..400).for_each(|_| play.step());
    let percent = play.moved as f64 / 100.0;
    assert!((47.5..48.5).contains(&percent), "{percent}");
}

proptest! {
    #[test]
    fn the_bounds_hold(
        streams in prop::collection::vec(0..50_000_u64, 1..9),
        returned in prop::collection::vec((0..50_000_u64, 0..50_000_u64), 9),
        seconds in 0..60_u64,
    ) {
        let interval = Duration::from_secs(seconds);
        let total: u64 = streams.iter().sum();
        let mean = total.div_ceil(streams.len() as u64);
        let mut all = 0;
        for own in 0..streams.len() {
            let mut others = streams.clone();
            others.remove(own);
            let (due, more) = returned[own];
            let returned = Returned { all: due.saturating_add(more), due };
            let leaving = leaving(streams[own], &others);
            let Asks { again, first } = asks(leaving, streams[own], returned, PER, interval);
            let asked = again + first;
            prop_assert!(asked <= leaving && again <= due);
            prop_assert!(asked <= 1 || asked * 1_000 <= streams[own] * 2 * seconds);
            prop_assert!(leaving == 0 || streams[own] - leaving >= mean);
            all += leaving;
        }
        let room: u64 = streams.iter().map(|streams| mean.saturating_sub(*streams)).sum();
        prop_assert!(all <= room, "{all} {room}");
    }

    #[test]
    fn whatever_the_records_say_nothing_overflows(
        own in any::<u64>(),
        others in prop::collection::vec(any::<u64>(), 0..5),
        (all, due) in any::<(u64, u64)>(),
        per in any::<u32>(),
        millis in any::<u64>(),
    ) {
        let leaving = leaving(own, &others);
        let asks = asks(leaving, own, Returned { all, due }, per, Duration::from_millis(millis));
        prop_assert!(u128::from(asks.again) + u128::from(asks.first) <= u128::from(own));
    }
}
