//! A provider with a flaw.

use super::*;

#[derive(Clone, Debug)]
pub(super) struct Broken {
    pub(super) memory: Memory,
    pub(super) flaw: Flaw,
    /// The last batch, for flaws that depend on it.
    pub(super) last: Arc<Mutex<Option<BatchId>>>,
    pub(super) racing: Arc<AtomicUsize>,
}

impl Broken {
    pub(super) fn new(flaw: Flaw) -> Self {
        Self {
            memory: Memory::new(),
            flaw,
            last: Arc::default(),
            racing: Arc::default(),
        }
    }

    /// The provider as it is when it is opened again.
    pub(super) fn reopened(&self) -> Self {
        if self.flaw == Flaw::ForgetsOnReopening {
            return Self::new(self.flaw);
        }
        self.clone()
    }

    pub(super) fn name(&self, map: &MapName) -> MapName {
        let name = map.as_str();
        let name = match self.flaw {
            Flaw::IgnoresCaseOfNames => name.to_ascii_lowercase(),
            Flaw::CutsNames => name.chars().take(100).collect(),
            Flaw::DecodesNames => name.replace("%41", "A"),
            _ => name.to_owned(),
        };
        MapName::parse(name).unwrap()
    }

    pub(super) async fn records(&self, map: &MapName) -> Vec<Record> {
        match self.memory.load(map, Wanted::All).await {
            Ok(load) => load.into_records().await.unwrap(),
            Err(_closed) => Vec::new(),
        }
    }

    /// The batch that the memory gets.
    pub(super) async fn changed(&self, batch: &Batch) -> Batch {
        let mut batch = batch.clone();
        let mut parts = batch.maps.to_vec();
        for part in &mut parts {
            part.map = self.name(&part.map);
            let stored = self.records(&part.map).await;
            self.change_part(part, &stored);
        }
        batch.maps = parts.into();
        match self.flaw {
            Flaw::IgnoresAfter => batch.after = Revision::ZERO,
            Flaw::AppliesRepeats => batch.id = anew(),
            _ => {}
        }
        batch
    }

    pub(super) fn change_part(&self, part: &mut MapBatch, stored: &[Record]) {
        let holds = |key: &str| stored.iter().any(|record| *record.key == *key);
        match self.flaw {
            Flaw::IgnoresClear => part.clear = false,
            Flaw::LosesOneOfMany if part.changes.len() > 1_000 => {
                part.changes.pop();
            }
            Flaw::AfterClearSeesTheOld if part.clear => {
                part.changes
                    .retain(|c| c.expect != Expect::Absent || !holds(&c.key));
            }
            Flaw::SkipsSilently => {
                part.changes
                    .retain(|c| c.otherwise != Otherwise::Skip || !holds(&c.key));
            }
            _ => {}
        }
        for change in &mut part.changes {
            let value = stored.iter().find(|record| record.key == change.key);
            if self.flaw == Flaw::GroupsWithinAMap {
                let last = part.map.as_str().bytes().last().unwrap();
                change.group = change.group.map(|group| group * 1_000 + u32::from(last));
            }
            self.change_one(change, value.and_then(|r| r.value.clone()));
        }
    }

    pub(super) fn change_one(&self, change: &mut Change, stored: Option<Payload>) {
        match (self.flaw, &mut change.op) {
            (Flaw::LowersKeys, _) => change.key = change.key.to_ascii_lowercase().into(),
            (Flaw::TrimsNuls, _) => change.key = change.key.trim_end_matches('\0').into(),
            (Flaw::LosesExpiry, Op::Put { expires_at, .. }) => *expires_at = None,
            (Flaw::LosesShape, Op::Put { payload, .. }) => payload.schema = 0,
            (Flaw::RoundsNumbers, Op::Put { payload, .. }) => round_numbers(payload),
            (Flaw::BytesAsJson, Op::Put { payload, .. }) if payload.encoding == Encoding::Bytes => {
                let text = String::from_utf8_lossy(&payload.bytes);
                let text = serde_json::Value::from(text).to_string();
                *payload = Payload::json(text).with_schema(payload.schema);
            }
            (Flaw::TrustsHints, Op::Put { payload, .. }) if change.likely_new => {
                *payload = stored.unwrap_or(payload.clone());
            }
            (Flaw::TouchSetsTheTime, Op::Touch { expires_at }) => {
                if let Some(payload) = stored {
                    let expires_at = *expires_at;
                    change.op = Op::Put {
                        payload,
                        expires_at,
                    };
                }
            }
            (Flaw::TouchPuts, Op::Touch { expires_at }) if stored.is_none() => {
                let expires_at = *expires_at;
                let payload = Payload::json("null");
                change.op = Op::Put {
                    payload,
                    expires_at,
                };
            }
            (Flaw::IgnoresGroups, _) => change.group = None,
            (Flaw::IgnoresConditions, _) => change.expect = Expect::Any,
            // An expired entry counts as present, at any revision.
            (Flaw::ExpiredIsPresent, _) if change.expect == Expect::Present && stored.is_some() => {
                change.expect = Expect::Any;
            }
            _ => {}
        }
    }

