//! Which share of a class's calls each backend of a service has.
//!
//! In: a snapshot, a class. Out: for each of the snapshot's endpoints its [`Share`].

use super::State;
use crate::catalog::Service;
use crate::model::Class;
use crate::policy;

/// What a backend gets of a class's calls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    /// How often it stands in one cycle of the list.
    pub(super) turns: usize,
    /// How many turns the cycle has.
    pub(super) cycle: usize,
    /// The share that its weight asks for.
    pub(super) due: f64,
    /// The share that it has.
    pub(super) share: f64,
}

pub(super) fn of(state: &State, snapshot: &Service, class: &Class) -> Vec<Share> {
    let decision = policy::decide(snapshot, class);
    let turns = (state.turns)(&decision);
    let weight: f64 = decision.picks().iter().map(|pick| f64::from(pick.weight.0)).sum();
    let cycle: f64 = turns.iter().copied().map(f64::from).sum();
    let nothing = Share { cycle: cycle as usize, ..Share::default() };
    let mut shares = vec![nothing; snapshot.endpoints.len()];
    for (pick, &turns) in decision.picks().iter().zip(&turns) {
        let share = &mut shares[pick.endpoint as usize];
        share.turns = turns as usize;
        share.due = f64::from(pick.weight.0) / weight;
        share.share = f64::from(turns) / cycle;
    }
    shares
}
