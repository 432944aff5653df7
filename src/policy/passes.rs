//! The passes that a backend must pass to be listed, in order.
//!
//! In: a backend as registered, and a class of clients. Out: whether the backend is
//! listed, and for `explain` the finding of each pass. Pure.

use std::fmt;

use crate::catalog::{Service, is_chosen};
use crate::facts::factor::Factor;
use crate::marks::Mark;
use crate::model::{Class, Endpoint, Selector, Weight};

use super::zones::Nearness;
use super::{newcomers, zones};

/// A pass. The variants are in the order in which the passes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The weight is not 0. Weight 0 means no calls at all.
    Weight,
    /// Neither a mark of an operator nor its own metadata drains the backend.
    Undrained,
    /// The backend has everything that the client's name selects.
    Selected,
    /// The backend has not left too often in the last minutes, or no other backend is left.
    Undelayed,
    /// This pass keeps every backend. Its finding is the part of its share that the backend
    /// gets.
    Started,
    /// The backend's zone serves clients that are where the client is.
    Near,
}

/// The result of one pass for one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<'a> {
    /// The pass.
    pub pass: Pass,
    /// Whether the pass keeps the backend.
    pub kept: bool,
    reason: Reason<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason<'a> {
    Weight(Weight),
    NotDrained,
    Drained(&'a Mark),
    LameDuck,
    NotDelayed,
    Delayed,
    NothingSelected,
    Has(&'a [Selector]),
    Lacks(&'a Selector),
    Factor(Factor),
    NoZones,
    Near(Nearness),
}

type PassFn = for<'a> fn(&'a Service, &Endpoint, &'a Class) -> Finding<'a>;

/// The passes in the order in which they run.
const PASSES: [PassFn; 6] = [weight, undrained, selected, undelayed, started, near];
/// The first passes, which look at one backend alone. The others compare it with all that
/// these keep.
const ALONE: usize = 3;

/// Returns whether every pass that looks at one backend alone keeps it.
pub(super) fn keep(service: &Service, endpoint: &Endpoint, class: &Class) -> bool {
    PASSES[..ALONE].iter().all(|pass| pass(service, endpoint, class).kept)
}

/// Returns the finding of each pass for a backend of a service. [`Pass::Started`] is left
/// out if the backend gets its whole share, and [`Pass::Near`] if the service has no zones.
#[must_use]
pub fn explain<'a>(
    service: &'a Service,
    endpoint: &Endpoint,
    class: &'a Class,
) -> Vec<Finding<'a>> {
    let findings = PASSES.iter().map(|pass| pass(service, endpoint, class));
    let says_nothing =
        |reason: &Reason<'_>| matches!(reason, Reason::Factor(Factor::ONE) | Reason::NoZones);
    findings.filter(|finding| !says_nothing(&finding.reason)).collect()
}

fn weight<'a>(_: &'a Service, endpoint: &Endpoint, _: &'a Class) -> Finding<'a> {
    let reason = Reason::Weight(endpoint.weight);
    Finding { pass: Pass::Weight, kept: endpoint.weight != Weight(0), reason }
}

fn undrained<'a>(service: &'a Service, endpoint: &Endpoint, _: &'a Class) -> Finding<'a> {
    let mark = service.drained.mark(endpoint);
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
        None if class.selects_nothing() => Reason::NothingSelected,
        None => Reason::Has(selectors),
    };
    Finding { pass: Pass::Selected, kept: lacks.is_none(), reason }
}

fn undelayed<'a>(service: &'a Service, endpoint: &Endpoint, class: &'a Class) -> Finding<'a> {
    let delayed = newcomers::is_left_out(service, endpoint, class);
    let reason = if delayed { Reason::Delayed } else { Reason::NotDelayed };
    Finding { pass: Pass::Undelayed, kept: !delayed, reason }
}

fn started<'a>(service: &'a Service, endpoint: &Endpoint, class: &'a Class) -> Finding<'a> {
    let reason = Reason::Factor(newcomers::factor(service, endpoint, class));
    Finding { pass: Pass::Started, kept: true, reason }
}

fn near<'a>(service: &'a Service, endpoint: &Endpoint, class: &'a Class) -> Finding<'a> {
    let nearness = zones::nearness(service, endpoint, class);
    let kept = !matches!(nearness, Some(Nearness::Zone(_, _, 0)));
    Finding { pass: Pass::Near, kept, reason: nearness.map_or(Reason::NoZones, Reason::Near) }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weight => "weight",
            Self::Undrained => "undrained",
            Self::Undelayed => "undelayed",
            Self::Selected => "selected",
            Self::Started => "started",
            Self::Near => "near",
        })
    }
}

/// Writes the reason of the finding.
impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair =
            |f: &mut fmt::Formatter<'_>, one: &Selector| write!(f, "{}={}", one.key, one.value);
        match &self.reason {
            Reason::Weight(Weight(0)) => f.write_str("it is registered with weight 0: no traffic"),
            Reason::Weight(Weight(weight)) => write!(f, "weight {weight}"),
            Reason::NotDrained => f.write_str("no operator drains it"),
            Reason::Drained(mark) => write!(f, "{mark}"),
            Reason::LameDuck => f.write_str("it drains itself: it registered lame-duck=true"),
            Reason::NotDelayed => f.write_str("it does not come and go"),
            Reason::Delayed => f.write_str(
                "it came and went too often: it is listed once it has stayed for a while",
            ),
            Reason::Factor(factor) => {
                let percent = factor.as_millionths() / 10_000;
                write!(f, "slow start: it gets {percent} % of its share for now")
            }
            Reason::NoZones => f.write_str("zones do not matter"),
            Reason::Near(Nearness::Everywhere) => {
                f.write_str("the client is in no zone that keeps its calls, so all zones serve it")
            }
            Reason::Near(Nearness::Pool) => {
                f.write_str("its zone is small or unknown, so it serves the clients of all zones")
            }
            Reason::Near(Nearness::Zone(backend, client, share)) => {
                let percent = f64::from(*share) / 1e4;
                match (backend == client, share) {
                    (true, _) => {
                        write!(
                            f,
                            "zone {backend}, as the client: it keeps {percent:.0} % of the calls"
                        )
                    }
                    (false, 0) => {
                        write!(f, "zone {backend}: zone {client} of the client needs no other zone")
                    }
                    (false, _) => write!(
                        f,
                        "zone {backend}: it takes {percent:.0} % of the calls from zone {client} \
                         of the client"
                    ),
                }
            }
            Reason::NothingSelected => f.write_str("the name selects nothing"),
            Reason::Has(selectors) => {
                f.write_str("it has what the name selects:")?;
                selectors.iter().try_for_each(|one| {
                    f.write_str(" ")?;
                    pair(f, one)
                })
            }
            Reason::Lacks(selector) => {
                f.write_str("the name selects ")?;
                pair(f, selector)?;
                f.write_str(", and it has no such metadata")
            }
        }
    }
}