    pub(super) async fn commit_parts(&self, batch: &Batch) -> Result<Committed> {
        let mut answer = Committed::default();
        for part in batch.maps.iter() {
            let one = Batch::new(anew(), batch.after, batch.at, [part.clone()]);
            answer = self.memory.commit(&one).await?;
        }
        Ok(answer)
    }

    /// Applies all but the last change of each map, then the rest.
    pub(super) async fn commit_in_two(&self, batch: &Batch) -> Result<Committed> {
        let first = batch.maps.iter().map(|part| {
            let mut part = part.clone();
            part.changes.pop();
            part
        });
        let first: Vec<_> = first.collect();
        let first = Batch::new(anew(), batch.after, batch.at, first);
        self.memory.commit(&first).await?;
        tokio::task::yield_now().await;
        self.memory.commit(batch).await
    }

    /// Applies the changes of JSON values, and refuses the batch because of the others.
    async fn commit_without_bytes(&self, batch: &Batch) -> Result<Committed> {
        let mut parts = batch.maps.to_vec();
        for part in &mut parts {
            part.changes.retain(|change| !puts_bytes(change));
        }
        let half = Batch::new(anew(), batch.after, batch.at, parts);
        self.memory.commit(&half).await?;
        fails(ErrorKind::Unsupported)
    }

