//! Stores with other abilities than that in memory.

use persistify::{Batch, Capabilities, Committed, Layer, Memory, Provider, Result, async_trait};

/// Says that it encrypts.
#[derive(Debug)]
pub(crate) struct Sealed(pub(crate) Memory);

#[async_trait]
impl Layer for Sealed {
    fn inner(&self) -> &dyn Provider {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Provider::capabilities(&self.0).with_encrypted()
    }
}

/// A store of JSON only, which does not tell deletions and has no batches of several maps.
#[derive(Clone, Debug)]
pub(crate) struct Modest(pub(crate) Memory);

#[async_trait]
impl Layer for Modest {
    fn inner(&self) -> &dyn Provider {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::least().with_conditions()
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        assert!(batch.maps.len() < 2, "not supported");
        self.0.commit(batch).await
    }
}
