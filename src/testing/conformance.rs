//! The suite that every provider has to pass: each word of the contract in
//! [`Provider`]'s documentation is a test of that name.
//!
//! Five lines run it:
//!
//! ```
//! use persistify::{Memory, testing::conformance};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let memory = Memory::new();
//! let report = conformance(async || Ok(memory.clone())).await;
//! println!("{report}");
//! # }
//! ```
//!
//! What opens the store is called many times, and has to open it anew on the
//! same place: the same folder, file or database. For a store in a folder of
//! its own that is `conformance(|| MyStore::open(dir.path()))`. The handle
//! opened before is gone by then: half of the time it was
//! [closed](Provider::close), half of the time just dropped. A store that
//! needs a moment to let go after that answers `Unavailable` when it is
//! opened, and is asked again for up to ten seconds.
//!
//! The suite uses maps of its own, with names that no other run uses, and
//! empties them at the end: it may run in a store that holds other maps, but
//! not one in which maps are open: the store pretends to have lost commits,
//! and they would stop ([`ErrorKind::Rewound`](crate::ErrorKind::Rewound)). It
//! reads [`Provider::capabilities`], and leaves out what a provider does not
//! claim, except that it refuses it properly. A layer that answers commits
//! ahead of its store ([`Committed::revision`](crate::Committed) is `None`)
//! does not pass.

use std::sync::Arc;

use crate::{error::Result, provider::Provider};

mod atomic;
mod bytes;
mod conditions;
mod dice;
mod drops;
mod durable;
mod faithful;
mod honest;
mod horizon;
mod idempotent;
mod isolated;
mod loads;
mod model;
mod ordered;
mod report;
mod rewound;
mod same;
mod trial;
mod values;
mod writer;

pub use report::{Outcome, Report, Word};
use trial::{Opened, Trial};

/// Runs every word of the contract on the store that `open` opens.
///
/// The future is not `Send`: await it in the test itself, not in a spawned task.
///
/// # Panics
///
/// On the first word that is broken: the message says the word, what was done,
/// what was expected and what was found.
pub async fn conformance<P: Provider>(open: impl AsyncFn() -> Result<P>) -> Report {
    let mut outcomes = Vec::new();
    for word in Word::ALL {
        outcomes.push(run(word, &open).await);
    }
    Report::new(outcomes)
}

/// What is loaded is what was committed: keys, values, times, and what each
/// [`Wanted`](crate::Wanted) asks for.
///
/// # Panics
///
/// If it is not so.
pub async fn faithful<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Word::Faithful, open).await
}

/// A batch lands whole, or not at all.
///
/// # Panics
///
/// If it does not.
pub async fn atomic<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Word::Atomic, open).await
}

/// Each batch is applied once, a repeat is answered as before, an earlier one
/// is refused; a store that has lost commits says so; and nothing of a map that was
/// dropped comes back.
///
/// # Panics
///
/// If it is not so.
pub async fn idempotent_and_fenced<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Word::IdempotentAndFenced, open).await
}

/// No map sees another's keys, whatever the names.
///
/// # Panics
///
/// If one does.
pub async fn isolated<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Word::Isolated, open).await
}

/// What was committed is there when the store is opened again, closed before
/// or not.
///
/// # Panics
///
/// If it is not.
pub async fn durable<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Word::Durable, open).await
}

/// Revisions grow, whatever happens.
///
/// # Panics
///
/// If one does not.
pub async fn ordered<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Word::Ordered, open).await
}

/// It does what it claims, refuses what it cannot do before anything is
/// written, and its errors say what state they leave.
///
/// # Panics
///
/// If it is not so.
pub async fn honest<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Word::Honest, open).await
}

async fn run<P: Provider>(word: Word, open: &impl AsyncFn() -> Result<P>) -> Outcome {
    // From here on the provider is one type, so that the suite is compiled once.
    let open =
        || -> Opened<'_> { Box::pin(async { Ok(Arc::new(open().await?) as Arc<dyn Provider>) }) };
    let mut trial = Trial::begin(word, &open).await;
    match word {
        Word::Faithful => faithful::run(&mut trial).await,
        Word::Atomic => atomic::run(&mut trial).await,
        Word::IdempotentAndFenced => {
            idempotent::run(&mut trial).await;
            rewound::run(&mut trial).await;
            drops::run(&mut trial).await;
        }
        Word::Isolated => isolated::run(&mut trial).await,
        Word::Durable => durable::run(&mut trial).await,
        Word::Ordered => ordered::run(&mut trial).await,
        Word::Honest => honest::run(&mut trial).await,
    }
    trial.end().await
}
