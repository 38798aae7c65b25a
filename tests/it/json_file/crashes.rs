//! A crash or a fault at every operation on the disk.

use std::{io::ErrorKind as Io, path::Path};

use persistify::{Error, ErrorKind};

use super::{
    shaky_disk::{Loss, Plan, ShakyDisk},
    *,
};

/// The entries, and what a reader that follows the map is told: its changes with
/// tombstones, and the last clear.
type State = (BTreeMap<String, Record>, Vec<Record>, Option<Revision>);

async fn load(files: &JsonFile) -> Result<State> {
    let map = stock();
    let changes = files.load(&map, Wanted::changed(Revision::ZERO)).await?;
    let cleared = changes.cleared;
    let mut changes = changes.into_records().await?;
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    Ok((super::load(files).await?, changes, cleared))
}

/// What a program does with a map in the course of this test.
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

    /// That batch, as the next one.
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

/// What is stored before each step, and after the last, if all goes well; and
/// how many operations that takes.
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
        // A second handle on a copy reads without a trace in the first.
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

/// Runs until the first error; returns how many steps went well.
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
async fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
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

/// What is found is the state after `done` steps, or after one more; the
/// identical batch brings it there, once, and the rest goes on from there.
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
    // The last state that was seen stays the one that is seen.
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

/// The first process is killed, so that what it did not sync is still to be
/// seen; the next one builds on it, and then the power goes.
#[tokio::test]
async fn a_loss_of_power_after_a_kill_loses_nothing_that_was_acknowledged() {
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
            // The first four are those of opening a folder.
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

/// Takes all steps, each until it goes well; returns how often one did not.
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

/// An error that says that nothing was applied is right, whoever opens the
/// folder then.
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
async fn while_the_disk_is_full_all_can_be_read_and_afterwards_all_can_be_written() {
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

/// After a failed sync the system may hold the bytes to be safe and be wrong:
/// a file that is written to again after that loses what was acknowledged.
#[tokio::test]
async fn a_file_is_not_written_to_again_after_a_failed_sync() {
    let folder = quick_folder();
    let disk = ShakyDisk::with(Plan::Healthy);
    let files = open_on(&disk, folder.path()).await.unwrap();
    let mut writer = Writer::new();
    writer.put(&files, "apple", "1").await.unwrap();
    let batch = writer.batch(vec![put("apple", "2")]);

    // The append, and then the sync.
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
async fn a_batch_that_is_not_whole_in_the_file_is_not_applied_and_the_error_says_so() {
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

/// A process that is killed between a write and its sync leaves a batch that
/// whoever comes next can read, and that a loss of power then takes away.
#[tokio::test]
async fn what_a_load_finds_after_a_kill_is_safe_before_it_is_told() {
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
