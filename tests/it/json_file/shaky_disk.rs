//! A disk that fails, stops or loses power at a chosen operation, and then loses unsynced data.

use std::{
    collections::HashMap,
    fs,
    io::{self, ErrorKind as Io},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use parking_lot::Mutex;
use persistify::{Disk, DiskFile, FolderLock, NewFile, RealDisk};

/// The fault to inject. Operations that change something are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plan {
    Healthy,
    /// From this operation on, nothing has an effect; this one may have half of it.
    Stop {
        at: usize,
    },
    /// This operation fails before its effect.
    Fail {
        at: usize,
        with: Io,
    },
    /// This operation fails after its effect, or after half of a write. A failed sync makes
    /// nothing durable, although the next one succeeds.
    FailLate {
        at: usize,
        with: Io,
    },
    /// The next operation of this name fails before its effect.
    FailAt {
        what: &'static str,
        with: Io,
    },
    /// Every operation fails until the plan is changed.
    Broken {
        with: Io,
    },
}

/// The unsynced changes that a power loss undoes. A file system may make renames and removals
/// durable in any order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Loss {
    Nothing,
    /// The first unsynced rename or removal in the folder, but not the later ones.
    First,
    /// The last unsynced rename or removal.
    Last,
    Everything,
}

/// A disk with faults. Clones share its state.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShakyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    plan: Option<Plan>,
    count: usize,
    log: Vec<String>,
    /// The files that were appended to, and their durable sizes.
    safe: HashMap<PathBuf, Safe>,
    /// The content of each path before it was replaced or removed since the last sync of the
    /// folder.
    undo: Vec<(PathBuf, Option<Vec<u8>>)>,
}

#[derive(Clone, Copy, Debug)]
struct Safe {
    bytes: u64,
    /// A sync failed, so no later one is believed.
    is_spoilt: bool,
}

/// The outcome of an operation.
enum Course {
    Well,
    Fails(io::Error),
    FailsLate(io::Error),
}

impl ShakyDisk {
    pub(crate) fn with(plan: Plan) -> Self {
        let disk = Self::default();
        disk.set(plan);
        disk
    }

    pub(crate) fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    pub(crate) fn set(&self, plan: Plan) {
        self.state.lock().plan = Some(plan);
    }

    /// The number of operations that changed something.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().count
    }

    /// Takes the log of operations.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().log)
    }

    /// Leaves the folder as a power loss does.
    pub(crate) fn lose(&self, loss: Loss) {
        let mut state = self.state.lock();
        if loss == Loss::Everything {
            for (path, safe) in &state.safe {
                if let Ok(file) = fs::OpenOptions::new().write(true).open(path) {
                    file.set_len(safe.bytes).unwrap();
                }
            }
        }
        let undo = std::mem::take(&mut state.undo);
        let gone = match loss {
            Loss::Nothing => &[],
            Loss::First => undo.get(..1).unwrap_or_default(),
            Loss::Last => &undo[undo.len().saturating_sub(1)..],
            Loss::Everything => &undo[..],
        };
        let is_last = |path: &Path| undo.iter().filter(|(other, _)| other == path).count() == 1;
        for (path, before) in gone.iter().rev() {
            // A later change of the same path is durable, so its content stays.
            if loss == Loss::First && !is_last(path) {
                continue;
            }
            match before {
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
        }
        state.safe.clear();
    }

    fn course(&self, what: &str, path: &Path) -> Course {
        let mut state = self.state.lock();
        let name = path.file_name().unwrap_or_default().display();
        let operation = format!("{what} {name}");
        let n = state.count;
        state.count += 1;
        if let Some(Plan::FailAt { what, with }) = state.plan
            && what == operation
        {
            state.plan = None;
            return Course::Fails(with.into());
        }
        state.log.push(operation);
        let gone = || io::Error::new(Io::BrokenPipe, "the power is off");
        match state.plan {
            Some(Plan::Stop { at }) if n == at => Course::FailsLate(gone()),
            Some(Plan::Stop { at }) if n > at => Course::Fails(gone()),
            Some(Plan::Fail { at, with }) if n == at => Course::Fails(with.into()),
            Some(Plan::FailLate { at, with }) if n == at => Course::FailsLate(with.into()),
            Some(Plan::Broken { with }) => Course::Fails(with.into()),
            _ => Course::Well,
        }
    }

    /// Fails if the power is off.
    fn check_on(&self) -> io::Result<()> {
        let state = self.state.lock();
        match state.plan {
            Some(Plan::Stop { at }) if state.count > at => {
                Err(io::Error::new(Io::BrokenPipe, "the power is off"))
            }
            _ => Ok(()),
        }
    }

    fn done(course: Course, effect: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match course {
            Course::Well => effect(),
            Course::Fails(error) => Err(error),
            Course::FailsLate(error) => effect().and(Err(error)),
        }
    }

    /// Remembers the durable content of a path.
    fn keep(&self, path: &Path) {
        let mut state = self.state.lock();
        let mut before = fs::read(path).ok();
        if let (Some(bytes), Some(safe)) = (&mut before, state.safe.remove(path)) {
            bytes.truncate(usize::try_from(safe.bytes).unwrap());
        }
        state.undo.push((path.to_owned(), before));
    }
}

