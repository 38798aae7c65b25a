//! The rules by which a store decides about a batch. All providers inside and outside this
//! crate share them.
//!
//! A store remembers the last batch of each writer, and commits this with the batch itself.
//! Three promises depend on it: a batch is applied once, an abandoned batch cannot be applied
//! late, and a store that has lost commits reports that.
//!
//! # Stores that go back in time
//!
//! A server may be replaced by an older backup, or by an empty server, while maps are open on
//! it. Revisions do not reveal this: they start from the wall clock, and another process may
//! commit after the restore. Therefore each part of a batch names the last commit that was
//! [acknowledged](MapBatch::acknowledged) to its writer. A store that remembers a lower
//! sequence of that writer has lost commits, however long ago that was. A store that does not
//! remember the writer has lost commits only if the acknowledgement is [`RECENT`]: stores
//! forget a writer that has been idle for a day or more.
//!
//! The first writer that notices gives the store a new [incarnation](Incarnation). Every other
//! writer names the old incarnation in its next batch and is refused. This is right even if the
//! older copy contains all commits that were acknowledged to that writer, because its map also
//! contains commits of others. A refused batch cannot be applied later either: an earlier
//! attempt that is still in flight names the old incarnation too.
//!
//! A batch that names neither an incarnation nor an acknowledged commit is admitted. Thus a map
//! that is opened later accepts the store as it is: a store may be moved, copied or restored
//! while its maps are closed.

use std::time::{Duration, SystemTime};

use crate::{
    batch::{Acknowledged, Batch, MapBatch, Turn, WriterId},
    error::{Error, ErrorKind},
    incarnation::{Incarnation, Rewound},
};

mod conditions;
mod drops;
mod encodings;
mod tombstones;
mod writers;

pub use conditions::{StoredRecord, applied, check_conditions, conditional};
pub use drops::{check_dropped, clearing};
pub use encodings::check_json;
pub use tombstones::{TOMBSTONES_KEPT, Tombstones};
pub use writers::{Remembered, Writers};

/// How long after an acknowledgement a store certainly remembers the writer.
///
/// The contract requires one day, by the clock of the store. The other half of the day allows
/// for clocks that run at different speeds.
pub const RECENT: Duration = Duration::from_secs(12 * 60 * 60);

/// The decision of a store about a batch.
#[derive(Debug)]
pub enum Admission {
    /// The batch is new: apply it.
    Apply,
    /// The batch was applied before: return the first answer.
    Repeat,
    /// Refuse the batch with this error. Write nothing.
    Refuse(Error),
    /// The store has lost commits. First make this incarnation durable, then refuse the batch
    /// with this error. Write nothing else.
    Renew(Incarnation, Error),
}

/// The writers whose last sequences [`admit`] looks up, with possible duplicates: the writer of
/// the batch and those of its maps.
pub fn writers(batch: &Batch) -> impl Iterator<Item = WriterId> + '_ {
    let acknowledged = batch.maps.iter().filter_map(|part| part.acknowledged);
    std::iter::once(batch.id.writer).chain(acknowledged.map(|last| last.id.writer))
}

/// Decides about a batch. `incarnation` is that of the store, if it has one. `last` returns the
/// sequence of the last applied batch of a writer, or `None` if the store does not remember the
/// writer.
///
/// The store must not change between this call and the commit.
pub fn admit(
    batch: &Batch,
    incarnation: Option<Incarnation>,
    last: impl Fn(WriterId) -> Option<u64>,
) -> Admission {
    match batch.id.turn(last(batch.id.writer)) {
        // The batch is in the store, so this is the answer, whatever else was lost. The
        // incarnation in the answer reveals the rest.
        Turn::Repeat => Admission::Repeat,
        Turn::Superseded => Admission::Refuse(superseded()),
        Turn::Apply => look_for_losses(batch, incarnation, last),
    }
}

fn look_for_losses(
    batch: &Batch,
    incarnation: Option<Incarnation>,
    last: impl Fn(WriterId) -> Option<u64>,
) -> Admission {
    for part in batch.maps.iter() {
        let remembered = part.acknowledged.and_then(|known| last(known.id.writer));
        let is_other = part.incarnation.is_some() && part.incarnation != incarnation;
        let acknowledged = part.acknowledged;
        if is_other && incarnation.is_some() {
            return Admission::Refuse(rewound(part, incarnation, remembered));
        }
        if is_other || acknowledged.is_some_and(|known| is_lost(known, batch.at, remembered)) {
            let new = Incarnation::random();
            return Admission::Renew(new, rewound(part, Some(new), remembered));
        }
    }
    Admission::Apply
}

fn is_lost(acknowledged: Acknowledged, now: SystemTime, remembered: Option<u64>) -> bool {
    match remembered {
        Some(last) => last < acknowledged.id.sequence,
        // An acknowledgement in the future is ignored: a clock was set back.
        None => now
            .duration_since(acknowledged.at)
            .is_ok_and(|past| past < RECENT),
    }
}

