//! Probes backends by connecting to them.
//!
//! In: the held backends, and the backends registered without a lease. Out: an
//! [`Input::Probed`] for each answer.
//! It only opens connections, at a bounded rate. It decides nothing, and a failure on its
//! own side (no descriptor, no port) never counts against a backend.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use imbl::ordmap::DiffItem as IntervalDiff;
use imbl::ordset::DiffItem;
use imbl::{OrdMap, OrdSet};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};

use crate::catalog::{Input, Liveness, ProbeResult};
use crate::clock;
use crate::model::BackendAddr;

/// When each backend is probed next. Pure.
#[derive(Debug, Default)]
struct Schedule {
    /// When each backend is due; `None` while it is being probed.
    backends: BTreeMap<BackendAddr, Option<Instant>>,
    /// The backends by due time, without those being probed.
    due: BTreeSet<(Instant, BackendAddr)>,
    /// The held backends. All others are probed only because they have no lease.
    held_addresses: OrdSet<BackendAddr>,
    /// How often each backend without a lease is probed.
    unleased: OrdMap<BackendAddr, Duration>,
}

/// How long the first probe of a held backend waits. Most such backends deregister, and are
/// no longer held once etcd has said so. A flapping backend has returned by then.
const FIRST: Duration = Duration::from_millis(300);
/// The time between two probes of a held backend. It decides how soon a dead backend leaves
/// the lists.
const EVERY: Duration = Duration::from_secs(1);
/// How long a backend may take to accept a connection. Across a continent, a tenth of
/// that suffices.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The most probes at a time. Each one holds a descriptor.
const PROBES_MAX: usize = 256;
/// The most probes per second, over all backends that were probed before. Where there are
/// many, each is probed less often. First probes are bounded by [`PROBES_MAX`] alone: the
/// dead among thousands that are lost at once must be found soon.
const RATE_MAX: u32 = 500;

/// Probes backends with `connect`. Returns when the sender of `liveness` or the receiver of
/// `inputs` is dropped.
pub async fn run<S>(
    mut liveness: watch::Receiver<Arc<Liveness>>,
    inputs: mpsc::Sender<Input>,
    connect: impl AsyncFn(SocketAddr) -> io::Result<S>,
) {
    let mut schedule = Schedule::default();
    let mut probes = FuturesUnordered::new();
    liveness.mark_changed();
    loop {
        while probes.len() < PROBES_MAX
            && let Some(addr) = schedule.next(clock::now())
        {
            probes.push(probe(addr, &connect));
        }
        let wake = schedule.due();
        tokio::select! {
            // Liveness may change without end, so answers come first; their rate is
            // bounded.
            biased;
            Some((addr, answer)) = probes.next() => {
                schedule.done(addr, clock::now());
                if let Some(answer) = answer
                    && inputs.send(Input::Probed(addr, answer)).await.is_err()
                {
                    return;
                }
            }
            changed = liveness.changed() => {
                if changed.is_err() {
                    return;
                }
                let wanted = liveness.borrow_and_update().clone();
                schedule.want(&wanted, clock::now());
            }
            () = sleep_until(wake.unwrap_or_else(clock::now).into()),
                if wake.is_some() && probes.len() < PROBES_MAX => {}
            () = inputs.closed() => return,
        }
    }
}

async fn probe<S>(
    addr: BackendAddr,
    connect: &impl AsyncFn(SocketAddr) -> io::Result<S>,
) -> (BackendAddr, Option<ProbeResult>) {
    let answer = match timeout(TIMEOUT, connect(addr.socket_addr())).await {
        Ok(Ok(_)) => Some(ProbeResult::Takes),
        Ok(Err(error)) => probe_result(&error),
        Err(_) => Some(ProbeResult::Silent),
    };
    (addr, answer)
}

