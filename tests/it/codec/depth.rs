//! Values and texts with arbitrarily deep nesting: no recursion overflows the stack.

use std::mem;

use persistify::{ErrorKind, Expect, PersistentMap, Transaction};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json, value::RawValue};

use super::refusal;
use crate::support::{builder, open, put, settle, steady, store, write_as_another};

pub(super) const DEEP: usize = 100_000;

/// A linked list.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct List {
    next: Option<Box<List>>,
}

/// A nested type without brackets in its JSON: it is always `null`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Onion(Option<Box<Onion>>);

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
enum Tree {
    #[default]
    Leaf,
    One(Box<Tree>),
    Two(u8, Box<Tree>),
    Field {
        of: Box<Tree>,
    },
    Many(Vec<Tree>),
}

// A recursive drop of such a deep value would overflow the stack, too.
impl Drop for List {
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut list) = next {
            next = list.next.take();
        }
    }
}

impl Drop for Onion {
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut onion) = next {
            next = onion.0.take();
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let mut next = self.take();
        while let Some(mut tree) = next {
            next = tree.take();
        }
    }
}

impl Tree {
    fn take(&mut self) -> Option<Self> {
        match self {
            Self::Leaf => None,
            Self::One(of) | Self::Two(_, of) | Self::Field { of } => Some(mem::take(of)),
            Self::Many(all) => all.pop(),
        }
    }

    fn of(levels: usize, wrap: fn(Self) -> Self) -> Self {
        (0..levels).fold(Self::Leaf, |tree, _| wrap(tree))
    }
}

const WRAPS: [fn(Tree) -> Tree; 4] = [
    |tree| Tree::One(Box::new(tree)),
    |tree| Tree::Two(1, Box::new(tree)),
    |tree| Tree::Field { of: Box::new(tree) },
    |tree| Tree::Many(vec![tree]),
];

fn list(levels: usize) -> List {
    let next = |list| List {
        next: Some(Box::new(list)),
    };
    (0..levels).fold(List::default(), |list, _| next(list))
}

fn onion(levels: usize) -> Onion {
    (0..levels).fold(Onion::default(), |onion, _| Onion(Some(Box::new(onion))))
}

/// A value that was 100,000 levels deep overflowed the stack of the thread that saved it, which
/// aborts the process: the depth was checked in the encoded text, but the encoding itself was
/// recursive.
#[tokio::test(start_paused = true)]
async fn a_value_as_deep_as_no_stack_is_refused_on_every_way() {
    let store = store();
    let map = open(store.clone(), "map", steady).await;
    let error = map.insert_and_save("a", list(DEEP)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let said = error.to_string();
    assert!(
        said.contains("List") && said.contains(".next.next"),
        "{said}"
    );
    assert!(said.len() < 1_000 && said.contains('…'), "{said}");
    assert!(format!("{error:?}").contains("too deeply"), "{error:?}");

    let error = map.save_if("b", list(DEEP), Expect::Absent).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Refused);
    let error = map.batch().insert("b", list(DEEP)).commit().await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Refused);
    let mut tx = Transaction::new(&store);
    tx.insert(&map, "b", list(DEEP));
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Refused);
    let error = map.export(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    map.insert("a", list(1));
    map.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_level_of_nesting_of_any_kind_is_counted() {
    for wrap in WRAPS {
        assert!(refusal(Tree::of(DEEP, wrap)).await.is_some());
    }
    assert!(refusal(onion(DEEP)).await.is_some());
    assert!(refusal(list(DEEP)).await.is_some());
    let value = (0..1_000).fold(json!(1), |value, _| json!([value]));
    assert!(refusal(value).await.is_some());
}

/// A value is accepted up to exactly the depth that the decoder can read.
#[tokio::test(start_paused = true)]
async fn as_deep_as_it_can_be_read_it_is_taken_and_no_deeper() {
    for (wrap, brackets) in WRAPS.into_iter().zip([1, 2, 2, 2]) {
        assert!(refusal(Tree::of(127 / brackets, wrap)).await.is_none());
        assert!(refusal(Tree::of(127 / brackets + 1, wrap)).await.is_some());
    }
    assert!(refusal(list(126)).await.is_none());
    assert!(refusal(list(127)).await.is_some());
    assert!(refusal(onion(255)).await.is_none());
    let value = |levels| (0..levels).fold(json!(1), |value, _| json!([value]));
    assert!(refusal(value(127)).await.is_none());
    assert!(refusal(value(128)).await.is_some());
    let with_options = |levels| (0..levels).fold(json!(1), |value, _| json!({ "a": value }));
    assert!(refusal(vec![Some(Some(with_options(126)))]).await.is_none());
    assert!(refusal(vec![Some(Some(with_options(127)))]).await.is_some());
}

pub(super) fn deep_text() -> String {
    "[".repeat(DEEP) + &"]".repeat(DEEP)
}

/// People and other programs may write texts of any depth. Such a text is loaded as one unreadable
/// record, or as raw text.
#[tokio::test(start_paused = true)]
async fn a_stored_text_of_any_depth_is_one_unreadable_record() {
    let store = store();
    write_as_another(&store, vec![put("a", &deep_text()), put("b", "[1]")]).await;
    let error = builder::<Json>(&store).open().await.unwrap_err();
    assert_eq!((error.kind(), error.keys().len()), (ErrorKind::Corrupt, 1));
    let map = open::<Json>(store.clone(), "map", |map| steady(map).allow_unreadable()).await;
    assert_eq!((map.len(), map.unreadable().len()), (1, 1));
    map.reload().await.unwrap();
    map.insert("a", json!(1));
    map.close().await.unwrap();

    write_as_another(&store, vec![put("a", &deep_text())]).await;
    let map = builder::<Json>(&store).schema(1).migrate(0, |value| value);
    let error = map.open().await.unwrap_err();
    assert_eq!((error.kind(), error.keys().len()), (ErrorKind::Corrupt, 1));
    let raw: PersistentMap<Box<RawValue>> = open(store.clone(), "map", steady).await;
    assert_eq!(raw.read("a", |text| text.get().len()), Some(2 * DEEP));
    settle().await;
    raw.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_line_of_an_import_of_any_depth_is_an_error_with_its_number() {
    let header = r#"{"format":"persistify","version":1,"map":"m","schema":0}"#;
    let text = deep_text();
    for lines in [
        format!("{header}\n{{\"key\":\"a\",\"value\":{text}}}\n"),
        format!("{header}\n{text}\n"),
        format!("{header}\n{{\"key\":\"a\",\"value\":1,\"more\":{text}\n"),
    ] {
        let map: PersistentMap<Json> = open(store(), "map", steady).await;
        let error = map.import(lines.as_bytes()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        assert!(error.to_string().contains("line 2"), "{error}");
    }
    let map: PersistentMap<Json> = open(store(), "map", steady).await;
    let error = map.import(text.as_bytes()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
}
