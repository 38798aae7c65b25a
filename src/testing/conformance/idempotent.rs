//! Each batch is applied once. A repeat of the last batch gets the first answer, and an older
//! batch is refused.

use super::{
    atomic::commit_dropped,
    trial::{End, Trial},
    writer::{Writer, put},
};
use crate::{
    batch::{Batch, Change, Committed, Expect, MapBatch, Otherwise},
    error::ErrorKind,
    name::MapName,
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    repeated(trial).await;
    repeated_over_another_writer(trial).await;
    superseded(trial).await;
    independent_writers(trial).await;
    nothing_changed(trial).await;
    dropped_then_repeated(trial).await;
    skipped(trial).await;
    conditional(trial).await;
    failed(trial).await;
    several_maps(trial).await;
    across_restarts(trial).await;
}

/// A batch with a change of each kind.
fn mixed(writer: &mut Writer, map: &MapName, number: u64) -> Batch {
    let changes = vec![
        put("put", number),
        put(&format!("put {number}"), number),
        Change::touch("touched", Some(writer.at)),
        Change::delete("deleted"),
    ];
    writer.batch(map, changes)
}

async fn repeated(trial: &mut Trial<'_>) {
    trial.check("a repeat is answered as before, and changes nothing");
    let map = trial.map("repeat");
    let mut writer = Writer::new();
    for number in 0..3 {
        let batch = mixed(&mut writer, &map, number);
        let answer = trial.commit(&batch).await;
        for _ in 0..3 {
            trial.repeat(&batch, &answer).await;
        }
    }
}

async fn repeated_over_another_writer(trial: &mut Trial<'_>) {
    trial.check("a repeat does not undo what another writer did meanwhile");
    let map = trial.map("repeat, others");
    let (mut one, mut other) = (Writer::new(), Writer::new());
    for clear in [false, true] {
        trial.doing(format!("commit a batch (clear: {clear}), let another writer change the same keys, repeat the batch"));
        let part = mixed(&mut one, &map, 1).maps[0].clone().clearing(clear);
        let batch = one.batch_of(vec![part]);
        let answer = trial.commit(&batch).await;
        let theirs = vec![
            put("put", 9),
            put("deleted", 9),
            put("touched", 9),
            Change::delete("put 1"),
        ];
        trial.commit(&other.batch(&map, theirs)).await;
        trial.repeat(&batch, &answer).await;
        trial.repeat(&batch, &answer).await;
    }
}

async fn superseded(trial: &mut Trial<'_>) {
    trial.check("a batch earlier than the last one is superseded");
    let map = trial.map("superseded");
    let writer = Writer::new();
    let numbered = |sequence| {
        let part = MapBatch::new(map.clone(), vec![put("a", sequence)]);
        writer.batch_numbered(sequence, vec![part])
    };
    for sequence in [0, 5, 1_000_000_000_000] {
        trial.commit(&numbered(sequence)).await;
    }
    for sequence in [0, 4, 5, 6, 999_999_999_999] {
        trial.doing(format!("commit the sequence {sequence} after a later one"));
        trial
            .commit_fails(&numbered(sequence), ErrorKind::Superseded)
            .await;
    }
    trial.doing("commit the next sequence after superseded ones");
    trial.commit(&numbered(1_000_000_000_001)).await;
    trial.verify(&map).await;
}

async fn independent_writers(trial: &mut Trial<'_>) {
    trial.check("writers do not fence each other");
    let map = trial.map("writers");
    let mut ahead = Writer::new();
    ahead.sequence = 1_000;
    trial.commit(&mixed(&mut ahead, &map, 1)).await;
    let mut writers: Vec<_> = (0..10).map(|_| Writer::new()).collect();
    let mut last = Vec::new();
    for (writer, number) in writers.iter_mut().zip(2..) {
        let batch = mixed(writer, &map, number);
        let answer = trial.commit(&batch).await;
        last.push((batch, answer));
    }
    trial.doing("let ten writers repeat their last batch each");
    for (batch, answer) in last {
        trial.repeat(&batch, &answer).await;
    }
}

async fn nothing_changed(trial: &mut Trial<'_>) {
    trial.check("a batch that changes nothing fences earlier ones too");
    let map = trial.map("no changes");
    let mut writer = Writer::new();
    let late = mixed(&mut writer, &map, 1);
    let empty = writer.batch(&map, vec![]);
    let answer = trial.commit(&empty).await;
    trial.commit_fails(&late, ErrorKind::Superseded).await;
    trial.repeat(&empty, &answer).await;
}

async fn dropped_then_repeated(trial: &mut Trial<'_>) {
    trial.check("a commit that was dropped and comes again is applied once");
    for polls in 0..4 {
        trial.doing(format!("drop a commit after {polls} polls, repeat it, let another writer overwrite it, repeat it again"));
        let map = trial.map(&format!("dropped {polls}"));
        let (mut one, mut other) = (Writer::new(), Writer::new());
        let earlier = mixed(&mut one, &map, 1);
        let batch = mixed(&mut one, &map, 2);
        let provider = trial.provider().clone();
        commit_dropped(&*provider, &batch, polls).await;
        drop(provider);
        let answer = trial.commit(&batch).await;
        trial.verify(&map).await;
        trial.commit(&mixed(&mut other, &map, 3)).await;
        trial.repeat(&batch, &answer).await;
        trial.commit_fails(&earlier, ErrorKind::Superseded).await;
    }
}

