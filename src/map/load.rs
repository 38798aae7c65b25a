//! Loads stored records into memory: on opening, on reload, and after the store has
//! gone back in time.

pub(crate) mod loading;
pub(crate) mod migrations;
mod opening;
mod pages;
mod recovery;
pub(crate) mod unreadable;
