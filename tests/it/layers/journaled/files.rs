//! The files of journals: torn ends, damage, failing disks, modes.

use std::{fs, io::ErrorKind as Io, path::Path};

use persistify::{ErrorKind, Journaled, Provider, ProviderExt, Wanted};

use super::{Spooled, journaled, restart};
use crate::{
    json_file::shaky_disk::{Loss, Plan, ShakyDisk},
    support::{
        Pen, Store, map_name, put,
        records::{all, load, pairs},
        store,
    },
};

/// A journal with this many batches, and its bytes.
async fn written(batches: usize) -> (Store, tempfile::TempDir, Vec<u8>) {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    store.load(&map_name(), Wanted::All).await.unwrap();
    remote.down(ErrorKind::Unavailable);
    let mut pen = Pen::new();
    for n in 0..batches {
        let change = put("a", &n.to_string());
        pen.write(&store, &map_name(), vec![change]).await.unwrap();
    }
    let bytes = fs::read(folder.path().join("map.pending")).unwrap();
    drop(restart(store, || journaled(&remote, folder.path())).await);
    (remote, folder, bytes)
}

fn with_file(remote: &Store, bytes: &[u8]) -> (Spooled, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("map.pending"), bytes).unwrap();
    (journaled(remote, folder.path()), folder)
}

#[tokio::test]
async fn a_torn_end_is_left_out_and_the_journal_goes_on() {
    let (remote, _folder, bytes) = written(3).await;
    let mut last = 3;
    for end in (0..=bytes.len()).rev() {
        let (store, _folder) = with_file(&remote, &bytes[..end]);
        let lines = match store.export("map").await {
            Ok(lines) => lines.lines().count(),
            Err(error) => {
                // Shorter than the header, which is never torn.
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert_eq!(last, 0);
                continue;
            }
        };
        assert!(lines == last || lines + 1 == last, "{lines} after {last}");
        last = lines;
        let change = vec![put("b", "1")];
        // The header alone does not tell that the remote has confirmed the owner.
        if end % 40 == 0 && lines > 0 {
            Pen::new().write(&store, &map_name(), change).await.unwrap();
            assert_eq!(
                store.export("map").await.unwrap().lines().count(),
                lines + 1
            );
        }
    }
    assert_eq!(last, 0);
}

#[tokio::test]
async fn damage_before_the_end_is_an_error_and_nothing_is_changed() {
    let (remote, _folder, bytes) = written(3).await;
    let last = bytes
        .windows(5)
        .rposition(|found| found == b"PFRAM")
        .unwrap();
    for at in (0..last - 1).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        let (store, folder) = with_file(&remote, &damaged);
        let error = store.export("map").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{at}");
        assert!(error.to_string().contains("map.pending"), "{error}");
        let found = fs::read(folder.path().join("map.pending")).unwrap();
        assert_eq!(found, damaged);
    }
}

fn on(disk: &ShakyDisk, remote: &Store, folder: &Path) -> Spooled {
    let layer = Journaled::new(folder).disk(disk.shared());
    remote.clone().layer(layer)
}

/// Saves numbers until the disk fails for good; repeats each one whose outcome is unknown.
/// Returns the last acknowledged one, and the last one tried.
async fn run(store: &Spooled, remote: &Store) -> (u32, u32) {
    let (mut pen, mut acknowledged) = (Pen::new(), 0);
    for n in 1..=6 {
        if n == 2 {
            remote.down(ErrorKind::Unavailable);
        }
        let batch = pen
            .changes(&map_name(), vec![put("a", &n.to_string())])
            .divisible(true);
        let mut saved = store.commit(&batch).await;
        for _ in 0..2 {
            if saved.as_ref().is_err_and(|error| error.may_have_applied()) {
                saved = store.commit(&batch).await;
            }
        }
        match saved {
            Ok(_) => acknowledged = n,
            Err(_) => return (acknowledged, n),
        }
    }
    (acknowledged, acknowledged)
}

