//! What a map does while its store fails, and what is left when it is over.

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
