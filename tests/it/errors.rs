//! The messages of errors: complete, and without repetitions.

use std::{error::Error as _, io, sync::Arc};

use persistify::{Error, ErrorKind, Payload, Record, Revision};

const KINDS: [ErrorKind; 9] = [
    ErrorKind::Unavailable,
    ErrorKind::Unusable,
    ErrorKind::Refused,
    ErrorKind::Conflict,
    ErrorKind::Superseded,
    ErrorKind::Corrupt,
    ErrorKind::Invalid,
    ErrorKind::Unsupported,
    ErrorKind::Closed,
];

fn keys(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

#[test]
fn the_message_says_what_map_and_keys() {
    let error = Error::new(ErrorKind::Refused, "the value is too big");
    assert_eq!(error.to_string(), "the value is too big");
    let error = error.on_map("stock");
    assert_eq!(error.to_string(), "the value is too big (map \"stock\")");
    let one = error.clone().on_keys(keys(&["a\n"]));
    assert_eq!(
        one.to_string(),
        "the value is too big (map \"stock\") (key \"a\\n\")"
    );
    assert_eq!(one.map(), Some("stock"));
    assert_eq!(one.keys(), keys(&["a\n"]));
}

#[test]
fn an_error_of_many_keys_counts_them_and_names_the_first() {
    let five = ["a", "b", "c", "d", "e"];
    let error = Error::new(ErrorKind::Refused, "no").on_keys(keys(&five));
    let text = error.to_string();
    assert_eq!(text, r#"no (5 keys: "a", "b", "c", "d", "e")"#);
    let many: Vec<Arc<str>> = (0..10_000).map(|n| n.to_string().into()).collect();
    let error = error.on_keys(many);
    let text = error.to_string();
    assert_eq!(text, r#"no (10000 keys: "0", "1", "2", "3", "4", …)"#);
    assert_eq!(error.keys().len(), 10_000);
}

/// `{}` omitted the causes, and many programs print nothing else. They printed "cannot be reached"
/// without "connection refused".
#[test]
fn the_cause_is_the_source_and_printed_after_the_message() {
    let cause = io::Error::new(io::ErrorKind::PermissionDenied, "EACCES on the folder");
    let error = Error::new(ErrorKind::Unusable, "cannot write the journal").with_source(cause);
    assert_eq!(
        error.clone().on_map("m").to_string(),
        "cannot write the journal (map \"m\"); caused by: EACCES on the folder"
    );
    let source = error.source().unwrap();
    assert_eq!(source.to_string(), "EACCES on the folder");
    assert!(source.downcast_ref::<io::Error>().is_some());
    assert!(Error::new(ErrorKind::Closed, "closed").source().is_none());
}

#[test]
fn display_says_every_cause_once_and_debug_the_kind_too() {
    let root = io::Error::other("the disk is on fire");
    let middle = Error::new(ErrorKind::Corrupt, "cannot read").with_source(root);
    let error = Error::new(ErrorKind::Unusable, "cannot open").with_source(middle);
    let expected = "cannot open; caused by: cannot read; caused by: the disk is on fire";
    assert_eq!(error.to_string(), expected);
    assert_eq!(format!("{error:?}"), format!("Unusable: {expected}"));
}

#[test]
fn only_unavailable_leaves_it_open_whether_the_batch_was_applied() {
    for kind in KINDS {
        let error = Error::new(kind, "x");
        assert_eq!(error.kind(), kind);
        let open = kind == ErrorKind::Unavailable;
        assert_eq!(error.may_have_applied(), open, "{kind:?}");
        assert!(error.clone().outcome_unknown().may_have_applied());
        assert!(!error.nothing_applied().may_have_applied());
    }
}

#[test]
fn a_conflict_carries_what_was_found() {
    let found = Record::new("a", Some(Payload::json("1")), Revision::new(7));
    let error = Error::new(ErrorKind::Conflict, "x").with_found(Some(found.clone()));
    assert_eq!(error.found(), Some(&found));
    // The texts omit the stored value, which may be secret or large.
    assert_eq!(error.to_string(), "x");
    assert_eq!(format!("{error:?}"), "Conflict: x");
    assert_eq!(error.with_found(None).found(), None);
}

#[test]
fn clones_share_and_changing_one_leaves_the_other() {
    let cause = io::Error::other("cause");
    let error = Error::new(ErrorKind::Refused, "x")
        .on_keys(keys(&["a"]))
        .with_source(cause);
    let clone = error.clone();
    assert!(std::ptr::eq(error.keys(), clone.keys()));
    let changed = clone.on_map("m").on_keys(keys(&["b", "c"]));
    assert_eq!((error.map(), error.keys().len()), (None, 1));
    assert_eq!((changed.map(), changed.keys().len()), (Some("m"), 2));
    assert_eq!(changed.source().unwrap().to_string(), "cause");
}

#[test]
fn an_error_is_small_and_can_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<Error>();
    assert_eq!(size_of::<Error>(), size_of::<usize>());
}
