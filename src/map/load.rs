//! Brings stored records into memory: when a map is opened, when it is reloaded, and after
//! its store has gone back in time.

pub(crate) mod loading;
pub(crate) mod migrations;
mod opening;
mod recovery;
pub(crate) mod unreadable;
