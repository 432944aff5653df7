//! What backends did in a run, for the checker.
//!
//! In: a plan and its history. Out: whether a backend was in some state all the time. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::history::{Record, What};
use crate::plan::{Host, Plan};
use crate::policies::{Act, Kind};
use crate::world::Outcome;

/// The states of all backends.
pub struct Behaviour(BTreeMap<SocketAddr, States>);

struct States {
    backend: usize,
    states: Vec<(u64, State)>,
}

/// What a backend does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub listens: bool,
    pub act: Act,
}

impl Behaviour {
    pub fn of(plan: &Plan, outcome: &Outcome) -> Self {
        let start = vec![(0, State { listens: false, act: Act::Serves })];
        let mut all = BTreeMap::new();
        for (backend, one) in plan.backends.iter().enumerate() {
            for port in one.ports {
                let addr = SocketAddr::new(outcome.addresses[&Host::Machine(one.machine)], port);
                all.insert(addr, States { backend, states: start.clone() });
            }
        }
        for Record { at, what } in &outcome.records {
            let change = |of: &mut States, change: &dyn Fn(&mut State)| {
                let mut state = of.states.last().expect("the start").1;
                change(&mut state);
                of.states.push((*at, state));
            };
            match what {
                What::Listens(addr) => {
                    let of = all.get_mut(addr).expect("it is planned");
                    change(of, &|state| state.listens = true);
                }
                What::Deaf(addr) => {
                    let of = all.get_mut(addr).expect("it is planned");
                    change(of, &|state| state.listens = false);
                }
                What::Crashed(host) => {
                    let ip = outcome.addresses[host];
                    for (_, of) in all.iter_mut().filter(|(addr, _)| addr.ip() == ip) {
                        change(of, &|state| state.listens = false);
                    }
                }
                What::Acts { backend, act } => {
                    for of in all.values_mut().filter(|of| of.backend == *backend) {
                        change(of, &|state| state.act = *act);
                    }
                }
                _ => {}
            }
        }
        Self(all)
    }

    /// Returns whether a backend was in such a state all the time.
    pub fn always(
        &self,
        addr: SocketAddr,
        from: u64,
        until: u64,
        is: impl Fn(State) -> bool,
    ) -> bool {
        let Some(States { states, .. }) = self.0.get(&addr) else { return false };
        let first = states.iter().rposition(|(at, _)| *at <= from).unwrap_or(0);
        states[first..].iter().take_while(|(at, _)| *at <= until).all(|(_, state)| is(*state))
    }

    /// Returns the number of the backend at an address.
    pub fn backend(&self, addr: SocketAddr) -> Option<usize> {
        self.0.get(&addr).map(|states| states.backend)
    }
}

impl State {
    /// Returns whether a check of this kind finds the backend healthy.
    pub fn passes(self, kind: Kind) -> bool {
        self.listens && self.act.passes(kind)
    }
}
