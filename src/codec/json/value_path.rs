//! The path to a part of a value: `.by_player["7"]`, `.points[3].x`.

use std::fmt;

use serde_path_to_error::{Path, Segment};

/// The maximum number of steps shown; a longer path loses its middle.
const MAX_STEPS: usize = 12;

/// The steps that lead to a part of a value; none for the value itself.
#[derive(Debug, Default)]
pub(crate) struct ValuePath(Vec<String>);

impl ValuePath {
    pub(crate) fn of(path: &Path) -> Self {
        Self(path.iter().map(step).collect())
    }

    pub(super) fn enter_named(&mut self, name: &str) {
        self.0.push(named(name));
    }

    pub(super) fn enter_item(&mut self, number: usize) {
        self.0.push(item(number));
    }

    pub(super) fn leave(&mut self) {
        self.0.pop();
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

fn step(segment: &Segment) -> String {
    match segment {
        Segment::Seq { index } => item(*index),
        Segment::Map { key } | Segment::Enum { variant: key } => named(key),
        Segment::Unknown => "[?]".to_owned(),
    }
}

fn item(number: usize) -> String {
    format!("[{number}]")
}

/// A name that could be a field's is written plainly, any other key in quotes.
fn named(key: &str) -> String {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    if key.starts_with(|c: char| c.is_alphabetic() || c == '_') && key.chars().all(is_name) {
        format!(".{key}")
    } else {
        format!("[{key:?}]")
    }
}

impl fmt::Display for ValuePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = &self.0;
        if steps.len() <= MAX_STEPS {
            return f.write_str(&steps.concat());
        }
        let (first, last) = (&steps[..MAX_STEPS / 2], &steps[steps.len() - 2..]);
        write!(f, "{}…{}", first.concat(), last.concat())
    }
}
