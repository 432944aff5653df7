//! Tests which listeners are woken when, by counting wake-ups.

mod every_order;
mod threads;

use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use super::rounds::{GAP, LARGE, QUIET, SLICE};
use super::*;
use crate::catalog::{Service, ServiceSnapshot};
use crate::model::{BackendAddr, Endpoint, ServiceName, Weight};

/// Counts how often one listener was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Listeners that wait, with the counters of their wake-ups.
struct Crowd {
    topic: Arc<Topic>,
    listeners: Vec<(Listener, Arc<Woken>)>,
}

impl Crowd {
    fn new(count: usize) -> Self {
        let mut crowd = Self {
            topic: Topic::new(
                Arc::default(),
                Known::Absent(Arc::new(crate::settings::ServiceSettings::DEFAULT)),
            ),
            listeners: Vec::new(),
        };
        crowd.join(count);
        assert_eq!(crowd.poll(), 0);
        crowd
    }

    /// Adds listeners, each of which reads the newest value at once.
    fn join(&mut self, count: usize) {
        for _ in 0..count {
            let (mut listener, woken) = (Listener::new(self.topic.clone()), Arc::default());
            assert!(poll(&mut listener, &woken));
            self.listeners.push((listener, woken));
        }
    }

    /// Polls all listeners. Returns how many had something new.
    fn poll(&mut self) -> usize {
        let polled = self.listeners.iter_mut().map(|(listener, woken)| poll(listener, woken));
        polled.filter(|&ready| ready).count()
    }

    /// Returns how many listeners were woken exactly `times` times.
    fn woken(&self, times: usize) -> usize {
        let times = |(_, woken): &&(_, Arc<Woken>)| woken.0.load(Ordering::Relaxed) == times;
        self.listeners.iter().filter(times).count()
    }
}

/// Polls a listener. Returns whether there was something new.
fn poll<W: Wake + Send + Sync + 'static>(listener: &mut Listener, woken: &Arc<W>) -> bool {
    let waker = Waker::from(woken.clone());
    listener.poll_known(&mut Context::from_waker(&waker)).is_ready()
}

fn present(ports: &[u16]) -> Known {
    weighing(&ports.iter().map(|&port| (port, Weight::DEFAULT.0)).collect::<Vec<_>>())
}

/// Makes a service of endpoints with these ports and weights.
fn weighing(all: &[(u16, u32)]) -> Known {
    let endpoint = |&(port, weight): &(u16, u32)| Endpoint {
        id: format!("{port:05}").into(),
        addr: BackendAddr::new([10, 0, 0, 1].into(), port).unwrap(),
        weight: Weight(weight),
        meta: Arc::default(),
    };
    let endpoints = all.iter().map(endpoint).collect();
    let name = ServiceName::new("hello").unwrap();
    Known::Present(Arc::new(Service::new(
        0,
        ServiceSnapshot::new(name, 1, endpoints),
        crate::settings::ServiceSettings::DEFAULT,
    )))
}

/// Runs rounds until nothing is left to wake, now or later. Returns the number of slices.
async fn run(rounds: &mut Rounds) -> usize {
    let mut slices = 0;
    while !(rounds.running.is_empty() && rounds.due.is_empty()) {
        slice(rounds).await;
        slices += 1;
    }
    slices
}

/// Waits until there is a slice to wake, and wakes it.
async fn slice(rounds: &mut Rounds) {
    rounds.ready().await;
    rounds.wake_slice();
}

#[tokio::test(start_paused = true)]
async fn spellings_of_a_name_get_one_turn_together() {
    let family = Arc::<Family>::default();
    let spelling = || {
        let topic = Topic::new(
            family.clone(),
            Known::Absent(Arc::new(crate::settings::ServiceSettings::DEFAULT)),
        );
        let mut crowd = Crowd { topic, listeners: Vec::new() };
        crowd.join(1);
        crowd
    };
    let mut many: Vec<_> = (0..1_000).map(|_| spelling()).collect();
    let other = Crowd::new(1);
    let mut rounds = Rounds::default();
    for crowd in &many {
        crowd.topic.publish(present(&[1]), &mut rounds);
    }
    other.topic.publish(present(&[1]), &mut rounds);
    slice(&mut rounds).await;
    let woken = many.iter().map(|crowd| crowd.woken(1)).sum::<usize>();
    assert!((1..=SLICE).contains(&woken), "{woken}");
    slice(&mut rounds).await;
    assert_eq!(other.woken(1), 1);
    // All are woken in the end, and again for the next value.
    run(&mut rounds).await;
    assert!(many.iter().all(|crowd| crowd.woken(1) == 1));
    many[500].topic.publish(present(&[2]), &mut rounds);
    assert_eq!(run(&mut rounds).await, 1);
    assert_eq!(many[500].woken(2), 1);
    assert!(many.iter_mut().all(|crowd| crowd.poll() == 1));
}

