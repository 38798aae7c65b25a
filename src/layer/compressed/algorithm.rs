//! The compression algorithms. Each is behind a feature.

#![cfg_attr(
    not(feature = "zstd"),
    expect(clippy::unnecessary_wraps, reason = "only zstd can fail")
)]

use crate::error::Result;
#[cfg(not(all(feature = "lz4", feature = "zstd")))]
use crate::error::{Error, ErrorKind};

#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "zstd")]
mod zstd;

/// The kind of a value that is stored as it is, because it could be taken for a compressed one.
pub(super) const STORED: u8 = 0;
const LZ4: u8 = 1;
const ZSTD: u8 = 2;

/// The algorithm for new values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    #[cfg(feature = "lz4")]
    Lz4,
    #[cfg(feature = "zstd")]
    Zstd { level: i32 },
}

impl Algorithm {
    /// # Errors
    ///
    /// `Invalid` for an option out of its bounds.
    pub(super) fn check(self) -> Result<()> {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => Ok(()),
            #[cfg(feature = "zstd")]
            Self::Zstd { level } => zstd::check(level),
        }
    }

    pub(super) fn kind(self) -> u8 {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => LZ4,
            #[cfg(feature = "zstd")]
            Self::Zstd { .. } => ZSTD,
        }
    }

    /// # Errors
    ///
    /// `Unavailable` if there is not enough memory.
    pub(super) fn compressor(self) -> Result<Compressor> {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => Ok(Compressor::Lz4),
            #[cfg(feature = "zstd")]
            Self::Zstd { level } => zstd::compressor(level).map(Compressor::Zstd),
        }
    }
}

/// Compresses one value after the other.
pub(super) enum Compressor {
    #[cfg(feature = "lz4")]
    Lz4,
    #[cfg(feature = "zstd")]
    Zstd(::zstd::bulk::Compressor<'static>),
}

impl Compressor {
    /// The same bytes are always compressed to the same result, also by a used compressor.
    ///
    /// # Errors
    ///
    /// As [`Algorithm::compressor`].
    pub(super) fn compress(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => Ok(lz4::compress(bytes)),
            #[cfg(feature = "zstd")]
            Self::Zstd(compressor) => zstd::compress(compressor, bytes),
        }
    }
}

/// Decompresses a value of that length; `None` if it is damaged. Allocates at most `length`
/// bytes.
///
/// # Errors
///
/// `Unsupported` if the algorithm is not compiled in, or not known.
pub(super) fn decompress(kind: u8, body: &[u8], length: usize) -> Result<Option<Vec<u8>>> {
    match kind {
        #[cfg(feature = "lz4")]
        LZ4 => Ok(lz4::decompress(body, length)),
        #[cfg(feature = "zstd")]
        ZSTD => Ok(zstd::decompress(body, length)),
        #[cfg(not(feature = "lz4"))]
        LZ4 => Err(not_compiled_in("lz4")),
        #[cfg(not(feature = "zstd"))]
        ZSTD => Err(not_compiled_in("zstd")),
        other => Err(crate::layer::frame::unknown_form("Compressed", other)),
    }
}

#[cfg(not(all(feature = "lz4", feature = "zstd")))]
fn not_compiled_in(algorithm: &str) -> Error {
    let message = format!(
        "a value is compressed with {algorithm}, which is not compiled in; nothing was \
         overwritten; enable the feature `{algorithm}` of persistify"
    );
    Error::new(ErrorKind::Unsupported, message)
}
