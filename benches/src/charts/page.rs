//! The frame of a chart: its heading, and the notes below it.

use plotters::{coord::Shift, prelude::*, style::text_anchor::HPos};

use crate::{
    Result,
    style::{self, Weight},
};

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub const WIDTH: u32 = 960;
pub const MARGIN: i32 = 16;
const HEADING: u32 = 64;
const NOTE: u32 = 17;
/// The letters of a note that fit into a line of the page.
const NOTE_LETTERS: usize = 140;

pub struct Page<'t> {
    pub title: &'static str,
    /// The units, and how to read them.
    pub subtitle: String,
    /// Without the heading and the notes.
    pub height: u32,
    pub notes: &'t [String],
}

impl Page<'_> {
    /// Returns the SVG of a page, whose middle part `draw` draws.
    pub fn draw(&self, draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
        let notes: Vec<_> = self.notes.iter().flat_map(|note| wrapped(note)).collect();
        let below = NOTE * u32::try_from(notes.len())? + 12;
        let size = (WIDTH, HEADING + self.height + below);
        let mut svg = String::new();
        {
            let page = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            let (heading, rest) = page.split_vertically(HEADING);
            let (middle, footer) = rest.split_vertically(self.height);
            self.draw_heading(&heading)?;
            draw(&middle)?;
            draw_notes(&footer, &notes)?;
            page.present()?;
        }
        Ok(style::adapt(&svg, self.title))
    }

    fn draw_heading(&self, area: &Area<'_>) -> Result<()> {
        let title = style::text(19.0, Weight::Bold, HPos::Left);
        area.draw_text(self.title, &title, (MARGIN, 22))?;
        let subtitle = style::text(13.0, Weight::Normal, HPos::Left);
        area.draw_text(&self.subtitle, &subtitle, (MARGIN, 46))?;
        Ok(())
    }
}

fn draw_notes(area: &Area<'_>, notes: &[String]) -> Result<()> {
    let style = style::text(11.0, Weight::Normal, HPos::Left);
    for (y, note) in (10..).step_by(NOTE as usize).zip(notes) {
        area.draw_text(note, &style, (MARGIN, y))?;
    }
    Ok(())
}

/// The lines of a note that may be too long for one.
fn wrapped(note: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in note.split(' ') {
        let last = lines.last_mut().expect("a line");
        if last.is_empty() {
            *last = word.into();
        } else if last.chars().count() + word.chars().count() < NOTE_LETTERS {
            *last = format!("{last} {word}");
        } else {
            lines.push(word.into());
        }
    }
    lines
}