impl Disk for ShakyDisk {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        Self::done(self.course("make", folder), || {
            RealDisk::new().make_folder(folder)
        })
    }

    fn lock(&self, file: &Path) -> io::Result<Box<dyn FolderLock>> {
        self.check_on()?;
        RealDisk::new().lock(file)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.check_on()?;
        RealDisk::new().list(folder)
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check_on()?;
        Ok(self.opened(RealDisk::new().open(file)?, file))
    }

    fn open_to_append(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check_on()?;
        if let Some(Plan::Broken { with }) = self.state.lock().plan {
            return Err(with.into());
        }
        Ok(self.opened(RealDisk::new().open_to_append(file)?, file))
    }

    fn create(&self, target: &Path, like: &Path) -> io::Result<Box<dyn NewFile>> {
        let made = |error: Option<io::Error>| {
            let file = RealDisk::new().create(target, like)?;
            error.map_or(Ok(()), Err)?;
            Ok(Box::new(ShakyNewFile {
                disk: self.clone(),
                file,
                target: target.to_owned(),
                is_safe: false,
            }) as Box<dyn NewFile>)
        };
        match self.course("create", target) {
            Course::Well => made(None),
            Course::Fails(error) => Err(error),
            Course::FailsLate(error) => made(Some(error)),
        }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        Self::done(self.course("sync folder", folder), || Ok(()))?;
        self.state.lock().undo.clear();
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        Self::done(self.course("remove", file), || {
            self.keep(file);
            RealDisk::new().remove(file)
        })
    }
}

impl ShakyDisk {
    fn opened(&self, file: Box<dyn DiskFile>, path: &Path) -> Box<dyn DiskFile> {
        Box::new(ShakyFile {
            disk: self.clone(),
            file,
            path: path.to_owned(),
        })
    }
}

struct ShakyFile {
    disk: ShakyDisk,
    file: Box<dyn DiskFile>,
    path: PathBuf,
}

impl DiskFile for ShakyFile {
    fn size(&mut self) -> io::Result<u64> {
        self.disk.check_on()?;
        self.file.size()
    }

    fn modified(&mut self) -> io::Result<SystemTime> {
        self.disk.check_on()?;
        self.file.modified()
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.disk.check_on()?;
        self.file.read_at(offset, into)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let course = self.disk.course("append to", &self.path);
        let size = self.file.size()?;
        let safe = Safe {
            bytes: size,
            is_spoilt: false,
        };
        let mut state = self.disk.state.lock();
        state.safe.entry(self.path.clone()).or_insert(safe);
        drop(state);
        let half = &bytes[..bytes.len() / 2];
        match course {
            Course::Well => self.file.append(bytes),
            Course::Fails(error) => Err(error),
            Course::FailsLate(error) => self.file.append(half).and(Err(error)),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let course = self.disk.course("sync", &self.path);
        let bytes = self.file.size()?;
        let mut state = self.disk.state.lock();
        let safe = state.safe.get_mut(&self.path);
        let safe = safe.expect("a file is synced only after it was written to");
        match course {
            Course::Well => {
                if !safe.is_spoilt {
                    safe.bytes = bytes;
                }
                Ok(())
            }
            Course::Fails(error) | Course::FailsLate(error) => {
                safe.is_spoilt = true;
                Err(error)
            }
        }
    }
}

struct ShakyNewFile {
    disk: ShakyDisk,
    file: Box<dyn NewFile>,
    target: PathBuf,
    is_safe: bool,
}

impl NewFile for ShakyNewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.is_safe = false;
        let half = &bytes[..bytes.len() / 2];
        match self.disk.course("write new", &self.target) {
            Course::Well => self.file.write(bytes),
            Course::Fails(error) => Err(error),
            Course::FailsLate(error) => self.file.write(half).and(Err(error)),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let course = self.disk.course("sync new", &self.target);
        ShakyDisk::done(course, || Ok(()))?;
        self.is_safe = true;
        Ok(())
    }

    fn replace(self: Box<Self>) -> io::Result<()> {
        assert!(
            self.is_safe,
            "{} takes its place unsynced",
            self.target.display()
        );
        ShakyDisk::done(self.disk.course("replace", &self.target), || {
            self.disk.keep(&self.target);
            self.file.replace()
        })
    }
}
