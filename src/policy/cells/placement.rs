//! Chooses the cells of each client, so that all backends get equally many calls.
//!
//! In: clients with their demand, and the listed weight of each cell. Out: the run of
//! adjacent cells that each client uses. The state belongs to one replica. Equal inputs give
//! equal states.
//!
//! Equal numbers of clients in each cell would not balance the calls, because the demand of
//! clients differs by orders of magnitude. A client with a large demand uses a run of two,
//! four or more cells, so no client is a large part of the load of any backend.

use std::collections::{BTreeMap, BTreeSet};

use super::super::hash::pair;
use crate::model::Subset;

/// The most that one client may add to the load of its backends, as a part of the mean load.
const PART: f64 = 0.1;
/// A client's run widens when its part is more than this many times [`PART`].
const WIDEN: f64 = 1.25;
/// A client's run halves when its part is less than this many times [`PART`].
const NARROW: f64 = 1.0 / 3.0;
/// A run is a candidate if it has at most this many mean clients more than the least loaded
/// run. A client's hash chooses among the candidates, so most clients get the same run from
/// every replica.
const NEAR: f64 = 2.0;
/// The part of the clients that may move in a minute. One client may always move.
const MOVES: f64 = 0.01;
/// Clients leave a cell while it has more than this many times the mean load.
const HOT: f64 = 1.05;
/// The halves of a run merge (their clients get the list of the whole run) when one has more
/// than this many times the mean load for its listed weight.
const MERGE: f64 = 1.15;
/// Merged halves separate when neither has more than this many times the mean load.
const UNMERGE: f64 = 1.05;

/// A run of 2^level cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// How many of the last bits of a cell's number may have any value.
    pub level: u32,
    /// The other bits, which are the same for all cells of the run.
    pub index: u32,
}

/// Which run each client of one replica uses.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    bits: u32,
    clients: BTreeMap<u64, Client>,
    /// The load that each cell would have if no runs were merged.
    loads: Vec<f64>,
    demand: f64,
    merged: BTreeSet<Run>,
}

#[derive(Debug, Clone, Copy)]
struct Client {
    demand: f64,
    run: Run,
}

impl Run {
    /// Returns the run as a subset of a service with 2^`bits` cells; `None`: all of them.
    #[must_use]
    pub fn subset(self, bits: u32) -> Option<Subset> {
        Subset::new(bits.saturating_sub(self.level), self.index)
    }

    /// Returns whether a cell belongs to the run.
    #[must_use]
    pub fn holds(self, cell: u32) -> bool {
        cell >> self.level == self.index
    }

    /// Returns the run of twice the length that contains this one.
    fn parent(self) -> Self {
        Self { level: self.level + 1, index: self.index >> 1 }
    }

    fn halves(self) -> [Self; 2] {
        [0, 1].map(|half| Self { level: self.level - 1, index: self.index << 1 | half })
    }

    fn cells(self) -> std::ops::Range<usize> {
        let start = (self.index as usize) << self.level;
        start..start + (1 << self.level)
    }

    fn sum<T: Copy + std::iter::Sum>(self, of: &[T]) -> T {
        of[self.cells()].iter().copied().sum()
    }
}

impl Placement {
    /// Makes an empty placement for a table with 2^`bits` cells.
    #[must_use]
    pub fn new(bits: u32) -> Self {
        Self { bits, loads: vec![0.0; 1 << bits], ..Self::default() }
    }

    /// Places a client that joins. `client` is the hash of its identity. `demand` is in any
    /// unit; `None` means unknown and counts as the mean. Such a client gets one cell at first:
    /// after a restart, it must not get a long list because few others are back yet. In all
    /// methods, `weights` has the listed weight of each cell. Returns the run whose list the
    /// client gets.
    pub fn join(&mut self, client: u64, demand: Option<f64>, weights: &[u64]) -> Run {
        self.leave(client, weights);
        let known = demand.filter(|demand| demand.is_finite() && *demand >= 0.0);
        let demand = known.unwrap_or_else(|| if self.mean() > 0.0 { self.mean() } else { 1.0 });
        self.demand += demand;
        let level = known.map_or(0, |demand| self.level(demand));
        let run = self.choose(client, level, weights);
        self.clients.insert(client, Client { demand, run });
        self.add(run, demand, weights);
        self.served(run)
    }

    /// Removes a client.
    pub fn leave(&mut self, client: u64, weights: &[u64]) {
        if let Some(Client { demand, run }) = self.clients.remove(&client) {
            self.demand -= demand;
            self.add(run, -demand, weights);
        }
    }

    /// Stores the demand of a client, smoothed over 60 s. The next [`Self::rebalance`] uses
    /// it.
    pub fn report(&mut self, client: u64, demand: f64) {
        if let Some(client) = self.clients.get_mut(&client).filter(|_| demand.is_finite()) {
            client.demand = demand.max(0.0);
        }
    }

