//! A value of the size that programs keep.

use serde::{Deserialize, Serialize};

/// What the maps of the benches hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    name: String,
    city: String,
    orders: u64,
    is_active: bool,
}

impl Customer {
    /// One of many.
    #[must_use]
    pub fn new(number: usize, orders: u64) -> Self {
        Self {
            name: format!("Customer Number {number}"),
            city: "Reykjavik".into(),
            orders,
            is_active: true,
        }
    }

    /// What is stored of it.
    ///
    /// # Panics
    ///
    /// Never: it is plain data.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("JSON")
    }
}
