//! The passes that a backend must pass to be listed, in order.
//!
//! In: a backend as registered, and a class of clients. Out: whether the backend is
//! listed, and for `explain` the finding of each pass. Pure.

use std::fmt;

use crate::catalog::{HealthAnswer, Service, Split, is_chosen};
use crate::facts::factor::Factor;
use crate::marks::Mark;
use crate::model::{Class, Endpoint, Part, Selector, Weight};
use crate::settings::{HealthKind, Percent, SplitBy};

use super::health::LeftOut;
use super::zones::Nearness;
use super::{affinity, newcomers, split, zones};

/// A pass. The variants are in the order in which the passes run.
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
    /// The backend belongs to the group that the client, its key or its calls use, where the
    /// service splits them.
    Split,
    /// The backend's zone serves clients that are where the client is.
    Near,
    /// The backend has the key that the client's name names.
    Affinity,
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
    Unchecked,
    Healthy,
    Unhealthy(HealthAnswer, Consequence),
    NotDelayed,
    Delayed,
    NothingSelected,
    Has(&'a [Selector]),
    Lacks(&'a Selector),
    Factor(Factor),
    LoadFactor(Factor),
    NoZones,
    Near(Nearness),
    NoSplit,
    Split(SplitReason<'a>),
    Key { key: &'a str, has: bool, also_meta: bool },
    NoKey,
}

/// What follows from bad health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consequence {
    /// The backend is not listed.
    LeftOut,
    /// It is listed, because clients reach it.
    Unconfirmed,
    /// It is listed, because health is only observed.
    Observed,
    /// It is listed, because too little of the service is healthy.
    Panic,
    /// It is listed, because every backend of the class is unhealthy.
    NoneHealthy,
}

/// How a split decides about a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SplitReason<'a> {
    split: Split<'a>,
    key: Option<&'a str>,
    part: Part,
    canary: bool,
    /// Whether the other group has no backend.
    alone: bool,
}

type PassFn = for<'a> fn(&'a Service, &Endpoint, &'a Class) -> Finding<'a>;

/// The passes in the order in which they run.
const PASSES: [PassFn; 10] =
    [weight, undrained, selected, healthy, undelayed, started, loaded, split, near, affinity];
/// The first passes, which look at one backend alone. The others compare it with all that
/// these keep.
const ALONE: usize = 3;

/// Returns whether every pass that looks at one backend alone keeps it.
pub(super) fn keep(service: &Service, endpoint: &Endpoint, class: &Class) -> bool {
    PASSES[..ALONE].iter().all(|pass| pass(service, endpoint, class).kept)
}

/// Returns whether every pass that can leave a backend out, before the split, keeps it.
pub(super) fn is_eligible(service: &Service, endpoint: &Endpoint, class: &Class) -> bool {
    keep(service, endpoint, class)
        && !LeftOut::new(service, class).has(endpoint)
        && !newcomers::is_left_out(service, endpoint, class)
}

/// Returns the finding of each pass for a backend of a service. A pass that has nothing to
/// say is left out: [`Pass::Started`] and [`Pass::Loaded`] if they change nothing,
/// [`Pass::Healthy`] if its health is not checked, [`Pass::Split`] if nothing is split,
/// [`Pass::Near`] if zones do not matter, and [`Pass::Affinity`] if the name has no key.
#[must_use]
pub fn explain<'a>(
    service: &'a Service,
    endpoint: &Endpoint,
    class: &'a Class,
) -> Vec<Finding<'a>> {
    let findings = PASSES.iter().map(|pass| pass(service, endpoint, class));
    let silent = [
        Reason::Factor(Factor::ONE),
        Reason::LoadFactor(Factor::ONE),
        Reason::Unchecked,
        Reason::NoSplit,
        Reason::NoZones,
        Reason::NoKey,
    ];
    findings.filter(|finding| !silent.contains(&finding.reason)).collect()
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

fn healthy<'a>(service: &'a Service, endpoint: &Endpoint, class: &'a Class) -> Finding<'a> {
    let health = service.facts.health.as_deref();
    let unhealthy = service.unhealthy(endpoint);
    let unconfirmed = health.and_then(|health| health.unconfirmed.get(&endpoint.addr));
    let kind = service.settings.health.kind;
    let reason = match (unhealthy, unconfirmed) {
        _ if kind == HealthKind::Off => Reason::Unchecked,
        (Some(answer), _) => {
            let consequence = match health {
                _ if kind == HealthKind::Observe => Consequence::Observed,
                Some(health) if health.panic => Consequence::Panic,
                _ if LeftOut::new(service, class).has(endpoint) => Consequence::LeftOut,
                _ => Consequence::NoneHealthy,
            };
            Reason::Unhealthy(answer, consequence)
        }
        (None, Some(answer)) => Reason::Unhealthy(*answer, Consequence::Unconfirmed),
        (None, None) => Reason::Healthy,
    };
    let left_out = matches!(reason, Reason::Unhealthy(_, Consequence::LeftOut));
    Finding { pass: Pass::Healthy, kept: !left_out, reason }
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

fn loaded<'a>(service: &'a Service, endpoint: &Endpoint, _: &'a Class) -> Finding<'a> {
    let reason = Reason::LoadFactor(service.load_factor(endpoint));
    Finding { pass: Pass::Loaded, kept: true, reason }
}

impl Consequence {
    fn as_str(self) -> &'static str {
        match self {
            Self::LeftOut => "",
            Self::Unconfirmed => {
                "; but clients report that their calls are answered, so it stays listed for now"
            }
            Self::Observed => "; health is only observed, so it stays listed",
            Self::Panic => "; but too little of the service is healthy (panic), so it stays listed",
            Self::NoneHealthy => {
                "; but so is every backend that it could be replaced by, so it stays listed"
            }
        }
    }
}

