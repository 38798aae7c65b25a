//! What tests need: a suite that every provider has to pass, a provider that
//! fails on purpose, and a clock that is set by hand (feature `testing`).
//!
//! - Wrote a provider? Put it through [`conformance`](conformance()).
//! - What does a program do while its store is down, hangs, or refuses an
//!   entry? Wrap the store in [`Faulty`].
//! - What expires when? Give the map a [`ManualClock`].

pub mod conformance;
mod faulty;
mod manual_clock;

#[doc(inline)]
pub use conformance::conformance;
pub use faulty::{Call, Fault, Faulty, Hang, Method};
pub use manual_clock::ManualClock;
