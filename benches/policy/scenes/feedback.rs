//! Scene of load feedback: the registered weights are wrong.
//!
//! 50 backends are registered with weights 1, 1, 1.5 and 2. Every tenth backend has only 0.6
//! of its capacity. Another tenth loses 0.4 to other processes (*antagonists*) from minute
//! 10 to minute 20. In two runs, one more backend (the *liar*) reports a utilisation that is not
//! its own. Each backend reports its calls and its utilisation every 10 s. Figures and reports
//! count the calls that clients make by their lists. A client makes its calls at even gaps,
//! because the randomness of arrivals would hide that of the lists.

use std::collections::VecDeque;

use lookaside::facts::capacity::{Estimate, Member, Report, publish};
use lookaside::facts::factor::{Factor, apply};

use super::super::chance::Chance;
use super::super::goals::{Goal, Must};
use super::super::walker::{Lists, Pace, push, walkers};
use super::{Scale, max_over_mean, mean, most, percentile};

const SCENE: &str = "feedback";
const BACKENDS: usize = 50;
const CLIENTS: usize = 300;
/// Seconds between two reports.
const PERIOD: f64 = 10.0;
/// The number of periods of a run, and the periods in which the antagonists run.
const PERIODS: usize = 180;
const ANTAGONISTS: std::ops::Range<usize> = 60..120;
/// Calls per second of a backend of weight 1 at full utilisation.
const UNIT: f64 = 1_600.0;
/// The backend that may lie. Nothing else is wrong with it.
const LIAR: usize = 1;
/// The range of factors, 0.25 to 1.5. The rounding of lists and the noise of the others add to
/// it: up to 5 %, but a small share may lose one of five entries.
const CLAMP: (f64, f64) = (0.2, 1.575);

#[derive(Clone, Copy)]
struct Conditions {
    feedback: bool,
    noise: f64,
    /// How many periods late reports are.
    delay: usize,
    missing: f64,
    load: f64,
    /// Whether all backends are registered with the same weight.
    blind: bool,
    /// By what the liar multiplies its utilisation in its reports.
    lie: f64,
    /// By what part each capacity differs at random.
    unlike: f64,
}

const USUAL: Conditions = Conditions {
    feedback: true,
    noise: 0.05,
    delay: 1,
    missing: 0.0,
    load: 0.6,
    blind: false,
    lie: 1.0,
    unlike: 0.0,
};

/// The result of a run.
#[derive(Default)]
struct Outcome {
    /// Max/mean of the utilisation, in each period.
    ratios: Vec<f64>,
    /// The utilisation of the liar as a multiple of the mean of the others, in each period.
    liar: Vec<f64>,
    /// Max/mean of the utilisation of the others, in each period.
    others: Vec<f64>,
    /// The periods in which a list was published.
    changes: Vec<usize>,
}

