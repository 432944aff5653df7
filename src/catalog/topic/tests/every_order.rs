//! Tests everything that can happen to a small topic, in every order.
//!
//! Each sequence of steps up to a length runs on a new topic of a few listeners, with
//! slices of one to three places. Then the rounds run to their end. No listener may have
//! an old value without having been woken.
//!
//! Threads add no further orders: all reads but one happen under the topic's lock, and a
//! poll that ends with that read is a step by itself. Threads could only add effects of
//! memory order, which `threads.rs` tests.

use std::sync::atomic::AtomicBool;

use super::*;

/// Notes whether a task must be polled.
#[derive(Default)]
struct Task(AtomicBool);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Publishes a value that only adds.
    Add,
    /// Publishes a value that takes something away.
    TakeAway,
    Slice,
    /// Advances the time until a round is due.
    Wait,
    /// Runs all woken tasks.
    Poll,
    /// Runs all tasks, and moves their listeners to other tasks.
    Move,
    Join,
    FirstLeaves,
    LastLeaves,
    AllLeave,
    Close,
}

use Step::{
    Add, AllLeave, Close, FirstLeaves, Join, LastLeaves, Move, Poll, Slice, TakeAway, Wait,
};

const ALL: &[Step] =
    &[Add, TakeAway, Slice, Wait, Poll, Move, Join, FirstLeaves, LastLeaves, AllLeave, Close];
const FEW: &[Step] = &[TakeAway, Slice, Poll, Join, FirstLeaves, AllLeave];

/// The state in which a topic begins.
#[derive(Debug, Clone, Copy)]
struct Start {
    listeners: usize,
    slice: usize,
    /// A value that only adds waits if there are more listeners than this.
    large: usize,
}

struct Small {
    topic: Arc<Topic<Parts>>,
    rounds: Rounds<Parts>,
    listeners: Vec<(Listener<Parts>, Arc<Task>)>,
    ports: Vec<u16>,
}

impl Small {
    fn new(start: Start) -> Self {
        let rounds = Rounds { slice: start.slice, large: start.large, ..Rounds::default() };
        let (listeners, ports) = (Vec::new(), vec![1]);
        let mut small =
            Self { topic: Topic::new(Arc::default(), ports.clone()), rounds, listeners, ports };
        (0..start.listeners).for_each(|_| small.join());
        small
    }

    fn join(&mut self) {
        let (mut listener, task) = (Listener::new(self.topic.clone()), Arc::default());
        poll(&mut listener, &task);
        self.listeners.push((listener, task));
    }

    /// Does one step. Returns whether it changed anything.
    async fn step(&mut self, step: Step) -> bool {
        let some = !self.listeners.is_empty();
        match step {
            Add | TakeAway => {
                let next = self.ports.last().map_or(1, |last| last + 1);
                if step == TakeAway {
                    self.ports.clear();
                }
                self.ports.push(next);
                publish(&self.topic, &self.ports, &mut self.rounds);
                true
            }
            Slice => self.rounds.wake_slice(),
            Wait => {
                let waits = self.rounds.running.is_empty() && !self.rounds.due.is_empty();
                if waits {
                    self.rounds.ready().await;
                }
                waits
            }
            Poll => self.poll_woken(),
            Move => {
                for (listener, task) in &mut self.listeners {
                    *task = Arc::default();
                    poll(listener, task);
                }
                some
            }
            Join => {
                self.join();
                true
            }
            FirstLeaves => some.then(|| self.listeners.remove(0)).is_some(),
            LastLeaves => self.listeners.pop().is_some(),
            AllLeave => {
                self.listeners.clear();
                some
            }
            Close => {
                self.topic.close();
                true
            }
        }
    }

    fn poll_woken(&mut self) -> bool {
        let mut any = false;
        for (listener, task) in &mut self.listeners {
            if task.0.swap(false, Ordering::Relaxed) {
                any = true;
                poll(listener, task);
            }
        }
        any
    }

    /// Runs all rounds to their end. Returns how many listeners have neither read the
    /// newest value nor been woken for it.
    async fn missed(&mut self) -> usize {
        while !(self.rounds.running.is_empty() && self.rounds.due.is_empty()) {
            self.rounds.ready().await;
            self.rounds.wake_slice();
        }
        let old = |(listener, task): &&(Listener<Parts>, Arc<Task>)| {
            listener.seen != self.topic.version() && !task.0.load(Ordering::Relaxed)
        };
        self.listeners.iter().filter(old).count()
    }
}

/// Tries the sequence `steps`, and all longer ones made of `choice`. Returns how many
/// sequences these are.
async fn explore(start: Start, choice: &[Step], depth: usize, steps: &mut Vec<Step>) -> usize {
    let mut small = Small::new(start);
    for (index, step) in steps.iter().enumerate() {
        let changed = small.step(*step).await;
        // Without a change a shorter sequence is equal.
        if !changed && index + 1 == steps.len() {
            return 0;
        }
    }
    assert_eq!(small.missed().await, 0, "{start:?}: {steps:?}");
    let mut count = 1;
    if steps.len() < depth && steps.last() != Some(&Close) {
        for step in choice {
            steps.push(*step);
            count += Box::pin(explore(start, choice, depth, steps)).await;
            steps.pop();
        }
    }
    count
}

/// The slab has four places for up to four listeners, and eight for the fifth.
#[tokio::test(start_paused = true)]
async fn nobody_is_missed() {
    for (listeners, slice, large, choice, depth) in [
        (4, 1, usize::MAX, FEW, 6),
        (4, 2, usize::MAX, FEW, 6),
        (7, 3, usize::MAX, FEW, 6),
        (4, 1, 3, ALL, 5),
    ] {
        let start = Start { listeners, slice, large };
        let count = explore(start, choice, depth, &mut Vec::new()).await;
        assert!(count > 5_000, "{start:?}: {count}");
    }
}
