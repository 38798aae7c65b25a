//! The time of one save against the size of the map, as lines on logarithmic axes.

use std::ops::Range;

use plotters::{prelude::*, style::text_anchor::HPos};

use crate::{
    Result,
    axis::{self, LogAxis},
    marker::Marker,
    numbers,
    page::{Area, Page},
    rows::{Role, Row, Table, Work},
    style::{self, BLUE, GREEN, GREY, ORANGE, PURPLE, Weight},
};

pub const SUBJECT: &str = "one-change";

const HEIGHT: u32 = 390;
const AXIS: u32 = 48;
const TIMES: u32 = 74;
const NAMES: u32 = 212;
/// The least vertical distance of two names.
const NAME: i32 = 19;

const OURS: [RGBColor; 2] = [BLUE, GREEN];
const PEERS: [RGBColor; 2] = [ORANGE, PURPLE];

pub fn draw(table: &Table) -> Result<String> {
    let works = table.works(SUBJECT);
    let plot = Plot::new(&works)?;
    let page = Page {
        title: "Time of one durable save, by the size of the map",
        subtitle: format!(
            "Logarithmic axes; lower is better. {}",
            numbers::medians(works.iter().map(Work::rounds))
        ),
        height: HEIGHT,
        notes: &table.notes,
    };
    page.draw(|area| plot.draw(area))
}

struct Plot<'t> {
    sizes: Vec<f64>,
    lines: Vec<Line<'t>>,
}

/// The saves of one contender.
struct Line<'t> {
    name: &'t str,
    role: Role,
    color: RGBColor,
    marker: Marker,
    /// The size of the map, and the time of a save.
    points: Vec<(f64, f64)>,
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogAxis, LogAxis>>;

impl<'t> Plot<'t> {
    fn new(works: &[Work<'t>]) -> Result<Self> {
        let (mut sizes, mut lines) = (Vec::new(), Vec::<Line<'_>>::new());
        for work in works {
            let size = size(work.name)?;
            sizes.push(size);
            for row in &work.rows {
                let point = (size, row.median);
                match lines.iter_mut().find(|line| line.name == row.contender) {
                    Some(line) => line.points.push(point),
                    None => lines.push(Line::new(row, point, &lines)),
                }
            }
        }
        Ok(Self { sizes, lines })
    }

    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let times = self.lines.iter().flat_map(|line| &line.points);
        let times = axis::around(times.map(|point| point.1));
        // The names follow where the axis ends.
        let sizes = Range {
            end: self.sizes.iter().copied().fold(1.0, f64::max),
            ..axis::around(self.sizes.iter().copied())
        };
        let mut chart = ChartBuilder::on(area)
            .margin_top(12)
            .margin_bottom(10)
            .margin_right(NAMES)
            .x_label_area_size(AXIS)
            .y_label_area_size(TIMES)
            .build_cartesian_2d(
                axis::logarithmic(&sizes, &self.sizes),
                axis::logarithmic(&times, &axis::decades(&times)),
            )?;
        draw_axes(&mut chart)?;
        for line in &self.lines {
            line.draw(&mut chart)?;
        }
        self.draw_names(&chart)
    }

    /// Writes each name beside the end of its line, without overlaps.
    fn draw_names(&self, chart: &Chart<'_, '_>) -> Result<()> {
        let mut ends: Vec<_> = self.lines.iter().collect();
        let height = |line: &Line<'_>| chart.backend_coord(&line.end()).1;
        ends.sort_by_key(|line| height(line));
        let heights: Vec<_> = ends.iter().map(|line| height(line)).collect();
        for (line, (from, to)) in ends.iter().zip(heights.iter().zip(spread(&heights))) {
            line.draw_name(chart, to - from)?;
        }
        Ok(())
    }
}

fn draw_axes(chart: &mut Chart<'_, '_>) -> Result<()> {
    let text = style::text(12.0, Weight::Normal, HPos::Center);
    let mut mesh = chart.configure_mesh();
    mesh.axis_style(style::grid())
        .bold_line_style(style::grid())
        .light_line_style(TRANSPARENT)
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_desc("entries in the map")
        .x_label_formatter(&|size| numbers::three_digits(*size))
        .y_label_formatter(&|time| axis::decade(*time));
    Ok(mesh.draw()?)
}

impl<'t> Line<'t> {
    fn new(row: &'t Row, point: (f64, f64), others: &[Line<'_>]) -> Self {
        let alike = others.iter().filter(|line| line.role == row.role).count();
        let color = match row.role {
            Role::Ours => OURS[alike % OURS.len()],
            Role::Peer | Role::LessDurable => PEERS[alike % PEERS.len()],
            Role::Limit => GREY,
        };
        Self {
            name: &row.contender,
            role: row.role,
            color,
            marker: Marker::ALL[others.len() % Marker::ALL.len()],
            points: vec![point],
        }
    }

    fn end(&self) -> (f64, f64) {
        *self.points.last().expect("a point")
    }

    fn is_ours(&self) -> bool {
        self.role == Role::Ours
    }

    fn draw(&self, chart: &mut Chart<'_, '_>) -> Result<()> {
        let style = self.color.stroke_width(if self.is_ours() { 3 } else { 2 });
        let points = self.points.iter().copied();
        if self.role == Role::Limit {
            chart.draw_series(DashedLineSeries::new(points.clone(), 5, 5, style))?;
        } else {
            chart.draw_series(LineSeries::new(points.clone(), style))?;
        }
        for point in points {
            self.marker.draw(chart.plotting_area(), point, self.color)?;
        }
        Ok(())
    }

    /// Writes the name so far below the end of the line, and joins both.
    fn draw_name(&self, chart: &Chart<'_, '_>, below: i32) -> Result<()> {
        let name = match self.role {
            Role::Limit => format!("limit: {}", self.name),
            _ => self.name.to_owned(),
        };
        let (join, text) = (
            [(8, 0), (22, below)],
            style::text(12.0, Weight::of(self.role), HPos::Left),
        );
        let area = chart.plotting_area();
        let join = PathElement::new(join, self.color.stroke_width(1));
        area.draw(&(EmptyElement::at(self.end()) + join))?;
        let name = Text::new(name, (27, below + 1), text);
        area.draw(&(EmptyElement::at(self.end()) + name))?;
        Ok(())
    }
}

/// Moves names apart that are too close. The heights are sorted.
fn spread(heights: &[i32]) -> Vec<i32> {
    let mut apart = heights.to_vec();
    // Each pass moves the names of a close pair by a pixel, so that their middle stays.
    for _ in 0..heights.len() * NAME.unsigned_abs() as usize {
        for at in 1..apart.len() {
            if apart[at] - apart[at - 1] < NAME {
                apart[at - 1] -= 1;
                apart[at] += 1;
            }
        }
    }
    apart
}

/// The number of entries: `save one entry of 1000`.
fn size(work: &str) -> Result<f64> {
    let size = numbers::numbers_in(work).last().map(f64::from);
    size.ok_or_else(|| format!("no size of a map in {work:?}").into())
}
