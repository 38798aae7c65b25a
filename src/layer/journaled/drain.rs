//! Sends the entries of a journal to the remote, in order.

use std::collections::HashSet;

use super::{
    entry::{Entry, part},
    owner::{Owner, Row},
    state::{State, needs_a_person},
};
use crate::{
    batch::{Batch, Change, MapBatch},
    error::{Error, ErrorKind, Result},
    incarnation::Rewound,
    trace::PROVIDER,
};

/// How often one attempt at an entry reads the row of the owner.
const MAX_READS: usize = 3;

impl State {
    /// Sends all entries that are pending.
    ///
    /// Cancel-safe: an entry that was being sent is sent again, and is applied once.
    ///
    /// # Errors
    ///
    /// That of the first entry that could not be sent. It stays the first.
    pub(super) async fn drain(&self) -> Result<()> {
        let mut row = self.row.lock().await;
        self.drain_as(&mut row).await
    }

    /// As [`drain`](Self::drain), for a caller that holds the row.
    pub(super) async fn drain_as(&self, row: &mut Option<Row>) -> Result<()> {
        loop {
            let first = self.journal.lock().await.pending.front().cloned();
            let Some(entry) = first else {
                self.report(None);
                return Ok(());
            };
            let sent = self.send(row, &entry).await;
            let drained = match sent {
                Ok(()) => {
                    let number = entry.number;
                    self.with_file(move |journal, folder| journal.drained(folder, number))
                        .await
                }
                failed => failed,
            };
            if let Err(error) = drained {
                self.report(Some(&error));
                return Err(error);
            }
        }
    }

    /// Records the outcome of the drain; logs it when it changes.
    fn report(&self, error: Option<&Error>) {
        let before = std::mem::replace(&mut self.known.lock().error, error.cloned());
        let (map, kind) = (&self.map, error.map(Error::kind));
        if before.as_ref().map(Error::kind) == kind {
            return;
        }
        match error {
            None => tracing::info!(target: PROVIDER, %map, "the journal has reached the remote"),
            Some(error) if needs_a_person(error) => {
                tracing::error!(target: PROVIDER, %map, error = %error.logged(), "the journal is not sent any more: export, discard or force it");
            }
            Some(error) => {
                tracing::warn!(target: PROVIDER, %map, error = %error.logged(), "the remote is down; the journal keeps what it acknowledges");
            }
        }
    }

    /// Sends an entry, together with its number in the row of the owner.
    async fn send(&self, known: &mut Option<Row>, entry: &Entry) -> Result<()> {
        let mut changes = part(&entry.batch).clone();
        for _ in 0..MAX_READS {
            let row = match *known {
                Some(row) => row,
                None => self.in_time(Row::read(&*self.remote, &self.map)).await?,
            };
            let Some(owner) = self.turn_of(row, entry.number).await? else {
                *known = Some(row);
                return Ok(());
            };
            // In flight, and after a failure, the row is as known or as sent. Both are found
            // out by the next attempt: a repeated answer, or a conflict.
            *known = Some(row);
            let batch = self.batch(row, entry, &changes, owner)?;
            match self.commit(&batch).await {
                Ok(answer) if row.is_before(&answer) => {
                    *known = Some(Row::set_by(&answer, owner)?);
                    return Ok(());
                }
                // The remote had applied this batch of the writer before, through an earlier
                // entry or without this journal. The row did not move with it.
                Ok(_) => return self.advance(known, row, owner).await,
                // The row is not as known: an attempt whose answer was lost has moved it, or
                // another owner has.
                Err(error) if error.kind() == ErrorKind::Conflict => *known = None,
                // The writer has given this batch up and then committed another one. It was
                // never acknowledged, but a failed sync left it in the file.
                Err(error) if error.kind() == ErrorKind::Superseded => {
                    let given_up = std::mem::take(&mut changes.changes);
                    self.set_aside(entry.number, given_up, &error).await?;
                    return self.advance(known, row, owner).await;
                }
                Err(error) if is_refusal(&error) && !changes.changes.is_empty() => {
                    *known = None;
                    *known = Some(self.send_parts(row, owner, entry).await?);
                    // The batch itself follows without changes, so that the remote remembers
                    // its writer.
                    changes.changes.clear();
                    changes.clear = false;
                }
                Err(error) => return Err(error),
            }
        }
        let message = "the remote loads an older state than it commits to; try again";
        Err(Error::new(ErrorKind::Unavailable, message).on_map(&self.map))
    }

