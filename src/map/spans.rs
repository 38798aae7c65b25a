//! The spans in which a map opens, loads, commits and closes.
//!
//! They name no key and no value. A span that no subscriber wants costs a look
//! at a flag.

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

/// One attempt at a batch; the first one is number 1.
pub(super) fn commit(batch: &Batch, provider: &dyn Provider, attempt: u32) -> Span {
    // Not even counted if nothing asks for it.
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

/// The type of a provider: the first word of what its `Debug` writes. What
/// follows may be anything.
struct Kind<'a>(&'a dyn Provider);

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut word = FirstWord(String::new());
        // It ends with an error, so that nothing after the word is written.
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
