//! The errors of a URL or a configuration.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind};

/// The similarity from which a name is suggested in place of another.
const NEAR: f64 = 0.8;

pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

/// The error of a part of the crate that is not compiled in.
pub(super) fn needs_feature(what: &str, feature: &str) -> Error {
    let message = format!(
        "{what} needs the feature `{feature}` of persistify, which is not compiled in; add it to the \
         features of persistify in Cargo.toml"
    );
    Error::new(ErrorKind::Unsupported, message)
}

/// The nearest of the known names, and all of them.
pub(super) fn suggestion(unknown: &str, known: &BTreeSet<String>) -> String {
    let unknown = unknown.to_lowercase();
    let likeness = |name: &str| strsim::jaro_winkler(&unknown, name);
    let near = known.iter().map(|name| (likeness(name), name));
    let near = near.max_by(|a, b| a.0.total_cmp(&b.0));
    let near = near.filter(|(likeness, _)| *likeness >= NEAR);
    let near = near.map_or("; known".to_owned(), |(_, name)| {
        format!("; did you mean `{name}`? Known")
    });
    let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    format!("{near} are {}", known.join(", "))
}
