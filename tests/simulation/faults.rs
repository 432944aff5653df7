//! The intervals of a plan's faults, in milliseconds.
//!
//! In: a plan. Out: whether two hosts could reach each other at a time. Pure.

use std::collections::BTreeMap;

use crate::plan::{Host, Plan, Step};

/// One fault and its interval.
#[derive(Debug, Clone, Copy)]
struct FaultInterval {
    from: u64,
    until: u64,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Cut(Host, Host),
    Slow(Host, Host),
    Down(Host),
}

/// All faults of a plan that affect links or hosts.
pub struct Faults(Vec<FaultInterval>);

/// How long after a fault all its hosts are connected again and have read all changes:
/// a backoff of five seconds, a call that is given up after three, and the reading.
const RECOVERY: u64 = 10_000;
/// The longest delay of a message where nothing is slow.
const USUAL: u64 = 120;
/// The longest delay of a message on a slow link: the slowest link, and one tick.
const SLOWEST: u64 = 1_600;

impl Faults {
    pub fn of(plan: &Plan) -> Self {
        let mut open: BTreeMap<What, (u64, usize)> = BTreeMap::new();
        let mut all = Vec::new();
        for (at, step) in &plan.steps {
            let (what, begins) = match *step {
                Step::Cut(a, b) => (What::Cut(a, b), true),
                Step::Mend(a, b) => (What::Cut(a, b), false),
                Step::Slow(a, b, delay) => (What::Slow(a, b), delay > 0),
                Step::Crash(host) => (What::Down(host), true),
                Step::Start(host) => (What::Down(host), false),
                _ => continue,
            };
            if begins {
                open.entry(what).or_insert((*at, 0)).1 += 1;
            } else if let Some((from, count)) = open.get_mut(&what) {
                *count -= 1;
                if *count == 0 {
                    all.push(FaultInterval { from: *from, until: *at, what });
                    open.remove(&what);
                }
            }
        }
        assert!(open.is_empty(), "what breaks is mended: {open:?}");
        Self(all)
    }

    /// Returns whether the balancer and etcd reached each other from `from` to `until`, and
    /// long enough before, so that the balancer knows all that etcd holds.
    pub fn calm(&self, balancer: Host, from: u64, until: u64) -> bool {
        !self.0.iter().any(|fault| {
            fault.between(Host::Etcd, balancer)
                && fault.from <= until
                && from <= fault.until + RECOVERY
        })
    }

    /// Returns the latest time at which a balancer learns the state of etcd at `at`.
    pub fn known(&self, balancer: Host, at: u64) -> u64 {
        let mut known = at + 1_000;
        while let Some(fault) = self.0.iter().find(|fault| {
            fault.between(Host::Etcd, balancer)
                && fault.from <= known
                && known < fault.until + RECOVERY
        }) {
            known = fault.until + RECOVERY;
        }
        known
    }

    /// Returns the latest time up to `by` at which a balancer may have had to read
    /// everything anew. The time of held backends counts from there.
    pub fn read(&self, balancer: Host, by: u64) -> u64 {
        let between = self.0.iter().filter(|fault| fault.between(Host::Etcd, balancer));
        let before = between.filter(|fault| fault.from <= by);
        before.map(|fault| by.min(fault.until + RECOVERY)).max().unwrap_or(0)
    }

    /// Returns the earliest time at which a message that arrives at `at` was sent.
    pub fn sent(&self, a: Host, b: Host, at: u64) -> u64 {
        let mut sent = at.saturating_sub(USUAL);
        let links = || self.0.iter().filter(|fault| fault.between(a, b));
        while let Some(before) = links()
            .filter(|fault| fault.from <= sent + USUAL && sent <= fault.until + SLOWEST)
            .map(|fault| fault.from.saturating_sub(USUAL))
            .find(|before| before < &sent)
        {
            sent = before;
        }
        sent
    }

    /// Returns whether the link of two hosts was cut or slow, or one of them was down.
    pub fn apart(&self, a: Host, b: Host, from: u64, until: u64) -> bool {
        let mut apart = self.0.iter().filter(|fault| fault.between(a, b));
        apart.any(|fault| fault.from <= until && from <= fault.until + SLOWEST)
    }

    /// Returns whether one fault kept two hosts apart all the time.
    pub fn apart_throughout(&self, a: Host, b: Host, from: u64, until: u64) -> bool {
        let mut cuts = self.0.iter().filter(|fault| !matches!(fault.what, What::Slow(..)));
        cuts.any(|fault| fault.between(a, b) && fault.from <= from && until <= fault.until)
    }

    /// Returns whether the link of two hosts was slow.
    pub fn slow(&self, a: Host, b: Host, from: u64, until: u64) -> bool {
        let mut slow = self.0.iter().filter(|fault| matches!(fault.what, What::Slow(..)));
        slow.any(|fault| {
            fault.between(a, b) && fault.from <= until && from <= fault.until + SLOWEST
        })
    }

    /// Returns whether the link of two hosts was cut or slow for at least `least`.
    pub fn cut_for(&self, a: Host, b: Host, least: u64, from: u64, until: u64) -> bool {
        self.0.iter().any(|fault| {
            let FaultInterval { from: begun, until: ended, .. } = *fault;
            matches!(fault.what, What::Cut(..) | What::Slow(..))
                && fault.between(a, b)
                && ended - begun >= least
                && begun <= until
                && from <= ended + SLOWEST
        })
    }
}

impl FaultInterval {
    fn between(&self, a: Host, b: Host) -> bool {
        match self.what {
            What::Cut(c, d) | What::Slow(c, d) => (a, b) == (c, d) || (b, a) == (c, d),
            What::Down(host) => host == a || host == b,
        }
    }
}
