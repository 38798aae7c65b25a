//! A commit of several shares while it is on its way.

use std::time::SystemTime;

use super::{
    delivery::is_an_answer,
    hold::{Applied, Failure, Grant, Word, Words},
    share::{Share, land_all},
};
use crate::{
    batch::{Batch, Committed, Otherwise},
    error::{Error, ErrorKind},
    record::Revision,
};

/// The shares of a commit on its way, and the flushers that stand still for it.
pub(super) struct Flight<'a> {
    shares: &'a mut [Box<dyn Share>],
    grants: Vec<Grant>,
    /// It may have landed, as far as is known.
    uncertain: bool,
}

impl<'a> Flight<'a> {
    /// Marks the entries concerned.
    pub(super) fn begin(shares: &'a mut [Box<dyn Share>], grants: Vec<Grant>) -> Self {
        for share in &mut *shares {
            share.enlist();
        }
        Self {
            shares,
            grants,
            uncertain: true,
        }
    }

    pub(super) fn words(&self) -> Vec<Words> {
        let grants = self.grants.iter();
        grants.map(|grant| grant.words.clone()).collect()
    }

    pub(super) fn batch(&self, at: SystemTime) -> Batch {
        let horizons = self.grants.iter().map(|grant| grant.horizon);
        let after = horizons.max().unwrap_or_default();
        let parts = self.shares.iter().zip(&self.grants);
        let parts = parts.map(|(share, grant)| grant.claims.on(share.part(Otherwise::Fail), at));
        let parts: Vec<_> = parts.collect();
        // The first map's flusher numbers the batch: none of that writer's comes
        // before its fate is known.
        let id = self.grants[0].id;
        Batch::new(id, after, at, parts)
    }

    /// The store has all of it: so has memory, before anybody goes on.
    pub(super) fn land(mut self, committed: &Committed) -> Option<Revision> {
        let revision = committed.revision;
        let parts = self.shares.iter().map(|share| share.part(Otherwise::Fail));
        let parts: Vec<_> = parts.collect();
        land_all(self.shares.iter_mut(), revision);
        self.uncertain = false;
        for (grant, part) in self.grants.iter().zip(parts) {
            let changes = part.changes;
            let applied = Applied { revision, changes };
            grant.words.tell(Word::Well(Some(applied)));
            let id = self.grants[0].id;
            grant
                .words
                .tell(Word::Acknowledged(id, committed.incarnation));
        }
        revision
    }

    /// The store has none of it, unless nobody found out.
    pub(super) fn fail(mut self, error: &Error) {
        self.uncertain = error.may_have_applied();
        if !is_an_answer(error) {
            return;
        }
        if error.kind() == ErrorKind::Conflict {
            let mut shares = self.shares.iter();
            let share = shares.find(|share| error.map() == Some(share.name().as_str()));
            for (share, key) in share.iter().zip(error.keys()) {
                share.learn(key, error.found().cloned());
            }
        }
        if error.kind() == ErrorKind::Rewound {
            return tell_of_rewind(self.shares, &self.grants, error);
        }
        for grant in &self.grants {
            grant.words.tell(Word::Well(None));
        }
    }
}

/// The store has gone back in time. The map that has noticed is told, and the
/// others notice by themselves.
pub(super) fn tell_of_rewind(shares: &[Box<dyn Share>], grants: &[Grant], error: &Error) {
    for (share, grant) in shares.iter().zip(grants) {
        let is_of_it = error.map().is_none_or(|map| map == share.name().as_str());
        grant.words.tell(if is_of_it {
            let now = share.line().clock.now();
            let part = share.part(Otherwise::Fail);
            Word::Failed(Failure {
                attempt: 1,
                batch: Batch::new(grant.id, grant.horizon, now, [part]),
                is_final: true,
                error: error.clone(),
            })
        } else {
            Word::Well(None)
        });
    }
}

impl Drop for Flight<'_> {
    /// However it ends, no entry stays marked. The flushers go on after this: what is
    /// in flight then is theirs.
    fn drop(&mut self) {
        for share in &*self.shares {
            share.withdraw(self.uncertain);
        }
    }
}