pub(super) fn run(scale: Scale) -> Vec<Goal> {
    let goal = |what: &str, measured, must| Goal::new(SCENE, what, measured, must);
    let all = |conditions: Conditions| -> Vec<Outcome> {
        scale.seeds().map(|seed| simulate(conditions, seed)).collect()
    };
    let steady =
        |all: &[Outcome], settle| mean(all.iter().map(|one| mean(calm(&one.ratios, settle))));
    let rate = |all: &[Outcome]| most(all.iter().map(Outcome::per_minute));
    // Two and a half minutes.
    let settle = 15;
    let usual = all(USUAL);
    let mut goals = vec![
        goal(
            "hardware mix without feedback: max/mean",
            steady(&all(Conditions { feedback: false, ..USUAL }), settle),
            Must::Reported,
        ),
        goal("with feedback, after 2.5 min", steady(&usual, settle), Must::AtMost(1.05)),
        goal(
            "seconds until 1.05: start",
            mean(usual.iter().map(|one| one.reaches(0))),
            Must::AtMost(150.0),
        ),
        goal(
            "the same, half of the runs",
            percentile(&usual.iter().map(|one| one.reaches(0)).collect::<Vec<_>>(), 0.5),
            Must::AtMost(150.0),
        ),
        goal(
            "seconds until 1.05: antagonists come",
            mean(usual.iter().map(|one| one.reaches(ANTAGONISTS.start))),
            Must::AtMost(150.0),
        ),
        goal(
            "standard deviation of max/mean over time",
            mean(usual.iter().map(|one| one.swing(settle))),
            Must::AtMost(0.03),
        ),
        goal("list changes a minute", rate(&usual), Must::AtMost(1.0)),
    ];
    for (what, conditions, settle, must) in [
        ("noise 2 %", Conditions { noise: 0.02, ..USUAL }, 15, 1.05),
        ("noise 10 %", Conditions { noise: 0.1, ..USUAL }, 15, 1.07),
        ("reports 5 periods late", Conditions { delay: 5, ..USUAL }, 20, 1.05),
        ("half of the reports missing", Conditions { missing: 0.5, ..USUAL }, 24, 1.05),
        ("load 95 %", Conditions { load: 0.95, ..USUAL }, 18, 1.05),
        ("all capacities differ by 10 %", Conditions { unlike: 0.1, ..USUAL }, 18, 1.05),
        ("equal weights registered", Conditions { blind: true, ..USUAL }, 18, f64::NAN),
    ] {
        let all = all(conditions);
        let limit = |must: f64| match must {
            must if must.is_nan() => Must::Reported,
            must => Must::AtMost(must),
        };
        let what = |more| format!("{what}: {more}");
        goals.push(goal(&what("max/mean"), steady(&all, settle), limit(must)));
        goals.push(goal(&what("list changes a minute"), rate(&all), limit(must.min(1.0))));
    }
    for (what, lie, must) in [
        ("a backend reports a tenth of its load", 0.1, Must::AtMost(CLAMP.1)),
        ("a backend reports ten times its load", 10.0, Must::AtLeast(CLAMP.0)),
    ] {
        let all = all(Conditions { lie, ..USUAL });
        let liar = mean(all.iter().map(|one| mean(calm(&one.liar, settle))));
        goals.push(goal(&format!("{what}: its load, of the mean of the others"), liar, must));
        let others = mean(all.iter().map(|one| mean(calm(&one.others, settle))));
        goals.push(goal("the same: max/mean of the others", others, Must::AtMost(1.05)));
        goals.push(goal("the same: list changes a minute", rate(&all), Must::AtMost(1.0)));
    }
    goals
}

/// Returns a figure in the periods that begin `settle` periods after the last event.
fn calm(of: &[f64], settle: usize) -> impl Iterator<Item = f64> {
    let calm = [
        settle..ANTAGONISTS.start,
        ANTAGONISTS.start + settle..ANTAGONISTS.end,
        ANTAGONISTS.end + settle..PERIODS,
    ];
    calm.into_iter().flatten().map(|period| of[period])
}

impl Outcome {
    /// Returns the standard deviation of max/mean over the periods of [`calm`].
    fn swing(&self, settle: usize) -> f64 {
        let steady = mean(calm(&self.ratios, settle));
        mean(calm(&self.ratios, settle).map(|ratio| (ratio - steady).powi(2))).sqrt()
    }

    /// Returns the seconds from a period until max/mean is at most 1.05.
    fn reaches(&self, from: usize) -> f64 {
        let after = self.ratios[from..].iter().position(|&ratio| ratio <= 1.05);
        after.map_or(f64::INFINITY, |periods| PERIOD * (periods + 1) as f64)
    }

    fn per_minute(&self) -> f64 {
        self.changes.len() as f64 / (PERIODS as f64 * PERIOD / 60.0)
    }
}

