//! Colours and texts, for light and for dark pages.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::rows::Role;

/// Texts. The dark colour can still be read on a light page and vice versa, because some
/// viewers do not say which one it is.
pub const INK: RGBColor = RGBColor(0x65, 0x6d, 0x76);
const INK_ON_DARK: &str = "#939ca6";

// The other colours contrast with both pages. Readers who do not tell red from green
// tell them apart (the palette of Okabe and Ito, with a contrast of at least 3).
pub const GREY: RGBColor = RGBColor(0x8a, 0x93, 0x9d);
pub const BLUE: RGBColor = RGBColor(0x1f, 0x77, 0xd0);
pub const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);
pub const ORANGE: RGBColor = RGBColor(0xc9, 0x7f, 0x00);
pub const PURPLE: RGBColor = RGBColor(0xc4, 0x6f, 0x9f);

/// Persistify.
pub const OURS: RGBColor = BLUE;

/// Lines behind the values.
pub fn grid() -> ShapeStyle {
    GREY.mix(0.3).stroke_width(1)
}

/// The generic family last, as in the other images of the README.
const FONTS: &str =
    "ui-sans-serif, system-ui, 'Segoe UI', Helvetica, 'DejaVu Sans', Arial, sans-serif";

#[derive(Clone, Copy)]
pub enum Weight {
    Normal,
    Bold,
}

impl Weight {
    pub fn of(role: Role) -> Self {
        match role {
            Role::Ours => Self::Bold,
            Role::Peer | Role::LessDurable | Role::Limit => Self::Normal,
        }
    }
}

/// A text of this size in pixels, whose left end, middle or right end is at its point.
pub fn text(size: f64, weight: Weight, anchor: HPos) -> TextStyle<'static> {
    let style = match weight {
        Weight::Normal => FontStyle::Normal,
        Weight::Bold => FontStyle::Bold,
    };
    // The SVG backend divides the size by 1.24.
    let font = FontDesc::new(FontFamily::Name(FONTS), size * 1.24, style);
    TextStyle::from(font)
        .color(&INK)
        .pos(Pos::new(anchor, VPos::Center))
}

/// Adds a title for screen readers, and the colours for dark pages.
pub fn adapt(svg: &str, title: &str) -> String {
    let RGBColor(red, green, blue) = INK;
    let ink = format!("#{red:02X}{green:02X}{blue:02X}");
    let head = format!(
        "<title>{title}</title>\n<style>@media (prefers-color-scheme: dark) {{ [fill=\"{ink}\"] {{ fill: {INK_ON_DARK} }} }}</style>\n"
    );
    let (tag, rest) = svg.split_once('\n').unwrap_or((svg, ""));
    let tag = tag.replacen("<svg", "<svg role=\"img\"", 1);
    format!("{tag}\n{head}{rest}")
}