    /// The row with this entry; `None` if the remote has the entry.
    ///
    /// # Errors
    ///
    /// `Superseded` if another process is the owner; `Rewound` if the remote has lost an earlier
    /// entry.
    async fn turn_of(&self, row: Row, number: u64) -> Result<Option<Owner>> {
        let tokens = self.journal.lock().await.tokens;
        let own = row.0.filter(|(owner, _)| tokens.contain(owner.token));
        match own {
            Some((owner, _)) if owner.number >= number => return Ok(None),
            Some((owner, _)) if owner.number + 1 == number => {
                let token = tokens.latest.unwrap_or(owner.token);
                return Ok(Some(Owner { token, number }));
            }
            _ => {}
        }
        // Before the journal stops for good, the row must be certain.
        let confirmed = self.in_time(row.confirm(&*self.remote, &self.map)).await;
        confirmed.map_err(|error| match error.kind() {
            ErrorKind::Conflict => Error::new(ErrorKind::Unavailable, "the owner is changing"),
            _ => error,
        })?;
        let Some((owner, _)) = own else {
            let message = "another process has become the owner of the map, or the remote is \
                           another store; nothing of the journal is sent any more";
            return Err(Error::new(ErrorKind::Superseded, message).on_map(&self.map));
        };
        let incarnation = self.known.lock().incarnation;
        let states = Rewound::new(incarnation, incarnation)
            .with_sequences(Some(number - 1), Some(owner.number));
        Err(Error::store_rewound(states).on_map(&self.map))
    }

    fn batch(&self, row: Row, entry: &Entry, part: &MapBatch, owner: Owner) -> Result<Batch> {
        let Batch { id, after, at, .. } = entry.batch;
        let part = self.claim(part.clone(), at);
        Ok(Batch::new(
            id,
            after,
            at,
            [part, row.part(&self.map, owner)?],
        ))
    }

    /// Moves the row without changes.
    async fn advance(&self, known: &mut Option<Row>, row: Row, owner: Owner) -> Result<()> {
        *known = None;
        let put = row.put(&*self.remote, &self.map, owner, None);
        *known = Some(self.in_time(put).await?);
        Ok(())
    }

    /// Sends a refused entry in parts, so that only the changes to blame are left out. Parts do
    /// not move the row to the entry: after a crash, all of it is sent again. Its changes are
    /// absolute, and nothing later was sent, so this has the same result.
    async fn send_parts(&self, mut row: Row, owner: Owner, entry: &Entry) -> Result<Row> {
        let owner = Owner {
            number: entry.number - 1,
            ..owner
        };
        let whole = part(&entry.batch);
        let mut parts = vec![whole.changes.clone()];
        if whole.clear {
            parts.push(Vec::new());
        }
        while let Some(changes) = parts.pop() {
            let clear = whole.clear && changes.is_empty();
            let part = MapBatch {
                changes: changes.clone(),
                clear,
                ..whole.clone()
            };
            let put = row.put(
                &*self.remote,
                &self.map,
                owner,
                Some((part, entry.batch.at)),
            );
            match self.in_time(put).await {
                Err(error) if is_refusal(&error) => {
                    let (refused, rest) = split(changes, &error);
                    self.set_aside(entry.number, refused, &error).await?;
                    parts.extend(rest);
                }
                put => row = put?,
            }
        }
        Ok(row)
    }

    async fn set_aside(&self, number: u64, changes: Vec<Change>, error: &Error) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let error = error.clone();
        self.with_file(move |journal, folder| journal.set_aside(folder, number, &changes, &error))
            .await
    }
}

/// Whether single changes are to blame.
fn is_refusal(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Refused => true,
        ErrorKind::Unsupported => !error.keys().is_empty(),
        _ => false,
    }
}

/// The changes that the error names, and the others; or, if it names none, the two halves, or a
/// single change as refused.
fn split(mut changes: Vec<Change>, error: &Error) -> (Vec<Change>, Vec<Vec<Change>>) {
    let keys: HashSet<_> = error.keys().iter().collect();
    let is_named = |change: &Change| keys.contains(&change.key);
    if changes.iter().any(is_named) {
        let (refused, rest) = changes.into_iter().partition(is_named);
        return (
            refused,
            Vec::from_iter(Some(rest).filter(|rest: &Vec<_>| !rest.is_empty())),
        );
    }
    if changes.len() == 1 {
        return (changes, Vec::new());
    }
    let second = changes.split_off(changes.len() / 2);
    (Vec::new(), vec![second, changes])
}
