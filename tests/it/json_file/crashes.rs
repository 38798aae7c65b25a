//! A crash or a fault at every operation on the disk.

use std::{io::ErrorKind as Io, path::Path};

use persistify::{Error, ErrorKind};

use super::{
    shaky_disk::{Loss, Plan, ShakyDisk},
    *,
};

/// The entries; and the changes with tombstones and the last clear, as a reader that follows
/// the map receives them.
type State = (BTreeMap<String, Record>, Vec<Record>, Option<Revision>);

async fn load(files: &JsonFile) -> Result<State> {
    let map = stock();
    let changes = files.load(&map, Wanted::changed(Revision::ZERO)).await?;
    let cleared = changes.cleared;
    let mut changes = changes.into_records().await?;
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    Ok((super::load(files).await?, changes, cleared))
}

/// A step of a program.
#[derive(Debug)]
enum Step {
    Commit(Batch),
    Release,
    Load,
}

fn script() -> Vec<Step> {
    let mut writer = Writer::new();
    let touch = Change::touch("pear", Some(time(90_000)));
    let dated = Change::put("fig", Payload::json("4").with_schema(7), Some(time(5_000)));
    let mut clear = writer.batch(vec![put("plum", "{\n\"a\": 1}")]);
    clear.maps = [clear.maps[0].clone().clearing(true)].into();
    vec![
        Step::Load,
        Step::Commit(writer.next(vec![put("apple", "1"), put("pear", "2")])),
        Step::Commit(writer.next(vec![put("apple", "3"), dated])),
        Step::Release,
        Step::Load,
        Step::Commit(writer.next(vec![Change::delete("apple"), touch])),
        Step::Commit(writer.next(vec![put("nut", "[5]"), put("", "6")])),
        Step::Release,
        Step::Commit(writer.next(vec![Change::touch("nut", Some(time(9_999)))])),
        Step::Release,
        Step::Commit(writer.again(&clear)),
        Step::Commit(writer.next(vec![put("end", "null"), Change::delete("plum")])),
    ]
}

impl Writer {
    fn next(&mut self, changes: Vec<Change>) -> Batch {
        self.batch(changes)
    }

    /// The next batch, with the same changes.
    fn again(&mut self, batch: &Batch) -> Batch {
        self.pen.batch(batch.maps.to_vec())
    }
}

async fn open_on(disk: &ShakyDisk, folder: &Path) -> Result<JsonFile> {
    JsonFile::builder(folder).disk(disk.shared()).open().await
}

async fn take(files: &JsonFile, step: &Step) -> Result<()> {
    match step {
        Step::Commit(batch) => files.commit(batch).await.map(drop),
        Step::Release => files.release(&stock()).await,
        Step::Load => load(files).await.map(drop),
    }
}

/// Returns the states before each step and after the last, without a fault, and the number
/// of operations.
async fn healthy(steps: &[Step]) -> (Vec<State>, usize) {
    let folder = quick_folder();
    let disk = ShakyDisk::with(Plan::Healthy);
    let files = open_on(&disk, folder.path()).await.unwrap();
    let mut states = vec![State::default()];
    let mut other = load(&files).await.unwrap();
    assert_eq!(other, states[0]);
    for step in steps {
        take(&files, step).await.unwrap();
        let count = disk.count();
        // A second provider on a copy leaves no trace in the first one.
        let copy = copied(folder.path());
        other = load(&open_on(&ShakyDisk::default(), copy.path()).await.unwrap())
            .await
            .unwrap();
        assert_eq!(disk.count(), count);
        states.push(other);
    }
    assert_eq!(states.last(), Some(&load(&files).await.unwrap()));
    (states, disk.count())
}

fn copied(folder: &Path) -> TempDir {
    let copy = quick_folder();
    for name in names(folder) {
        fs::copy(folder.join(&name), copy.path().join(&name)).unwrap();
    }
    copy
}

/// Runs until the first error. Returns the number of successful steps.
async fn run(disk: &ShakyDisk, folder: &Path, steps: &[Step]) -> usize {
    let Ok(files) = open_on(disk, folder).await else {
        return 0;
    };
    for (n, step) in steps.iter().enumerate() {
        if take(&files, step).await.is_err() {
            return n;
        }
    }
    steps.len()
}

#[tokio::test]
async fn a_crash_at_any_operation_loses_no_acknowledged_commit() {
    let steps = script();
    let (states, count) = healthy(&steps).await;
    assert!(count > 60, "{count}");
    for at in 0..count {
        for loss in [Loss::Nothing, Loss::First, Loss::Last, Loss::Everything] {
            let folder = quick_folder();
            let disk = ShakyDisk::with(Plan::Stop { at });
            let done = run(&disk, folder.path(), &steps).await;
            disk.lose(loss);
            check_after_crash(folder.path(), &steps, &states, done, (at, loss)).await;
        }
    }
}

