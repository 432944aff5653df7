//! Resolves the host names that backends registered as addresses, again and again.
//!
//! In: the names to resolve. Out: [`Input::Hosts`] for each answer of the system's
//! resolver, and when a name stops resolving. A name that cannot be resolved keeps its
//! last addresses: this module never takes any away.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::catalog::{Input, Resolved};

/// Decides which name is resolved when. Pure.
#[derive(Debug, Default)]
struct Schedule {
    names: HashMap<String, State>,
    /// The names by time, without those that are being resolved.
    due: BTreeSet<(Instant, String)>,
}

#[derive(Debug, Default)]
struct State {
    /// When it is due; `None` while it is being resolved.
    due: Option<Instant>,
    /// The last addresses that were found.
    addresses: Vec<IpAddr>,
    /// Failures since then.
    failures: u32,
    /// The error of the last lookup, if it failed.
    trouble: Option<String>,
}

/// How often a name is resolved: as often as gRPC clients ask DNS themselves.
const EVERY: Duration = Duration::from_secs(30);
/// The most lookups per second, over all names.
const RATE_MAX: u32 = 50;
/// The first pause after a failure; each further one is twice as long.
const RETRY: Duration = Duration::from_secs(1);
/// Lookups at a time. Each holds a thread of a pool that other tasks need too.
const LOOKUPS_MAX: usize = 16;
/// How long a lookup may take. The system's resolver gives up long before (5 s, twice,
/// for each server). A lookup that is given up here still holds its thread.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Resolves names until the sender of `wanted` or the receiver of `inputs` is dropped.
pub async fn run(mut wanted: watch::Receiver<Arc<BTreeSet<String>>>, inputs: mpsc::Sender<Input>) {
    let mut schedule = Schedule::default();
    let mut lookups = FuturesUnordered::new();
    wanted.mark_changed();
    loop {
        while lookups.len() < LOOKUPS_MAX
            && let Some(name) = schedule.next(Instant::now())
        {
            lookups.push(lookup(name));
        }
        let wake = schedule.due().unwrap_or_else(|| Instant::now() + EVERY);
        let told = tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let names = wanted.borrow_and_update().clone();
                schedule.want(&names, Instant::now())
            }
            Some((name, result)) = lookups.next() => {
                schedule.take_in(&name, result, Instant::now()).into_iter().collect()
            }
            () = tokio::time::sleep_until(wake.into()), if lookups.len() < LOOKUPS_MAX => continue,
            () = inputs.closed() => return,
        };
        for resolved in told {
            if inputs.send(Input::Hosts(resolved)).await.is_err() {
                return;
            }
        }
    }
}

async fn lookup(name: String) -> (String, io::Result<Vec<IpAddr>>) {
    let found = match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((name.as_str(), 0))).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(error),
        Err(elapsed) => Err(elapsed.into()),
    };
    (name, found)
}

impl Schedule {
    /// Sets the wanted names. New names are due at once; names that are no longer wanted are
    /// forgotten. Returns the known answers for the other names: a name may have left the set
    /// and returned between two calls, and then the catalog has forgotten its addresses.
    fn want(&mut self, wanted: &BTreeSet<String>, now: Instant) -> Vec<Resolved> {
        self.names.retain(|name, _| wanted.contains(name));
        self.due.retain(|(_, name)| wanted.contains(name));
        for name in wanted {
            if !self.names.contains_key(name) {
                self.names.insert(name.clone(), State { due: Some(now), ..State::default() });
                self.due.insert((now, name.clone()));
            }
        }
        let tells = |state: &State| !state.addresses.is_empty() || state.trouble.is_some();
        let known = self.names.iter().filter(|(_, state)| tells(state));
        known.map(|(name, state)| resolved(name, state)).collect()
    }

    /// Returns a name that is due, the longest overdue first, and marks it as being
    /// resolved.
    fn next(&mut self, now: Instant) -> Option<String> {
        self.due().filter(|due| *due <= now)?;
        let (_, name) = self.due.pop_first()?;
        if let Some(state) = self.names.get_mut(&name) {
            state.due = None;
        }
        Some(name)
    }

    /// Returns when the next name is due.
    fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Applies the result of a lookup. Returns the answer to send, if there is one.
    fn take_in(
        &mut self,
        name: &str,
        result: io::Result<Vec<IpAddr>>,
        now: Instant,
    ) -> Option<Resolved> {
        let every = self.interval();
        let state = self.names.get_mut(name)?;
        let told = match result {
            Ok(addresses) if !addresses.is_empty() => {
                state.failures = 0;
                state.trouble = None;
                state.addresses = addresses;
                Some(resolved(name, state))
            }
            failure => {
                state.failures = state.failures.saturating_add(1);
                let trouble = failure.err().map_or("no addresses".into(), |e| e.to_string());
                tracing::debug!(name, trouble, "host name does not resolve");
                // The catalog knows which backends this concerns, and logs it.
                let new = state.trouble.as_ref() != Some(&trouble);
                state.trouble = Some(trouble);
                new.then(|| resolved(name, state))
            }
        };
        let pause = match state.failures {
            0 => every,
            n => RETRY.saturating_mul(1 << (n - 1).min(16)).min(every),
        };
        // The name may be in two lookups at once, if it was unwanted for a moment.
        if let Some(old) = state.due.replace(now + spread(name, pause)) {
            self.due.remove(&(old, name.to_owned()));
        }
        self.due.extend(state.due.map(|due| (due, name.to_owned())));
        told
    }