    /// Reports a commit as applied although another commit was faster.
    pub(super) async fn commit_unless_racing(&self, batch: &Batch) -> Result<Committed> {
        let others = self.racing.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let answer = match others {
            0 => self.memory.commit(batch).await,
            _ => Ok(Committed::at(batch.revision_after(Revision::ZERO))),
        };
        self.racing.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    pub(super) fn remember(&self, id: BatchId) -> Option<BatchId> {
        self.last.lock().unwrap().replace(id)
    }
}

/// Rounds numbers, like a store that keeps JSON as a tree with floats.
pub(super) fn round_numbers(payload: &mut Payload) {
    if let Ok(tree) = serde_json::from_slice::<serde_json::Value>(&payload.bytes) {
        payload.bytes = tree.to_string().into();
    }
}

fn puts_bytes(change: &Change) -> bool {
    matches!(&change.op, Op::Put { payload, .. } if payload.encoding == Encoding::Bytes)
}

pub(super) fn coarse(revision: Revision) -> Revision {
    Revision::new(revision.get() / 1_000_000)
}

pub(super) fn anew() -> BatchId {
    BatchId::new(WriterId::random(), 1)
}

pub(super) fn fails(kind: ErrorKind) -> Result<Committed> {
    Err(Error::new(kind, "broken"))
}

#[async_trait]
impl Provider for Broken {
    fn capabilities(&self) -> Capabilities {
        let all = self.memory.capabilities();
        match self.flaw {
            Flaw::ForgetsOnReopening => all.with_durable(),
            Flaw::HalvesBytes => {
                let mut claimed = all;
                claimed.bytes = false;
                claimed
            }
            Flaw::HalvesUnsupported | Flaw::TakesUnsupported => {
                Capabilities::least().with_conditions()
            }
            _ => all,
        }
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let wanted = match (self.flaw, wanted) {
            (Flaw::IgnoresPageLimit, Wanted::Page { after, .. }) => Wanted::page(after, usize::MAX),
            (Flaw::ChangedIncludesTheKnown, Wanted::Changed { after, .. }) => {
                Wanted::changed(Revision::new(after.get().saturating_sub(1)))
            }
            (_, wanted) => wanted,
        };
        let map = self.name(map);
        let load = self.memory.load(&map, wanted.clone()).await?;
        let mut horizon = load.horizon;
        let mut cleared = load.cleared;
        let mut records = load.into_records().await?;
        match (self.flaw, wanted) {
            (Flaw::PagesUnsorted, Wanted::Page { limit, .. }) => {
                records = self.records(&map).await;
                records.sort_by_key(|record| record.key.to_lowercase());
                records.truncate(limit);
            }
            (Flaw::ChangesUnsorted, Wanted::Changed { .. }) => records.reverse(),
            (Flaw::HalvesCommits, Wanted::Changed { limit, .. }) => records.truncate(limit),
            (Flaw::LosesTombstones, _) => records.retain(|record| record.value.is_some()),
            (Flaw::LosesCauses, _) => {
                for deletion in records.iter_mut().filter_map(|r| r.deletion.as_mut()) {
                    deletion.cause = Cause::Removed;
                }
            }
            (Flaw::ClearsUntold, _) => cleared = None,
            (Flaw::RepeatsKeys, Wanted::Keys(keys)) if keys.len() > 1 => {
                records.extend(records.clone());
            }
            (Flaw::CoarseRevisions, _) => {
                horizon = coarse(horizon);
                for record in &mut records {
                    record.revision = coarse(record.revision);
                }
            }
            (Flaw::HorizonReadLate, _) => {
                tokio::task::yield_now().await;
                horizon = self.memory.load(&map, Wanted::All).await?.horizon;
            }
            (Flaw::HorizonTooHigh, _) => horizon = Revision::new(horizon.get() + 1_000_000_000),
            (Flaw::HorizonTooLow, _) => {
                let revisions = records.iter().map(|record| record.revision);
                horizon = revisions.max().unwrap_or_default();
            }
            _ => {}
        }
        Ok(Load::of(horizon, records).with_cleared(cleared))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let batch = &self.changed(batch).await;
        let last = match self.flaw {
            Flaw::RemembersFailures | Flaw::FencesOthers | Flaw::ForgetsRepeatsOnOthers => {
                self.remember(batch.id)
            }
            _ => None,
        };
        match self.flaw {
            Flaw::RemembersFailures if last == Some(batch.id) => {
                let answer = self.memory.commit(batch).await;
                return answer.or_else(|_| fails(ErrorKind::Superseded));
            }
            Flaw::FencesOthers if last.is_some_and(|last| last.sequence > batch.id.sequence) => {
                return fails(ErrorKind::Superseded);
            }
            Flaw::ForgetsRepeatsOnOthers if last.is_some_and(|l| l.writer != batch.id.writer) => {
                let mut batch = batch.clone();
                batch.id = anew();
                return self.memory.commit(&batch).await;
            }
            Flaw::HalvesUnsupported | Flaw::TakesUnsupported if batch.maps.len() > 1 => {
                let halves = self.flaw == Flaw::HalvesUnsupported;
                let parts = &batch.maps[..batch.maps.len() - usize::from(halves)];
                let part = Batch::new(batch.id, batch.after, batch.at, parts);
                let answer = self.commit_parts(&part).await;
                return if halves {
                    fails(ErrorKind::Unsupported)
                } else {
                    answer
                };
            }
            Flaw::HalvesBytes
                if batch
                    .maps
                    .iter()
                    .flat_map(|part| &part.changes)
                    .any(puts_bytes) =>
            {
                return self.commit_without_bytes(batch).await;
            }
            Flaw::LosesRaces => return self.commit_unless_racing(batch).await,
            Flaw::HalvesWhenDropped => return self.commit_in_two(batch).await,
            Flaw::OneRevisionForTwo => {
                let answer = self.commit_parts(batch).await;
                return answer;
            }
            _ => {}
        }
        match self.memory.commit(batch).await {
            Err(error) => self.after_error(batch, error).await,
            Ok(answer) => Ok(self.after_success(answer)),
        }
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        if self.flaw == Flaw::ListsNoNames {
            return Ok(Vec::new());
        }
        self.memory.maps().await
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        match self.flaw {
            Flaw::HeartbeatsOfTheirOwn => Some(Heartbeat::new()),
            _ => self.memory.heartbeat(),
        }
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        match self.flaw {
            Flaw::NoPing => fails(ErrorKind::Unavailable).map(|_| None),
            Flaw::UnavailableWhenClosed => {
                let answer = self.memory.ping().await;
                answer.or_else(|_| fails(ErrorKind::Unavailable).map(|_| None))
            }
            _ => self.memory.ping().await,
        }
    }

    async fn close(&self) -> Result<()> {
        self.memory.close().await
    }
}
