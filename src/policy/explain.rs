//! Explains a decision: what each pass says of each backend, and which one leaves it out.
//!
//! In: a service, and a class of clients. Out: [`Findings`]. Pure. It runs the passes of the
//! decision, and sees what each of them keeps. So it decides nothing, and only finds the words.

use std::fmt;

use super::passes::{ALONE, Pass, Watch};
use super::subset::{self, Placed};
use super::zones::{self, Nearness};
use super::{Pick, affinity, run, split};
use crate::catalog::{HealthAnswer, Service, Split, is_chosen};
use crate::facts::factor::Factor;
use crate::marks::Mark;
use crate::model::{Class, Endpoint, Part, Selector, Weight};
use crate::settings::{HealthKind, Percent, SplitBy};

/// What each pass keeps for a class of clients.
pub struct Findings<'a> {
    service: &'a Service,
    class: &'a Class,
    stages: Vec<Stage>,
}

/// The picks after a pass.
struct Stage {
    pass: Pass,
    picks: Vec<Pick>,
}

/// The result of one pass for one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<'a> {
    /// The pass.
    pub pass: Pass,
    /// Whether the pass keeps the backend.
    pub kept: bool,
    pub(super) reason: Reason<'a>,
}

/// What a pass says of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason<'a> {
    Weight(Weight),
    NotDrained,
    Drained(&'a Mark),
    LameDuck,
    Healthy,
    Unhealthy(HealthAnswer, Consequence),
    NotDelayed,
    Delayed,
    NothingSelected,
    Has(&'a [Selector]),
    Lacks(&'a Selector),
    Factor(Factor),
    LoadFactor(Factor),
    Near(Nearness),
    Placed(Placed),
    Split(SplitReason<'a>),
    Key { key: &'a str, has: bool, also_meta: bool, over: Option<u32> },
}

/// What follows from bad health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consequence {
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
pub(super) struct SplitReason<'a> {
    split: Split<'a>,
    key: Option<&'a str>,
    part: Part,
    canary: bool,
    /// Whether the other group has no backend.
    alone: bool,
}

impl Watch for Vec<Stage> {
    const WATCHES: bool = true;

    fn after(&mut self, pass: Pass, picks: &[Pick]) {
        self.push(Stage { pass, picks: picks.to_vec() });
    }
}

impl Stage {
    fn has(&self, place: usize) -> bool {
        self.picks.binary_search_by_key(&place, |pick| pick.endpoint as usize).is_ok()
    }
}

/// Runs the passes for a class, and keeps what each of them says.
#[must_use]
pub fn explain<'a>(service: &'a Service, class: &'a Class) -> Findings<'a> {
    let mut stages = Vec::new();
    run(service, class, &mut stages);
    Findings { service, class, stages }
}

impl<'a> Findings<'a> {
    /// Returns the finding of each pass for a backend, by its place among the endpoints of the
    /// service. The backend is listed if all keep it. A pass is left out if it has nothing to
    /// say, or if it was not given the backend, because one before left it out.
    #[must_use]
    pub fn of(&self, place: usize) -> Vec<Finding<'a>> {
        let endpoint = &self.service.endpoints[place];
        let alone = ALONE.iter().map(|pass| pass(self.service, endpoint, self.class));
        let mut findings: Vec<Finding<'a>> = alone.collect();
        for stages in self.stages.windows(2) {
            if !findings.iter().all(|finding| finding.kept) {
                break;
            }
            let (before, pass) = (&stages[0].picks, stages[1].pass);
            let kept = stages[1].has(place);
            let reason = self.reason(pass, place, before, kept);
            findings.extend(reason.map(|reason| Finding { pass, kept, reason }));
        }
        findings
    }

    /// Returns the part of its share that a backend gets by slow start, if it is listed.
    #[must_use]
    pub fn slow_start(&self, endpoint: &Endpoint) -> Factor {
        let started = self.stages.windows(2).find(|stages| stages[1].pass == Pass::Started);
        // If most of a class starts, the weights stay as they are.
        match started.is_some_and(|stages| stages[0].picks != stages[1].picks) {
            true => self.service.factor(endpoint),
            false => Factor::ONE,
        }
    }

    /// Returns the words of a pass about a backend that all before it keep; `None` if it has
    /// none. `before` are the picks that the pass was given.
    fn reason(&self, pass: Pass, place: usize, before: &[Pick], kept: bool) -> Option<Reason<'a>> {
        let endpoint = &self.service.endpoints[place];
        let changed = |factor: &Factor| *factor != Factor::ONE;
        match pass {
            // They look at one backend alone.
            Pass::Weight | Pass::Undrained | Pass::Selected => None,
            Pass::Healthy => self.health(endpoint, kept),
            Pass::Undelayed => Some(if kept { Reason::NotDelayed } else { Reason::Delayed }),
            Pass::Started => Some(self.slow_start(endpoint)).filter(changed).map(Reason::Factor),
            Pass::Loaded => {
                let factor = self.service.load_factor(endpoint);
                Some(factor).filter(changed).map(Reason::LoadFactor)
            }
            Pass::Subset => {
                let cell = subset::cells(self.service).and_then(|cells| cells.subset_of(place));
                let subset = self.class.subset();
                Some(Reason::Placed(Placed { cell, subset, used: kept }))
            }
            Pass::Split => self.split(endpoint, before),
            Pass::Near => {
                let nearness = zones::nearness(self.service, endpoint, self.class, before);
                Some(Reason::Near(nearness))
            }
            Pass::Affinity => {
                let also_meta = endpoint.meta.keys().any(|meta| meta.eq_ignore_ascii_case("hash"));
                let key = self.class.key()?;
                let first = self.class.clone().with_backend(None);
                let first = affinity::decide(self.service, &first, key, &mut ());
                let is_first = first.picks().iter().any(|pick| pick.endpoint as usize == place);
                // Where keys are not bounded, the first choice has the key.
                let over = (is_first != kept).then_some(self.service.settings.hash_balance);
                Some(Reason::Key { key, has: kept, also_meta, over })
            }
        }
    }

    fn health(&self, endpoint: &Endpoint, kept: bool) -> Option<Reason<'a>> {
        let health = self.service.facts.health.as_deref();
        let kind = self.service.settings.health.kind;
        let unconfirmed = health.and_then(|health| health.unconfirmed.get(&endpoint.addr));
        Some(match (self.service.unhealthy(endpoint), unconfirmed) {
            (Some(answer), _) => {
                let consequence = match health {
                    _ if !kept => Consequence::LeftOut,
                    _ if kind == HealthKind::Observe => Consequence::Observed,
                    Some(health) if health.panic => Consequence::Panic,
                    _ => Consequence::NoneHealthy,
                };
                Reason::Unhealthy(answer, consequence)
            }
            (None, Some(answer)) => Reason::Unhealthy(*answer, Consequence::Unconfirmed),
            (None, None) if kind == HealthKind::Off => return None,
            (None, None) => Reason::Healthy,
        })
    }

    fn split(&self, endpoint: &Endpoint, before: &[Pick]) -> Option<Reason<'a>> {
        let split = split::in_force(self.service, self.class)?;
        let canary = is_chosen(endpoint, split.select);
        let is_canary = |pick: &Pick| split::is_canary(self.service, &split, pick);
        let alone = before.iter().all(|pick| is_canary(pick) == canary);
        let part = split::part(self.service, self.class);
        let key = self.class.key();
        Some(Reason::Split(SplitReason { split, key, part, canary, alone }))
    }
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
            Reason::Near(nearness) => nearness.fmt(f),
            Reason::Placed(placed) => placed.fmt(f),
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
            Reason::Split(reason) => reason.fmt(f),
            Reason::Key { key, has, also_meta, over } => {
                let whose = if *has { "this backend" } else { "another backend" };
                write!(f, "the name's key {key} is assigned to {whose}")?;
                if let Some(percent) = over {
                    write!(
                        f,
                        ": its first choice had more than {percent} % of its share of the keys"
                    )?;
                }
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
