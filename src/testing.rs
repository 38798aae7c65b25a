//! Test support (feature `testing`).
//!
//! - [`conformance`](conformance()) tests a provider against the contract of
//!   [`Provider`](crate::Provider).
//! - [`Faulty`] wraps a provider and injects faults: a store that is down, hangs, or
//!   refuses an entry.
//! - [`ManualClock`] is a clock that a test advances, for maps whose entries expire.

pub mod conformance;
mod faulty;
mod manual_clock;

#[doc(inline)]
pub use conformance::conformance;
pub use faulty::{Call, Fault, Faulty, Hang, Method};
pub use manual_clock::ManualClock;
