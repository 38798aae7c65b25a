//! Keys that go to the store together, and nothing else with them.

use std::{collections::HashSet, sync::Arc};

use crate::map::requests::Save;

/// Part of a batch that was refused without a word on which key it was, or of
/// what has to go before something else.
///
/// Those who wait come along: to look for them among all others, once a part,
/// would take a time that follows the product of the two.
pub(super) struct Part {
    pub(super) keys: Vec<Arc<str>>,
    pub(super) saves: Vec<Save>,
}

impl Part {
    /// The first keys, so many, and the others.
    pub(super) fn split_at(mut self, keys: usize) -> (Self, Self) {
        let later = self.keys.split_off(keys);
        let is_later: HashSet<_> = later.iter().collect();
        let waits_later = |save: &Save| save.key().is_some_and(|key| is_later.contains(key));
        let (saves, soon) = self.saves.into_iter().partition(waits_later);
        self.saves = soon;
        let later = Self { keys: later, saves };
        (self, later)
    }

    /// In pieces of so many keys at the most, in their order.
    pub(super) fn in_pieces(self, keys: usize) -> Vec<Self> {
        let (mut pieces, mut rest) = (Vec::new(), self);
        while rest.keys.len() > keys {
            let (piece, later) = rest.split_at(keys);
            pieces.push(piece);
            rest = later;
        }
        pieces.push(rest);
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::requests::{Awaited, Ticket};

    fn part(keys: usize) -> Part {
        let keys: Vec<Arc<str>> = (0..keys).map(|n| n.to_string().into()).collect();
        let save = |key: &Arc<str>| Save::new(Awaited::Key(key.clone()), Ticket::new().0);
        let saves = keys.iter().rev().map(save).collect();
        Part { keys, saves }
    }

    /// Of a batch that was halved time and again, each half looked at all those
    /// who waited for anything: many refused keys that many waited for took
    /// minutes.
    #[test]
    fn each_half_looks_at_none_but_its_own() {
        let (mut parts, mut looked_at) = (vec![part(1_024)], 0);
        while let Some(part) = parts.pop() {
            if part.keys.len() == 1 {
                continue;
            }
            looked_at += part.saves.len();
            let half = part.keys.len() / 2;
            let (first, second) = part.split_at(half);
            assert_eq!(first.saves.len(), first.keys.len());
            assert_eq!(second.saves.len(), second.keys.len());
            parts.extend([second, first]);
        }
        assert!(looked_at <= 1_024 * 10, "{looked_at}");
    }

    #[test]
    fn the_pieces_are_all_of_it_in_its_order() {
        let pieces = part(10).in_pieces(4);
        let keys: Vec<usize> = pieces.iter().map(|piece| piece.keys.len()).collect();
        assert_eq!(keys, [4, 4, 2]);
        assert_eq!(&*pieces[1].keys[0], "4");
        assert!(pieces.iter().all(|p| p.saves.len() == p.keys.len()));
    }
}