    /// Returns the run whose list a client gets; `None` if the client is unknown.
    #[must_use]
    pub fn run(&self, client: u64) -> Option<Run> {
        self.clients.get(&client).map(|client| self.served(client.run))
    }

    /// Returns the number of bits of a cell's number.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Returns each client, with the run whose list it gets.
    pub fn runs(&self) -> impl Iterator<Item = (u64, Run)> + '_ {
        self.clients.iter().map(|(&client, state)| (client, self.served(state.run)))
    }

    /// Returns the load of the hottest cell for its weight, as a multiple of the mean; 0
    /// without clients.
    #[must_use]
    pub fn hottest(&self, weights: &[u64]) -> f64 {
        let weight: u64 = weights.iter().sum();
        let mean = self.demand / (weight as f64).max(1.0);
        let heat = |(load, weight): (&f64, &u64)| load / (*weight as f64).max(1e-9);
        let listed = self.loads.iter().zip(weights).filter(|one| *one.1 > 0);
        let hottest = listed.map(heat).fold(0.0, f64::max);
        if mean > 0.0 { hottest / mean } else { 0.0 }
    }

    /// Balances the load again; call it once a minute, and when weights changed. Runs grow
    /// and shrink with the demand of their clients. Then a few clients leave the hottest
    /// cells.
    pub fn rebalance(&mut self, weights: &[u64]) {
        self.count(weights);
        let clients: Vec<(u64, Client)> =
            self.clients.iter().map(|(&client, &state)| (client, state)).collect();
        for (client, Client { demand, run }) in clients {
            let part = self.part(demand, run.level);
            if part > WIDEN * PART {
                let level = self.level(demand);
                let wide = Run { level, index: run.index >> (level.max(run.level) - run.level) };
                self.move_to(client, wide, weights);
            } else if part < NARROW * PART && run.level > 0 {
                let narrow = self.lighter(client, run.halves(), weights);
                self.move_to(client, narrow, weights);
            }
        }
        self.cool(weights);
        self.merge(weights);
    }

    /// Merges runs that have too little listed weight for their clients, and separates those
    /// that have enough again; call it when weights changed. It moves no client.
    pub fn reweigh(&mut self, weights: &[u64]) {
        self.count(weights);
        self.merge(weights);
    }

    /// Changes the number of cells to 2^`bits`. Runs keep their backends; where cells are
    /// joined, a run of one cell grows by the other half. Then runs halve while their client
    /// is a small enough part of the load.
    pub fn resize(&mut self, bits: u32, weights: &[u64]) {
        while self.bits < bits {
            self.bits += 1;
            self.clients.values_mut().for_each(|client| client.run.level += 1);
        }
        while self.bits > bits {
            self.bits -= 1;
            for Client { run, .. } in self.clients.values_mut() {
                *run = if run.level > 0 { *run } else { run.parent() };
                run.level -= 1;
            }
        }
        self.merged.clear();
        self.count(weights);
        let clients: Vec<(u64, Client)> =
            self.clients.iter().map(|(&client, &state)| (client, state)).collect();
        for (client, Client { demand, mut run }) in clients {
            while run.level > 0 && self.part(demand, run.level - 1) <= PART {
                run = self.lighter(client, run.halves(), weights);
            }
            self.move_to(client, run, weights);
        }
        self.merge(weights);
    }

    /// Returns the largest merged run that contains this one, or the run itself.
    fn served(&self, run: Run) -> Run {
        let parents = std::iter::successors(Some(run.parent()), |run| Some(run.parent()));
        let parents = parents.take_while(|run| run.level <= self.bits);
        parents.filter(|run| self.merged.contains(run)).last().unwrap_or(run)
    }

    fn mean(&self) -> f64 {
        self.demand / self.clients.len().max(1) as f64
    }

    /// Returns what a client adds to the load of the backends of a run, as a part of the
    /// mean load.
    fn part(&self, demand: f64, level: u32) -> f64 {
        let cells = f64::from(1_u32 << (self.bits - level));
        if self.demand > 0.0 { demand / self.demand * cells } else { 0.0 }
    }

    /// Returns the level at which a client's part is small enough.
    fn level(&self, demand: f64) -> u32 {
        (0..self.bits).find(|&level| self.part(demand, level) <= PART).unwrap_or(self.bits)
    }

    /// Returns the run of a level for a client: the one with the least load for its weight,
    /// or one with nearly as little.
    fn choose(&self, client: u64, level: u32, weights: &[u64]) -> Run {
        let runs = (0..1_u32 << (self.bits - level)).map(|index| Run { level, index });
        let heat = |run: Run| {
            let weight = run.sum(weights) as f64;
            (weight, if weight > 0.0 { run.sum(&self.loads) / weight } else { f64::INFINITY })
        };
        let heats: Vec<(Run, f64, f64)> = runs
            .map(|run| {
                let (weight, heat) = heat(run);
                (run, weight, heat)
            })
            .collect();
        let least = heats.iter().map(|one| one.2).fold(f64::INFINITY, f64::min);
        let near = NEAR * self.mean();
        let close = |&&(_, weight, heat): &&(Run, f64, f64)| {
            heat <= least || (heat - least) * weight < near
        };
        let hash = |run: Run| pair(client, pair(u64::from(run.level), u64::from(run.index)));
        let best = heats.iter().filter(close).max_by_key(|one| hash(one.0));
        best.map_or(Run { level, index: 0 }, |one| one.0)
    }

    /// Returns the half with less load for its weight.
    fn lighter(&self, client: u64, halves: [Run; 2], weights: &[u64]) -> Run {
        let heat = |run: Run| run.sum(&self.loads) / (run.sum(weights) as f64).max(1e-9);
        let (left, right) = (heat(halves[0]), heat(halves[1]));
        if left == right {
            return halves[(pair(client, 0) >> 63) as usize];
        }
        halves[usize::from(right < left)]
    }

    fn move_to(&mut self, client: u64, to: Run, weights: &[u64]) {
        let Some(state) = self.clients.get_mut(&client) else { return };
        let Client { demand, run } = *state;
        state.run = to;
        self.add(run, -demand, weights);
        self.add(to, demand, weights);
    }

    fn add(&mut self, run: Run, demand: f64, weights: &[u64]) {
        let total = run.sum(weights) as f64;
        let cells = f64::from(1_u32 << run.level);
        for cell in run.cells() {
            let part = if total > 0.0 { weights[cell] as f64 / total } else { 1.0 / cells };
            self.loads[cell] += demand * part;
        }
    }

    /// Computes the loads again, so that rounding does not add up.
    fn count(&mut self, weights: &[u64]) {
        self.loads = vec![0.0; 1 << self.bits];
        self.demand = self.clients.values().map(|client| client.demand).sum();
        let clients: Vec<Client> = self.clients.values().copied().collect();
        clients.into_iter().for_each(|client| self.add(client.run, client.demand, weights));
    }

    /// Moves clients from the hottest cell to the coolest.
    fn cool(&mut self, weights: &[u64]) {
        let weight: u64 = weights.iter().sum();
        let mean = self.demand / (weight as f64).max(1.0);
        let moves = ((MOVES * self.clients.len() as f64) as usize).max(1);
        for _ in 0..moves {
            let heat = |cell: usize| self.loads[cell] / (weights[cell] as f64).max(1e-9);
            let cells = || (0..self.loads.len()).filter(|&cell| weights[cell] > 0);
            let hottest = cells().max_by(|&a, &b| heat(a).total_cmp(&heat(b)));
            let coolest = cells().min_by(|&a, &b| heat(a).total_cmp(&heat(b)));
            let (Some(hot), Some(cool)) = (hottest, coolest) else { return };
            if heat(hot) <= HOT * mean {
                return;
            }
            let excess = self.loads[hot] - mean * weights[hot] as f64;
            let room = mean * weights[cool] as f64 - self.loads[cool];
            let from = Run { level: 0, index: hot as u32 };
            let here = self.clients.iter().filter(|(_, client)| client.run == from);
            // A move must not make the coolest cell hotter than the hottest was.
            let fits = |client: &(&u64, &Client)| client.1.demand < room + excess;
            let far = |demand: f64| (demand - excess).abs();
            let best = here
                .filter(fits)
                .min_by(|a, b| far(a.1.demand).total_cmp(&far(b.1.demand)).then(a.0.cmp(b.0)));
            let Some((&client, _)) = best else { return };
            self.move_to(client, Run { level: 0, index: cool as u32 }, weights);
        }
    }

    fn merge(&mut self, weights: &[u64]) {
        let weight: u64 = weights.iter().sum();
        let mean = self.demand / (weight as f64).max(1.0);
        // A run without listed backends is always merged with its neighbour.
        let heat = |run: Run| match run.sum(weights) {
            0 => f64::INFINITY,
            weight => run.sum(&self.loads) / weight as f64,
        };
        for level in 1..=self.bits {
            for index in 0..1_u32 << (self.bits - level) {
                let run = Run { level, index };
                let hottest = run.halves().map(heat).into_iter().fold(0.0, f64::max);
                if hottest > MERGE * mean {
                    self.merged.insert(run);
                } else if hottest <= UNMERGE * mean {
                    self.merged.remove(&run);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