/// Returns max/mean of the utilisation over time, with the seconds.
pub(crate) fn over_time(feedback: bool) -> Vec<(f64, f64)> {
    let ratios = simulate(Conditions { feedback, ..USUAL }, 1).ratios.into_iter().enumerate();
    ratios.map(|(period, ratio)| (PERIOD * (period + 1) as f64, ratio)).collect()
}

fn capacity(backend: usize, period: usize, unlike: f64) -> f64 {
    let nominal = [1.0, 1.0, 1.5, 2.0][backend % 4] * UNIT;
    let slow = if backend.is_multiple_of(10) { 0.6 } else { 1.0 };
    let disturbed = backend % 10 == 5 && ANTAGONISTS.contains(&period);
    let own = (unlike * Chance::new(backend as u64).normal()).exp();
    nominal * slow * own * if disturbed { 0.6 } else { 1.0 }
}

fn simulate(conditions: Conditions, seed: u64) -> Outcome {
    let Conditions { feedback, noise, delay, missing, load, blind, lie, unlike } = conditions;
    let capacity = |at: usize, period: usize| capacity(at, period, unlike);
    let mut chance = Chance::new(seed);
    let weights: Vec<u32> =
        (0..BACKENDS).map(|at| if blind { 2 } else { [2, 2, 3, 4][at % 4] }).collect();
    let mut factors = vec![Factor::ONE; BACKENDS];
    let mut estimates: Vec<Estimate> = (0..BACKENDS).map(|_| Estimate::new(0)).collect();
    let mut number = 1;
    let mut clients = walkers(&Lists::new(&weights, number), CLIENTS, &mut chance);
    let total: f64 = (0..BACKENDS).map(|at| capacity(at, 0)).sum();
    let rate = load * total / CLIENTS as f64;
    let mut pace = Pace::default();
    let mut late: VecDeque<Vec<Option<Report>>> = VecDeque::new();
    let mut last = None;
    let mut outcome = Outcome::default();
    for period in 0..PERIODS {
        let mut calls = vec![0.0; BACKENDS];
        for client in &mut clients {
            client.calls(pace.whole(rate * PERIOD), &mut calls);
        }
        let asked = calls.iter().enumerate();
        let asked: Vec<f64> =
            asked.map(|(at, calls)| calls / PERIOD / capacity(at, period)).collect();
        let report = |asked: f64, at: usize, chance: &mut Chance| {
            let utilisation = (asked.min(1.0) * (1.0 + noise * chance.normal())).clamp(0.0, 1.0);
            let utilisation = utilisation * if at == LIAR { lie } else { 1.0 };
            let report = Report { calls: asked.min(1.0) * capacity(at, period), utilisation };
            (chance.unit() >= missing).then_some(report)
        };
        late.push_back(
            asked.iter().enumerate().map(|(at, &asked)| report(asked, at, &mut chance)).collect(),
        );
        outcome.ratios.push(max_over_mean(&asked));
        let others = [&asked[..LIAR], &asked[LIAR + 1..]].concat();
        outcome.liar.push(asked[LIAR] / mean(others.iter().copied()));
        outcome.others.push(max_over_mean(&others));
        // A report is one period late in any case, because it is about the past period.
        if !feedback || late.len() < delay.max(1) {
            continue;
        }
        let now = (period as u64 + 1) * 10_000;
        for (estimate, report) in estimates.iter_mut().zip(late.pop_front().unwrap_or_default()) {
            if let Some(report) = report {
                estimate.add(report, 0.0, now);
            }
        }
        let member = |at: usize| Member {
            weight: weights[at],
            published: factors[at],
            estimate: Some(&estimates[at]),
        };
        let members: Vec<Member<'_>> = (0..BACKENDS).map(member).collect();
        if let Some(new) = publish(&members, last, 10_000, now) {
            factors = new;
            last = Some(now);
            number += 1;
            outcome.changes.push(period);
            let lists = Lists::new(&apply(&weights, &factors), number);
            push(&mut clients, &lists, &mut chance);
        }
    }
    outcome
}
