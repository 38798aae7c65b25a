//! The behaviour of a map while its store fails, and afterwards.

mod bytes;
mod dropped;
mod health;
mod many;
mod neighbours;
mod opening;
mod outage;
mod panics;
mod refused;
mod retry;
mod told;
mod unknown;
mod unreadable;
mod waiting;
