//! A provider with no optional capability.

use async_trait::async_trait;
use persistify::{
    Batch, Capabilities, Committed, Error, ErrorKind, Expect, Load, MapName, Memory, Provider,
    Result, Wanted, ledger, testing::conformance,
};

#[derive(Debug)]
struct Least(Memory);

fn refused(what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("this store takes no {what}"),
    )
}

#[async_trait]
impl Provider for Least {
    fn capabilities(&self) -> Capabilities {
        Capabilities::least()
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let all = self.0.load(map, Wanted::All).await?;
        all.narrowed(&wanted).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let mut changes = batch.maps.iter().flat_map(|part| &part.changes);
        batch.maps.iter().try_for_each(ledger::check_json)?;
        if batch.maps.len() > 1 {
            return Err(refused("batches of several maps"));
        }
        if changes.any(|change| change.expect != Expect::Any) {
            return Err(refused("conditions"));
        }
        self.0.commit(batch).await
    }
}

#[tokio::test]
async fn a_provider_that_can_do_the_least_conforms() {
    let memory = Memory::new();
    let report = conformance(async || Ok(Least(memory.clone())))
        .await
        .to_string();
    for left_out in [
        "conditions (not claimed)",
        "batches of several maps (not claimed)",
        "a list of the maps (not supported)",
        "deletions among the changes (not claimed)",
        "`Closed` after a close (it goes on working)",
        "opening again (not claimed)",
    ] {
        assert!(report.contains(left_out), "{left_out}: {report}");
    }
}