/// Checks that the state is the one after `done` steps or after one more, and that the
/// remaining steps lead to the expected states, even if each is taken twice.
async fn check_after_crash(
    folder: &Path,
    steps: &[Step],
    states: &[State],
    done: usize,
    case: (usize, Loss),
) {
    let disk = ShakyDisk::with(Plan::Healthy);
    let files = open_on(&disk, folder).await.unwrap();
    let found = load(&files)
        .await
        .unwrap_or_else(|e| panic!("{case:?}: {e:?}"));
    let next = states.get(done + 1);
    assert!(
        found == states[done] || Some(&found) == next,
        "{case:?}: {found:#?}"
    );
    // A state that was read is durable.
    disk.lose(Loss::Everything);
    drop(files);
    let files = open_on(&disk, folder).await.unwrap();
    assert_eq!(load(&files).await.unwrap(), found, "{case:?}");
    for (n, step) in steps.iter().enumerate().skip(done) {
        take(&files, step).await.unwrap();
        take(&files, step).await.unwrap();
        assert_eq!(
            load(&files).await.unwrap(),
            states[n + 1],
            "{case:?}, step {n}"
        );
    }
    let left: Vec<_> = names(folder)
        .into_iter()
        .filter(|n| n.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{case:?}: {left:?}");
}

/// The first process is killed, so that its unsynced writes are visible. The next process
/// builds on them, and then the power fails.
#[tokio::test]
async fn a_power_loss_after_a_kill_loses_no_acknowledged_commit() {
    let steps = script();
    let (states, count) = healthy(&steps).await;
    for at in 0..count {
        for more in 0..6 {
            let loss = if more % 2 == 0 {
                Loss::First
            } else {
                Loss::Everything
            };
            let folder = quick_folder();
            let disk = ShakyDisk::with(Plan::Stop { at });
            let done = run(&disk, folder.path(), &steps).await;
            // The first four operations open the folder.
            let at = disk.count() + 4 + more;
            disk.set(Plan::Stop { at });
            if let Ok(files) = open_on(&disk, folder.path()).await {
                let _ = load(&files).await;
            }
            disk.lose(loss);
            check_after_crash(folder.path(), &steps, &states, done, (at, loss)).await;
        }
    }
}

#[tokio::test]
async fn a_fault_at_any_operation_is_reported_and_overcome() {
    let steps = script();
    let (states, count) = healthy(&steps).await;
    let mut reported = 0;
    for at in 0..count + 4 {
        let with = [Io::StorageFull, Io::PermissionDenied, Io::Other][at % 3];
        for plan in [Plan::Fail { at, with }, Plan::FailLate { at, with }] {
            reported += overcome(plan, &steps, &states).await;
        }
    }
    assert!(reported > count * 3 / 2, "{reported} of {count}");
}

/// Repeats each step until it succeeds. Returns the number of errors.
async fn overcome(plan: Plan, steps: &[Step], states: &[State]) -> usize {
    let folder = quick_folder();
    let disk = ShakyDisk::with(plan);
    let mut faults = 0;
    let files = match open_on(&disk, folder.path()).await {
        Ok(files) => files,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unusable, "{plan:?}: {error:?}");
            faults += 1;
            open_on(&disk, folder.path()).await.unwrap()
        }
    };
    for (n, step) in steps.iter().enumerate() {
        if let Err(error) = take(&files, step).await {
            faults += 1;
            check_honest(&error, folder.path(), &states[n..], plan).await;
            assert_eq!(load(&files).await.unwrap(), states[n], "{plan:?}, step {n}");
            take(&files, step).await.unwrap();
        }
        assert_eq!(
            load(&files).await.unwrap(),
            states[n + 1],
            "{plan:?}, step {n}"
        );
    }
    assert!(faults <= 1, "{plan:?}");
    disk.set(Plan::Healthy);
    drop(files);
    disk.lose(Loss::Everything);
    let files = open_on(&disk, folder.path()).await.unwrap();
    assert_eq!(
        &load(&files).await.unwrap(),
        states.last().unwrap(),
        "{plan:?}"
    );
    faults
}