/// Returns the probe result that a failed connection means; `None` if it means none.
fn probe_result(error: &io::Error) -> Option<ProbeResult> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(ProbeResult::Refuses),
        // The backend was there and hung up.
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Some(ProbeResult::Takes),
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Some(ProbeResult::Silent)
        }
        // No descriptor, port, memory or permission: the failure is on this side.
        _ => None,
    }
}

impl Schedule {
    /// Replaces the wanted backends and forgets all others. Takes time only for the
    /// differences, and returns how many there were.
    fn want(&mut self, liveness: &Liveness, now: Instant) -> usize {
        let mut differences = 0;
        let before = mem::replace(&mut self.held_addresses, liveness.held_addresses.clone());
        let unleased_before = mem::replace(&mut self.unleased, liveness.unleased.clone());
        for change in before.diff(&liveness.held_addresses) {
            match change {
                DiffItem::Add(addr) => self.plan(*addr, now + spread(*addr, FIRST)),
                DiffItem::Remove(addr) => self.unwant(*addr),
            }
            differences += 1;
        }
        for change in unleased_before.diff(&liveness.unleased) {
            match change {
                IntervalDiff::Remove(addr, _) => self.unwant(*addr),
                IntervalDiff::Add(addr, every)
                | IntervalDiff::Update { new: (addr, every), .. } => self.begin(*addr, *every, now),
            }
            differences += 1;
        }
        differences
    }

    /// Plans the first probe of a backend without a lease, unless it is held or being
    /// probed. Many are added at once, so the time is chosen anywhere in the first round.
    fn begin(&mut self, addr: BackendAddr, every: Duration, now: Instant) {
        let probed = matches!(self.backends.get(&addr), Some(None));
        if !probed && !self.held_addresses.contains(&addr) {
            self.plan(addr, now + self.interval(every) * permille(addr) / 1000);
        }
    }

    /// Forgets a backend, unless it is still wanted for the other reason.
    fn unwant(&mut self, addr: BackendAddr) {
        if self.held_addresses.contains(&addr) || self.unleased.contains_key(&addr) {
            return;
        }
        if let Some(Some(due)) = self.backends.remove(&addr) {
            self.due.remove(&(due, addr));
        }
    }

    /// Returns a backend that is due, and marks it as being probed.
    fn next(&mut self, now: Instant) -> Option<BackendAddr> {
        self.due().filter(|due| *due <= now)?;
        let (_, addr) = self.due.pop_first()?;
        self.backends.insert(addr, None);
        Some(addr)
    }

    /// Returns when the next backend is due.
    fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Plans the next probe of a backend after a probe has ended.
    fn done(&mut self, addr: BackendAddr, now: Instant) {
        if !self.backends.contains_key(&addr) {
            return;
        }
        let suspect = self.held_addresses.contains(&addr);
        let unleased = self.unleased.get(&addr).copied().filter(|_| !suspect);
        let every = unleased.unwrap_or(EVERY);
        self.plan(addr, now + spread(addr, self.interval(every)));
    }

    fn plan(&mut self, addr: BackendAddr, due: Instant) {
        if let Some(Some(old)) = self.backends.insert(addr, Some(due)) {
            self.due.remove(&(old, addr));
        }
        self.due.insert((due, addr));
    }

    /// Returns `every`, or longer where there are so many backends that the rate would be
    /// exceeded.
    fn interval(&self, every: Duration) -> Duration {
        let backends = u32::try_from(self.backends.len()).unwrap_or(u32::MAX);
        every.max(Duration::from_secs(1) * (backends / RATE_MAX))
    }
}

/// Returns 3/4 to 5/4 of a pause, always the same for one address, so that backends that
/// came together are not probed together for ever.
fn spread(addr: BackendAddr, pause: Duration) -> Duration {
    pause * (750 + permille(addr) / 2) / 1000
}

