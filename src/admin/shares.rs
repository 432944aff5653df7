//! Computes the share of a class's calls that each backend of a service gets.
//!
//! In: a snapshot, a class. Out: a [`Share`] for each of the snapshot's endpoints.

use super::State;
use crate::catalog::Service;
use crate::model::Class;
use crate::policy;

/// The part of a class's calls that a backend gets.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    /// How many entries it has in one cycle of the list.
    pub(super) entries: usize,
    /// How many entries the cycle has.
    pub(super) cycle: usize,
    /// The share that its weight asks for, from 0 to 1.
    pub(super) due: f64,
    /// The share that it gets, from 0 to 1.
    pub(super) share: f64,
}

pub(super) fn of(state: &State, snapshot: &Service, class: &Class) -> Vec<Share> {
    let decision = policy::decide(snapshot, class);
    let entries = (state.entries_per_pick)(&decision);
    let dues = decision.dues();
    let cycle: f64 = entries.iter().copied().map(f64::from).sum();
    let nothing = Share { cycle: cycle as usize, ..Share::default() };
    let mut shares = vec![nothing; snapshot.endpoints.len()];
    for ((pick, &count), due) in decision.picks().iter().zip(&entries).zip(dues) {
        let share = &mut shares[pick.endpoint as usize];
        share.entries = count as usize;
        share.due = due;
        share.share = f64::from(count) / cycle;
    }
    shares
}