fn split<'a>(service: &'a Service, endpoint: &Endpoint, class: &'a Class) -> Finding<'a> {
    let Some(split) = split::in_force(service, class) else {
        return Finding { pass: Pass::Split, kept: true, reason: Reason::NoSplit };
    };
    let part = split::part(service, class);
    let canary = is_chosen(endpoint, split.select);
    let alone = !split::has(service, class, &split, !canary);
    let kept = alone || part == Part::Both || canary == (part == Part::Canaries);
    let reason = SplitReason { split, key: class.key(), part, canary, alone };
    Finding { pass: Pass::Split, kept, reason: Reason::Split(reason) }
}

fn near<'a>(service: &'a Service, endpoint: &Endpoint, class: &'a Class) -> Finding<'a> {
    let nearness = zones::nearness(service, endpoint, class);
    let kept = !matches!(nearness, Some(Nearness::Zone(_, _, 0)));
    Finding { pass: Pass::Near, kept, reason: nearness.map_or(Reason::NoZones, Reason::Near) }
}

fn affinity<'a>(service: &'a Service, endpoint: &Endpoint, class: &'a Class) -> Finding<'a> {
    let Some(key) = class.key() else {
        return Finding { pass: Pass::Affinity, kept: true, reason: Reason::NoKey };
    };
    let assigned = affinity::assigned(service, class, key);
    let assigned = assigned.and_then(|at| service.endpoints.get(at as usize));
    let has = assigned.is_some_and(|one| one.addr == endpoint.addr);
    let also_meta = endpoint.meta.keys().any(|meta| meta.eq_ignore_ascii_case("hash"));
    Finding { pass: Pass::Affinity, kept: has, reason: Reason::Key { key, has, also_meta } }
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
            Self::Split => "split",
            Self::Near => "near",
            Self::Affinity => "affinity",
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
            Reason::Unchecked => f.write_str("its health is not checked"),
            Reason::Healthy => f.write_str("no health check says otherwise"),
            Reason::Unhealthy(answer, consequence) => {
                write!(f, "{}{}", answer.as_str(), consequence.as_str())
            }
            Reason::NotDelayed => f.write_str("it does not come and go"),
            Reason::Delayed => f.write_str(
                "it came and went too often: it is listed once it has stayed for a while",
            ),
            Reason::Factor(factor) => {
                let percent = factor.as_millionths() / 10_000;
                write!(f, "slow start: it gets {percent} % of its share for now")
            }
            Reason::NoZones => f.write_str("zones do not matter"),
            Reason::Near(nearness) => nearness.fmt(f),
            Reason::LoadFactor(factor) => {
                let percent = factor.as_millionths() / 10_000;
                write!(f, "by the load that it reports, it gets {percent} % of its share")
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
            Reason::NoSplit => f.write_str("nothing is split"),
            Reason::Split(reason) => reason.fmt(f),
            Reason::NoKey => f.write_str("the name has no key"),
            Reason::Key { key, has, also_meta } => {
                let whose = if *has { "this backend" } else { "another backend" };
                write!(f, "the name's key {key} is assigned to {whose}")?;
                match *also_meta {
                    true => f.write_str("; its metadata hash is not looked at"),
                    false => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for SplitReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { split, key, part, canary, alone } = *self;
        let Selector { key: name, value } = split.select;
        let share = Percent(split.share);
        match (key, split.by) {
            (Some(key), _) => {
                let is = if part == Part::Canaries { "belongs" } else { "does not belong" };
                write!(f, "the key {key} {is} to the {share} % for {name}={value}")?;
            }
            (None, SplitBy::Calls) => write!(f, "{name}={value} gets {share} % of the calls")?,
            (None, SplitBy::Clients) => {
                let is = match part {
                    Part::Canaries => "the client belongs to",
                    Part::Others => "the client does not belong to",
                    Part::Both => "without a client this says nothing of",
                };
                write!(f, "{is} the {share} % of clients for {name}={value}")?;
            }
        }
        match (canary, alone) {
            (true, false) => f.write_str(": it is one of these backends"),
            (false, false) => f.write_str(": it is none of these backends"),
            (true, true) => f.write_str(": it is one, and no other backend is left"),
            (false, true) => f.write_str(": no such backend is left, so the others get all"),
        }
    }
}
