//! The plots of docs/policy.md.
//!
//! In: the scale. Out: each plot as SVG, with the text for readers who do not see it. The
//! values are those that the scenes simulate.

use plotters::prelude::SeriesLabelPosition;

use super::chart::{self, Axis, BLUE, Bar, GREEN, GREY, Line, LineChart, ORANGE};
use super::scenes::{Scale, feedback, overload, shares, starting, zones};

pub(crate) struct Plot {
    /// The name of the file, without its end.
    pub(crate) name: &'static str,
    /// What the plot shows.
    pub(crate) alt: &'static str,
    pub(crate) svg: String,
}

type Points = Vec<(f64, f64)>;

/// Draws all plots.
pub(crate) fn all(scale: Scale) -> Vec<Plot> {
    vec![weights(), slow_start(), zones(scale), feedback(), overload(scale)]
}

fn weights() -> Plot {
    let bar = |[weight, due, got]: [f64; 3]| Bar {
        name: format!("weight {weight}: {got:.1} %"),
        colour: GREEN,
        value: got,
        due: Some(due),
    };
    let bars: Vec<Bar> = shares::by_weight().into_iter().map(bar).collect();
    let title = "Calls of 30 clients, about 100 each, by backend; black: its share by weight";
    Plot {
        name: "weights",
        alt: "Bars: each of eight backends with weights from 1 to 8 gets its share of the calls, \
              to within a few tenths of a percent",
        svg: chart::bars(title, &bars),
    }
}

fn slow_start() -> Plot {
    let by_second = |is_slow| -> Points {
        let share = starting::newcomer(is_slow).into_iter().enumerate();
        share.map(|(second, share)| (second as f64, share)).collect()
    };
    plot(
        "slow-start",
        "Lines: without slow start a new backend gets its whole share, 10 percent of the calls, \
         at once; with a window of 60 seconds it gets 1, 2, 4, 7 and 10 percent",
        &LineChart {
            title: "A tenth backend joins: its share of the calls, %",
            x: Axis { name: "seconds since it joined", range: 0.0..75.0 },
            y: Axis { name: "", range: 0.0..14.0 },
            is_logarithmic: false,
            names_at: SeriesLabelPosition::LowerRight,
            lines: vec![
                line("at once", GREY, by_second(false)),
                line("slow-start = \"1m\"", GREEN, by_second(true)),
            ],
        },
    )
}

fn zones(scale: Scale) -> Plot {
    let [crosses, least] = zones::over_time(scale).map(percent);
    let even = percent(vec![(0.0, 2.0 / 3.0), (4.0, 2.0 / 3.0)]);
    plot(
        "zones",
        "Lines over four hours in which the demand of each client moves by 20 percent: with \
         even lists 67 percent of the calls cross zones; with zones about 20 percent, which \
         is about what must cross for an even load",
        &LineChart {
            title: "Calls that cross zones while the demand of clients moves, %",
            x: Axis { name: "hours", range: 0.0..4.0 },
            y: Axis { name: "", range: 0.0..80.0 },
            is_logarithmic: false,
            names_at: SeriesLabelPosition::MiddleRight,
            lines: vec![
                line("every client gets all backends", ORANGE, even),
                line("zones = { mode = \"prefer\" }", GREEN, crosses),
                line("the least for an even load", GREY, least),
            ],
        },
    )
}

fn feedback() -> Plot {
    let minutes = |all: Points| -> Points {
        all.into_iter().map(|(seconds, ratio)| (seconds / 60.0, ratio)).collect()
    };
    plot(
        "feedback",
        "Lines over 30 minutes: with weights as registered the busiest of 50 unlike \
         backends has about 1.5 times the mean utilisation; with load feedback it falls \
         below 1.05 within about a minute, and again after other processes begin to disturb \
         some machines",
        &LineChart {
            title: "Utilisation of the busiest backend / mean; other processes from minute 10 to 20",
            x: Axis { name: "minutes", range: 0.0..30.0 },
            y: Axis { name: "", range: 1.0..2.0 },
            is_logarithmic: false,
            names_at: SeriesLabelPosition::UpperRight,
            lines: vec![
                line("weights as registered", ORANGE, minutes(feedback::over_time(false))),
                line("load = { kind = \"orca\" }", GREEN, minutes(feedback::over_time(true))),
            ],
        },
    )
}

fn overload(scale: Scale) -> Plot {
    let seconds = |shed| -> Points {
        let good = overload::over_time(shed, scale);
        // Means over five seconds can be read.
        let means = good.chunks(5).map(|some| some.iter().sum::<f64>() / some.len() as f64);
        means.enumerate().map(|(at, good)| (5.0 * (at + 1) as f64, 100.0 * good)).collect()
    };
    let load = overload::load().map(|(second, load)| (second, 100.0 * load)).to_vec();
    plot(
        "overload",
        "Lines over seven minutes: the load rises from 70 to 200 percent of the capacity \
         for five minutes; without shedding hardly any call is answered in time, with \
         shedding about 80 percent of the capacity is after half a minute, and 95 percent \
         after a minute and a half",
        &LineChart {
            title: "Calls that are answered in time, % of the capacity",
            x: Axis { name: "seconds", range: 0.0..420.0 },
            y: Axis { name: "", range: 0.0..300.0 },
            is_logarithmic: false,
            names_at: SeriesLabelPosition::UpperRight,
            lines: vec![
                line("calls that clients start", BLUE, load),
                line("without shedding", ORANGE, seconds(false)),
                line("shed = { mode = \"overload\" }", GREEN, seconds(true)),
            ],
        },
    )
}

fn plot(name: &'static str, alt: &'static str, chart: &LineChart<'_>) -> Plot {
    Plot { name, alt, svg: chart::lines(chart) }
}

fn line(name: &str, colour: plotters::style::RGBColor, points: Points) -> Line {
    Line { name: name.to_owned(), colour, points, is_marked: false }
}

fn percent(points: Points) -> Points {
    points.into_iter().map(|(x, part)| (x, 100.0 * part)).collect()
}
