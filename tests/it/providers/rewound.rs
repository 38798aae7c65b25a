//! Providers that do not notice, or do not report, that they have lost commits. The suite detects
//! all of them.

use std::{panic::AssertUnwindSafe, time::SystemTime};

use async_trait::async_trait;
use futures_util::FutureExt;
use persistify::{
    Acknowledged, Batch, BatchId, Capabilities, Committed, Error, ErrorKind, Incarnation, Load,
    MapBatch, MapName, Memory, Provider, Result, Revision, Wanted, WriterId,
    testing::conformance as suite,
};

/// The flaw of the provider.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    IgnoresAcknowledgements,
    IgnoresAllButTheFirst,
    IgnoresIncarnations,
    TakesIdleForLost,
    TakesForgottenForIdle,
    RenewsAtEachNotice,
    NamesNoStates,
    AnswersLoadsWithoutOne,
    AnswersCommitsWithoutOne,
    AnswersPingsWithAnother,
    AppliesWhatItRefuses,
}

fn date(part: &mut MapBatch, at: SystemTime) {
    let known = part.acknowledged.map(|known| known.id);
    part.acknowledged = known.map(|id| Acknowledged::new(id, at));
}

#[derive(Clone, Debug)]
struct Broken {
    memory: Memory,
    flaw: Flaw,
}

impl Broken {
    /// The batch that the memory gets.
    fn changed(&self, batch: &Batch) -> Batch {
        let mut batch = batch.clone();
        let mut parts = batch.maps.to_vec();
        for (n, part) in parts.iter_mut().enumerate() {
            match self.flaw {
                Flaw::IgnoresAcknowledgements => part.acknowledged = None,
                Flaw::IgnoresAllButTheFirst if n > 0 => part.acknowledged = None,
                Flaw::IgnoresIncarnations => part.incarnation = None,
                Flaw::TakesIdleForLost => date(part, batch.at),
                Flaw::TakesForgottenForIdle => date(part, SystemTime::UNIX_EPOCH),
                _ => {}
            }
        }
        batch.maps = parts.into();
        batch
    }

    /// Renews the incarnation of the map, as if a loss was noticed.
    async fn renew(&self, map: &MapName) {
        let id = BatchId::new(WriterId::random(), 9);
        let now = SystemTime::now();
        let known = Acknowledged::new(BatchId::new(id.writer, 1), now);
        let part = MapBatch::new(map.clone(), vec![]).after_acknowledged(Some(known));
        let batch = Batch::new(id, Revision::ZERO, now, [part]);
        self.memory.commit(&batch).await.unwrap_err();
    }

    async fn refused(&self, batch: &Batch, error: Error) -> Error {
        if error.kind() != ErrorKind::Rewound {
            return error;
        }
        match self.flaw {
            Flaw::RenewsAtEachNotice => self.renew(&batch.maps[0].map).await,
            Flaw::NamesNoStates => return Error::new(ErrorKind::Rewound, "it was rewound"),
            Flaw::AppliesWhatItRefuses => {
                let parts = batch.maps.iter();
                let parts = parts.map(|part| MapBatch::new(part.map.clone(), part.changes.clone()));
                let parts: Vec<_> = parts.collect();
                let id = BatchId::new(WriterId::random(), 1);
                let batch = Batch::new(id, batch.after, batch.at, parts);
                self.memory.commit(&batch).await.unwrap();
            }
            _ => {}
        }
        error
    }
}

#[async_trait]
impl Provider for Broken {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let part = !matches!(wanted, Wanted::All);
        let load = self.memory.load(map, wanted).await?;
        let hides = self.flaw == Flaw::AnswersLoadsWithoutOne && part;
        let incarnation = load.incarnation.filter(|_| !hides);
        Ok(load.with_incarnation(incarnation))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        match self.memory.commit(&self.changed(batch)).await {
            Ok(answer) if self.flaw == Flaw::AnswersCommitsWithoutOne => {
                Ok(answer.with_incarnation(None))
            }
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.refused(batch, error).await),
        }
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        let found = self.memory.ping().await?;
        let another = (self.flaw == Flaw::AnswersPingsWithAnother).then(Incarnation::random);
        Ok(another.or(found))
    }
}

async fn complaint(flaw: Flaw) -> Option<String> {
    let memory = Memory::new();
    let open = async || {
        let memory = memory.clone();
        Ok(Broken { memory, flaw })
    };
    let run = suite::idempotent_and_fenced(&open);
    let message = AssertUnwindSafe(run).catch_unwind().await.err()?;
    Some(*message.downcast::<String>().expect("a message"))
}

#[tokio::test]
async fn a_provider_that_hides_lost_commits_is_caught() {
    assert_eq!(complaint(Flaw::None).await, None);
    for flaw in [
        Flaw::IgnoresAcknowledgements,
        Flaw::IgnoresAllButTheFirst,
        Flaw::IgnoresIncarnations,
        Flaw::TakesIdleForLost,
        Flaw::TakesForgottenForIdle,
        Flaw::RenewsAtEachNotice,
        Flaw::NamesNoStates,
        Flaw::AnswersLoadsWithoutOne,
        Flaw::AnswersCommitsWithoutOne,
        Flaw::AnswersPingsWithAnother,
        Flaw::AppliesWhatItRefuses,
    ] {
        let complaint = complaint(flaw).await;
        let complaint = complaint.unwrap_or_else(|| panic!("{flaw:?} was not caught"));
        let first = "the provider is not idempotent and fenced\n    done: ";
        assert!(complaint.starts_with(first), "{flaw:?}: {complaint}");
    }
}

/// A provider may notice lost commits and tell its maps without keeping incarnations.
#[tokio::test]
async fn a_provider_without_incarnations_is_left_out() {
    #[derive(Debug)]
    struct Without(Memory);
    #[async_trait]
    impl Provider for Without {
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities()
        }

        async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
            let load = self.0.load(map, Wanted::All).await?;
            load.with_incarnation(None).narrowed(&wanted).await
        }

        async fn commit(&self, batch: &Batch) -> Result<Committed> {
            let committed = self.0.commit(batch).await?;
            Ok(committed.with_incarnation(None))
        }
    }
    let memory = Memory::new();
    let open = async || Ok(Without(memory.clone()));
    let report = suite::idempotent_and_fenced(&open).await.to_string();
    assert!(report.contains("it keeps no incarnation"), "{report}");
}