    /// Returns how often each name is resolved, so that the rate of all lookups stays
    /// bounded.
    fn interval(&self) -> Duration {
        let names = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        EVERY.max(Duration::from_secs(1) * (names / RATE_MAX))
    }
}

/// Returns 3/4 to 5/4 of a pause, always the same part for a name, so that names that
/// were added together are not always resolved together.
fn spread(name: &str, pause: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let permille = 750 + u32::try_from(hasher.finish() % 501).unwrap_or(0);
    pause * permille / 1000
}

fn resolved(name: &str, state: &State) -> Resolved {
    let (addresses, trouble) = (state.addresses.clone(), state.trouble.clone());
    Resolved { host: name.to_owned(), addresses, trouble }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|&name| name.to_owned()).collect()
    }

    fn good(last: u8) -> io::Result<Vec<IpAddr>> {
        Ok(vec![IpAddr::from([10, 0, 0, last])])
    }

    fn bad() -> io::Result<Vec<IpAddr>> {
        Err(io::Error::other("no such host"))
    }

    /// Returns the time until the next name is due, in whole seconds.
    fn rest(schedule: &Schedule, now: Instant) -> u64 {
        (schedule.due().unwrap() - now).as_secs()
    }

    #[test]
    fn new_names_are_due_at_once_and_again_later() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        assert_eq!(schedule.due(), None);
        assert_eq!(schedule.want(&names(&["a", "b"]), now), []);
        assert_eq!(schedule.next(now).as_deref(), Some("a"));
        assert_eq!(schedule.next(now).as_deref(), Some("b"));
        assert_eq!((schedule.next(now), schedule.due()), (None, None));

        let told = schedule.take_in("a", good(1), now).unwrap();
        assert_eq!((told.host.as_str(), told.addresses), ("a", vec![[10, 0, 0, 1].into()]));
        assert_eq!(schedule.next(now), None);
        assert!((22..=38).contains(&rest(&schedule, now)));
        let later = now + 2 * EVERY;
        assert_eq!(schedule.next(later).as_deref(), Some("a"));
        assert_eq!(schedule.next(later), None, "b is on its way");
    }

    #[test]
    fn failures_take_nothing_away_and_are_tried_again_ever_more_slowly() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        schedule.want(&names(&["a"]), now);
        schedule.next(now);
        schedule.take_in("a", good(1), now);
        let mut last = 0;
        for failure in 1..60 {
            now = schedule.due().unwrap();
            assert_eq!(schedule.next(now).as_deref(), Some("a"));
            let result = if failure < 30 { bad() } else { Ok(Vec::new()) };
            let told = schedule.take_in("a", result, now);
            // Sent once for each kind of failure, with the addresses that are kept.
            assert_eq!(told.is_some(), failure == 1 || failure == 30, "{failure}");
            if let Some(told) = told {
                let why = if failure < 30 { "no such host" } else { "no addresses" };
                assert_eq!(told.trouble.as_deref(), Some(why));
                assert_eq!(told.addresses, [IpAddr::from([10, 0, 0, 1])]);
            }
            assert!(rest(&schedule, now) >= last && rest(&schedule, now) <= 38, "{failure}");
            last = rest(&schedule, now);
        }
        assert!(last >= 22);
        let kept = schedule.want(&names(&["a", "b"]), now);
        assert_eq!(kept[0].addresses, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(kept[0].trouble.as_deref(), Some("no addresses"));
        assert_eq!(schedule.next(now).as_deref(), Some("b"));
        assert_eq!(schedule.next(now + 2 * EVERY).as_deref(), Some("a"));
        assert_eq!(schedule.take_in("a", good(2), now).unwrap().trouble, None);
        assert!(rest(&schedule, now) >= 22, "back to the long pause");
    }

    #[test]
    fn names_that_nobody_wants_are_forgotten() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.want(&names(&["a", "b"]), now);
        schedule.next(now);
        assert_eq!(schedule.want(&names(&[]), now), []);
        assert_eq!(schedule.take_in("a", good(1), now), None);
        assert_eq!((schedule.next(now), schedule.due()), (None, None));
        assert!(schedule.names.is_empty());
    }

    #[test]
    fn a_name_on_its_way_twice_is_due_once() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        for _ in 0..2 {
            schedule.want(&names(&["a"]), now);
            assert_eq!(schedule.next(now).as_deref(), Some("a"));
            schedule.want(&names(&[]), now);
        }
        schedule.want(&names(&["a"]), now);
        for _ in 0..3 {
            assert!(schedule.take_in("a", good(1), now).is_some());
            assert_eq!(schedule.due.len(), 1);
        }
    }

    #[test]
    fn many_names_are_asked_for_at_a_bounded_rate() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let many: BTreeSet<String> = (0..20_000).map(|i| format!("host-{i}")).collect();
        schedule.want(&many, start);
        while let Some(name) = schedule.next(start) {
            schedule.take_in(&name, good(1), start);
        }
        let seconds: Vec<_> =
            schedule.due.iter().map(|(due, _)| (*due - start).as_secs()).collect();
        let busiest = seconds.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap();
        assert!((300..=500).contains(&seconds[0]));
        assert!(busiest < 150, "{busiest} in one second, 100 on average");
    }
}
