//! The conformance suite for providers. Each promise of the contract in the documentation
//! of [`Provider`] is tested under its name.
//!
//! To run it:
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
//! The closure opens the store. It is called many times, and must open the same store each
//! time: the same folder, file or database. For a store in a temporary folder, pass
//! `|| MyStore::open(dir.path())`. The previous handle is gone by then: half of the time it
//! was [closed](Provider::close), half of the time only dropped. If the store is still locked
//! at that moment, opening may fail with `Unavailable`; the suite retries for up to ten
//! seconds.
//!
//! The suite uses its own maps, with names that no other run uses, and clears them at the
//! end. The store may contain other maps, but none of them may be open: the suite simulates
//! lost commits, and open maps would stop with
//! [`ErrorKind::Rewound`](crate::ErrorKind::Rewound). The suite reads
//! [`Provider::capabilities`]. For a capability that the provider does not have, it only
//! checks that the provider refuses the request. A layer that acknowledges commits before its
//! store does ([`Committed::revision`](crate::Committed) is `None`) fails the suite.

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

pub use report::{Outcome, Promise, Report};
use trial::{Opened, Trial};

/// Tests all promises of the contract on the store that `open` opens.
///
/// The future is not `Send`: await it in the test itself, not in a spawned task.
///
/// # Panics
///
/// If a promise is broken. The message has the name of the promise, the operation, the
/// expected result and the actual one.
pub async fn conformance<P: Provider>(open: impl AsyncFn() -> Result<P>) -> Report {
    let mut outcomes = Vec::new();
    for promise in Promise::ALL {
        outcomes.push(run(promise, &open).await);
    }
    Report::new(outcomes)
}

/// Loads return what was committed: keys, values and times, for each kind of
/// [`Wanted`](crate::Wanted).
///
/// # Panics
///
/// If the promise is broken.
pub async fn faithful<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Promise::Faithful, open).await
}

/// A batch is applied completely or not at all.
///
/// # Panics
///
/// If the promise is broken.
pub async fn atomic<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Promise::Atomic, open).await
}

/// Each batch is applied once. A repeated batch gets the first answer, and an older batch is
/// refused. A store that has lost commits reports that. Nothing from before a drop comes back.
///
/// # Panics
///
/// If the promise is broken.
pub async fn idempotent_and_fenced<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Promise::IdempotentAndFenced, open).await
}

/// Maps are isolated from each other, whatever their names.
///
/// # Panics
///
/// If the promise is broken.
pub async fn isolated<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Promise::Isolated, open).await
}

/// What was committed is still there after the store is reopened, whether it was closed or
/// dropped.
///
/// # Panics
///
/// If the promise is broken.
pub async fn durable<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Promise::Durable, open).await
}

/// Revisions always grow.
///
/// # Panics
///
/// If the promise is broken.
pub async fn ordered<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Promise::Ordered, open).await
}

/// The provider does what its capabilities say, refuses everything else before it writes
/// anything, and its errors describe the state that they leave.
///
/// # Panics
///
/// If the promise is broken.
pub async fn honest<P: Provider>(open: &impl AsyncFn() -> Result<P>) -> Outcome {
    run(Promise::Honest, open).await
}

async fn run<P: Provider>(promise: Promise, open: &impl AsyncFn() -> Result<P>) -> Outcome {
    // From here on the provider is one type, so that the suite is compiled only once.
    let open =
        || -> Opened<'_> { Box::pin(async { Ok(Arc::new(open().await?) as Arc<dyn Provider>) }) };
    let mut trial = Trial::begin(promise, &open).await;
    match promise {
        Promise::Faithful => faithful::run(&mut trial).await,
        Promise::Atomic => atomic::run(&mut trial).await,
        Promise::IdempotentAndFenced => {
            idempotent::run(&mut trial).await;
            rewound::run(&mut trial).await;
            drops::run(&mut trial).await;
        }
        Promise::Isolated => isolated::run(&mut trial).await,
        Promise::Durable => durable::run(&mut trial).await,
        Promise::Ordered => ordered::run(&mut trial).await,
        Promise::Honest => honest::run(&mut trial).await,
    }
    trial.end().await
}
