//! Bounds how much of the load of all keys one backend gets.
//!
//! In: keys in use with their loads, and the backends to which keys can be assigned. Out: the
//! backend of each key. Pure. The state belongs to one
//! replica, and has only keys in use. Equal inputs in equal order give equal states.
//!
//! A backend has room for a key while it has, without that key, less than `factor` percent of
//! its share of the load. There is always one with room. A key leaves its backend only if that
//! has no room for it, and goes to the best of those with room, in its own order by rendezvous
//! hashing. So a key that alone is more than a bound stays, and the others leave. It comes back
//! to its first choice only once that would be at most half-way from its share to the bound.
//! This is consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018), as
//! Envoy's and HAProxy's `hash-balance-factor`, but for keys that stay.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::hash::pair;
use super::rendezvous::{choose, choose_among};
use crate::catalog::Candidate;

/// The keys in use of one selection of a service's clients.
#[derive(Debug, Clone, Default)]
pub struct KeyLoads {
    /// In percent of a backend's share.
    factor: u32,
    backends: Arc<Vec<Candidate>>,
    /// The place of each backend, by the hash of its id.
    places: BTreeMap<u64, usize>,
    /// The load of each backend.
    loads: Vec<f64>,
    /// The sum of the backends' weights.
    weight: f64,
    /// How often the backends or the factor have changed.
    version: u64,
    keys: BTreeMap<u64, Key>,
    /// The number of streams of all keys.
    streams: usize,
    /// The load of all keys.
    load: f64,
}

#[derive(Debug, Clone, Copy)]
struct Key {
    streams: usize,
    load: f64,
    /// The hash of the id of its backend.
    backend: u64,
    /// Whether that is not its first choice.
    moved: bool,
    /// The version for which its backend was chosen.
    version: u64,
}

impl KeyLoads {
    /// Replaces the backends and the factor. Keys choose anew when they are next asked for.
    pub fn update(&mut self, backends: &Arc<Vec<Candidate>>, factor: u32) {
        if *backends == self.backends && factor == self.factor {
            return;
        }
        let before = |id: &u64| self.places.get(id).map_or(0.0, |&at| self.loads[at]);
        self.loads = backends.iter().map(|one| before(&one.id)).collect();
        self.places = backends.iter().enumerate().map(|(at, one)| (one.id, at)).collect();
        self.weight = backends.iter().map(|one| f64::from(one.weight)).sum();
        (self.backends, self.factor) = (backends.clone(), factor);
        self.version += 1;
    }

    /// Adds one more stream of a key.
    pub fn join(&mut self, key: u64, load: f64) {
        self.load += load;
        self.streams += 1;
        match self.keys.get_mut(&key) {
            Some(state) => state.streams += 1,
            None => {
                let new = Key { streams: 1, load: 0.0, backend: 0, moved: false, version: 0 };
                self.keys.insert(key, new);
                self.settle(key, true);
            }
        }
        self.add_to_key(key, load);
    }

    /// Removes a stream of a key.
    pub fn leave(&mut self, key: u64, load: f64) {
        self.add(key, -load);
        let Some(state) = self.keys.get_mut(&key) else { return };
        self.streams -= 1;
        state.streams -= 1;
        if state.streams == 0 {
            let rest = state.load;
            self.add(key, -rest);
            self.keys.remove(&key);
        }
    }

    /// Adds to the load of a key. The next [`Self::rebalance`] heeds it.
    pub fn add(&mut self, key: u64, load: f64) {
        self.load += load;
        self.add_to_key(key, load);
    }

    /// Returns the hash of the id of a key's backend; `None` if there is none.
    fn backend(&mut self, key: u64) -> Option<u64> {
        if self.keys.get(&key)?.version != self.version {
            self.settle(key, true);
        }
        let backend = self.keys.get(&key)?.backend;
        self.places.contains_key(&backend).then_some(backend)
    }

    /// Returns the hash of the id of the backend to which a key was moved; `None` if it is at its
    /// first choice, or not in use.
    pub fn moved_to(&mut self, key: u64) -> Option<u64> {
        let backend = self.backend(key)?;
        self.keys.get(&key)?.moved.then_some(backend)
    }

