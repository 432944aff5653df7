//! Plots as SVG, for the documentation.
//!
//! In: a report. Out: the name and content of each file. Axes are logarithmic, so
//! proportional growth is a straight line, and ratios can be read off.

use std::collections::BTreeMap;

use plotters::prelude::*;

use super::client::Manner;
use super::report::{Cell, Report};
use super::server::Kind;

/// The points of each server.
type Lines = BTreeMap<Kind, Vec<(f64, f64)>>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

const SIZE: (u32, u32) = (720, 400);

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
            plots.push((name, svg(|area| line_plot(area, title, x, &lines))));
        }
    }
    let storm = lines(report, "all served ms", |cell| cell.clients, &|cell| cell.scene == "storm");
    if !storm.is_empty() {
        let title = format!("{many} clients at once: until all have their first list, ms");
        plots.push(("storm", svg(|area| bar_plot(area, &title, &storm))));
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

fn svg(draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Drawn) -> String {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    area.fill(&WHITE).and_then(|()| draw(&area)).expect("text takes a plot");
    drop(area);
    text
}

fn line_plot(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    x_name: &str,
    lines: &Lines,
) -> Drawn {
    let range = |pick: fn(&(f64, f64)) -> f64| {
        let values = || lines.values().flatten().map(pick);
        let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        // The range is at least a decade, so that small differences do not look large.
        (low * 0.7).min(high / 5.0)..(high * 1.4).max(low * 5.0)
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(range(|p| p.0).log_scale(), range(|p| p.1).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(x_name)
        .x_label_formatter(&f64::to_string)
        .y_label_formatter(&f64::to_string)
        .draw()?;
    for (kind, points) in lines {
        let style = colour(*kind).stroke_width(2);
        let line = LineSeries::new(points.iter().copied(), style).point_size(3);
        chart
            .draw_series(line)?
            .label(kind.to_string())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .draw()
}

fn bar_plot(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    lines: &Lines,
) -> Drawn {
    let most = lines.values().flatten().map(|point| point.1).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(20)
        .build_cartesian_2d(0.0..most * 1.3, lines.len() as f64..0.0)?;
    for (row, (kind, points)) in lines.iter().enumerate() {
        let (top, value) = (row as f64 + 0.1, points[0].1);
        let bar = Rectangle::new([(0.0, top), (value, top + 0.8)], colour(*kind).filled());
        let label = format!("{kind} {value:.0}");
        let label = Text::new(label, (value + most * 0.01, top + 0.3), ("sans-serif", 16));
        chart.draw_series([bar])?;
        chart.draw_series([label])?;
    }
    Ok(())
}

fn colour(kind: Kind) -> RGBColor {
    match kind {
        Kind::Limit => RGBColor(0x77, 0x77, 0x77),
        Kind::Lookaside => RGBColor(0x0b, 0x7a, 0x4b),
        Kind::Other => RGBColor(0x7f, 0xc4, 0xa4),
        Kind::Tonic => RGBColor(0xc4, 0x6a, 0x12),
        Kind::GrpcGo => RGBColor(0x1c, 0x7f, 0xb8),
        Kind::LimitXds => RGBColor(0xaa, 0xaa, 0xaa),
        Kind::LookasideXds => RGBColor(0x05, 0x42, 0x6b),
        Kind::OtherXds => RGBColor(0x7a, 0x9c, 0xb5),
        Kind::GoXds => RGBColor(0x8b, 0x3f, 0xa8),
    }
}
