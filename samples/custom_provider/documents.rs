//! A provider: each map is a document in a folder. It could as well be an
//! object in a bucket. Every commit writes it anew: simple, and slow if large.

use std::{fs, io, path::PathBuf, sync::Mutex};

use persistify::{
    Batch, Capabilities, Committed, Error, ErrorKind, Expect, Load, MapName, Provider, Result,
    Revision, Turn, Wanted, async_trait,
};

use crate::document::Document;

/// The folder; and a lock, because two commits at once would undo each other.
#[derive(Debug)]
pub(crate) struct Documents(pub(crate) PathBuf, pub(crate) Mutex<()>);

impl Documents {
    fn path(&self, map: &MapName) -> PathBuf {
        // Two names never share a file, also where case is ignored.
        self.0.join(map.encoded(200) + ".json")
    }

    fn read(&self, map: &MapName) -> Result<Document> {
        match fs::read(self.path(map)) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| error(ErrorKind::Corrupt, e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Document::default()),
            Err(e) => Err(error(ErrorKind::Unusable, e)),
        }
    }

    fn write(&self, map: &MapName, document: &Document) -> io::Result<()> {
        let new = tempfile::NamedTempFile::new_in(&self.0)?;
        serde_json::to_writer_pretty(&new, document)?;
        new.as_file().sync_all()?;
        new.persist(self.path(map))?; // takes the place of the old one in one step
        fs::File::open(&self.0)?.sync_all()
    }
}

#[async_trait]
impl Provider for Documents {
    fn capabilities(&self) -> Capabilities {
        Capabilities::least().with_durable()
    }

    async fn load<'a>(&'a self, map: &'a MapName, wanted: Wanted) -> Result<Load<'a>> {
        let document = self.read(map)?;
        let horizon = Revision::new(document.revision);
        Load::of(horizon, document.records())
            .narrowed(&wanted)
            .await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        // What it cannot do, it says before anything is written.
        let part = match &*batch.maps {
            [] => return Ok(Committed::at(batch.revision_after(Revision::ZERO))),
            [part] if part.changes.iter().all(|c| c.expect == Expect::Any) => part,
            _ => return Err(error(ErrorKind::Unsupported, "one map, and no conditions")),
        };
        let _turn = self.1.lock();
        let mut document = self.read(&part.map)?;
        match document.turn(batch.id) {
            (Turn::Apply, _) => document.apply(batch, part),
            (Turn::Repeat, answer) => return Ok(Committed::at(answer)),
            (Turn::Superseded, _) => return Err(error(ErrorKind::Superseded, "a later one was")),
        }
        .map_err(|e| error(ErrorKind::Refused, e))?;
        // If this fails, the new document may be there all the same. Whoever is
        // told so sends the same batch again, which is then a repeat.
        let written = self.write(&part.map, &document);
        written.map_err(|e| error(ErrorKind::Unusable, e).outcome_unknown())?;
        Ok(Committed::at(Revision::new(document.revision)))
    }
}

fn error(kind: ErrorKind, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(kind, "a document was not read or written").with_source(cause)
}
