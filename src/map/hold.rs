//! A flusher that stands still while somebody else commits.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};

use super::claims::Claims;
use crate::{
    batch::{Batch, BatchId, Change},
    error::{Error, Result},
    incarnation::Incarnation,
    record::Revision,
};

/// Somebody wants to commit to this map, and to others perhaps. From the grant
/// on the flusher commits nothing, until the [grant](Grant) is dropped.
pub(super) struct Hold {
    /// What is pending of these keys is committed first.
    pub(super) keys: Vec<Arc<str>>,
    /// Whether other maps are held meanwhile.
    pub(super) others: bool,
    /// Whether the grant has to [prove](Grant::proof) which store this is.
    pub(super) prove: bool,
    pub(super) granted: oneshot::Sender<Result<Grant>>,
}

/// The flusher stands still, for as long as this lives.
pub(super) struct Grant {
    /// For the batch. The sequence after it is free as well.
    pub(super) id: BatchId,
    /// Of a batch that the map's own store has to refuse as superseded, and no
    /// other store has a reason to.
    pub(super) proof: BatchId,
    /// The highest revision that the map has seen.
    pub(super) horizon: Revision,
    /// For the map's part of the batch.
    pub(super) claims: Claims,
    pub(super) words: Words,
}

/// The line to a flusher that stands still.
#[derive(Clone)]
pub(super) struct Words {
    words: mpsc::UnboundedSender<Word>,
    urge: Arc<Notify>,
}

/// The flusher's end of it.
pub(super) struct Heard {
    pub(super) words: mpsc::UnboundedReceiver<Word>,
    /// Somebody waits for the store: it shall be tried again at once.
    pub(super) urge: Arc<Notify>,
}

pub(super) fn words() -> (Words, Heard) {
    let (told, words) = mpsc::unbounded_channel();
    let urge = Arc::new(Notify::new());
    let heard = Heard {
        words,
        urge: urge.clone(),
    };
    (Words { words: told, urge }, heard)
}

impl Words {
    pub(super) fn tell(&self, word: Word) {
        // A flusher that is gone needs no word.
        let _ = self.words.send(word);
    }

    /// Waits until the flusher is gone.
    pub(super) async fn closed(&self) {
        self.words.closed().await;
    }

    /// Waits until somebody waits for that map.
    pub(super) async fn urged(&self) {
        self.urge.notified().await;
    }
}

#[derive(Clone)]
pub(super) enum Word {
    /// An attempt has failed.
    Failed(Failure),
    /// The store has answered; what was applied, if anything was.
    Well(Option<Applied>),
    /// The store has acknowledged a batch, in this incarnation.
    Acknowledged(BatchId, Option<Incarnation>),
}

#[derive(Clone)]
pub(super) struct Failure {
    pub(super) attempt: u32,
    pub(super) batch: Batch,
    /// There is no other attempt for now; everybody who waits is to be told.
    pub(super) is_final: bool,
    pub(super) error: Error,
}

#[derive(Clone)]
pub(super) struct Applied {
    pub(super) revision: Option<Revision>,
    pub(super) changes: Vec<Change>,
}
