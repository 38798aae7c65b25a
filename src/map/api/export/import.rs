//! Import of an exported map.

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::lines::{Header, Line};
use crate::{
    error::{Error, ErrorKind, Result},
    map::{Map, core::Core, lifetime::Lifetime},
    record::{Payload, Record, Revision},
};

/// The size of the read buffer, in bytes.
const BUFFER: usize = 64 << 10;

/// The longest accepted line, in bytes; no more than this is ever buffered. SQLite
/// and Postgres do not accept larger values either.
const MAX_LINE: u64 = 1 << 30;

impl<V, L> Map<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Inserts the entries of an [export](Self#exports) line by line and saves
    /// them; returns their number.
    ///
    /// After `Ok`, every entry is in the map, and the store has accepted it or a
    /// later change of its key. (If the map [detects
    /// conflicts](crate::Builder::conflicts), another process's value may have won;
    /// [`conflicts`](Self::conflicts) reports it, as for any write.) Existing
    /// entries with the same key are overwritten; others stay. Values of an older
    /// schema version are [migrated](crate::Builder::migrate). Expiries are kept if the
    /// map's entries can expire; a line without one is inserted as by
    /// [`insert`](Self::insert), and an expired one is skipped. The map name in the
    /// header is ignored.
    ///
    /// The lines are streamed, not held in memory; they are flushed whenever one
    /// commit's worth is pending.
    ///
    /// # Errors
    ///
    /// - `Invalid`, with the line number, if the header is missing, or a line is not
    ///   JSON, does not decode, has an unknown schema version, or exceeds 1 GiB.
    /// - `Unusable` if the reader fails.
    /// - `Closed` if the map is closed.
    /// - Otherwise those of [`flush`](Self::flush).
    ///
    /// After an error, the lines imported so far are in the map, pending or saved.
    /// A line that failed and all lines after it are not. The import can be
    /// repeated.
    pub async fn import(&self, reader: impl AsyncRead + Unpin) -> Result<u64> {
        self.core.check_open()?;
        let mut lines = Lines::of(BufReader::with_capacity(BUFFER, reader), MAX_LINE);
        let named = |error: Error| error.on_map(&self.core.name);
        let Some(header) = lines.next().await.map_err(named)? else {
            return Err(named(invalid(1, "is missing: an export has a header")));
        };
        let schema = self.schema_of(header).map_err(named)?;
        let (mut imported, mut waiting, mut bytes) = (0, 0, 0);
        while let Some((number, line)) = lines.next().await.map_err(named)? {
            bytes += line.len();
            let is_new = self.core.take_line(line, schema);
            let is_new = is_new.map_err(|problem| named(problem.at(number)))?;
            imported += u64::from(is_new);
            waiting += usize::from(is_new);
            if waiting >= self.most_at_once() || bytes >= self.core.options.max_batch_bytes {
                self.flush_lines(number).await?;
                (waiting, bytes) = (0, 0);
            }
        }
        self.flush_lines(lines.number).await?;
        Ok(imported)
    }

    fn schema_of(&self, (number, line): (u64, &[u8])) -> Result<u32> {
        let header = Header::parse(line).map_err(|problem| invalid(number, &problem))?;
        let known = self.core.options.migrations.check_known(header.schema);
        known.map_err(|cause| {
            invalid(
                number,
                "says that the values are of a schema version that the program cannot read",
            )
            .with_source(cause)
        })?;
        Ok(header.schema)
    }

    fn most_at_once(&self) -> usize {
        let options = &self.core.options;
        options
            .max_batch
            .min(options.max_pending.unwrap_or(usize::MAX))
    }

    async fn flush_lines(&self, number: u64) -> Result<()> {
        self.flush().await.map_err(|cause| {
            let message = format!(
                "the import has reached line {number}: all lines so far are in the map, but not \
                 all are saved"
            );
            Error::new(cause.kind(), message)
                .on_map(&self.core.name)
                .on_keys(cause.keys().iter().cloned())
                .with_source(cause)
                .nothing_applied()
        })
    }
}

/// Why a line was not imported.
enum Problem {
    /// The line is malformed.
    Line(String, Option<Error>),
    /// The map is closed.
    Map(Error),
}

impl Problem {
    fn at(self, number: u64) -> Error {
        match self {
            Self::Line(problem, None) => invalid(number, &problem),
            Self::Line(problem, Some(cause)) => invalid(number, &problem).with_source(cause),
            Self::Map(error) => error,
        }
    }
}

impl<V: DeserializeOwned, L: Lifetime<V>> Core<V, L> {
    /// Inserts the entry of a line; returns `false` if it has expired.
    fn take_line(&self, line: &[u8], schema: u32) -> Result<bool, Problem> {
        let no_line = |cause| Problem::Line(format!("is not a line of an export: {cause}"), None);
        let line: Line<'_> = serde_json::from_slice(line).map_err(no_line)?;
        let expires_at = line.expires_at();
        let now = self.clock.now();
        if expires_at.is_some_and(|end| end <= now) {
            return Ok(false);
        }
        let text = line.value.get().as_bytes().to_vec();
        let payload = Payload::json(text).with_schema(schema);
        let decoded = self.decode(&payload).map_err(|cause| {
            let problem = format!("has a value that does not decode (key {:?})", line.key);
            Problem::Line(problem, Some(cause))
        })?;
        let record = Record::new(&*line.key, None, Revision::ZERO)
            .with_expires_at(expires_at)
            .with_updated_at(line.written_at().or(Some(now)));
        // The replaced value is dropped here, without a lock.
        let _replaced = self
            .alter(&line.key, |entry| {
                if expires_at.is_some() {
                    entry.put_stored(decoded.value, &record)
                } else {
                    entry.put(decoded.value, None)
                }
            })
            .map_err(Problem::Map)?;
        Ok(true)
    }
}

fn invalid(number: u64, problem: &str) -> Error {
    let so_far = match number {
        1 => "nothing was imported",
        _ => "the lines before it are in the map",
    };
    let message = format!("line {number} of the import {problem}; {so_far}");
    Error::new(ErrorKind::Invalid, message)
}

/// A reader's lines, each with its number.
struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
    max: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    fn of(reader: R, max: u64) -> Self {
        Self {
            reader,
            line: Vec::new(),
            number: 0,
            max,
        }
    }

    /// The next line that is not blank.
    ///
    /// # Errors
    ///
    /// `Invalid` if it is too long; `Unusable` if the reader fails.
    async fn next(&mut self) -> Result<Option<(u64, &[u8])>> {
        loop {
            self.line.clear();
            let mut bounded = (&mut self.reader).take(self.max + 1);
            let read = bounded.read_until(b'\n', &mut self.line).await;
            let read = read.map_err(|cause| not_read(self.number).with_source(cause))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if read as u64 > self.max {
                return Err(invalid(self.number, "is too long"));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some((self.number, &self.line)));
            }
        }
    }
}

fn not_read(number: u64) -> Error {
    let message = format!("the import could not be read beyond line {number}");
    Error::new(ErrorKind::Unusable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_never_buffered_beyond_the_limit() {
        let text = format!("12345678\n\r\n\n{}\n1", "9".repeat(1_000_000));
        let mut lines = Lines::of(text.as_bytes(), 9);
        assert_eq!(lines.next().await.unwrap(), Some((1, &b"12345678\n"[..])));
        let error = lines.next().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().starts_with("line 4 "), "{error}");
        assert!(lines.line.capacity() < 100, "{}", lines.line.capacity());
    }
}
