//! The builders' common part: adopted tables, and options out of bounds.

use std::collections::BTreeMap;

use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
};

/// An option that cannot be used.
#[derive(Debug)]
pub(crate) struct Problem {
    option: &'static str,
    text: String,
}

impl Problem {
    pub(crate) fn new(option: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { option, text }
    }

    /// The error for the caller; `of` names the thing that has the options.
    pub(crate) fn of(self, of: &str) -> Error {
        let Self { option, text } = self;
        Error::new(
            ErrorKind::Invalid,
            format!("option `{option}` of {of}: {text}"),
        )
    }
}

/// Adds a table of another program to the adopted ones. A table holds one map,
/// and a map is in one table.
///
/// # Errors
///
/// `Invalid` if the name of the map is not valid; otherwise the problem.
pub(crate) fn adopt<T>(
    adopted: &mut BTreeMap<MapName, T>,
    map: &str,
    table: T,
    is_same: impl Fn(&T) -> bool,
    error: impl Fn(Problem) -> Error,
) -> Result<()> {
    let map = MapName::parse(map)?;
    if adopted.values().any(is_same) {
        let problem = "a table was given to two maps; a table holds one";
        return Err(error(Problem::new("table", problem)).on_map(&map));
    }
    if adopted.insert(map.clone(), table).is_some() {
        return Err(error(Problem::new("table", "the map was given two tables")).on_map(&map));
    }
    Ok(())
}
