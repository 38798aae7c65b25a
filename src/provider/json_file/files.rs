//! The files of a map in its folder.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    format::{journal, meta},
    index::Source,
};
use crate::{
    batch::WriterId,
    disk::{
        Disk, FolderLock,
        fault::fault,
        file::{Replacement, read_whole},
    },
    error::{Error, ErrorKind, Result},
    name::MapName,
};

/// The length from which the name of a file is shortened: with the longest ending it stays
/// below the 255 bytes that most systems accept.
const MAX_STEM: usize = 200;

/// The file that is locked while a provider has the folder open.
pub(super) const LOCK_FILE: &str = ".persistify.lock";

/// The content of a file that is written for trial.
pub(super) const TRIAL: u8 = b'?';

/// The folder of a provider.
pub(super) struct Folder {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    pub(super) max_journal: u64,
    pub(super) keep_tombstones: Duration,
    /// The adopted files, by map.
    pub(super) adopted: HashMap<MapName, String>,
    /// Held until the folder is closed.
    pub(super) lock: Mutex<Option<Box<dyn FolderLock>>>,
    /// The writers that have committed since the folder was opened.
    pub(super) writers: Mutex<HashSet<WriterId>>,
}

/// The files of one map.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) snapshot: PathBuf,
    pub(super) meta: PathBuf,
    pub(super) journal: PathBuf,
    stem: String,
}

impl Folder {
    /// The files of a map.
    pub(super) fn files(&self, map: &MapName) -> Result<Files> {
        if let Some(file) = self.adopted.get(map) {
            return Ok(Files::new(&self.path, stem_of(file), file));
        }
        let stem = map.encoded(MAX_STEM);
        self.check_not_adopted(map, &stem)?;
        let file = format!("{stem}.json");
        Ok(Files::new(&self.path, &stem, &file))
    }

    fn check_not_adopted(&self, map: &MapName, stem: &str) -> Result<()> {
        let is_same = |file: &str| stem_of(file).eq_ignore_ascii_case(stem);
        match self.adopted.iter().find(|(_, file)| is_same(file)) {
            None => Ok(()),
            Some((other, file)) => Err(Error::new(
                ErrorKind::Invalid,
                format!("the file {file} was given to the map {other:?}; use that name"),
            )
            .on_map(map)),
        }
    }

    /// The map whose files have this stem; `None` if it is not that of a map.
    pub(super) fn map_called(&self, stem: &str) -> Result<Option<MapName>> {
        let mut adopted = self.adopted.iter();
        if let Some((map, _)) = adopted.find(|(_, file)| stem_of(file) == stem) {
            return Ok(Some(map.clone()));
        }
        if let Some(map) = MapName::decoded(stem) {
            return Ok(Some(map));
        }
        if !stem.contains("%%") {
            return Ok(None);
        }
        // The name was too long for a file. It is stored in the files.
        let files = Files::new(&self.path, stem, &format!("{stem}.json"));
        let map = self.map_named_in(&files)?;
        Ok(map.filter(|map| map.encoded(MAX_STEM) == stem))
    }

    fn map_named_in(&self, files: &Files) -> Result<Option<MapName>> {
        if let Some((bytes, _)) = read_whole(&*self.disk, &files.meta)? {
            return Ok(meta::map_named_in(&bytes));
        }
        let journal = read_whole(&*self.disk, &files.journal)?;
        Ok(journal.and_then(|(bytes, _)| journal::map_named_in(&bytes)))
    }

    /// The file `<map>.json`, if it exists: another program may have written it. `None`
    /// for an adopted file.
    pub(super) fn literal_file(&self, map: &MapName) -> Result<Option<String>> {
        let literal = format!("{map}.json");
        if map.as_str().contains('/') || self.adopted.contains_key(map) {
            return Ok(None);
        }
        let names = self.list()?;
        Ok(names.into_iter().find(|name| *name == literal))
    }

    pub(super) fn list(&self) -> Result<Vec<String>> {
        let listed = self.disk.list(&self.path);
        listed.map_err(|error| fault("list", &self.path, error))
    }

    /// Checks that this is the folder that was opened, and that no other process can have
    /// opened it since. If it was unmounted or moved, there may be another one in its
    /// place, and every map would seem empty. A process that finds no lock file creates
    /// one.
    pub(super) fn check_in_place(&self) -> Result<()> {
        let path = self.path.join(LOCK_FILE);
        let held = self.lock.lock();
        let is_in_place = held.as_ref().map_or(Ok(false), |lock| lock.is_in_place());
        if is_in_place.map_err(|error| fault("look at", &path, error))? {
            return Ok(());
        }
        let message = format!(
            "{} is not the folder that was opened: its {LOCK_FILE} was removed or replaced, so \
             another program may have opened it; restore the folder with its content, or open \
             it again",
            self.path.display()
        );
        Err(Error::new(ErrorKind::Unusable, message).nothing_applied())
    }

    /// Checks that a new file can be written in the folder.
    pub(super) fn try_write(&self) -> Result<()> {
        let path = self.path.join("trial");
        let mut file = Replacement::create(&*self.disk, &path, &path)?;
        file.write(&[TRIAL])?;
        file.sync()
    }

    pub(super) fn sync(&self) -> Result<()> {
        let synced = self.disk.sync_folder(&self.path);
        synced.map_err(|error| fault("sync the folder", &self.path, error))
    }
}

/// The stem of the files beside an adopted file.
fn stem_of(file: &str) -> &str {
    file.strip_suffix(".json").unwrap_or(file)
}

impl Files {
    fn new(folder: &Path, stem: &str, file: &str) -> Self {
        Self {
            snapshot: folder.join(file),
            meta: folder.join(format!("{stem}.meta")),
            journal: folder.join(format!("{stem}.journal")),
            stem: stem.to_owned(),
        }
    }

    pub(super) fn of(&self, source: Source) -> &Path {
        match source {
            Source::Snapshot => &self.snapshot,
            Source::Journal => &self.journal,
        }
    }

    /// The name under which the `number`th torn frame of a journal is set aside.
    pub(super) fn torn_name(&self, number: usize) -> String {
        match number {
            0 => format!("{}.torn", self.stem),
            number => format!("{}.torn.{number}", self.stem),
        }
    }
}
