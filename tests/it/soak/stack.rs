//! Layers between the maps and the store of a history.

use std::{sync::Arc, time::Duration};

use persistify::{CircuitBreaker, Namespaced, Provider, ProviderExt};
use rand::{RngExt, rngs::StdRng};

/// A kind of layer. They are declared in a valid order, the innermost first.
#[derive(Clone, Copy, Debug)]
enum Kind {
    CircuitBreaker,
    #[cfg(feature = "metrics")]
    Metered,
    #[cfg(feature = "encryption")]
    Encrypted,
    #[cfg(feature = "lz4")]
    Compressed,
    Namespaced,
}

const KINDS: &[Kind] = &[
    Kind::CircuitBreaker,
    #[cfg(feature = "metrics")]
    Kind::Metered,
    #[cfg(feature = "encryption")]
    Kind::Encrypted,
    #[cfg(feature = "lz4")]
    Kind::Compressed,
    Kind::Namespaced,
];

/// The layers of a history, the innermost first: a random subset.
#[derive(Clone, Debug, Default)]
pub(super) struct Stack(Vec<Kind>);

impl Stack {
    pub(super) fn draw(dice: &mut StdRng) -> Self {
        let drawn = KINDS.iter().filter(|_| dice.random());
        Self(drawn.copied().collect())
    }

    /// Wraps the store in the layers, as a new process does.
    pub(super) fn on(&self, store: impl Provider) -> Arc<dyn Provider> {
        let store: Arc<dyn Provider> = Arc::new(store);
        self.0.iter().fold(store, |inner, kind| kind.on(inner))
    }
}

impl Kind {
    fn on(self, inner: Arc<dyn Provider>) -> Arc<dyn Provider> {
        match self {
            Self::CircuitBreaker => {
                let breaker = CircuitBreaker::new().failures(2);
                Arc::new(inner.layer(breaker.cool_down(Duration::from_millis(300))))
            }
            #[cfg(feature = "metrics")]
            Self::Metered => Arc::new(inner.layer(persistify::Metered::new("soak"))),
            #[cfg(feature = "encryption")]
            Self::Encrypted => {
                let keys = persistify::Keys::new("key", [7; 32]).unwrap();
                Arc::new(inner.layer(persistify::Encrypted::new(keys)))
            }
            // Values are short: all are compressed that become shorter.
            #[cfg(feature = "lz4")]
            Self::Compressed => Arc::new(inner.layer(persistify::Compressed::lz4().min_size(0))),
            Self::Namespaced => Arc::new(Namespaced::new(inner, "tenant").unwrap()),
        }
    }
}