/// If the error reports that nothing was applied, a process that opens the folder at that
/// moment must find nothing applied.
async fn check_honest(error: &Error, folder: &Path, states: &[State], plan: Plan) {
    assert_eq!(error.kind(), ErrorKind::Unusable, "{plan:?}: {error:?}");
    let copy = copied(folder);
    let found = load(&open_on(&ShakyDisk::default(), copy.path()).await.unwrap())
        .await
        .unwrap();
    let may_be = error.may_have_applied() && found == states[1];
    assert!(found == states[0] || may_be, "{plan:?}: {found:#?}");
}

#[tokio::test]
async fn a_full_disk_can_be_read_and_afterwards_written() {
    let folder = quick_folder();
    let disk = ShakyDisk::with(Plan::Healthy);
    let files = open_on(&disk, folder.path()).await.unwrap();
    let mut writer = Writer::new();
    writer.put(&files, "apple", "1").await.unwrap();

    for with in [
        Io::StorageFull,
        Io::ReadOnlyFilesystem,
        Io::PermissionDenied,
    ] {
        disk.set(Plan::Broken { with });
        let batch = writer.batch(vec![put("apple", "2")]);
        for _ in 0..3 {
            let error = files.commit(&batch).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unusable);
            assert!(!error.may_have_applied());
            assert!(error.keys().is_empty());
            assert!(error.to_string().contains("stock.journal"), "{error}");
            assert!(files.ping().await.is_err());
            let error = files.release(&stock()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unusable);
        }
        assert_eq!(texts(&files).await.unwrap()["apple"], "1");
        disk.set(Plan::Healthy);
        files.ping().await.unwrap();
    }
    writer.put(&files, "apple", "3").await.unwrap();
    files.release(&stock()).await.unwrap();
    assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "3")]));
}

/// After a failed sync, the system may wrongly consider the bytes durable. Appending to the
/// same file would then lose acknowledged commits.
#[tokio::test]
async fn a_file_after_a_failed_sync_is_not_written_to_again() {
    let folder = quick_folder();
    let disk = ShakyDisk::with(Plan::Healthy);
    let files = open_on(&disk, folder.path()).await.unwrap();
    let mut writer = Writer::new();
    writer.put(&files, "apple", "1").await.unwrap();
    let batch = writer.batch(vec![put("apple", "2")]);

    // The first operation is the append, the second the sync.
    let at = disk.count() + 1;
    disk.set(Plan::Fail {
        at,
        with: Io::Other,
    });
    let error = files.commit(&batch).await.unwrap_err();
    assert!(error.may_have_applied(), "{error:?}");
    assert_eq!(texts(&files).await.unwrap()["apple"], "1");

    let answer = files.commit(&batch).await.unwrap();
    assert_eq!(files.commit(&batch).await.unwrap(), answer);
    writer.put(&files, "pear", "3").await.unwrap();
    drop(files);
    disk.lose(Loss::Everything);
    let files = open_on(&disk, folder.path()).await.unwrap();
    let found = texts(&files).await.unwrap();
    assert_eq!(found, pairs([("apple", "2"), ("pear", "3")]));
    assert_eq!(
        files.commit(&batch).await.unwrap_err().kind(),
        ErrorKind::Superseded
    );
}

#[tokio::test]
async fn a_batch_that_is_incomplete_in_the_file_errs_as_not_applied() {
    let folder = quick_folder();
    let disk = ShakyDisk::with(Plan::Healthy);
    let files = open_on(&disk, folder.path()).await.unwrap();
    let mut writer = Writer::new();
    writer.put(&files, "apple", "1").await.unwrap();
    let at = disk.count();
    let with = Io::StorageFull;
    disk.set(Plan::FailLate { at, with });
    let error = writer.put(&files, "apple", "2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert!(!error.may_have_applied(), "{error:?}");
}

/// A process killed between a write and its sync leaves a batch that the next process can
/// read. The load must sync it first, or a power loss could still remove it.
#[tokio::test]
async fn a_load_after_a_kill_returns_only_what_is_durable() {
    let folder = quick_folder();
    let disk = ShakyDisk::with(Plan::Healthy);
    let files = open_on(&disk, folder.path()).await.unwrap();
    let mut writer = Writer::new();
    writer.put(&files, "apple", "1").await.unwrap();
    disk.set(Plan::Fail {
        at: disk.count() + 1,
        with: Io::Other,
    });
    writer.put(&files, "apple", "2").await.unwrap_err();
    drop(files);

    let files = open_on(&disk, folder.path()).await.unwrap();
    assert_eq!(texts(&files).await.unwrap()["apple"], "2");
    drop(files);
    disk.lose(Loss::Everything);
    let files = open_on(&disk, folder.path()).await.unwrap();
    assert_eq!(texts(&files).await.unwrap()["apple"], "2");
}