async fn skipped(trial: &mut Trial<'_>) {
    if !trial.claims().conditions {
        return trial.leave_out("repeats with skipped changes", "conditions are not claimed");
    }
    trial.check("a repeat lists the changes that were skipped, as they were");
    let map = trial.map("skipped");
    let (mut one, mut other) = (Writer::new(), Writer::new());
    let (batch, answer) = commit_skipping(trial, &mut one, &map).await;
    trial.commit(&mixed(&mut other, &map, 3)).await;
    trial.repeat(&batch, &answer).await;
    if trial.claims().durable {
        trial.doing("commit with skipped changes, open again, repeat");
        trial.reopen(End::Dropped).await;
        trial.repeat(&batch, &answer).await;
    }
}

async fn commit_skipping(
    trial: &mut Trial<'_>,
    writer: &mut Writer,
    map: &MapName,
) -> (Batch, Committed) {
    trial.commit(&mixed(writer, map, 1)).await;
    let changes = vec![
        put("put", 2).expect(Expect::Absent, Otherwise::Skip),
        put("absent", 2).expect(Expect::Present, Otherwise::Skip),
        put("new", 2).expect(Expect::Absent, Otherwise::Skip),
    ];
    let batch = writer.batch(map, changes);
    let answer = trial.commit(&batch).await;
    trial.ensure(answer.skipped.len() == 2, "two skipped changes", &answer);
    (batch, answer)
}

async fn conditional(trial: &mut Trial<'_>) {
    if !trial.claims().conditions {
        return trial.leave_out("repeats with conditions", "conditions are not claimed");
    }
    trial.check("a repeat is answered as before, although its conditions hold no more");
    let map = trial.map("conditional");
    let (mut one, mut other) = (Writer::new(), Writer::new());
    // All on one key, which is on one store.
    let single = trial.claims().sharded;
    let put_if = |key, number, expect| put(key, number).expect(expect, Otherwise::Fail);
    let first = one.batch(&map, vec![put_if("a", 1, Expect::Absent)]);
    let answer = trial.commit(&first).await;
    trial.repeat(&first, &answer).await;
    let revision = trial.revision(&answer);
    let mut changes = vec![put_if("a", 2, Expect::At(revision))];
    if !single {
        changes.push(put_if("b", 2, Expect::Absent));
    }
    let second = one.batch(&map, changes);
    let answer = trial.commit(&second).await;
    trial.repeat(&second, &answer).await;
    trial.commit(&mixed(&mut other, &map, 3)).await;
    trial.repeat(&second, &answer).await;
    trial.commit_fails(&first, ErrorKind::Superseded).await;
}

async fn failed(trial: &mut Trial<'_>) {
    let claims = trial.claims();
    let map = trial.map("failed");
    let mut writer = Writer::new();
    trial.doing("commit a batch that fails, and another one of the same id");
    trial.commit(&writer.batch(&map, vec![put("a", 1)])).await;
    let mut bad = MapBatch::new(map.clone(), vec![put("a", 2)]);
    if claims.sharded {
        bad.changes.clear();
    }
    let kind = if claims.conditions {
        bad.changes
            .push(put("b", 2).expect(Expect::Present, Otherwise::Fail));
        ErrorKind::Conflict
    } else {
        bad.changes
            .push(put("b", 2).expect(Expect::Absent, Otherwise::Fail));
        ErrorKind::Unsupported
    };
    trial.check("nothing is remembered of a batch that failed");
    let bad = writer.batch_of(vec![bad]);
    trial.commit_fails(&bad, kind).await;
    trial.commit_fails(&bad, kind).await;
    let good = MapBatch::new(map.clone(), vec![put("a", 3)]);
    let good = writer.batch_numbered(bad.id.sequence, vec![good]);
    let answer = trial.commit(&good).await;
    trial.repeat(&good, &answer).await;
}

async fn several_maps(trial: &mut Trial<'_>) {
    if !trial.claims().several_maps {
        return trial.leave_out("batches of several maps", "not claimed");
    }
    trial.check("a batch of several maps is applied once, and fences each of them");
    let maps = ["first", "second"].map(|name| trial.map(name));
    let mut writer = Writer::new();
    let late: Vec<_> = maps.iter().map(|map| mixed(&mut writer, map, 1)).collect();
    let parts = maps
        .iter()
        .map(|map| MapBatch::new(map.clone(), vec![put("a", 2)]));
    let batch = writer.batch_of(parts.collect());
    let answer = trial.commit(&batch).await;
    trial.repeat(&batch, &answer).await;
    for late in late {
        trial.commit_fails(&late, ErrorKind::Superseded).await;
    }
}

async fn across_restarts(trial: &mut Trial<'_>) {
    if !trial.claims().durable {
        return trial.leave_out(
            "what is remembered across a restart",
            "durable is not claimed",
        );
    }
    trial.check("what is remembered of writers survives a restart");
    let map = trial.map("restart");
    let (mut one, mut other) = (Writer::new(), Writer::new());
    for end in [End::Closed, End::Dropped] {
        let late = mixed(&mut one, &map, 1);
        let batch = mixed(&mut one, &map, 2);
        let answer = trial.commit(&batch).await;
        let theirs = mixed(&mut other, &map, 3);
        let their_answer = trial.commit(&theirs).await;
        trial.doing(format!("two writers commit, the store is opened again ({end:?} before), both repeat, one is late"));
        trial.reopen(end).await;
        trial.repeat(&batch, &answer).await;
        trial.repeat(&theirs, &their_answer).await;
        trial.commit_fails(&late, ErrorKind::Superseded).await;
    }
}
