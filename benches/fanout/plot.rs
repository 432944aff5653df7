//! Plots for the documentation.
//!
//! In: a report. Out: the name and content of each file. Axes are logarithmic, so
//! proportional growth is a straight line, and ratios can be read off.

use std::collections::BTreeMap;

use plotters::prelude::{RGBColor, SeriesLabelPosition};

use super::chart::{self, Axis, Bar, Line, LineChart};
use super::client::Manner;
use super::report::{Cell, Report};
use super::server::Kind;

/// The points of each server.
type Lines = BTreeMap<Kind, Vec<(f64, f64)>>;

pub(crate) fn plots(report: &Report, many: usize) -> Vec<(&'static str, String)> {
    let push = |metric, x: fn(&Cell) -> usize, chosen: &dyn Fn(&Cell) -> bool| {
        let plain = |cell: &Cell| cell.scene == "push" && cell.manner == Manner::Plain;
        lines(report, metric, x, &|cell| plain(cell) && chosen(cell))
    };
    let by_clients = |metric| push(metric, |cell| cell.clients, &|cell| cell.entries == 100);
    let by_entries = |metric| push(metric, |cell| cell.entries, &|cell| cell.clients == many);
    let growth =
        lines(report, "cpu us/change", |cell| cell.clients, &|cell| cell.scene == "growth");
    let mut memory = by_entries("kB/stream pushed");
    // The bare loops keep nothing for a client, so they have no point on these axes.
    memory.retain(|kind, _| !kind.is_limit());
    let all = [
        ("cpu-by-clients", "CPU per push of 100 entries, us", "clients", by_clients("cpu us/push")),
        ("cpu-by-entries", "CPU per push, us", "entries", by_entries("cpu us/push")),
        (
            "last-by-clients",
            "From the change to the last client, one core, 100 entries, ms",
            "clients",
            by_clients("to last ms"),
        ),
        (
            "last-by-entries",
            "From the change to the last client, one core, ms",
            "entries",
            by_entries("to last ms"),
        ),
        ("memory-by-entries", "Memory per stream, kB", "entries", memory),
        ("growth", "CPU of a change of a service with one client, us", "services", growth),
    ];
    let mut plots = Vec::new();
    for (name, title, x, lines) in all {
        if !lines.is_empty() {
            plots.push((name, line_plot(title, x, lines)));
        }
    }
    let storm = lines(report, "all served ms", |cell| cell.clients, &|cell| cell.scene == "storm");
    if !storm.is_empty() {
        let title = format!("{many} clients at once: until all have their first list, ms");
        plots.push(("storm", bar_plot(&title, &storm)));
    }
    plots
}

fn lines(
    report: &Report,
    metric: &str,
    x: fn(&Cell) -> usize,
    chosen: &dyn Fn(&Cell) -> bool,
) -> Lines {
    let mut lines = Lines::new();
    for cell in report.rounds.keys().filter(|cell| cell.metric == metric && chosen(cell)) {
        // A value of 0 has no place on a logarithmic axis.
        let value = report.spread(cell).map_or(0.0, |spread| spread.median).max(0.01);
        lines.entry(cell.server).or_default().push((x(cell) as f64, value));
    }
    lines.values_mut().for_each(|points| points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0)));
    lines
}

fn line_plot(title: &str, x_name: &str, lines: Lines) -> String {
    let range = |pick: fn(&(f64, f64)) -> f64| {
        let values = || lines.values().flatten().map(pick);
        let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        // The range is at least a decade, so that small differences do not look large.
        (low * 0.7).min(high / 5.0)..(high * 1.4).max(low * 5.0)
    };
    let (x, y) = (range(|point| point.0), range(|point| point.1));
    let line = |(kind, points): (Kind, _)| Line {
        name: kind.to_string(),
        colour: colour(kind),
        points,
        is_marked: true,
    };
    chart::lines(&LineChart {
        title,
        x: Axis { name: x_name, range: x },
        y: Axis { name: "", range: y },
        is_logarithmic: true,
        names_at: SeriesLabelPosition::UpperLeft,
        lines: lines.into_iter().map(line).collect(),
    })
}

fn bar_plot(title: &str, lines: &Lines) -> String {
    let bar = |(kind, points): (&Kind, &Vec<(f64, f64)>)| Bar {
        name: format!("{kind} {:.0}", points[0].1),
        colour: colour(*kind),
        value: points[0].1,
        due: None,
    };
    chart::bars(title, &lines.iter().map(bar).collect::<Vec<_>>())
}

fn colour(kind: Kind) -> RGBColor {
    match kind {
        Kind::Limit => chart::GREY,
        Kind::Lookaside => chart::GREEN,
        Kind::Other => RGBColor(0x7f, 0xc4, 0xa4),
        Kind::Tonic => chart::ORANGE,
        Kind::GrpcGo => chart::BLUE,
        Kind::LimitXds => RGBColor(0xaa, 0xaa, 0xaa),
        Kind::LookasideXds => RGBColor(0x05, 0x42, 0x6b),
        Kind::OtherXds => RGBColor(0x7a, 0x9c, 0xb5),
        Kind::GoXds => RGBColor(0x8b, 0x3f, 0xa8),
    }
}
