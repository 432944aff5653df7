//! Charts as SVG, for the documentation.
//!
//! In: lines or bars, with their names and colours. Out: the text of an SVG file. The same
//! data gives the same text.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

/// Colours that differ in lightness too, so that they also differ in grey.
pub(crate) const GREEN: RGBColor = RGBColor(0x0b, 0x7a, 0x4b);
pub(crate) const BLUE: RGBColor = RGBColor(0x1c, 0x7f, 0xb8);
pub(crate) const ORANGE: RGBColor = RGBColor(0xc4, 0x6a, 0x12);
pub(crate) const GREY: RGBColor = RGBColor(0x77, 0x77, 0x77);

/// Lines over two axes.
pub(crate) struct LineChart<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: Axis<'a>,
    pub(crate) y: Axis<'a>,
    /// Whether both axes are logarithmic.
    pub(crate) is_logarithmic: bool,
    /// The corner of the names of the lines.
    pub(crate) names_at: SeriesLabelPosition,
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Axis<'a> {
    /// What it counts; may be empty.
    pub(crate) name: &'a str,
    pub(crate) range: Range<f64>,
}

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: RGBColor,
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether each point has a mark.
    pub(crate) is_marked: bool,
}

/// A bar with its name at its end.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) colour: RGBColor,
    pub(crate) value: f64,
    /// Where a line across the bar stands: the value that it should have.
    pub(crate) due: Option<f64>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

const SIZE: (u32, u32) = (720, 400);

/// Draws lines.
pub(crate) fn lines(chart: &LineChart<'_>) -> String {
    let (x, y) = (chart.x.range.clone(), chart.y.range.clone());
    svg(|area| match chart.is_logarithmic {
        true => draw_lines(area, chart, x.log_scale(), y.log_scale()),
        false => draw_lines(area, chart, x, y),
    })
}

/// Draws bars below one another.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    svg(|area| draw_bars(area, title, bars))
}

fn svg(draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    area.fill(&WHITE).and_then(|()| draw(&area)).expect("text takes a chart");
    drop(area);
    text
}

fn draw_lines<X, Y>(area: &Area<'_>, chart: &LineChart<'_>, x: X, y: Y) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    // Sums of steps are not exact.
    let number = |value: &f64| ((value * 1_000.0).round() / 1_000.0).to_string();
    let mut context = ChartBuilder::on(area)
        .caption(chart.title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(x, y)?;
    let mut mesh = context.configure_mesh();
    mesh.light_line_style(TRANSPARENT)
        .x_desc(chart.x.name)
        .x_label_formatter(&number)
        .y_label_formatter(&number);
    if !chart.y.name.is_empty() {
        mesh.y_desc(chart.y.name);
    }
    mesh.draw()?;
    for Line { name, colour, points, is_marked } in &chart.lines {
        let style = colour.stroke_width(2);
        let size = if *is_marked { 3 } else { 0 };
        let line = LineSeries::new(points.iter().copied(), style).point_size(size);
        context
            .draw_series(line)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    context
        .configure_series_labels()
        .position(chart.names_at.clone())
        .background_style(WHITE)
        .draw()
}

fn draw_bars(area: &Area<'_>, title: &str, bars: &[Bar]) -> Drawn {
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let mut context = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(20)
        .build_cartesian_2d(0.0..most * 1.3, bars.len() as f64..0.0)?;
    for (row, Bar { name, colour, value, due }) in bars.iter().enumerate() {
        let top = row as f64 + 0.1;
        let bar = Rectangle::new([(0.0, top), (*value, top + 0.8)], colour.filled());
        context.draw_series([bar])?;
        if let Some(due) = due {
            let line =
                PathElement::new([(*due, top - 0.1), (*due, top + 0.9)], BLACK.stroke_width(2));
            context.draw_series([line])?;
        }
        let end = value.max(due.unwrap_or(0.0)) + most * 0.01;
        context.draw_series([Text::new(name.clone(), (end, top + 0.3), ("sans-serif", 16))])?;
    }
    Ok(())
}
