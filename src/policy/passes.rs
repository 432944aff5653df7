//! The passes that a backend must pass to be listed, in order.
//!
//! In: a backend as registered, and a class of clients. Out: the names of the passes, and what
//! the first three say, which look at one backend alone. The others look at all backends that
//! those before them keep (`health.rs`, `newcomers.rs` and so on). Pure.

use std::fmt;

use super::explain::{Finding, Reason};
use crate::catalog::{Service, is_chosen};
use crate::model::{Class, Endpoint, Weight};

use super::Pick;

/// A pass. The variants are in the order in which the passes run.
///
/// Slow start and reported load come before zones, because a zone is given as many calls as its
/// backends can take now. Cells come before the split, because they are made once for all
/// classes; and the split before zones, because each of its groups is divided by zone on its
/// own, so that the canaries' share stays exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The weight is not 0. Weight 0 means no calls at all.
    Weight,
    /// Neither a mark of an operator nor its own metadata drains the backend.
    Undrained,
    /// The backend has everything that the client's name selects.
    Selected,
    /// The backend is healthy, or unhealthy backends are listed too.
    Healthy,
    /// The backend has not left too often in the last minutes, or no other backend is left.
    Undelayed,
    /// This pass keeps every backend. Its finding is the part of its share that the backend
    /// gets.
    Started,
    /// This pass keeps every backend. Its finding is the factor of its share by the load that
    /// it reports.
    Loaded,
    /// The client uses the backend's cell, where the service is divided into cells.
    Subset,
    /// The backend belongs to the group that the client, its key or its calls use, where the
    /// service splits them.
    Split,
    /// The backend's zone serves clients that are where the client is.
    Near,
    /// The backend has the key that the client's name names.
    Affinity,
}

/// Is shown what each pass keeps. `decide` shows it to nobody, `explain` to a list of stages. So
/// both run the same passes.
pub(super) trait Watch {
    /// Whether anything is watched. If so, the passes run whose result a service keeps.
    const WATCHES: bool;

    /// Is called after each pass that can say something, with the picks that it keeps.
    fn after(&mut self, pass: Pass, picks: &[Pick]);
}

impl Watch for () {
    const WATCHES: bool = false;

    fn after(&mut self, _: Pass, _: &[Pick]) {}
}

type PassFn = for<'a> fn(&'a Service, &Endpoint, &'a Class) -> Finding<'a>;

/// The passes that look at one backend alone, in order.
pub(super) const ALONE: [PassFn; 3] = [weight, undrained, selected];

/// Returns whether every pass that looks at one backend alone keeps it.
pub(super) fn keep(service: &Service, endpoint: &Endpoint, class: &Class) -> bool {
    ALONE.iter().all(|pass| pass(service, endpoint, class).kept)
}

fn weight<'a>(_: &'a Service, endpoint: &Endpoint, _: &'a Class) -> Finding<'a> {
    let reason = Reason::Weight(endpoint.weight);
    Finding { pass: Pass::Weight, kept: endpoint.weight != Weight(0), reason }
}

fn undrained<'a>(service: &'a Service, endpoint: &Endpoint, _: &'a Class) -> Finding<'a> {
    let mark = service.marks.drain(endpoint);
    let reason = match mark {
        Some(mark) => Reason::Drained(mark),
        None if endpoint.is_lame_duck() => Reason::LameDuck,
        None => Reason::NotDrained,
    };
    Finding { pass: Pass::Undrained, kept: reason == Reason::NotDrained, reason }
}

fn selected<'a>(_: &'a Service, endpoint: &Endpoint, class: &'a Class) -> Finding<'a> {
    let selectors = class.selectors();
    let lacks = selectors.iter().find(|selector| !is_chosen(endpoint, selector));
    let reason = match lacks {
        Some(lacks) => Reason::Lacks(lacks),
        None if selectors.is_empty() => Reason::NothingSelected,
        None => Reason::Has(selectors),
    };
    Finding { pass: Pass::Selected, kept: lacks.is_none(), reason }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weight => "weight",
            Self::Undrained => "undrained",
            Self::Healthy => "healthy",
            Self::Undelayed => "undelayed",
            Self::Selected => "selected",
            Self::Started => "started",
            Self::Loaded => "loaded",
            Self::Subset => "subset",
            Self::Split => "split",
            Self::Near => "near",
            Self::Affinity => "affinity",
        })
    }
}
