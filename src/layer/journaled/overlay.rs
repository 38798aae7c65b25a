//! Loads while a journal has not reached the remote: its entries, on the records of the remote.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{
    entry::{Entry, part},
    owner::Row,
    state::State,
};
use crate::{
    error::{Error, ErrorKind, Result},
    load::{Load, Wanted},
    record::{Record, Revision},
};

impl State {
    /// Loads the records of the remote and applies what is pending. The caller holds the row,
    /// so that nothing is drained meanwhile: the remote could then have a newer value of another
    /// writer, which an entry would hide.
    pub(super) async fn overlaid(&self, wanted: Wanted, cause: Error) -> Result<Load<'static>> {
        if !matches!(wanted, Wanted::All | Wanted::Keys(_)) {
            return Err(self.only_then("pages and changes can be loaded", cause));
        }
        let load = self.load_both(&wanted).await;
        let (row, load) =
            load.map_err(|error| error.and_say(&self.known.lock().content.to_string()))?;
        let (horizon, incarnation) = (load.horizon, load.incarnation);
        self.learn_incarnation(incarnation);
        let records = load.into_records().await?;
        let records = self.apply(row, &wanted, records, horizon).await;
        Ok(Load::of(horizon, records).with_incarnation(incarnation))
    }

    /// The row first: the records are not older than it.
    async fn load_both(&self, wanted: &Wanted) -> Result<(Row, Load<'_>)> {
        let row = self.in_time(Row::read(&*self.remote, &self.map)).await?;
        let load = self.remote.load(&self.map, wanted.clone());
        Ok((row, self.in_time(load).await?))
    }

    async fn apply(
        &self,
        row: Row,
        wanted: &Wanted,
        records: Vec<Record>,
        horizon: Revision,
    ) -> Vec<Record> {
        let journal = self.journal.lock().await;
        let own = row
            .0
            .filter(|(owner, _)| journal.tokens.contain(owner.token));
        let reached = own.map_or(0, |(owner, _)| owner.number);
        let keys = match wanted {
            Wanted::Keys(keys) => Some(keys.iter().cloned().collect()),
            _ => None,
        };
        let mut by_key: BTreeMap<_, _> = { records.into_iter() }
            .map(|record| (record.key.clone(), record))
            .collect();
        for entry in journal
            .pending
            .iter()
            .filter(|entry| entry.number > reached)
        {
            lay(&mut by_key, entry, keys.as_ref(), horizon);
        }
        by_key.into_values().collect()
    }

    /// The error of a call that is possible only once the journal is drained.
    fn only_then(&self, what: &str, cause: Error) -> Error {
        let content = self.known.lock().content;
        let message = format!("{what} once the remote has everything; {content}");
        let error = Error::new(ErrorKind::Unavailable, message).with_source(cause);
        error.nothing_applied().on_map(&self.map)
    }
}

/// Applies an entry to the wanted records. Its revision is not known yet: the records get the
/// horizon of the load, so that a later load of changes brings the true one.
fn lay(
    records: &mut BTreeMap<Arc<str>, Record>,
    entry: &Entry,
    keys: Option<&HashSet<Arc<str>>>,
    horizon: Revision,
) {
    let part = part(&entry.batch);
    if part.clear {
        records.clear();
    }
    let is_wanted = |key: &Arc<str>| keys.is_none_or(|keys| keys.contains(key));
    for change in part.changes.iter().filter(|change| is_wanted(&change.key)) {
        let stored = || records.get(&change.key).cloned();
        match change.apply(stored, entry.batch.at, horizon) {
            Some(record) => _ = records.insert(change.key.clone(), record),
            None => _ = records.remove(&change.key),
        }
    }
}
