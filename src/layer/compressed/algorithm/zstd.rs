//! Zstandard frames.

use std::{cell::RefCell, io};

use zstd::bulk::{Compressor, Decompressor};

use crate::error::{Error, ErrorKind, Result};

thread_local! {
    /// A decompressor takes memory, so each thread reuses one.
    static DECOMPRESSOR: RefCell<Decompressor<'static>> = RefCell::default();
}

pub(super) fn check(level: i32) -> Result<()> {
    if (1..=22).contains(&level) {
        return Ok(());
    }
    let message = format!("Compressed::zstd: the level {level} is not between 1 and 22");
    Err(Error::new(ErrorKind::Invalid, message))
}

pub(super) fn compressor(level: i32) -> Result<Compressor<'static>> {
    Compressor::new(level).map_err(failed)
}

pub(super) fn compress(compressor: &mut Compressor<'_>, bytes: &[u8]) -> Result<Vec<u8>> {
    compressor.compress(bytes).map_err(failed)
}

pub(super) fn decompress(body: &[u8], length: usize) -> Option<Vec<u8>> {
    let bytes = DECOMPRESSOR.with_borrow_mut(|d| d.decompress(body, length).ok())?;
    (bytes.len() == length).then_some(bytes)
}

/// With valid options and complete input, only a lack of memory is left as the cause.
fn failed(cause: io::Error) -> Error {
    let message = "a value could not be compressed with zstd; nothing was written";
    let error = Error::new(ErrorKind::Unavailable, message).with_source(cause);
    error.nothing_applied()
}
