//! The common part of the providers on SQL databases.

pub(crate) mod columns;
pub(crate) mod companion;
pub(crate) mod failure;
pub(crate) mod inspection;
pub(crate) mod key_order;
pub(crate) mod numbers;
pub(crate) mod options;
