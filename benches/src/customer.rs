//! A value of a typical size.

use serde::{Deserialize, Serialize};

/// The value type of the benchmarks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    name: String,
    city: String,
    orders: u64,
    is_active: bool,
}

impl Customer {
    /// Creates the customer with the given number.
    #[must_use]
    pub fn new(number: usize, orders: u64) -> Self {
        Self {
            name: format!("Customer Number {number}"),
            city: "Reykjavik".into(),
            orders,
            is_active: true,
        }
    }

    /// One field of the value.
    #[must_use]
    pub fn orders(&self) -> u64 {
        self.orders
    }

    /// The value as JSON.
    ///
    /// # Panics
    ///
    /// Never; plain data can always be encoded.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("JSON")
    }
}