/// Every operation on the disk fails once, before or after its effect, or is the last before a
/// power loss. What was acknowledged arrives.
#[tokio::test]
async fn nothing_acknowledged_is_lost_whatever_the_disk_does() {
    let losses = [Loss::Nothing, Loss::First, Loss::Last, Loss::Everything];
    let plans: [fn(usize) -> Plan; 3] = [
        |at| Plan::Stop { at },
        |at| Plan::Fail {
            at,
            with: Io::TimedOut,
        },
        |at| Plan::FailLate {
            at,
            with: Io::StorageFull,
        },
    ];
    let (mut failed, mut unharmed) = (0, 0);
    for plan in plans {
        for loss in losses {
            for at in 0..40 {
                let (remote, folder) = (store(), tempfile::tempdir().unwrap());
                let disk = ShakyDisk::with(plan(at));
                let shaky = on(&disk, &remote, folder.path());
                let (acknowledged, tried) = run(&shaky, &remote).await;
                if acknowledged < 6 {
                    failed += 1;
                } else {
                    unharmed += 1;
                }
                // The power is lost, or the program ends.
                drop(shaky);
                settled(folder.path()).await;
                disk.lose(loss);
                disk.set(Plan::Healthy);
                remote.up();
                let store = journaled(&remote, folder.path());
                store.drain().await.unwrap();
                let found = all(remote.inner(), &map_name()).await;
                let found = pairs(&found).pop().map_or(0, |(_, n)| n.parse().unwrap());
                assert!(
                    (acknowledged..=tried).contains(&found),
                    "{:?}, {loss:?}: {found} arrived, {acknowledged} of {tried} acknowledged",
                    plan(at)
                );
            }
        }
    }
    assert!(failed > 20 && unharmed > 20, "{failed} {unharmed}");
}

/// Waits until the folder of a handle that is gone is unlocked.
async fn settled(folder: &Path) {
    let disk = persistify::RealDisk::new();
    let lock = folder.join(".persistify.lock");
    while lock.exists() && persistify::Disk::lock(&disk, &lock).is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn after_a_failed_sync_the_file_is_replaced() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let disk = ShakyDisk::with(Plan::Healthy);
    let store = on(&disk, &remote, folder.path());
    store.load(&map_name(), Wanted::All).await.unwrap();
    remote.down(ErrorKind::Unavailable);
    let mut pen = Pen::new();
    disk.set(Plan::FailAt {
        what: "sync map.pending",
        with: Io::StorageFull,
    });
    let batch = pen
        .changes(&map_name(), vec![put("a", "1")])
        .divisible(true);
    let error = store.commit(&batch).await.unwrap_err();
    assert!(error.may_have_applied(), "{error}");
    disk.take_log();
    store.commit(&batch).await.unwrap();
    let log = disk.take_log();
    let replaced = log
        .iter()
        .position(|done| done == "replace map.pending")
        .unwrap();
    let synced = log
        .iter()
        .position(|done| done == "sync map.pending")
        .unwrap();
    assert!(replaced < synced, "{log:?}");
    assert_eq!(store.export("map").await.unwrap().lines().count(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn only_this_user_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let (remote, base) = (store(), tempfile::tempdir().unwrap());
    let folder = base.path().join("spool");
    let store = journaled(&remote, &folder);
    remote.refuse(["a"]);
    Pen::new()
        .write(&store, &map_name(), vec![put("a", "1")])
        .await
        .unwrap();
    store.drain().await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for file in ["map.pending", "map.refused.jsonl"] {
        assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_long_journal_is_rewritten_without_what_was_drained() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    let big = format!("{:?}", "x".repeat(100_000));
    let mut pen = Pen::new();
    let size = || {
        fs::metadata(folder.path().join("map.pending"))
            .unwrap()
            .len()
    };
    let mut longest = 0;
    for _ in 0..40 {
        pen.write(&store, &map_name(), vec![put("a", &big)])
            .await
            .unwrap();
        store.drain().await.unwrap();
        longest = longest.max(size());
    }
    assert!((500_000..2 << 20).contains(&longest), "{longest}");
    store.release(&map_name()).await.unwrap();
    assert!(size() < 200);
    assert_eq!(
        load(&store, &map_name(), Wanted::All).await.unwrap().len(),
        1
    );
}
