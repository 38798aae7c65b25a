//! Quantiles of the time of an insert, as markers on a logarithmic axis.

use std::ops::Range;

use plotters::{coord::types::RangedCoordf64, prelude::*, style::text_anchor::HPos};

use crate::{
    Result,
    axis::{self, LogAxis},
    marker::Marker,
    numbers,
    page::{Area, MARGIN, Page, WIDTH},
    rows::{Role, Row, Table, Work},
    style::{self, GREY, OURS, Weight},
};

pub const SUBJECT: &str = "memory";
/// The end of the names of the measures: `p50 of insert`.
const MEASURES: &str = " of insert";

const HEADING: u32 = 32;
const LINE: u32 = 26;
const AXIS: u32 = 34;
const NAMES: u32 = 208;
/// The width of a column of numbers.
const COLUMN: u32 = 84;

pub fn draw(table: &Table) -> Result<String> {
    let works = table.works(SUBJECT);
    let works = works.iter().map(Panel::new);
    let panels: Vec<_> = works.filter(|panel| !panel.lines.is_empty()).collect();
    let times = axis::around(panels.iter().flat_map(Panel::values));
    let page = Page {
        title: "Latency of inserts into maps in memory",
        subtitle: format!(
            "Logarithmic axis; further left is better. Persistify saves meanwhile, the others save nothing. {}",
            numbers::medians(panels.iter().map(|panel| panel.rounds))
        ),
        height: panels.iter().map(Panel::height).sum(),
        notes: &table.notes,
    };
    page.draw(|area| {
        let mut rest = area.clone();
        for panel in &panels {
            let (upper, lower) = rest.split_vertically(panel.height());
            panel.draw(&upper, &times)?;
            rest = lower;
        }
        Ok(())
    })
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogAxis, RangedCoordf64>>;

/// One work: a line for each contender.
struct Panel<'t> {
    title: String,
    rounds: usize,
    quantiles: Vec<&'t str>,
    lines: Vec<Line<'t>>,
}

struct Line<'t> {
    name: &'t str,
    role: Role,
    /// One for each quantile.
    values: Vec<f64>,
}

impl<'t> Panel<'t> {
    /// Has no lines if the work has no quantiles.
    fn new(work: &Work<'t>) -> Self {
        let rows = work.rows.iter().copied();
        let rows = rows.filter(|row| quantile(row).is_some());
        let rows: Vec<&Row> = rows.collect();
        let measures = rows.chunk_by(|one, next| one.measure == next.measure);
        let quantiles = measures.filter_map(|rows| quantile(rows[0])).collect();
        let mut lines: Vec<Line<'_>> = Vec::new();
        for row in rows {
            match lines.iter_mut().find(|line| line.name == row.contender) {
                Some(line) => line.values.push(row.median),
                None => lines.push(Line::new(row)),
            }
        }
        Self {
            title: numbers::heading(work.name),
            rounds: work.rounds(),
            quantiles,
            lines,
        }
    }

    fn values(&self) -> impl Iterator<Item = f64> + Clone {
        let lines = self.lines.iter();
        lines.flat_map(|line| line.values.iter().copied())
    }

    fn plot_height(&self) -> u32 {
        LINE * u32::try_from(self.lines.len()).expect("a few lines")
    }

    fn height(&self) -> u32 {
        HEADING + self.plot_height() + AXIS
    }

    /// The horizontal end of a column of numbers.
    fn column(&self, at: usize) -> i32 {
        let after = u32::try_from(self.quantiles.len() - at - 1).expect("a few quantiles");
        i32::try_from(WIDTH - COLUMN * after).expect("a point of the page") - MARGIN
    }

    fn draw(&self, area: &Area<'_>, times: &Range<f64>) -> Result<()> {
        let (heading, plot) = area.split_vertically(HEADING);
        self.draw_heading(&heading)?;
        self.draw_numbers(&plot)?;
        self.draw_plot(&plot, times)
    }

    /// Names the quantiles above their numbers, beside their markers.
    fn draw_heading(&self, area: &Area<'_>) -> Result<()> {
        let title = style::text(13.0, Weight::Bold, HPos::Left);
        area.draw_text(&self.title, &title, (MARGIN, 14))?;
        let header = style::text(12.0, Weight::Bold, HPos::Right);
        for (at, (quantile, marker)) in self.quantiles.iter().zip(Marker::ALL).enumerate() {
            let x = self.column(at);
            area.draw_text(quantile, &header, (x, 16))?;
            let width = 8 * i32::try_from(quantile.len())?;
            marker.draw(area, (x - width - 12, 15), GREY)?;
        }
        Ok(())
    }

    fn draw_numbers(&self, area: &Area<'_>) -> Result<()> {
        for (line, y) in self.lines.iter().zip((14..).step_by(LINE as usize)) {
            let names = i32::try_from(NAMES)?;
            area.draw_text(line.name, &line.text(), (names - 10, y))?;
            for (at, value) in line.values.iter().enumerate() {
                area.draw_text(&numbers::time(*value), &line.text(), (self.column(at), y))?;
            }
        }
        Ok(())
    }

    fn draw_plot(&self, area: &Area<'_>, times: &Range<f64>) -> Result<()> {
        let columns = COLUMN * u32::try_from(self.quantiles.len())?;
        let count = f64::from(u32::try_from(self.lines.len())?);
        let mut chart = ChartBuilder::on(area)
            .margin_left(NAMES)
            .margin_right(columns + 2 * MARGIN.unsigned_abs())
            .x_label_area_size(AXIS)
            .build_cartesian_2d(axis::logarithmic(times, &axis::decades(times)), count..0.0)?;
        draw_axis(&mut chart)?;
        for (line, from_top) in self.lines.iter().zip(0_u32..) {
            line.draw(&mut chart, f64::from(from_top) + 0.5)?;
        }
        Ok(())
    }
}

fn draw_axis(chart: &mut Chart<'_, '_>) -> Result<()> {
    let mut mesh = chart.configure_mesh();
    mesh.disable_y_mesh().disable_y_axis();
    mesh.axis_style(style::grid())
        .bold_line_style(style::grid())
        .light_line_style(TRANSPARENT)
        .x_label_style(style::text(11.0, Weight::Normal, HPos::Center))
        .x_label_formatter(&|time| axis::decade(*time));
    Ok(mesh.draw()?)
}

impl<'t> Line<'t> {
    fn new(row: &'t Row) -> Self {
        Self {
            name: &row.contender,
            role: row.role,
            values: vec![row.median],
        }
    }

    fn color(&self) -> RGBColor {
        if self.role == Role::Ours { OURS } else { GREY }
    }

    fn stroke(&self) -> ShapeStyle {
        self.color().mix(0.6).stroke_width(2)
    }

    fn text(&self) -> TextStyle<'static> {
        style::text(12.0, Weight::of(self.role), HPos::Right)
    }

    fn draw(&self, chart: &mut Chart<'_, '_>, y: f64) -> Result<()> {
        let points: Vec<_> = self.values.iter().map(|value| (*value, y)).collect();
        chart.draw_series([PathElement::new(points.clone(), self.stroke())])?;
        for (point, marker) in points.into_iter().zip(Marker::ALL) {
            marker.draw(chart.plotting_area(), point, self.color())?;
        }
        Ok(())
    }
}

/// `p50`, if the row is one of that.
fn quantile(row: &Row) -> Option<&str> {
    let name = row.measure.strip_suffix(MEASURES)?;
    name.starts_with('p').then_some(name)
}
