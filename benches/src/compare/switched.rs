//! A store that can be switched off.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use persistify::{Batch, Committed, Error, ErrorKind, Incarnation, Layer, Provider, Result};

/// Forwards everything to the wrapped store. While it is off, it refuses commits and pings
/// at once, as a server that is not running refuses connections.
#[derive(Debug)]
pub struct Switched<P> {
    inner: P,
    is_off: AtomicBool,
}

impl<P> Switched<P> {
    pub fn new(inner: P) -> Self {
        Self {
            inner,
            is_off: AtomicBool::new(false),
        }
    }

    pub fn switch_off(&self) {
        self.is_off.store(true, Relaxed);
    }

    pub fn switch_on(&self) {
        self.is_off.store(false, Relaxed);
    }

    fn check(&self) -> Result<()> {
        if self.is_off.load(Relaxed) {
            let error = Error::new(ErrorKind::Unavailable, "the store is switched off");
            return Err(error.nothing_applied());
        }
        Ok(())
    }
}

#[async_trait]
impl<P: Provider> Layer for Switched<P> {
    fn inner(&self) -> &dyn Provider {
        &self.inner
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.check()?;
        self.inner().commit(batch).await
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        self.check()?;
        self.inner().ping().await
    }
}
