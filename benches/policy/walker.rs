//! Simulated clients. They go through the lists that the balancer makes as real clients do.
//!
//! In: weights; the calls of a client. Out: the backend of each call. Cycles and windows
//! come from `balancer::cycle`.

use std::rc::Rc;

use lookaside::balancer::cycle::{self, StreamRank, Window};
use lookaside::facts::shedding;

use super::chance::Chance;

/// The entry at which a client starts a list. tests/clients proves it for real clients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// grpc-java: at the first entry.
    Java,
    /// C-core and grpc-go: at a random entry.
    Other,
}

/// All lists that follow from one decision.
#[derive(Clone)]
pub(crate) struct Lists {
    cycle: Rc<[u32]>,
    backends: usize,
    /// The number of the list among those of the class.
    number: u64,
    drop_percent: u32,
}

/// The list that one stream is sent.
#[derive(Clone)]
pub(crate) struct List {
    cycle: Rc<[u32]>,
    /// Its first entry in the cycle, and how many entries it has.
    start: usize,
    length: usize,
    drops: usize,
    phase: u64,
}

/// A client and its list.
pub(crate) struct Walker {
    kind: Kind,
    list: List,
    at: usize,
    drop_at: usize,
}

impl Lists {
    /// Makes the lists for these weights. Backends with weight 0 are left out.
    pub(crate) fn new(weights: &[u32], number: u64) -> Self {
        let (backends, weights): (Vec<u32>, Vec<u32>) =
            (0..).zip(weights.iter().copied()).filter(|one| one.1 > 0).unzip();
        let order = cycle::order(&cycle::counts(&weights));
        let cycle = order.into_iter().map(|at| backends[at as usize]).collect();
        Self { cycle, backends: backends.len(), number, drop_percent: 0 }
    }

    pub(crate) fn with_drops(self, drop_percent: u32) -> Self {
        Self { drop_percent, ..self }
    }

    /// Returns the length of the cycle.
    pub(crate) fn entries(&self) -> usize {
        self.cycle.len()
    }

    pub(crate) fn list(&self, stream: usize, streams: usize) -> List {
        let stream = stream as u64;
        let place = StreamRank { stream, streams };
        let window = Window::new(self.cycle.len(), self.backends, self.number, place);
        let (start, end) = window.ends();
        let length = end - start;
        let drops = shedding::drops(length, self.drop_percent);
        // It differs by stream and by list, like the start of the window.
        let phase = stream
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(self.number.wrapping_mul(0x6a09_e667_f3bc_c908));
        List { cycle: Rc::clone(&self.cycle), start, length, drops, phase }
    }
}

impl List {
    pub(crate) fn len(&self) -> usize {
        self.length
    }
}

impl Walker {
    pub(crate) fn new(kind: Kind, list: List, chance: &mut Chance) -> Self {
        let mut walker = Self { kind, list, at: 0, drop_at: 0 };
        walker.start(chance);
        walker
    }

    /// Replaces the client's list.
    pub(crate) fn receive(&mut self, list: List, chance: &mut Chance) {
        self.list = list;
        self.start(chance);
    }

    fn start(&mut self, chance: &mut Chance) {
        self.drop_at = 0;
        self.at = match self.kind {
            Kind::Java => 0,
            Kind::Other => chance.below(self.list.len()),
        };
    }

    /// Makes a call. Returns its backend; `None` if the client drops it.
    pub(crate) fn call(&mut self) -> Option<usize> {
        let List { cycle, start, length, drops, phase } = &self.list;
        if *drops > 0 {
            let total = length + drops;
            let at = self.drop_at;
            self.drop_at = (at + 1) % total;
            if shedding::is_drop(at, total, *drops, *phase) {
                return None;
            }
        }
        let at = (start + self.at) % cycle.len();
        self.at = (self.at + 1) % length;
        Some(cycle[at] as usize)
    }

    /// Makes many calls by a list without drops, and adds them to the counts of their backends.
    pub(crate) fn calls(&mut self, calls: usize, counts: &mut [f64]) {
        let List { cycle, start, length, drops, .. } = &self.list;
        assert_eq!(*drops, 0, "each drop must be a call of its own");
        // In each round, every entry is used once.
        let rounds = (calls / length) as f64;
        if rounds > 0.0 {
            let entries = (0..*length).map(|at| (start + at) % cycle.len());
            entries.for_each(|at| counts[cycle[at] as usize] += rounds);
        }
        for _ in 0..calls % *length {
            if let Some(backend) = self.call() {
                counts[backend] += 1.0;
            }
        }
    }
}

/// Calls at even gaps, at a rate that may change.
#[derive(Default)]
pub(crate) struct Pace {
    /// The part of a call that is due.
    due: f64,
}

impl Pace {
    /// Returns the number of calls among the next `calls`, which need not be whole.
    pub(crate) fn whole(&mut self, calls: f64) -> usize {
        self.due += calls;
        let whole = self.due.floor();
        self.due -= whole;
        whole as usize
    }
}

/// Makes the clients of a service, half of them Java.
pub(crate) fn walkers(lists: &Lists, count: usize, chance: &mut Chance) -> Vec<Walker> {
    let kind = |stream: usize| if stream.is_multiple_of(2) { Kind::Java } else { Kind::Other };
    (0..count).map(|at| Walker::new(kind(at), lists.list(at, count), chance)).collect()
}

/// Sends a list to each client.
pub(crate) fn push(walkers: &mut [Walker], lists: &Lists, chance: &mut Chance) {
    let count = walkers.len();
    for (at, walker) in walkers.iter_mut().enumerate() {
        walker.receive(lists.list(at, count), chance);
    }
}
