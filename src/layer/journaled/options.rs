//! The options of a journal.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    disk::{Disk, RealDisk},
    error::{Error, ErrorKind, Result},
    provider::Capabilities,
};

/// The default and the minimum of `max_bytes`.
const MAX_BYTES: u64 = 256 << 20;
const MIN_BYTES: u64 = 64 << 10;

/// When [`Journaled`](super::Journaled) acknowledges a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acknowledge {
    /// When the commit is durable in the journal. The answer has no revision, because the remote
    /// assigns it later.
    #[default]
    Local,
    /// When the remote has applied the commit. Commits are not journaled; batches that are still
    /// in a journal are sent first. Use it to turn the journal off.
    Remote,
}

/// The options of [`Journaled`](super::Journaled).
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) folder: PathBuf,
    pub(super) acknowledge: Acknowledge,
    pub(super) max_bytes: u64,
    pub(super) disk: Arc<dyn Disk>,
}

impl Options {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            acknowledge: Acknowledge::default(),
            max_bytes: MAX_BYTES,
            disk: Arc::new(RealDisk::new()),
        }
    }

    /// Checks the options, and that the remote can have a journal.
    pub(super) fn check(&self, remote: Capabilities) -> Result<()> {
        let max = self.max_bytes;
        let (kind, message) = if max < MIN_BYTES {
            let message = format!("max_bytes is {max}; it must be {MIN_BYTES} at least");
            (ErrorKind::Invalid, message)
        } else if remote.encrypted {
            let message = "a journal holds plain text, and the provider below it encrypts; put \
                           the encryption above the journal";
            (ErrorKind::Invalid, message.to_owned())
        } else if !(remote.conditions && remote.several_maps) {
            let message = "a journal needs a provider with conditions and with batches of several \
                           maps";
            (ErrorKind::Unsupported, message.to_owned())
        } else {
            return Ok(());
        };
        Err(Error::new(kind, message))
    }
}