#[tokio::test(start_paused = true)]
async fn all_are_woken_once_in_slices() {
    let mut crowd = Crowd::new(1_000);
    let mut rounds = Rounds::default();
    crowd.topic.publish(present(&[1]), &mut rounds);
    assert_eq!(crowd.woken(0), 1_000);
    slice(&mut rounds).await;
    assert_eq!(crowd.woken(1), SLICE);
    let slices = 1 + run(&mut rounds).await;
    assert_eq!((crowd.woken(1), crowd.poll()), (1_000, 1_000));
    assert_eq!(slices, 1_024 / SLICE);
    // An equal value is nothing new.
    crowd.topic.publish(present(&[1]), &mut rounds);
    assert!(rounds.running.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_small_name_waits_for_one_slice_of_a_large_one() {
    let (large, small) = (Crowd::new(10_000), Crowd::new(1));
    let mut rounds = Rounds::default();
    large.topic.publish(present(&[1]), &mut rounds);
    slice(&mut rounds).await;
    small.topic.publish(present(&[1]), &mut rounds);
    slice(&mut rounds).await;
    slice(&mut rounds).await;
    assert_eq!(small.woken(1), 1);
    assert!(large.woken(1) <= 2 * SLICE);
}

#[tokio::test(start_paused = true)]
async fn what_comes_during_a_round_reaches_those_that_were_woken_before() {
    let mut crowd = Crowd::new(1_000);
    let mut rounds = Rounds::default();
    crowd.topic.publish(present(&[1]), &mut rounds);
    for _ in 0..4 {
        slice(&mut rounds).await;
    }
    let before = crowd.woken(1);
    assert_eq!(crowd.poll(), 1_000);
    crowd.topic.publish(present(&[2]), &mut rounds);
    run(&mut rounds).await;
    assert_eq!((crowd.woken(2), crowd.woken(1)), (before, 1_000 - before));
    assert_eq!(crowd.poll(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn who_joins_during_a_round_costs_nobody_a_wake_up() {
    let mut crowd = Crowd::new(1_000);
    let mut rounds = Rounds::default();
    crowd.topic.publish(present(&[1]), &mut rounds);
    for _ in 0..4 {
        slice(&mut rounds).await;
    }
    assert_eq!(crowd.poll(), 1_000);
    crowd.topic.publish(present(&[2]), &mut rounds);
    assert_eq!(crowd.woken(1), 512);
    // The slab doubles its places for them.
    crowd.join(30);
    run(&mut rounds).await;
    assert_eq!((crowd.woken(2), crowd.poll()), (512, 1_000));
}

#[tokio::test(start_paused = true)]
async fn values_that_never_end_reach_the_last_place_as_often_as_the_first() {
    let mut crowd = Crowd::new(1_000);
    let mut rounds = Rounds::default();
    for port in 1..=80 {
        crowd.topic.publish(present(&[port]), &mut rounds);
        slice(&mut rounds).await;
        crowd.poll();
    }
    // Eight slices are one round.
    assert_eq!(crowd.woken(10), 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_leaves_during_a_round_ends_it() {
    let mut crowd = Crowd::new(1_000);
    let mut rounds = Rounds::default();
    crowd.topic.publish(present(&[1]), &mut rounds);
    slice(&mut rounds).await;
    crowd.listeners.clear();
    crowd.join(3);
    assert_eq!(run(&mut rounds).await, 1);
    crowd.topic.publish(present(&[2]), &mut rounds);
    run(&mut rounds).await;
    assert_eq!((crowd.woken(1), crowd.poll()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_large_fan_out_gathers_what_is_added_and_not_what_is_taken_away() {
    let crowd = Crowd::new(LARGE + 1);
    let mut rounds = Rounds::default();
    crowd.topic.publish(present(&[1]), &mut rounds);
    run(&mut rounds).await;
    // Two additions wait, and are pushed together.
    crowd.topic.publish(present(&[1, 2]), &mut rounds);
    crowd.topic.publish(present(&[1, 2, 3]), &mut rounds);
    assert!(rounds.running.is_empty());
    let began = clock::now();
    run(&mut rounds).await;
    let waited = clock::now() - began;
    assert!(waited >= QUIET && waited < GAP, "{waited:?}");
    assert_eq!(crowd.woken(2), LARGE + 1);
    // A removal does not wait, and takes an addition that waits with it.
    crowd.topic.publish(present(&[1, 2, 3, 4]), &mut rounds);
    assert!(rounds.running.is_empty());
    crowd.topic.publish(present(&[1, 2, 3]), &mut rounds);
    let began = clock::now();
    run(&mut rounds).await;
    assert_eq!((crowd.woken(3), clock::now()), (LARGE + 1, began));
    assert!(rounds.due.is_empty());
}

#[tokio::test(start_paused = true)]
async fn additions_that_do_not_end_are_told_once_a_gap_and_the_last_when_it_is_quiet() {
    let crowd = Crowd::new(LARGE + 1);
    let mut rounds = Rounds::default();
    let mut ports = Vec::new();
    let began = clock::now();
    while clock::now() - began < GAP * 5 / 2 {
        ports.push(1 + ports.len() as u16);
        crowd.topic.publish(present(&ports), &mut rounds);
        let slices = async {
            loop {
                slice(&mut rounds).await;
            }
        };
        let _ = tokio::time::timeout(QUIET / 5, slices).await;
    }
    // Woken at once, after one gap, and after two.
    assert_eq!(crowd.woken(3), LARGE + 1);
    run(&mut rounds).await;
    let waited = clock::now() - began - GAP * 5 / 2;
    assert!(waited <= QUIET * 3 / 2, "{waited:?}");
    assert_eq!(crowd.woken(4), LARGE + 1);
}

#[tokio::test(start_paused = true)]
async fn an_addition_during_a_large_round_has_a_round_of_its_own_later() {
    let crowd = Crowd::new(LARGE + 1);
    let mut rounds = Rounds::default();
    crowd.topic.publish(present(&[1]), &mut rounds);
    slice(&mut rounds).await;
    crowd.topic.publish(present(&[1, 2]), &mut rounds);
    while !rounds.running.is_empty() {
        slice(&mut rounds).await;
    }
    assert_eq!((crowd.woken(1), rounds.due.len()), (LARGE + 1, 1));
    run(&mut rounds).await;
    assert_eq!(crowd.woken(2), LARGE + 1);
}

#[test]
fn a_backend_that_is_gone_or_moved_is_taken_away() {
    let check = |old: Known, new: Known, expected| assert_eq!(takes_away(&old, &new), expected);
    check(present(&[1, 2]), present(&[1, 2, 3]), false);
    check(present(&[2]), present(&[1, 2, 3]), false);
    check(present(&[1, 2, 3]), present(&[1, 3]), true);
    check(present(&[3]), present(&[1, 2]), true);
    check(present(&[1]), Known::Absent(Arc::new(crate::settings::ServiceSettings::DEFAULT)), true);
    check(Known::Absent(Arc::new(crate::settings::ServiceSettings::DEFAULT)), present(&[1]), false);
    check(
        Known::Syncing,
        Known::Absent(Arc::new(crate::settings::ServiceSettings::DEFAULT)),
        false,
    );
    // Weight 0 means no calls at all. Any other weight only means more or fewer calls.
    check(weighing(&[(1, 5), (2, 5)]), weighing(&[(1, 5), (2, 0)]), true);
    check(weighing(&[(1, 5), (2, 5)]), weighing(&[(1, 5), (2, 1)]), false);
    check(weighing(&[(1, 5), (2, 0)]), weighing(&[(1, 5), (2, 5)]), false);
    check(weighing(&[(1, 5), (2, 0)]), weighing(&[(1, 5)]), false);
}

#[test]
fn closing_wakes_all_at_once_and_leaving_leaves_nothing_behind() {
    let mut crowd = Crowd::new(300);
    crowd.topic.close();
    assert_eq!((crowd.woken(1), crowd.poll()), (300, 300));
    let topic = crowd.topic.clone();
    drop(crowd);
    assert_eq!(topic.lock().listeners.capacity(), 0);
}
