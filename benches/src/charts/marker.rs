//! Marks of values, which readers tell apart without their colours.

use plotters::{coord::CoordTranslate, prelude::*};

use crate::Result;

#[derive(Clone, Copy)]
pub enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    TriangleDown,
}

impl Marker {
    pub const ALL: [Self; 5] = [
        Self::Circle,
        Self::Square,
        Self::Triangle,
        Self::Diamond,
        Self::TriangleDown,
    ];

    /// Draws the marker around this point.
    pub fn draw<C: CoordTranslate>(
        self,
        area: &DrawingArea<SVGBackend<'_>, C>,
        at: C::From,
        color: RGBColor,
    ) -> Result<()> {
        let corners = match self {
            Self::Circle => {
                let circle = Circle::new((0, 0), 5, color.filled());
                return Ok(area.draw(&(EmptyElement::at(at) + circle))?);
            }
            Self::Square => vec![(-4, -4), (5, -4), (5, 5), (-4, 5)],
            Self::Triangle => vec![(0, -6), (6, 5), (-6, 5)],
            Self::Diamond => vec![(0, -6), (6, 0), (0, 6), (-6, 0)],
            Self::TriangleDown => vec![(0, 6), (6, -5), (-6, -5)],
        };
        let polygon = Polygon::new(corners, color.filled());
        Ok(area.draw(&(EmptyElement::at(at) + polygon))?)
    }
}
