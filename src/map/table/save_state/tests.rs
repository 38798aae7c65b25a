//! The transition table, and invariants for every sequence of events.

use super::*;

const NEW: StoredVersion = StoredVersion(7);

const MARKS: [Mark; 7] = [
    Mark::Clean,
    Mark::Queued,
    Mark::Saving,
    Mark::SavingQueued,
    Mark::Proposed,
    Mark::ProposedQueued,
    Mark::Refused,
];

fn events() -> Vec<Event> {
    let certain = [
        Event::Written,
        Event::Automatic,
        Event::Touched,
        Event::Taken,
        Event::Committed(NEW),
        Event::Withdrawn,
        Event::Replaced(NEW),
    ];
    let flagged = [true, false].into_iter().flat_map(|flag| {
        [
            Event::Proposed { behind_write: flag },
            Event::Failed { uncertain: flag },
            Event::Refused { uncertain: flag },
        ]
    });
    certain.into_iter().chain(flagged).collect()
}

/// The table in the docs of [`Mark`], row by row.
#[test]
fn the_marks_follow_the_table_in_their_docs() {
    let source = include_str!("../save_state.rs");
    let rows = source.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("/// | ")?.split('|').collect();
        let cells: Vec<_> = cells.iter().map(|cell| cell.trim().to_owned()).collect();
        (cells.len() == 9 && !cells[0].starts_with("---") && cells[0] != "event").then_some(cells)
    });
    let mut checked = 0;
    for row in rows {
        for event in events().into_iter().filter(|event| is_of(*event, &row[0])) {
            for (mark, cell) in MARKS.into_iter().zip(&row[1..]) {
                let name = cell.strip_suffix(", first").unwrap_or(cell);
                let expected = match name {
                    "" => format!("{mark:?}"),
                    name => name.to_owned(),
                };
                let mut state = SaveState::new(StoredVersion::ABSENT);
                state.mark = mark;
                let queue = state.apply(event);
                assert_eq!(
                    format!("{:?}", state.mark),
                    expected,
                    "{event:?} on {mark:?}"
                );
                let is_first = queue == QueueMove::PushFront;
                assert_eq!(is_first, cell.ends_with("first"), "{event:?} on {mark:?}");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, MARKS.len() * events().len());
}

fn is_of(event: Event, row: &str) -> bool {
    let name = match event {
        Event::Written => "written",
        Event::Automatic | Event::Touched => "automatic",
        Event::Taken => "taken",
        Event::Proposed { behind_write: true } => "proposed, behind a write",
        Event::Proposed { .. } => "proposed otherwise",
        Event::Committed(_) => "committed",
        Event::Withdrawn => "withdrawn",
        Event::Failed { .. } => "failed",
        Event::Refused { .. } => "refused",
        Event::Replaced(_) => "replaced",
    };
    name == row
}

/// A reference model of the store and the queue.
#[derive(Clone)]
struct Model {
    state: SaveState,
    is_queued: bool,
    /// How often the entry was written, and how many of these writes are in the
    /// batch in flight, in the store, or refused.
    written: u32,
    in_flight: Option<u32>,
    stored: u32,
    refused: u32,
}

impl Model {
    fn new() -> Self {
        Self {
            state: SaveState::new(StoredVersion::ABSENT),
            is_queued: false,
            written: 0,
            in_flight: None,
            stored: 0,
            refused: 0,
        }
    }

    /// Whether the flusher can produce this event now: at most one commit is in
    /// flight, and its kind limits the possible outcomes.
    fn may(&self, event: Event) -> bool {
        let mark = self.state.mark;
        match event {
            Event::Touched => mark == Mark::Clean,
            Event::Taken | Event::Proposed { .. } => !mark.is_in_flight(),
            Event::Failed { .. } | Event::Refused { .. } => !mark.is_proposed(),
            Event::Withdrawn => mark != Mark::Saving,
            Event::Written | Event::Automatic | Event::Committed(_) | Event::Replaced(_) => true,
        }
    }

    fn apply(&mut self, event: Event) {
        let before = self.state.mark;
        let queue = self.state.apply(event);
        self.is_queued = match queue {
            QueueMove::Stay => self.is_queued,
            QueueMove::PushBack | QueueMove::PushFront => true,
            QueueMove::Remove => false,
        };
        match event {
            Event::Written => self.written += 1,
            Event::Taken if before == Mark::Queued => self.in_flight = Some(self.written),
            Event::Proposed { .. } if self.state.mark.is_proposed() => {
                // It replaces all earlier writes.
                self.in_flight = Some(self.written);
            }
            Event::Proposed { .. } if self.state.mark == Mark::SavingQueued => {
                self.in_flight = Some(self.stored);
            }
            Event::Committed(_) => {
                self.stored = self
                    .in_flight
                    .take()
                    .unwrap_or(self.stored)
                    .max(self.stored);
            }
            Event::Refused { .. } if before == Mark::Saving => self.refused = self.written,
            Event::Replaced(_) => (self.stored, self.in_flight) = (self.written, None),
            Event::Failed { .. } | Event::Withdrawn | Event::Refused { .. } => {
                self.in_flight = None;
            }
            _ => {}
        }
        self.check(event);
    }

    fn check(&self, event: Event) {
        let mark = self.state.mark;
        assert_eq!(self.is_queued, mark.is_queued(), "{event:?}: {mark:?}");
        // A write is in the store, in flight, refused, or queued.
        let on_its_way = self.in_flight.filter(|_| mark.is_in_flight()).unwrap_or(0);
        let refused = match mark {
            Mark::Refused => self.refused,
            _ => 0,
        };
        let is_safe = self.stored.max(on_its_way).max(refused) == self.written;
        assert!(
            is_safe || mark.is_queued(),
            "{event:?}: a write is lost at {mark:?}"
        );
        if mark == Mark::Clean {
            assert_eq!(
                self.stored, self.written,
                "{event:?}: clean, and not stored"
            );
        }
    }
}

#[test]
fn no_sequence_of_events_loses_a_write() {
    let events = events();
    let mut sequences = vec![Model::new()];
    for _ in 0..5 {
        sequences = sequences
            .iter()
            .flat_map(|model| events.iter().map(move |event| (model, *event)))
            .filter(|(model, event)| model.may(*event))
            .map(|(model, event)| {
                let mut next = model.clone();
                next.apply(event);
                next
            })
            .collect();
    }
    assert!(sequences.len() > 10_000, "{}", sequences.len());
}

/// After a failure of unknown outcome, the map assumed that the store did not
/// have the entry. A removal was not committed, and the entry reappeared when
/// the map was opened again.
#[test]
fn an_entry_that_may_have_landed_is_not_taken_for_absent() {
    for event in [
        Event::Failed { uncertain: true },
        Event::Refused { uncertain: true },
    ] {
        let mut state = SaveState::new(StoredVersion::ABSENT);
        state.apply(Event::Written);
        state.apply(Event::Taken);
        state.apply(event);
        assert_eq!(state.stored, StoredVersion::UNKNOWN);
    }
}

/// A row written by another program has no revision. The map took it for an entry
/// that the store never had, so its removal was not committed.
#[test]
fn a_record_without_a_revision_may_be_in_the_store() {
    let stored = StoredVersion::at(Some(Revision::ZERO));
    assert!(stored != StoredVersion::ABSENT && stored.revision().is_none());
}
