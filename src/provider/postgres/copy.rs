//! Decodes the binary format of `COPY`.

use bytes::Bytes;

use super::{
    errors::Failure,
    rows::{COLUMNS, Fields},
};
use crate::error::{Error, ErrorKind};

/// The signature at the start of a copy.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Decodes the chunks of a copy, each of which contains whole rows.
#[derive(Default)]
pub(super) struct CopiedRows {
    begun: bool,
}

impl CopiedRows {
    /// Decodes the rows of a chunk.
    pub(super) fn read(
        &mut self,
        piece: &Bytes,
        mut each: impl FnMut(&Fields<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut rest = &**piece;
        if !self.begun {
            rest = after_header(rest).ok_or_else(garbled)?;
            self.begun = true;
        }
        while !rest.is_empty() {
            match next(&mut rest).ok_or_else(garbled)? {
                Next::Row(fields) => each(&fields)?,
                Next::End => break,
            }
        }
        Ok(())
    }
}

enum Next<'a> {
    Row(Fields<'a>),
    End,
}

fn after_header(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(SIGNATURE)?;
    let _flags = number(&mut rest)?;
    let extension = usize::try_from(number(&mut rest)?).ok()?;
    rest.get(extension..)
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<Next<'a>> {
    let (count, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    let count = i16::from_be_bytes(*count);
    if count == -1 {
        return Some(Next::End);
    }
    if usize::try_from(count) != Ok(COLUMNS) {
        return None;
    }
    let mut fields = Fields::default();
    for slot in &mut fields {
        // A length of -1 stands for NULL.
        if let Ok(length) = usize::try_from(number(rest)?) {
            let (field, after) = rest.split_at_checked(length)?;
            *slot = Some(field);
            *rest = after;
        }
    }
    Some(Next::Row(fields))
}

fn number(rest: &mut &[u8]) -> Option<i32> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(i32::from_be_bytes(*number))
}

fn garbled() -> Failure {
    let message = "Postgres sent rows in an unknown format; load again";
    Error::new(ErrorKind::Unavailable, message).into()
}
