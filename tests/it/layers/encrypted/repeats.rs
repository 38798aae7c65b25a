//! Repeated batches: identical to the first attempt, although nonces are random.

use persistify::{
    Batch, MapBatch,
    testing::{Fault, Faulty},
};

use super::*;
use crate::support::{open, steady};

#[tokio::test(start_paused = true)]
async fn a_batch_of_unknown_outcome_is_repeated_byte_for_byte() {
    let below = Faulty::new(Memory::new());
    let map = open::<u32>(below.clone().layer(layer()), "map", steady).await;
    below.fail_next(2, Fault::Lost(ErrorKind::Unavailable));
    below.fail_nth(3, Fault::After(ErrorKind::Unavailable));
    map.insert_and_save("a", 1).await.unwrap();
    let sent = below.batches();
    assert_eq!(sent.len(), 4);
    assert!(sent.iter().all(|batch| *batch == sent[0]));
    map.insert_and_save("a", 1).await.unwrap();
    assert_ne!(below.batches()[4].maps, sent[0].maps);
}

fn batch_of(pen: &mut Pen, json: &str) -> Batch {
    pen.changes(&map_name(), vec![put("a", json)])
}

#[tokio::test]
async fn a_commit_that_is_dropped_is_repeated_byte_for_byte() {
    let below = Faulty::new(Memory::new());
    let above = below.clone().layer(layer());
    let batch = batch_of(&mut Pen::new(), "1");
    let hang = below.hang_next();
    let mut commit = Box::pin(above.commit(&batch));
    assert!(futures_util::poll!(&mut commit).is_pending());
    drop(commit);
    hang.release();
    above.commit(&batch).await.unwrap();
    let sent = below.batches();
    assert_eq!((sent.len(), &sent[0]), (2, &sent[1]));
}

/// The batch is encrypted on a blocking thread, and the commit is dropped while it is there.
#[tokio::test]
async fn a_commit_that_is_dropped_while_it_encrypts_writes_nothing() {
    let below = Faulty::new(Memory::new());
    let above = below.clone().layer(layer());
    let huge = format!("\"{}\"", "x".repeat(1 << 20));
    let batch = batch_of(&mut Pen::new(), &huge);
    let mut commit = Box::pin(above.commit(&batch));
    assert!(futures_util::poll!(&mut commit).is_pending());
    drop(commit);
    assert!(below.batches().is_empty());
    above.commit(&batch).await.unwrap();
    assert_eq!(value_in(&above, "a").await, Payload::json(huge));
}

/// A store may refuse a repeat, and the caller sends an empty batch as a fence, and then the
/// first batch again.
#[tokio::test]
async fn a_fence_between_two_attempts_changes_nothing() {
    let below = Faulty::new(Memory::new());
    let above = below.clone().layer(layer());
    let mut pen = Pen::new();
    let batch = batch_of(&mut pen, "1");
    below.fail_next(3, Fault::Lost(ErrorKind::Unavailable));
    above.commit(&batch).await.unwrap_err();
    let fence = pen.batch(vec![MapBatch::new(map_name(), Vec::new())]);
    above.commit(&fence).await.unwrap_err();
    above.commit(&batch).await.unwrap_err();
    let sent = below.batches();
    assert_eq!(sent[0], sent[2]);
}

#[tokio::test]
async fn another_batch_of_the_same_id_is_encrypted_itself() {
    let below = Faulty::new(Memory::new());
    let above = below.clone().layer(layer());
    below.fail_next(1, Fault::Lost(ErrorKind::Unavailable));
    let first = batch_of(&mut Pen::new(), "1");
    above.commit(&first).await.unwrap_err();
    let mut second = batch_of(&mut Pen::new(), "2");
    second.id = first.id;
    above.commit(&second).await.unwrap();
    assert_eq!(value_in(&above, "a").await, Payload::json("2"));
}

/// Writers whose batches are never acknowledged do not fill the memory; a batch that was
/// forgotten is committed all the same.
#[tokio::test]
async fn batches_of_many_writers_are_forgotten_and_can_still_be_repeated() {
    let below = Faulty::new(Memory::new());
    let above = below.clone().layer(layer());
    below.fail_next(100, Fault::After(ErrorKind::Unavailable));
    let batches: Vec<_> = (0..100)
        .map(|n| batch_of(&mut Pen::new(), &n.to_string()))
        .collect();
    for batch in &batches {
        above.commit(batch).await.unwrap_err();
    }
    let sent = below.batches();
    for (batch, first) in batches.iter().zip(&sent) {
        assert_eq!(batch.id, first.id);
        above.commit(batch).await.unwrap();
    }
    assert_eq!(value_in(&above, "a").await, Payload::json("99"));
    let again = &below.batches()[100..];
    assert_ne!(again[0], sent[0]);
    assert_eq!(again[99], sent[99]);
}
