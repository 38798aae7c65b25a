//! A provider that stores all maps as one document in a file; it could be an object
//! in a bucket as well. Each commit rewrites the document: simple, but slow for large
//! ones.

use std::{fs, io, path::PathBuf, sync::Mutex};

use persistify::{
    Batch, Capabilities, Committed, Error, ErrorKind, Load, MapName, Provider, Result, Wanted,
    async_trait,
};

use crate::document::Document;

/// The path of the file, and a lock, because concurrent commits would overwrite each
/// other.
#[derive(Debug)]
pub(crate) struct OneFile(pub(crate) PathBuf, pub(crate) Mutex<()>);

impl OneFile {
    fn read(&self) -> Result<Document> {
        match fs::read(&self.0) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| error(ErrorKind::Corrupt, e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Document::default()),
            Err(e) => Err(error(ErrorKind::Unusable, e)),
        }
    }

    fn write(&self, document: &Document) -> io::Result<()> {
        let folder = self.0.parent().unwrap_or(&self.0);
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        io::Write::write_all(&mut new, &serde_json::to_vec_pretty(document)?)?;
        new.as_file().sync_all()?;
        new.persist(&self.0)?; // replaces the old file atomically
        fs::File::open(folder)?.sync_all()
    }
}

#[async_trait]
impl Provider for OneFile {
    fn capabilities(&self) -> Capabilities {
        Capabilities::least()
            .with_several_maps()
            .with_conditions()
            .with_durable()
            .with_bytes()
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let mut document = self.read()?;
        let records = document.maps.remove(map).unwrap_or_default();
        Load::of(document.revision, records.into_values().collect())
            .with_incarnation(document.incarnation)
            .narrowed(&wanted)
            .await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let _turn = self.1.lock();
        let mut document = self.read()?;
        let before = document.incarnation;
        let answer = document.commit(batch);
        if answer.is_ok() || document.incarnation != before {
            // If this fails, the new document may be in place anyway. The map then resends the
            // batch, which is answered as a repeat.
            let written = self.write(&document);
            written.map_err(|e| error(ErrorKind::Unusable, e).outcome_unknown())?;
        }
        answer
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        Ok(self.read()?.maps.into_keys().collect())
    }
}

fn error(kind: ErrorKind, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(kind, "the document was not read or written").with_source(cause)
}
