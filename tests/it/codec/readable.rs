//! Values that could not be decoded again are refused when they are saved.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    num::NonZeroU8,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::refusal;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "type")]
enum Event {
    Score { by_player: BTreeMap<u32, u32> },
    Amount { cents: u128 },
    Debt { cents: i128 },
    Flags { set: BTreeMap<bool, u8> },
    Raw { text: Box<RawText> },
    Name { name: Option<String> },
    Bytes { bytes: Bytes },
}

/// Raw JSON text.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct RawText(Box<RawValue>);

impl PartialEq for RawText {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
enum Either {
    Wide(u128),
    Numbered { entries: HashMap<u16, u8> },
    Text(String),
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Flat {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<u32, u8>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct FlatTexts {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Skipping {
    name: String,
    #[serde(skip_serializing)]
    secret: String,
}

/// Encoded and decoded as bytes. JSON represents them as an array of numbers.
#[derive(Clone, Debug, PartialEq)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OnlyBytes;
        impl serde::de::Visitor<'_> for OnlyBytes {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        from.deserialize_bytes(OnlyBytes)
    }
}

/// A type whose `Deserialize` borrows, which only works for text without escapes.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Borrowing(String);

impl<'de> Deserialize<'de> for Borrowing {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        <&str>::deserialize(from).map(|text| Self(text.to_owned()))
    }
}

/// A number that does not decode above 100, and panics at 666.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "u32")]
struct Percent(u32);

impl TryFrom<u32> for Percent {
    type Error = String;

    fn try_from(percent: u32) -> Result<Self, String> {
        assert!(percent != 666, "what a number");
        if percent > 100 {
            return Err(format!("{percent} is more than a hundred"));
        }
        Ok(Self(percent))
    }
}

async fn place<V>(value: V) -> String
where
    V: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let error = refusal(value).await.expect("a refusal");
    let said = error.to_string();
    let at = said.split("(at `").nth(1);
    at.map_or(String::new(), |at| {
        at.split("`)").next().unwrap().to_owned()
    })
}

/// `Score { by_player: HashMap<u32, u32> }` in a tagged enum was saved with `Ok`, and the next
/// `open` of the whole map failed as `Corrupt`: serde buffers such an enum before it knows the
/// types, and by then the keys are strings. The refusal names the type and the place, although
/// serde does not report the place.
#[tokio::test(start_paused = true)]
async fn keys_that_are_no_strings_in_a_tagged_enum_are_refused_and_named() {
    let by_player = BTreeMap::from([(7, 1)]);
    let error = refusal(Event::Score { by_player }).await.unwrap();
    let said = error.to_string();
    assert!(
        said.contains("Event") && said.contains(r#"(at `.by_player["7"]`)"#),
        "{said}"
    );
    let debug = format!("{error:?}");
    assert!(debug.contains("string \"7\", expected u32"), "{debug}");
    let set = BTreeMap::from([(true, 1)]);
    assert_eq!(place(Event::Flags { set }).await, ".set.true");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_serde_writes_and_does_not_read_is_refused_and_named() {
    assert_eq!(place(Event::Amount { cents: 7 }).await, ".cents");
    assert_eq!(place(Event::Debt { cents: i128::MIN }).await, ".cents");
    let events = vec![Event::Name { name: None }, Event::Amount { cents: 1 }];
    let deep = BTreeMap::from([("a b".to_owned(), (1, events))]);
    assert_eq!(place(deep).await, r#"["a b"][1][1].cents"#);
    assert_eq!(place(Some(Either::Wide(u128::MAX))).await, "");
    let entries = HashMap::from([(7, 1)]);
    assert_eq!(
        place(Either::Numbered { entries }).await,
        r#".entries["7"]"#
    );
    let (name, rest) = ("flat".to_owned(), BTreeMap::from([(1, 1), (2, 2)]));
    assert_eq!(place(vec![Flat { name, rest }]).await, r#"[0]["1"]"#);
    let rest = BTreeMap::from([("name".to_owned(), 1)]);
    let name = "twice".to_owned();
    place(FlatTexts { name, rest }).await;
    let (name, secret) = ("a".to_owned(), "b".to_owned());
    assert_eq!(place(vec![Skipping { name, secret }]).await, "[0]");
    assert_eq!(place((1, Bytes(vec![1]))).await, "[1]");
    assert_eq!(
        place((Borrowing("a".into()), Borrowing("\n".into()))).await,
        "[1]"
    );
    assert_eq!(
        place(BTreeMap::from(
            [("a", Percent(101))].map(|(k, p)| (k.to_owned(), p))
        ))
        .await,
        ".a"
    );
    let panicked = refusal(Percent(666)).await.unwrap();
    assert!(
        format!("{panicked:?}").contains("what a number"),
        "{panicked:?}"
    );
    let text = RawValue::from_string("[1]".to_owned()).unwrap();
    place(Event::Raw {
        text: Box::new(RawText(text)),
    })
    .await;
    place(Event::Bytes {
        bytes: Bytes(vec![1]),
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_number_that_json_has_no_form_for_is_named() {
    let points = BTreeMap::from([("a".to_owned(), vec![(1.0, 2.0), (f64::NAN, 1.0)])]);
    assert_eq!(place(points).await, ".a[1][0]");
    assert_eq!(place(f32::NEG_INFINITY).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_reads_back_as_another_is_accepted() {
    assert!(refusal(Some(Some(1_u8))).await.is_none());
    assert!(
        refusal(Some(None::<u8>)).await.is_none(),
        "comes back as None"
    );
    assert!(refusal(u128::MAX).await.is_none());
    assert!(
        refusal(BTreeMap::from([(7_u32, i128::MIN)]))
            .await
            .is_none()
    );
    assert!(refusal(BTreeMap::from([(true, 'x')])).await.is_none());
    assert!(refusal(Either::Text("7".into())).await.is_none());
    assert!(
        refusal(Event::Name {
            name: Some("\n".into())
        })
        .await
        .is_none()
    );
    assert!(refusal(Borrowing("a".into())).await.is_none());
    assert!(refusal(Percent(100)).await.is_none());
    assert!(refusal(NonZeroU8::MIN).await.is_none());
    assert!(
        refusal(Cow::<'static, str>::Borrowed("\u{0}"))
            .await
            .is_none()
    );
    assert!(
        refusal((f64::MIN_POSITIVE, -0.0_f32, f64::MAX))
            .await
            .is_none()
    );
}
