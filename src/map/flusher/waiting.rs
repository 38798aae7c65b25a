//! Those who wait for what was left out of a commit.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::Arc,
};

use crate::{
    batch::Skipped,
    map::requests::{Requests, Save},
};

/// Those who wait, sorted by the keys that were left out: each is looked at
/// once, however many keys those are.
pub(super) struct Waiting {
    of: HashMap<Arc<str>, Vec<Save>>,
    others: VecDeque<Save>,
}

impl Waiting {
    /// Nobody yet.
    pub(super) fn for_those(skipped: &[Skipped]) -> Self {
        let keys = skipped.iter().map(|skipped| skipped.key.clone());
        Self {
            of: keys.map(|key| (key, Vec::new())).collect(),
            others: VecDeque::new(),
        }
    }

    pub(super) fn sort_in(&mut self, saves: impl IntoIterator<Item = Save>) {
        for save in saves {
            match save.key().and_then(|key| self.of.get_mut(key)) {
                Some(saves) => saves.push(save),
                None => self.others.push_back(save),
            }
        }
    }

    /// Those who wait for this key.
    pub(super) fn take(&mut self, key: &Arc<str>) -> Vec<Save> {
        self.of.get_mut(key).map(mem::take).unwrap_or_default()
    }

    /// The same, with whoever has come by now.
    pub(super) fn take_late(&mut self, key: &Arc<str>, requests: &mut Requests) -> Vec<Save> {
        self.sort_in(mem::take(&mut requests.saves));
        self.take(key)
    }

    /// All whom nobody has taken.
    pub(super) fn into_rest(self) -> VecDeque<Save> {
        let mut rest = self.others;
        rest.extend(self.of.into_values().flatten());
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::requests::{Awaited, Ticket};

    fn save(key: &Arc<str>) -> Save {
        let what = Awaited::Key(key.clone());
        Save::new(what, Ticket::new().0)
    }

    /// For each change that had lost to another process's, all who waited for
    /// anything were looked at: many conflicts at once took a time that followed
    /// their number's square.
    #[test]
    fn who_waits_is_looked_at_once_however_many_keys_were_left_out() {
        let keys: Vec<Arc<str>> = (0..1_000).map(|n| n.to_string().into()).collect();
        let (left_out, others) = keys.split_at(100);
        let map = crate::MapName::new("m").unwrap();
        let skipped: Vec<_> = { left_out.iter() }
            .map(|key| Skipped::new(map.clone(), key.clone(), None))
            .collect();
        let mut requests = Requests::default();
        requests.saves.extend(keys.iter().map(save));
        let mut waiting = Waiting::for_those(&skipped);
        let mut looked_at = 0;
        for key in left_out {
            looked_at += requests.saves.len();
            assert_eq!(waiting.take_late(key, &mut requests).len(), 1);
        }
        assert_eq!(looked_at, keys.len());
        requests.saves.push_back(save(&left_out[7]));
        assert_eq!(waiting.take_late(&left_out[7], &mut requests).len(), 1);
        assert_eq!(waiting.into_rest().len(), others.len());
    }
}
