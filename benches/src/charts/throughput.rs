//! Durable writes per second, as bars.

use plotters::{coord::types::RangedCoordf64, prelude::*, style::text_anchor::HPos};

use crate::{
    Result, numbers,
    page::{Area, MARGIN, Page},
    rows::{Role, Row, Table, Work},
    style::{self, GREY, OURS, Weight},
};

pub const SUBJECTS: [&str; 3] = ["dictionary", "saves", "batches"];

const COLUMNS: usize = 2;
const LEGEND: u32 = 34;
const PANEL_HEADING: u32 = 30;
const BAR: u32 = 22;
const GAP: u32 = 18;
const NAMES: u32 = 232;
const VALUES: u32 = 84;

const LEGEND_TEXTS: [(Role, &str); 3] = [
    (Role::Ours, "Persistify"),
    (Role::Peer, "peer"),
    (
        Role::LessDurable,
        "peer whose data may not survive a power loss",
    ),
];

pub fn draw(table: &Table) -> Result<String> {
    let works = SUBJECTS.iter().flat_map(|subject| table.works(subject));
    let panels = works
        .map(|work| Panel::new(&work))
        .collect::<Result<Vec<_>>>()?;
    let heights = panels.chunks(COLUMNS).map(height);
    let page = Page {
        title: "Durable writes per second",
        subtitle: format!(
            "Longer bars are better. {}",
            numbers::medians(panels.iter().map(|panel| panel.rounds))
        ),
        height: LEGEND + heights.sum::<u32>(),
        notes: &table.notes,
    };
    page.draw(|area| {
        let (legend, rest) = area.split_vertically(LEGEND);
        draw_legend(&legend)?;
        draw_panels(&rest, &panels)
    })
}

fn draw_panels(area: &Area<'_>, panels: &[Panel<'_>]) -> Result<()> {
    let mut rest = area.clone();
    for line in panels.chunks(COLUMNS) {
        let (upper, lower) = rest.split_vertically(height(line));
        for (panel, area) in line.iter().zip(upper.split_evenly((1, COLUMNS))) {
            panel.draw(&area)?;
        }
        rest = lower;
    }
    Ok(())
}

/// The height of the tallest panel.
fn height(panels: &[Panel<'_>]) -> u32 {
    panels.iter().map(Panel::height).max().unwrap_or(0)
}

fn draw_legend(area: &Area<'_>) -> Result<()> {
    let style = style::text(12.0, Weight::Normal, HPos::Left);
    let mut x = MARGIN;
    for (role, text) in LEGEND_TEXTS {
        draw_swatch(area, role, x)?;
        area.draw_text(text, &style, (x + 20, 11))?;
        x += 48 + 6 * i32::try_from(text.len())?;
    }
    Ok(())
}

fn draw_swatch(area: &Area<'_>, role: Role, x: i32) -> Result<()> {
    for style in bar_styles(role) {
        area.draw(&Rectangle::new([(x, 4), (x + 13, 16)], style))?;
    }
    Ok(())
}

/// The filling and, if it has one, the outline.
fn bar_styles(role: Role) -> Vec<ShapeStyle> {
    match role {
        Role::Ours => vec![OURS.filled()],
        Role::Peer | Role::Limit => vec![GREY.filled()],
        Role::LessDurable => vec![GREY.mix(0.2).filled(), GREY.stroke_width(1)],
    }
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The bars of one work, the longest first.
struct Panel<'t> {
    title: String,
    rounds: usize,
    bars: Vec<Bar<'t>>,
    limit: Option<Bar<'t>>,
}

struct Bar<'t> {
    row: &'t Row,
    /// Operations per second.
    rate: f64,
}

impl<'t> Panel<'t> {
    fn new(work: &Work<'t>) -> Result<Self> {
        let rounds = work.rounds();
        let title = numbers::heading(work.name);
        let bars = work.rows.iter().map(|row| Bar::new(row, work.name));
        let bars = bars.collect::<Result<Vec<_>>>()?;
        // The limit is a number only: it is no peer, and would dwarf the bars.
        let (limits, mut bars): (Vec<_>, Vec<_>) = bars
            .into_iter()
            .partition(|bar| bar.row.role == Role::Limit);
        bars.sort_by(|one, next| next.rate.total_cmp(&one.rate));
        Ok(Self {
            title,
            rounds,
            bars,
            limit: limits.into_iter().next(),
        })
    }

    fn height(&self) -> u32 {
        let lines = self.bars.len() + usize::from(self.limit.is_some());
        PANEL_HEADING + BAR * u32::try_from(lines).expect("a few bars") + GAP
    }

    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let title = style::text(13.0, Weight::Bold, HPos::Left);
        area.draw_text(&self.title, &title, (MARGIN, 14))?;
        let (_, area) = area.split_vertically(PANEL_HEADING);
        let (bars, rest) = area.split_vertically(BAR * u32::try_from(self.bars.len())?);
        self.draw_bars(&bars)?;
        if let Some(limit) = &self.limit {
            limit.draw_as_limit(&rest)?;
        }
        Ok(())
    }

    fn draw_bars(&self, area: &Area<'_>) -> Result<()> {
        let longest = self.bars.iter().map(|bar| bar.rate).fold(1.0, f64::max);
        let count = f64::from(u32::try_from(self.bars.len())?);
        let mut chart = ChartBuilder::on(area)
            .margin_left(NAMES)
            .margin_right(VALUES)
            .build_cartesian_2d(0.0..longest, count..0.0)?;
        for (bar, line) in self.bars.iter().zip(0_u32..) {
            bar.draw(&mut chart, f64::from(line))?;
        }
        Ok(())
    }
}

impl<'t> Bar<'t> {
    fn new(row: &'t Row, work: &str) -> Result<Self> {
        let is_total = !row.measure.starts_with("time per ");
        let operations = if is_total {
            // "200000 puts from 2 threads, then closed"
            let count = numbers::numbers_in(work).next();
            count.ok_or_else(|| format!("no number of operations in {work:?}"))?
        } else {
            1
        };
        Ok(Self {
            row,
            rate: f64::from(operations) * 1e9 / row.median,
        })
    }

    fn text(&self, anchor: HPos) -> TextStyle<'static> {
        style::text(12.0, Weight::of(self.row.role), anchor)
    }

    fn draw(&self, chart: &mut Chart<'_, '_>, top: f64) -> Result<()> {
        for style in bar_styles(self.row.role) {
            let corners = [(0.0, top + 0.14), (self.rate, top + 0.86)];
            chart.draw_series([Rectangle::new(corners, style)])?;
        }
        let name = Text::new(self.row.contender.clone(), (-8, 1), self.text(HPos::Right));
        let value = Text::new(
            numbers::three_digits(self.rate),
            (7, 1),
            self.text(HPos::Left),
        );
        let (left, right) = ((0.0, top + 0.5), (self.rate, top + 0.5));
        let area = chart.plotting_area();
        area.draw(&(EmptyElement::at(left) + name))?;
        area.draw(&(EmptyElement::at(right) + value))?;
        Ok(())
    }

    fn draw_as_limit(&self, area: &Area<'_>) -> Result<()> {
        let (x, y) = (i32::try_from(NAMES)?, 12);
        area.draw_text(&self.row.contender, &self.text(HPos::Right), (x - 8, y))?;
        let rate = format!("{} (limit, not a store)", numbers::three_digits(self.rate));
        area.draw_text(&rate, &self.text(HPos::Left), (x + 7, y))?;
        Ok(())
    }
}