/// Returns a number below 1000, always the same for one address.
fn permille(addr: BackendAddr) -> u32 {
    let mut hasher = DefaultHasher::new();
    addr.hash(&mut hasher);
    u32::try_from(hasher.finish() % 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn liveness(held_addresses: &[u16], unleased: &[u16]) -> Liveness {
        let addr = |port: &u16| BackendAddr::new([127, 0, 0, 1].into(), *port).unwrap();
        Liveness {
            held_addresses: held_addresses.iter().map(addr).collect(),
            unleased: unleased.iter().map(|port| (addr(port), SLOW)).collect(),
            ..Liveness::default()
        }
    }

    const SLOW: Duration = Duration::from_secs(30);

    #[test]
    fn those_in_doubt_are_probed_soon_and_then_every_second() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.want(&liveness(&[1], &[]), start);
        assert_eq!(schedule.next(start), None);
        let first = schedule.due().unwrap();
        assert!(first <= start + FIRST * 5 / 4);
        let addr = schedule.next(first).unwrap();
        assert_eq!(schedule.due(), None, "one probe at a time");
        schedule.done(addr, first);
        let second = schedule.due().unwrap() - first;
        assert!((EVERY * 3 / 4..=EVERY * 5 / 4).contains(&second), "{second:?}");
        schedule.want(&liveness(&[], &[]), first);
        assert_eq!(schedule.due(), None);
        schedule.done(addr, first);
        assert_eq!(schedule.due(), None, "nobody wants it any more");
    }

    #[test]
    fn one_without_a_lease_that_comes_in_doubt_is_probed_at_once() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.want(&liveness(&[], &[1, 2, 3]), start);
        assert_eq!(schedule.due.len(), 3);
        assert!(schedule.due.iter().all(|(due, _)| *due < start + SLOW));
        schedule.want(&liveness(&[2], &[1, 2, 3]), start);
        let soon = schedule.due.iter().filter(|(due, _)| *due <= start + FIRST * 5 / 4);
        assert!(soon.count() >= 1);
        assert_eq!(schedule.due.len(), 3, "each is due once");
    }

    #[test]
    fn what_differs_is_looked_at_and_nothing_else() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let many: Vec<u16> = (1..=20_000).collect();
        let mut liveness = liveness(&many, &many);
        assert_eq!(schedule.want(&liveness, start), 40_000);
        let one = *liveness.held_addresses.get_min().unwrap();
        liveness.held_addresses.remove(&one);
        assert_eq!(schedule.want(&liveness, start), 1);
        assert!(schedule.backends.contains_key(&one), "it has no lease either");
        liveness.unleased.remove(&one);
        assert_eq!(schedule.want(&liveness, start), 1);
        assert_eq!((schedule.backends.len(), schedule.due.len()), (19_999, 19_999));
        assert_eq!(schedule.want(&liveness, start), 0, "answers of probes change nothing");
    }

    #[test]
    fn many_are_probed_at_a_bounded_rate() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let many: Vec<u16> = (1..=20_000).collect();
        schedule.want(&liveness(&many, &[]), start);
        let end = start + FIRST * 2;
        while let Some(addr) = schedule.next(end) {
            schedule.done(addr, end);
        }
        let mut seconds: Vec<_> =
            schedule.due.iter().map(|(due, _)| (*due - end).as_secs()).collect();
        seconds.sort_unstable();
        let busiest = seconds.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap();
        assert!(busiest < 1_500, "{busiest} in one second, 500 to 1000 on average");
    }

    #[test]
    fn only_what_a_backend_says_counts() {
        let check = |kind: ErrorKind, expected| assert_eq!(probe_result(&kind.into()), expected);
        check(ErrorKind::ConnectionRefused, Some(ProbeResult::Refuses));
        check(ErrorKind::HostUnreachable, Some(ProbeResult::Silent));
        check(ErrorKind::AddrNotAvailable, None);
        check(ErrorKind::PermissionDenied, None);
        assert_eq!(probe_result(&io::Error::from_raw_os_error(24)), None, "too many open files");
    }
}
