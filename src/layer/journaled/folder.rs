//! The folder of the journals.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    disk::{Disk, FolderLock, fault::fault, left_over},
    error::{Error, ErrorKind, Result},
    journal,
    name::MapName,
};

/// The file that is locked while a process has the folder open. JSON files lock the same one.
const LOCK_FILE: &str = ".persistify.lock";

/// The endings of the files of a map: of its journal, and of the changes set aside.
const JOURNAL: &str = ".pending";
const ASIDE: &str = ".refused.jsonl";

/// The length from which the name of a file is shortened.
const MAX_STEM: usize = 200;

/// The folder of the journals, locked.
pub(super) struct Folder {
    pub(super) disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Held until the layer is closed.
    lock: Mutex<Option<Box<dyn FolderLock>>>,
}

impl Folder {
    /// Creates the folder if it is missing, locks it, and cleans it up.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it is locked already; `Unusable` if it cannot be used.
    pub(super) fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let made = disk.make_folder(path);
        made.map_err(|error| fault("make the folder", path, error))?;
        let lock = disk.lock(&path.join(LOCK_FILE));
        let lock = lock.map_err(|error| not_locked(path, error))?;
        let folder = Self {
            disk,
            path: path.to_owned(),
            lock: Mutex::new(Some(lock)),
        };
        // The folder may have been removed before it was locked.
        folder.check_in_place()?;
        left_over::remove(&*folder.disk, path, &[journal::FIRST, b'{'])?;
        Ok(folder)
    }

    /// The paths of a map's journal and of its changes that are set aside.
    pub(super) fn files(&self, map: &MapName) -> (PathBuf, PathBuf) {
        let stem = map.encoded(MAX_STEM);
        let file = |ending| self.path.join(format!("{stem}{ending}"));
        (file(JOURNAL), file(ASIDE))
    }

    /// The paths of all journals.
    pub(super) fn journals(&self) -> Result<Vec<PathBuf>> {
        let names = self.disk.list(&self.path);
        let names = names.map_err(|error| fault("list", &self.path, error))?;
        let journals = names.iter().filter(|name| name.ends_with(JOURNAL));
        Ok(journals.map(|name| self.path.join(name)).collect())
    }

    /// Checks that this is the folder that was locked, and that it is still locked. In the
    /// place of one that was removed or unmounted, another process may have locked a new one.
    pub(super) fn check_in_place(&self) -> Result<()> {
        let path = self.path.join(LOCK_FILE);
        let held = self.lock.lock();
        let is_in_place = held.as_ref().map_or(Ok(false), |lock| lock.is_in_place());
        if is_in_place.map_err(|error| fault("look at", &path, error))? {
            return Ok(());
        }
        let message = format!(
            "{} is not the folder that was opened, or was closed; restore it with its content, or \
             open the layer again",
            self.path.display()
        );
        Err(Error::new(ErrorKind::Unusable, message))
    }

    pub(super) fn unlock(&self) {
        self.lock.lock().take();
    }
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Folder").field(&self.path).finish()
    }
}

fn not_locked(path: &Path, error: std::io::Error) -> Error {
    if error.kind() != std::io::ErrorKind::WouldBlock {
        return fault("lock", &path.join(LOCK_FILE), error);
    }
    let message = format!(
        "the journals in {} are open already, in this program or in another; close them there \
         first, or share the layer",
        path.display()
    );
    Error::new(ErrorKind::Unavailable, message).nothing_applied()
}
