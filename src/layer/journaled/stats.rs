//! Statistics of a journal.

use std::time::Duration;

use crate::error::Error;

/// The state of the journal of one map, returned by [`Journaled::stats`](super::Journaled::stats).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct JournalStats {
    /// The number of batches that were acknowledged and that the remote may not have yet.
    pub batches: u64,
    /// Their size in the journal, in bytes.
    pub bytes: u64,
    /// The time since the map made the oldest of them; `None` if there are none.
    pub oldest: Option<Duration>,
    /// The number of changes that the remote has refused. They are in the file
    /// `<map>.refused.jsonl` in the folder of the journals, with the reason; after a crash, a
    /// change may be there twice.
    pub set_aside: u64,
    /// The error of the last attempt to send them; `None` if it succeeded.
    /// [`Superseded`](crate::ErrorKind::Superseded): another process has become the owner of
    /// the map. [`Rewound`](crate::ErrorKind::Rewound): the remote has lost commits. Both wait
    /// for [`discard`](super::Journaled::discard) or [`force`](super::Journaled::force).
    pub error: Option<Error>,
}
