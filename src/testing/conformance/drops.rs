//! A dropped map is gone, and nothing from before the drop comes back.

use super::{
    trial::{End, Trial},
    writer::{Writer, put},
};
use crate::{
    batch::{Batch, Change, MapBatch},
    error::ErrorKind,
    load::Wanted,
    name::MapName,
    record::Revision,
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    let map = trial.map("dropped, never written to");
    match trial.provider().drop_map(&map).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            return trial.leave_out("dropping a map", "not supported");
        }
        dropped => trial.expect_ok(dropped),
    }
    gone(trial).await;
    late(trial).await;
    first_commit_is_late(trial).await;
    begun_anew(trial).await;
    one_of_several(trial).await;
    across_restarts(trial).await;
}

async fn drop_map(trial: &mut Trial<'_>, map: &MapName) {
    trial.expect_ok(trial.provider().drop_map(map).await);
    trial.forget(map);
}

/// The next batch of a writer that has seen the map up to this revision.
fn seen(writer: &mut Writer, map: &MapName, seen: Revision, changes: Vec<Change>) -> Batch {
    let part = MapBatch::new(map.clone(), changes).having_seen(Some(seen));
    writer.batch_of(vec![part])
}

async fn horizon(trial: &Trial<'_>, map: &MapName) -> Revision {
    trial.load(map, Wanted::All).await.horizon
}

async fn is_gone(trial: &Trial<'_>, map: &MapName) {
    trial.verify(map).await;
    if let Ok(listed) = trial.provider().maps().await {
        let is_listed = listed.contains(map);
        trial.ensure(!is_listed, "the dropped map not to be listed", map);
    }
}

async fn gone(trial: &mut Trial<'_>) {
    trial.check("a map that is dropped is empty, and others are as they were");
    let [map, other] = ["dropped", "dropped, its neighbour"].map(|name| trial.map(name));
    let mut writer = Writer::new();
    for map in [&map, &other] {
        let batch = writer.batch(map, vec![put("a", 1), put("b", 1)]);
        trial.commit(&batch).await;
    }
    let known = horizon(trial, &map).await;
    for _ in 0..2 {
        drop_map(trial, &map).await;
        if trial.claims().deletions {
            let changed = trial.load(&map, Wanted::changed(known)).await;
            trial.ensure(
                changed.cleared > Some(known),
                "to be told of a clear",
                &changed,
            );
        }
        is_gone(trial, &map).await;
        trial.verify(&other).await;
    }
}

async fn late(trial: &mut Trial<'_>) {
    trial.check("a commit from before a drop is refused, or answered as before");
    let map = trial.map("dropped, late");
    let mut writer = Writer::new();
    let first = seen(&mut writer, &map, Revision::ZERO, vec![put("a", 1)]);
    let answer = trial.commit(&first).await;
    let known = answer.revision.unwrap_or_default();
    drop_map(trial, &map).await;
    trial.doing("commit what was applied before the drop once more");
    match trial.provider().commit(&first).await {
        Err(error) if error.kind() == ErrorKind::Rewound => {}
        repeated => _ = trial.expect_ok(repeated),
    }
    is_gone(trial, &map).await;
    trial.doing("commit what was made before the drop");
    let put = seen(&mut writer, &map, known, vec![put("b", 2)]);
    let empty = seen(&mut writer, &map, known, vec![]);
    for late in [put, empty] {
        trial.commit_fails(&late, ErrorKind::Rewound).await;
        is_gone(trial, &map).await;
    }
}

async fn first_commit_is_late(trial: &mut Trial<'_>) {
    trial.check("the first commit of a map, from before its drop, does not make it");
    let map = trial.map("dropped, first");
    let known = horizon(trial, &map).await;
    let late = seen(&mut Writer::new(), &map, known, vec![put("a", 1)]);
    drop_map(trial, &map).await;
    trial.commit_fails(&late, ErrorKind::Rewound).await;
    is_gone(trial, &map).await;
}

async fn begun_anew(trial: &mut Trial<'_>) {
    trial.check("a map that was dropped begins anew for a writer that has loaded it since");
    let map = trial.map("dropped, anew");
    let mut writer = Writer::new();
    let first = trial.commit(&writer.batch(&map, vec![put("a", 1)])).await;
    let before = first.revision.unwrap_or_default();
    drop_map(trial, &map).await;
    let known = horizon(trial, &map).await;
    let now = seen(&mut Writer::new(), &map, known, vec![put("b", 2)]);
    let answer = trial.commit(&now).await;
    let grown = answer.revision > Some(before);
    trial.ensure(grown, &format!("a revision above {before}"), &answer);
    trial.verify(&map).await;
    let late = seen(&mut writer, &map, before, vec![put("a", 3)]);
    trial.commit_fails(&late, ErrorKind::Rewound).await;
    drop_map(trial, &map).await;
}

async fn one_of_several(trial: &mut Trial<'_>) {
    if !trial.claims().several_maps {
        return trial.leave_out("a drop of one of several maps", "several maps not claimed");
    }
    trial.check("a batch is refused if one of its maps was dropped, whatever the others know");
    let [map, other] = ["dropped, of two", "kept, of two"].map(|name| trial.map(name));
    let mut writer = Writer::new();
    let parts = [&map, &other].map(|map| MapBatch::new(map.clone(), vec![put("a", 1)]));
    let both = trial.commit(&writer.batch_of(parts.into())).await;
    drop_map(trial, &map).await;
    trial.commit(&writer.batch(&other, vec![put("a", 2)])).await;
    let of_map = MapBatch::new(map.clone(), vec![put("a", 3)]).having_seen(both.revision);
    let known = horizon(trial, &other).await;
    let of_other = MapBatch::new(other, vec![put("a", 3)]).having_seen(Some(known));
    writer.after = known;
    let late = writer.batch_of(vec![of_other, of_map]);
    trial.commit_fails(&late, ErrorKind::Rewound).await;
    is_gone(trial, &map).await;
}

async fn across_restarts(trial: &mut Trial<'_>) {
    if !trial.claims().durable {
        return trial.leave_out("a drop survives a restart", "durability is not claimed");
    }
    trial.check("a drop survives a restart");
    for (end, name) in [(End::Closed, "closed"), (End::Dropped, "killed")] {
        let map = trial.map(&format!("dropped, {name}"));
        let batch = Writer::new().batch(&map, vec![put("a", 1)]);
        trial.commit(&batch).await;
        drop_map(trial, &map).await;
        trial.reopen(end).await;
        is_gone(trial, &map).await;
        let known = horizon(trial, &map).await;
        let anew = seen(&mut Writer::new(), &map, known, vec![put("b", 1)]);
        trial.commit(&anew).await;
        trial.verify(&map).await;
        drop_map(trial, &map).await;
    }
}
