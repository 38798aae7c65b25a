//! The tracing spans of opening, loading, committing and closing a map.
//!
//! They contain no key and no value. A disabled span costs one check of a flag.

use std::fmt::{self, Write};

use tracing::{Level, Span, debug_span, info_span, span_enabled};

use crate::{
    batch::Batch,
    name::MapName,
    provider::Provider,
    trace::{FLUSH, LOAD, MAP},
};

pub(super) fn open(map: &MapName, provider: &dyn Provider) -> Span {
    info_span!(target: MAP, "open", %map, provider = %Kind(provider))
}

pub(super) fn load(map: &MapName, provider: &dyn Provider) -> Span {
    debug_span!(target: LOAD, "load", %map, provider = %Kind(provider))
}

/// One attempt at a batch; attempts count from 1.
pub(super) fn commit(batch: &Batch, provider: &dyn Provider, attempt: u32) -> Span {
    // Without a subscriber, changes and bytes are not even counted.
    if !span_enabled!(target: FLUSH, Level::DEBUG) {
        return Span::none();
    }
    let changes = || batch.maps.iter().flat_map(|part| &part.changes);
    debug_span!(
        target: FLUSH,
        "commit",
        map = %Names(batch),
        provider = %Kind(provider),
        changes = changes().count(),
        bytes = changes().map(|change| change.weight()).sum::<usize>(),
        attempt,
    )
}

pub(super) fn close(map: &MapName, provider: &dyn Provider) -> Span {
    info_span!(target: MAP, "close", %map, provider = %Kind(provider))
}

struct Names<'a>(&'a Batch);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.0.maps.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { "," }, part.map)?;
        }
        Ok(())
    }
}

/// The type of a provider: the first word of its `Debug` output. The rest may
/// contain anything, even secrets.
struct Kind<'a>(&'a dyn Provider);

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut word = FirstWord(String::new());
        // The writer stops with an error after the first word.
        let _ = write!(word, "{:?}", self.0);
        f.write_str(&word.0)
    }
}

struct FirstWord(String);

impl Write for FirstWord {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        self.0.push_str(&text[..end.unwrap_or(text.len())]);
        end.map_or(Ok(()), |_| Err(fmt::Error))
    }
}
