//! The options for opening a folder.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    JsonFile, blocking,
    files::{Folder, LOCK_FILE, TRIAL},
};
use crate::{
    disk::{Disk, FolderLock, RealDisk, fault::fault, left_over},
    error::{Error, ErrorKind, Result},
    file::access::{PRIVATE, check_mode},
    journal,
    name::MapName,
    provider::ledger::TOMBSTONES_KEPT,
};

/// The minimum of `max_journal`: below it, a compaction would cost more than it saves.
const MIN_JOURNAL: u64 = 1 << 10;

/// Most systems accept names of 255 bytes, and the files beside it have longer names.
const MAX_FILE_NAME: usize = 240;

/// The options of a [`JsonFile`], created by [`JsonFile::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `open`"]
pub struct JsonFileBuilder {
    folder: PathBuf,
    max_journal: u64,
    keep_tombstones: Duration,
    adopted: Vec<(String, String)>,
    file_mode: u32,
    /// `None` for the disk of the machine.
    disk: Option<Arc<dyn Disk>>,
}

impl JsonFileBuilder {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: named(folder).to_owned(),
            max_journal: 64 << 20,
            keep_tombstones: TOMBSTONES_KEPT,
            adopted: Vec::new(),
            file_mode: PRIVATE,
            disk: None,
        }
    }

    /// Stores a map in this file of the folder, which another program may have written:
    /// `.file("Config", "Config.json")`. Its other files are beside it, as `Config.meta`
    /// and `Config.journal`.
    ///
    /// Without this, the file has the name of the map, with `%` and two digits for each
    /// byte other than `a` to `z`, digits, `-` and `_`: `Config` is stored in
    /// `%43onfig.json`, because some systems cannot tell `Config.json` from `config.json`.
    pub fn file(mut self, map: impl Into<String>, file: impl Into<String>) -> Self {
        self.adopted.push((map.into(), file.into()));
        self
    }

    /// Sets the size in bytes from which the journal of a map is compacted in the
    /// background: 64 MiB by default, at least 1 KiB. A journal that is shorter than its
    /// snapshot is not compacted either.
    ///
    /// A larger journal means fewer compactions, so less is written twice. A smaller one
    /// makes an open after a crash faster, and the `.json` file is never far behind. A
    /// commit during the compaction waits for it. A compaction reads a journal of up to 64 MiB
    /// into memory.
    pub fn max_journal(mut self, bytes: u64) -> Self {
        self.max_journal = bytes;
        self
    }

    /// Sets for how long tombstones of deleted entries are kept, for readers that follow the
    /// [changes](crate::Wanted::Changed) of a map; a day by default. They are pruned by later
    /// commits. A reader that is away for longer loads the whole map.
    ///
    /// While its map is open, a tombstone takes about 150 bytes of memory and its key, and
    /// each compaction writes it to the `.meta` file, where it takes about 100 bytes and its
    /// key. Set a shorter time for maps that delete, or expire, millions of entries a day.
    pub fn keep_tombstones(mut self, time: Duration) -> Self {
        self.keep_tombstones = time;
        self
    }

    /// Sets the mode of new files, regardless of the umask: `0o600` by default, which keeps
    /// values private; at most `0o777`, and the owner must be able to read and write. New
    /// folders can be listed by the users who can read the files: `0o700` by default.
    ///
    /// An existing file keeps its mode and its owner when it is replaced, and the files
    /// beside it (`.meta`, `.journal`, `.torn`) get the same. If the system does not permit
    /// giving a file to that owner or group, fewer users can open it, never more.
    ///
    /// This has an effect on Unix only.
    pub fn file_mode(mut self, mode: u32) -> Self {
        self.file_mode = mode;
        self
    }

    /// Uses this disk instead of that of the machine: for tests.
    #[cfg(feature = "testing")]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Opens the folder, creates it if it is missing, and locks it. No other process or
    /// provider can open it until [`close`](crate::Provider::close), or until the last
    /// handle is dropped and its calls have ended.
    ///
    /// # Errors
    ///
    /// - `Unavailable` if it is open already, in this process or in another.
    /// - `Unusable` if it cannot be created or written to, or if it is not a folder.
    /// - `Invalid` if an option is out of bounds.
    pub async fn open(self) -> Result<JsonFile> {
        let adopted = self.checked()?;
        let real = || Arc::new(RealDisk::with_file_mode(self.file_mode)) as Arc<dyn Disk>;
        let folder = Folder {
            disk: self.disk.unwrap_or_else(real),
            path: self.folder,
            max_journal: self.max_journal,
            keep_tombstones: self.keep_tombstones,
            adopted,
            lock: Mutex::default(),
            writers: Mutex::default(),
        };
        blocking(move || {
            take(&folder)?;
            Ok(JsonFile::holding(folder))
        })
        .await
    }

    fn checked(&self) -> Result<HashMap<MapName, String>> {
        if self.max_journal < MIN_JOURNAL {
            return Err(invalid(format!(
                "max_journal is {} bytes; it must be {MIN_JOURNAL} at least",
                self.max_journal
            )));
        }
        check_mode(self.file_mode).map_err(invalid)?;
        let mut adopted = HashMap::new();
        let mut files = HashSet::new();
        for (map, file) in &self.adopted {
            check_file_name(file)?;
            // Some systems ignore case, and then these would be one file.
            if !files.insert(file.to_lowercase()) {
                return Err(invalid(format!("the file {file} was given to two maps")));
            }
            let map = MapName::parse(map)?;
            if adopted.insert(map.clone(), file.clone()).is_some() {
                return Err(invalid(format!("the map {map} was given two files")));
            }
        }
        Ok(adopted)
    }
}

/// An empty path is the current folder.
fn named(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    }
}

fn check_file_name(file: &str) -> Result<()> {
    if file.len() > MAX_FILE_NAME {
        return Err(invalid(format!(
            "the file {file:?} cannot be used: its name is longer than {MAX_FILE_NAME} bytes, so \
             there is none for the files beside it; give it a shorter one"
        )));
    }
    let is_plain = !file.contains(['/', '\\']) && !file.starts_with('.');
    if is_plain
        && file
            .strip_suffix(".json")
            .is_some_and(|stem| !stem.is_empty())
    {
        return Ok(());
    }
    Err(invalid(format!(
        "{file:?} cannot be the file of a map: give the name of a .json file in the folder"
    )))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

/// Creates the folder, locks it, and cleans it up.
fn take(folder: &Folder) -> Result<()> {
    let made = folder.disk.make_folder(&folder.path);
    made.map_err(|error| fault("make the folder", &folder.path, error))?;
    *folder.lock.lock() = Some(lock(folder)?);
    // The folder may have been removed before it was locked.
    folder.check_in_place()?;
    left_over::remove(&*folder.disk, &folder.path, &[b'{', journal::FIRST, TRIAL])?;
    folder.try_write()
}

fn lock(folder: &Folder) -> Result<Box<dyn FolderLock>> {
    let path = folder.path.join(LOCK_FILE);
    folder.disk.lock(&path).map_err(|error| {
        if error.kind() != std::io::ErrorKind::WouldBlock {
            return fault("lock", &path, error);
        }
        let message = format!(
            "{} is open already, in this program or in another: {} is locked; close it there \
             first, or share the handle",
            folder.path.display(),
            path.display()
        );
        Error::new(ErrorKind::Unavailable, message).nothing_applied()
    })
}
