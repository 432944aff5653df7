//! Tests which listeners are woken when, by counting wake-ups.

mod every_order;
mod threads;

use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use super::rounds::{DEBOUNCE, DELAY_MAX, LARGE, SLICE};
use super::*;

/// A value: a list of parts.
type Parts = Vec<u16>;

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
    topic: Arc<Topic<Parts>>,
    listeners: Vec<(Listener<Parts>, Arc<Woken>)>,
}

impl Crowd {
    fn new(count: usize) -> Self {
        let mut crowd =
            Self { topic: Topic::new(Arc::default(), Parts::new()), listeners: Vec::new() };
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
fn poll<W: Wake + Send + Sync + 'static>(listener: &mut Listener<Parts>, woken: &Arc<W>) -> bool {
    let waker = Waker::from(woken.clone());
    listener.poll_newest(&mut Context::from_waker(&waker)).is_ready()
}

/// Returns whether the second value lacks a part of the first.
fn is_urgent(old: &Parts, new: &Parts) -> bool {
    !old.iter().all(|part| new.contains(part))
}

/// Publishes a value. One that takes something away is urgent.
fn publish(topic: &Arc<Topic<Parts>>, parts: &[u16], rounds: &mut Rounds<Parts>) {
    topic.publish(parts.to_vec(), is_urgent, rounds);
}

/// Runs rounds until nothing is left to wake, now or later. Returns the number of slices.
async fn run(rounds: &mut Rounds<Parts>) -> usize {
    let mut slices = 0;
    while !(rounds.running.is_empty() && rounds.due.is_empty()) {
        slice(rounds).await;
        slices += 1;
    }
    slices
}

/// Waits until there is a slice to wake, and wakes it.
async fn slice(rounds: &mut Rounds<Parts>) {
    rounds.ready().await;
    rounds.wake_slice();
}

#[tokio::test(start_paused = true)]
async fn spellings_of_a_name_get_one_turn_together() {
    let turn_group = Arc::<TurnGroup<Parts>>::default();
    let spelling = || {
        let topic = Topic::new(turn_group.clone(), Parts::new());
        let mut crowd = Crowd { topic, listeners: Vec::new() };
        crowd.join(1);
        crowd
    };
    let mut many: Vec<_> = (0..1_000).map(|_| spelling()).collect();
    let other = Crowd::new(1);
    let mut rounds = Rounds::<Parts>::default();
    for crowd in &many {
        publish(&crowd.topic, &[1], &mut rounds);
    }
    publish(&other.topic, &[1], &mut rounds);
    slice(&mut rounds).await;
    let woken = many.iter().map(|crowd| crowd.woken(1)).sum::<usize>();
    assert!((1..=SLICE).contains(&woken), "{woken}");
    slice(&mut rounds).await;
    assert_eq!(other.woken(1), 1);
    // All are woken in the end, and again for the next value.
    run(&mut rounds).await;
    assert!(many.iter().all(|crowd| crowd.woken(1) == 1));
    publish(&many[500].topic, &[2], &mut rounds);
    assert_eq!(run(&mut rounds).await, 1);
    assert_eq!(many[500].woken(2), 1);
    assert!(many.iter_mut().all(|crowd| crowd.poll() == 1));
}

#[tokio::test(start_paused = true)]
async fn all_are_woken_once_in_slices() {
    let mut crowd = Crowd::new(1_000);
    let mut rounds = Rounds::<Parts>::default();
    publish(&crowd.topic, &[1], &mut rounds);
    assert_eq!(crowd.woken(0), 1_000);
    slice(&mut rounds).await;
    assert_eq!(crowd.woken(1), SLICE);
    let slices = 1 + run(&mut rounds).await;
    assert_eq!((crowd.woken(1), crowd.poll()), (1_000, 1_000));
    assert_eq!(slices, 1_024 / SLICE);
    // An equal value is nothing new.
    publish(&crowd.topic, &[1], &mut rounds);
    assert!(rounds.running.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_small_name_waits_for_one_slice_of_a_large_one() {
    let (large, small) = (Crowd::new(10_000), Crowd::new(1));
    let mut rounds = Rounds::<Parts>::default();
    publish(&large.topic, &[1], &mut rounds);
    slice(&mut rounds).await;
    publish(&small.topic, &[1], &mut rounds);
    slice(&mut rounds).await;
    slice(&mut rounds).await;
    assert_eq!(small.woken(1), 1);
    assert!(large.woken(1) <= 2 * SLICE);
}

#[tokio::test(start_paused = true)]
async fn what_comes_during_a_round_reaches_those_that_were_woken_before() {
    let mut crowd = Crowd::new(1_000);
    let mut rounds = Rounds::<Parts>::default();
    publish(&crowd.topic, &[1], &mut rounds);
    for _ in 0..4 {
        slice(&mut rounds).await;
    }
    let before = crowd.woken(1);
    assert_eq!(crowd.poll(), 1_000);
    publish(&crowd.topic, &[2], &mut rounds);
    run(&mut rounds).await;
    assert_eq!((crowd.woken(2), crowd.woken(1)), (before, 1_000 - before));
    assert_eq!(crowd.poll(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn who_joins_during_a_round_costs_nobody_a_wake_up() {
    let mut crowd = Crowd::new(1_000);
    let mut rounds = Rounds::<Parts>::default();
    publish(&crowd.topic, &[1], &mut rounds);
    for _ in 0..4 {
        slice(&mut rounds).await;
    }
    assert_eq!(crowd.poll(), 1_000);
    publish(&crowd.topic, &[2], &mut rounds);
    assert_eq!(crowd.woken(1), 512);
    // The slab doubles its places for them.
    crowd.join(30);
    run(&mut rounds).await;
    assert_eq!((crowd.woken(2), crowd.poll()), (512, 1_000));
}

#[tokio::test(start_paused = true)]
async fn values_that_never_end_reach_the_last_place_as_often_as_the_first() {
    let mut crowd = Crowd::new(1_000);
    let mut rounds = Rounds::<Parts>::default();
    for port in 1..=80 {
        publish(&crowd.topic, &[port], &mut rounds);
        slice(&mut rounds).await;
        crowd.poll();
    }
    // Eight slices are one round.
    assert_eq!(crowd.woken(10), 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_leaves_during_a_round_ends_it() {
    let mut crowd = Crowd::new(1_000);
    let mut rounds = Rounds::<Parts>::default();
    publish(&crowd.topic, &[1], &mut rounds);
    slice(&mut rounds).await;
    crowd.listeners.clear();
    crowd.join(3);
    assert_eq!(run(&mut rounds).await, 1);
    publish(&crowd.topic, &[2], &mut rounds);
    run(&mut rounds).await;
    assert_eq!((crowd.woken(1), crowd.poll()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_large_fan_out_gathers_what_is_added_and_not_what_is_taken_away() {
    let crowd = Crowd::new(LARGE + 1);
    let mut rounds = Rounds::<Parts>::default();
    publish(&crowd.topic, &[1], &mut rounds);
    run(&mut rounds).await;
    // Two additions wait, and are pushed together.
    publish(&crowd.topic, &[1, 2], &mut rounds);
    publish(&crowd.topic, &[1, 2, 3], &mut rounds);
    assert!(rounds.running.is_empty());
    let began = clock::now();
    run(&mut rounds).await;
    let waited = clock::now() - began;
    assert!(waited >= DEBOUNCE && waited < DELAY_MAX, "{waited:?}");
    assert_eq!(crowd.woken(2), LARGE + 1);
    // A removal does not wait, and takes an addition that waits with it.
    publish(&crowd.topic, &[1, 2, 3, 4], &mut rounds);
    assert!(rounds.running.is_empty());
    publish(&crowd.topic, &[1, 2, 3], &mut rounds);
    let began = clock::now();
    run(&mut rounds).await;
    assert_eq!((crowd.woken(3), clock::now()), (LARGE + 1, began));
    assert!(rounds.due.is_empty());
}

#[tokio::test(start_paused = true)]
async fn additions_without_end_are_pushed_once_a_delay_and_the_last_after_a_pause() {
    let crowd = Crowd::new(LARGE + 1);
    let mut rounds = Rounds::<Parts>::default();
    let mut ports = Vec::new();
    let began = clock::now();
    while clock::now() - began < DELAY_MAX * 5 / 2 {
        ports.push(1 + ports.len() as u16);
        publish(&crowd.topic, &ports, &mut rounds);
        let slices = async {
            loop {
                slice(&mut rounds).await;
            }
        };
        let _ = tokio::time::timeout(DEBOUNCE / 5, slices).await;
    }
    // Woken at once, after one gap, and after two.
    assert_eq!(crowd.woken(3), LARGE + 1);
    run(&mut rounds).await;
    let waited = clock::now() - began - DELAY_MAX * 5 / 2;
    assert!(waited <= DEBOUNCE * 3 / 2, "{waited:?}");
    assert_eq!(crowd.woken(4), LARGE + 1);
}

#[tokio::test(start_paused = true)]
async fn an_addition_during_a_large_round_has_a_round_of_its_own_later() {
    let crowd = Crowd::new(LARGE + 1);
    let mut rounds = Rounds::<Parts>::default();
    publish(&crowd.topic, &[1], &mut rounds);
    slice(&mut rounds).await;
    publish(&crowd.topic, &[1, 2], &mut rounds);
    while !rounds.running.is_empty() {
        slice(&mut rounds).await;
    }
    assert_eq!((crowd.woken(1), rounds.due.len()), (LARGE + 1, 1));
    run(&mut rounds).await;
    assert_eq!(crowd.woken(2), LARGE + 1);
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