    /// Returns the mean load of a stream; `None` without streams.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.streams > 0).then(|| self.load / self.streams as f64)
    }

    /// Moves keys away from backends that are over their bounds, and others back. Returns
    /// whether any key moved.
    pub fn rebalance(&mut self) -> bool {
        self.count();
        let mut changed = false;
        // Guests leave first, then the keys to which the backend is the least.
        let without_room = |(&key, state): (&u64, &Key)| {
            let at = *self.places.get(&state.backend)?;
            let full = !self.has_room(at, self.loads[at] - state.load);
            full.then(|| (at, !state.moved, pair(key, state.backend), key))
        };
        let mut over: Vec<_> = self.keys.iter().filter_map(without_room).collect();
        over.sort_unstable();
        for (at, _, _, key) in over {
            let load = self.keys.get(&key).map_or(0.0, |state| state.load);
            // Those that have left may have made room.
            if !self.has_room(at, self.loads[at] - load) {
                self.settle(key, false);
                changed = true;
            }
        }
        let moved = self.keys.iter().filter(|key| key.1.moved).map(|(&key, _)| key);
        for key in moved.collect::<Vec<u64>>() {
            changed |= self.bring_back(key);
        }
        changed
    }

    /// Moves a key to its first choice, if that is well below its bound.
    fn bring_back(&mut self, key: u64) -> bool {
        let (Some(state), Some(first)) = (self.keys.get(&key), choose(key, &self.backends)) else {
            return false;
        };
        let due = self.load * f64::from(self.backends[first].weight) / self.weight;
        let half_way = due * f64::from(100 + self.factor) / 200.0;
        let fits = self.loads[first] + state.load <= half_way || self.loads[first] <= 0.0;
        if fits {
            self.place(key, first, false);
        }
        fits
    }

    /// Chooses the backend of a key. If it `stays`, a key that was moved stays where it is while
    /// there is room.
    fn settle(&mut self, key: u64, stays: bool) {
        let Some(&state) = self.keys.get(&key) else { return };
        if let Some(&at) = self.places.get(&state.backend) {
            self.loads[at] -= state.load;
        }
        let has_room = |at: usize| self.has_room(at, self.loads[at]);
        let first = choose(key, &self.backends);
        let guest = self.places.get(&state.backend).copied();
        let guest = guest.filter(|&at| stays && state.moved && has_room(at));
        let best = first.filter(|&at| guest.is_none() && has_room(at));
        let other = || choose_among(key, &self.backends, has_room);
        let at = guest.or(best).or_else(other).or(first);
        if let Some(at) = at {
            self.loads[at] += state.load;
        }
        let backend = at.map_or(0, |at| self.backends[at].id);
        let new = Key { backend, moved: at != first, version: self.version, ..state };
        self.keys.insert(key, new);
    }

    fn place(&mut self, key: u64, to: usize, moved: bool) {
        let Some(state) = self.keys.get_mut(&key) else { return };
        if let Some(&at) = self.places.get(&state.backend) {
            self.loads[at] -= state.load;
        }
        self.loads[to] += state.load;
        (state.backend, state.moved) = (self.backends[to].id, moved);
    }

    /// Returns whether a backend that has this load beside a key has room for it.
    fn has_room(&self, at: usize, load: f64) -> bool {
        let due = self.load * f64::from(self.backends[at].weight) / self.weight;
        load < due * f64::from(self.factor) / 100.0
    }

    fn add_to_key(&mut self, key: u64, load: f64) {
        let Some(state) = self.keys.get_mut(&key) else { return };
        state.load += load;
        if let Some(&at) = self.places.get(&state.backend) {
            self.loads[at] += load;
        }
    }

    /// Computes the loads again, so that rounding does not add up, and settles all keys.
    fn count(&mut self) {
        self.load = self.keys.values().map(|key| key.load).sum();
        self.loads = vec![0.0; self.backends.len()];
        for key in self.keys.values() {
            if let Some(&at) = self.places.get(&key.backend) {
                self.loads[at] += key.load;
            }
        }
        let stale = self.keys.iter().filter(|key| key.1.version != self.version);
        for key in stale.map(|(&key, _)| key).collect::<Vec<u64>>() {
            self.settle(key, true);
        }
    }
}

#[cfg(test)]
mod tests;
