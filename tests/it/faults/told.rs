//! The messages of the log, and of a close with refused changes.

use persistify::ErrorKind;
use serde::{Deserialize, Serialize, Serializer};

use crate::support::{as_it_is, open, open_numbers, store, warnings_of};

#[derive(Clone, Debug, Deserialize)]
struct Moody;

impl Serialize for Moody {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not in the mood"))
    }
}

/// A warning of a failed save omitted its cause. It contains the cause now, except for errors
/// about entries: their cause may quote values, and no value belongs in a log.
#[tokio::test(start_paused = true)]
async fn a_warning_of_a_refused_value_does_not_quote_it() {
    assert!(warnings_of("told").is_empty());
    let map = open::<Moody>(store(), "told", as_it_is).await;
    map.insert_and_save("a", Moody).await.unwrap_err();
    let said = warnings_of("told").join("\n");
    assert!(
        said.contains("Refused") && !said.contains("not in the mood"),
        "{said}"
    );
}

/// The error of such a close said that the changes stay pending, as if they would be saved later.
/// The store will never accept them.
#[tokio::test(start_paused = true)]
async fn a_close_that_is_refused_says_what_becomes_of_the_changes() {
    let store = store();
    let map = open_numbers(&store).await;
    store.refuse(["bad"]);
    map.insert_and_save("bad", 1).await.unwrap_err();
    let error = map.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let said = error.to_string();
    assert!(
        said.contains("retry_refused") && !said.contains("pending"),
        "{said}"
    );

    store.behave();
    store.down(ErrorKind::Unusable);
    map.insert("good", 2);
    let error = map.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert!(error.to_string().contains("pending"), "{error}");
}