/// The error for a part of a batch whose writer names another incarnation.
fn rewound(part: &MapBatch, found: Option<Incarnation>, remembered: Option<u64>) -> Error {
    let acknowledged = part.acknowledged.map(|known| known.id.sequence);
    let states = Rewound::new(part.incarnation, found).with_sequences(acknowledged, remembered);
    Error::store_rewound(states).on_map(&part.map)
}

fn superseded() -> Error {
    Error::new(
        ErrorKind::Superseded,
        "a later batch of this writer was committed already",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{batch::BatchId, name::MapName, record::Revision};

    const WRITER: WriterId = WriterId::new(1);
    const A: Incarnation = Incarnation::new(1);
    const B: Incarnation = Incarnation::new(2);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(50 * 365 * 24 * 60 * 60)
    }

    /// Batch 9 of a writer, with an acknowledgement of that age.
    fn batch(incarnation: Option<Incarnation>, acknowledged: u64, ago: Duration) -> Batch {
        let id = BatchId::new(WRITER, acknowledged);
        let part = MapBatch::new(MapName::new("map").unwrap(), Vec::new())
            .in_incarnation(incarnation)
            .after_acknowledged(Some(Acknowledged::new(id, now() - ago)));
        Batch::new(BatchId::new(WRITER, 9), Revision::ZERO, now(), [part])
    }

    fn verdict(batch: &Batch, store: Option<Incarnation>, last: Option<u64>) -> &'static str {
        match admit(batch, store, |_| last) {
            Admission::Apply => "apply",
            Admission::Repeat => "repeat",
            Admission::Refuse(error) if error.kind() == ErrorKind::Rewound => "rewound",
            Admission::Refuse(_) => "superseded",
            Admission::Renew(..) => "renew",
        }
    }

    #[test]
    fn a_store_that_remembers_less_than_it_acknowledged_is_renewed() {
        let recent = batch(Some(A), 7, Duration::from_secs(1));
        let old = batch(Some(A), 7, Duration::from_secs(100 * 60 * 60));
        for (last, of_recent, of_old) in [
            (None, "renew", "apply"),
            (Some(0), "renew", "renew"),
            (Some(6), "renew", "renew"),
            (Some(7), "apply", "apply"),
            (Some(8), "apply", "apply"),
            (Some(9), "repeat", "repeat"),
            (Some(10), "superseded", "superseded"),
        ] {
            assert_eq!(verdict(&recent, Some(A), last), of_recent, "{last:?}");
            assert_eq!(verdict(&old, Some(A), last), of_old, "{last:?}");
        }
    }

    #[test]
    fn a_store_in_another_incarnation_refuses_and_one_without_gets_one() {
        let knows_a = batch(Some(A), 7, Duration::ZERO);
        let knows_none = batch(None, 7, Duration::ZERO);
        for last in [None, Some(6), Some(7)] {
            assert_eq!(verdict(&knows_a, Some(B), last), "rewound", "{last:?}");
            assert_eq!(verdict(&knows_a, None, last), "renew", "{last:?}");
        }
        assert_eq!(verdict(&knows_none, Some(B), Some(7)), "apply");
        assert_eq!(verdict(&knows_none, None, Some(7)), "apply");
    }

    #[test]
    fn an_acknowledgement_from_the_future_is_no_claim() {
        let mut ahead = batch(Some(A), 7, Duration::from_secs(1));
        ahead.at = now() - Duration::from_secs(2);
        assert_eq!(verdict(&ahead, Some(A), None), "apply");
    }

    /// Story: a transaction is numbered by one of its maps. Its other maps did not notice that
    /// the store had lost their acknowledged commits.
    #[test]
    fn each_map_of_a_batch_has_a_claim_of_its_own() {
        let other = Acknowledged::new(BatchId::new(WriterId::new(2), 5), now());
        let mut parts = batch(Some(A), 7, Duration::ZERO).maps.to_vec();
        let second = MapBatch::new(MapName::new("other").unwrap(), Vec::new());
        parts.push(second.after_acknowledged(Some(other)));
        let batch = Batch::new(BatchId::new(WRITER, 9), Revision::ZERO, now(), parts);
        let last = |other| move |writer| Some(if writer == WRITER { 7 } else { other });
        assert!(matches!(admit(&batch, Some(A), last(5)), Admission::Apply));
        let Admission::Renew(new, error) = admit(&batch, Some(A), last(4)) else {
            panic!("it was admitted");
        };
        let states = error.rewound().unwrap();
        assert_eq!(error.map(), Some("other"));
        assert_eq!(states.found, Some(new));
        assert_eq!((states.acknowledged, states.remembered), (Some(5), Some(4)));
        let asked: Vec<_> = writers(&batch).map(WriterId::get).collect();
        assert_eq!(asked, [1, 1, 2]);
    }
}
