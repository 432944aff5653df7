//! What a client wants of one type.
//!
//! In: requests. Out: their names, sorted, with what was sent of each, and what a request says
//! of the newest response. Pure.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::xds::assignment::Assignment;
use crate::xds::request::{Names, NamesHash};

use super::{Compared, Request, Taken, Verdict};

/// What a client wants and has of one type. `W` is what its stream keeps for each name.
pub(super) struct Wanted<W> {
    /// Sorted by name.
    pub(super) names: Vec<Name<W>>,
    /// The number and the hash of the names of the last request. Apart, they take less room.
    asked_count: u32,
    asked_hash: u64,
    /// What the names cost, in bytes.
    cost: u32,
    /// The nonce of the newest response; 0 before the first.
    nonce: u64,
    /// Whether the client has not answered the newest response.
    pub(super) unanswered: bool,
    /// How many names of the last request there was no room for.
    left_out: u32,
}

/// A name that a client wants.
pub(super) struct Name<W> {
    pub(super) name: Arc<str>,
    pub(super) watch: W,
    /// The newest assignment, while it is not sent.
    pub(super) next: Option<Arc<Assignment>>,
    /// What was sent.
    pub(super) sent: Option<Sent>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// Never 0, so that the absence of it takes no room.
    version: NonZeroU64,
    pub(super) members: u64,
}

impl Sent {
    pub(super) fn new(version: u64, members: u64) -> Self {
        Self { version: NonZeroU64::new(version).unwrap_or(NonZeroU64::MIN), members }
    }

    /// Returns whether this is of that version.
    pub(super) fn is(self, version: u64) -> bool {
        Self::new(version, 0).version == self.version
    }
}

/// The most names of one type on a stream. A client's request must name them all.
pub(in crate::xds) const NAMES_MAX: usize = 10_000;
/// The longest name, in bytes. A name that means a service has less than 256, and an
/// authority and a type beside.
const NAME_MAX: usize = 1_024;
/// What a name costs beside its own bytes.
const NAME_COST: usize = 96;

impl<W: Default> Wanted<W> {
    pub(super) fn new() -> Self {
        Self {
            names: Vec::new(),
            asked_count: 0,
            asked_hash: 0,
            cost: 0,
            nonce: 0,
            unanswered: false,
            left_out: 0,
        }
    }

    /// Returns what the names cost, in bytes.
    pub(super) fn cost(&self) -> usize {
        self.cost as usize
    }

    /// Returns how many names of the last request there was no room for.
    pub(super) fn left_out(&self) -> usize {
        self.left_out as usize
    }

    /// Records that a response was sent.
    pub(super) fn sent(&mut self, nonce: u64) {
        (self.nonce, self.unanswered) = (nonce, true);
    }

    /// Takes a request, of which the names may cost `room`. `added` is called for each new
    /// name. Most requests only answer a response, and cost nothing for each name but its
    /// hash.
    pub(super) fn take(
        &mut self,
        request: Request,
        room: usize,
        share: impl Fn(&str) -> Arc<str>,
        mut added: impl FnMut(&Arc<str>),
    ) -> Taken {
        let newest = self.unanswered && request.nonce.parse() == Ok(self.nonce);
        let verdict = match request.error {
            _ if !newest => Verdict::None,
            Some(error) => Verdict::Refused(error),
            None => Verdict::Accepted,
        };
        self.unanswered &= !newest;
        let asked = NamesHash { count: self.asked_count, hash: self.asked_hash };
        let names = request.names.hash();
        (self.asked_count, self.asked_hash) = (names.count, names.hash);
        // There may be room now for names that were left out.
        let all_fitted = self.left_out == 0;
        if all_fitted && asked == names {
            return Taken { verdict, compared: Compared::Nothing, changed: false };
        }
        // Node adds a name to the end, once for each of its targets.
        if all_fitted && let Some(names) = request.names.beyond(asked) {
            let before = self.names.len();
            names.for_each(|name| self.add(name, room, &share, &mut added));
            let changed = self.names.len() > before;
            return Taken { verdict, compared: Compared::Ends, changed };
        }
        let changed = self.want(&request.names, room, share, added);
        Taken { verdict, compared: Compared::All, changed }
    }

    /// Adds a name, if there is room for it.
    fn add(
        &mut self,
        name: &str,
        room: usize,
        share: impl Fn(&str) -> Arc<str>,
        mut added: impl FnMut(&Arc<str>),
    ) {
        let Err(at) = self.names.binary_search_by(|one| (*one.name).cmp(name)) else { return };
        if name.is_empty() || name == "*" {
            return;
        }
        let sum = self.cost() + NAME_COST + name.len();
        if self.names.len() == NAMES_MAX || name.len() > NAME_MAX || sum > room {
            self.left_out += 1;
            return;
        }
        self.cost = small(sum);
        let name = share(name);
        added(&name);
        self.names.insert(at, Name { watch: W::default(), name, next: None, sent: None });
    }

    /// Sets the names. Returns whether they differ from the former ones.
    fn want(
        &mut self,
        names: &Names,
        room: usize,
        share: impl Fn(&str) -> Arc<str>,
        mut added: impl FnMut(&Arc<str>),
    ) -> bool {
        let mut all = names.iter().filter(|name| !name.is_empty() && *name != "*");
        // Some may be there twice.
        let mut names: Vec<_> = all.by_ref().take(2 * NAMES_MAX).collect();
        names.sort_unstable();
        names.dedup();
        let mut gone = self.names.len();
        let mut changed = false;
        let mut old = std::mem::take(&mut self.names).into_iter().peekable();
        let (mut sum, mut left_out) = (0, all.count());
        self.names.reserve_exact(names.len().min(NAMES_MAX));
        for name in names {
            let cost = NAME_COST + name.len();
            if self.names.len() == NAMES_MAX || name.len() > NAME_MAX || sum + cost > room {
                left_out += 1;
                continue;
            }
            sum += cost;
            while old.next_if(|old| *old.name < *name).is_some() {}
            if let Some(kept) = old.next_if(|old| *old.name == *name) {
                gone -= 1;
                self.names.push(kept);
                continue;
            }
            changed = true;
            let name = share(name);
            added(&name);
            self.names.push(Name { watch: W::default(), name, next: None, sent: None });
        }
        (self.cost, self.left_out) = (small(sum), small(left_out));
        changed || gone > 0
    }

    /// Returns a name; `None` if the client does not want it.
    pub(super) fn get(&mut self, name: &str) -> Option<&mut Name<W>> {
        let at = self.find(name)?;
        Some(&mut self.names[at])
    }

    /// Returns the place of a name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.names.binary_search_by(|one| (*one.name).cmp(name)).ok()
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
