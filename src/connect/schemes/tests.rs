//! Every option reaches its builder: the builder of a URL is like one that is made by hand.

use std::{collections::BTreeMap, time::Duration};

use super::{Options, Url, files, postgres};
use crate::provider::{
    json_file::JsonFile,
    postgres::{Postgres, tls::Tls, values::ValueType},
    sqlite::{Sqlite, builder::Synchronous},
};

const SECOND: Duration = Duration::from_secs(1);

/// Reads a URL that has no other options than those of the builder.
fn built<B: std::fmt::Debug>(
    url: &str,
    read: impl FnOnce(&Url<'_>, &mut Options) -> crate::error::Result<B>,
) -> String {
    let url = Url::split(url).unwrap();
    let mut options = Options::collect("test", url.pairs().collect(), BTreeMap::new()).unwrap();
    let builder = read(&url, &mut options).unwrap();
    options.finish().unwrap();
    format!("{builder:?}")
}

#[test]
fn memory() {
    let built = built("memory:?keep_tombstones=5m", super::memory);
    assert!(built.contains("retention: 300s"), "{built}");
}

#[test]
fn json_files() {
    let url = "json:./my%20data?max_journal=2KiB&keep_tombstones=3h&file_mode=0640\
               &file.Config=Config.json&file.acme/users=users.json";
    let by_hand = JsonFile::builder("./my data")
        .max_journal(2048)
        .keep_tombstones(3 * 3600 * SECOND)
        .file_mode(0o640)
        .file("Config", "Config.json")
        .file("acme/users", "users.json");
    assert_eq!(built(url, files::json), format!("{by_hand:?}"));
}

#[test]
fn sqlite() {
    let url = "sqlite:/var/a+b.db?busy_timeout=250ms&synchronous=normal&keep_tombstones=2d\
               &file_mode=640&table.limits=Li%26mits&columns.value=Value";
    let by_hand = Sqlite::builder("/var/a+b.db")
        .busy_timeout(SECOND / 4)
        .synchronous(Synchronous::Normal)
        .keep_tombstones(48 * 3600 * SECOND)
        .file_mode(0o640)
        .columns("key", "Value", "updated_at")
        .table("limits", "Li&mits");
    assert_eq!(built(url, files::sqlite), format!("{by_hand:?}"));
    let full = "sqlite:app.db?synchronous=full";
    let by_hand = Sqlite::builder("app.db");
    assert_eq!(built(full, files::sqlite), format!("{by_hand:?}"));
}

#[test]
fn postgres_has_its_options() {
    let url = "postgres:?schema=shop&max_connections=3&connect_timeout=1s&wait_timeout=2s\
               &statement_timeout=3s&lock_timeout=4s&tls=require&root_certificate=/etc/ca%20.pem\
               &value_type=text&keep_tombstones=5m&columns.key=k&columns.value=v&columns.updated_at=t\
               &table.limits=sales.limits";
    let read = |_: &Url<'_>, options: &mut Options| postgres::builder("", options);
    let by_hand = Postgres::builder("")
        .schema("shop")
        .max_connections(3)
        .connect_timeout(SECOND)
        .wait_timeout(2 * SECOND)
        .statement_timeout(3 * SECOND)
        .lock_timeout(4 * SECOND)
        .tls(Tls::Require)
        .root_certificate("/etc/ca .pem")
        .value_type(ValueType::Text)
        .keep_tombstones(300 * SECOND)
        .columns("k", "v", "t")
        .table("limits", "sales.limits");
    assert_eq!(built(url, read), format!("{by_hand:?}"));
}

#[test]
fn every_word_of_postgres_has_its_meaning() {
    let read = |_: &Url<'_>, options: &mut Options| postgres::builder("", options);
    let new = || Postgres::builder("");
    for (url, by_hand) in [
        ("postgres:?tls=off", new().tls(Tls::Off)),
        ("postgres:?tls=prefer", new().tls(Tls::Prefer)),
        (
            "postgres:?value_type=jsonb",
            new().value_type(ValueType::Jsonb),
        ),
        (
            "postgres:?value_type=json",
            new().value_type(ValueType::Json),
        ),
        (
            "postgres:?value_type=bytea",
            new().value_type(ValueType::Bytea),
        ),
    ] {
        assert_eq!(built(url, read), format!("{by_hand:?}"), "{url}");
    }
}

fn driven(url: &str, beside: &[(&str, &str)]) -> String {
    let beside = beside
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
    let beside: BTreeMap<_, _> = beside.collect();
    let (address, mut options) = postgres::split(&Url::split(url).unwrap(), &beside).unwrap();
    let _ = postgres::builder(&address, &mut options).unwrap();
    options.finish().unwrap();
    address
}

#[test]
fn the_driver_gets_its_options_untouched_and_no_others() {
    for (url, address) in [
        ("postgres://h/d", "postgres://h/d"),
        ("postgres://u:a%3Fb@h/d?schema=s", "postgres://u:a%3Fb@h/d"),
        // A password that the driver accepts although its `?` is not encoded.
        ("postgres://u:a?b@h/d?schema=s", "postgres://u:a?b@h/d"),
        (
            "postgresql://h/d?sslmode=require&schema=s&options=-c%20a%3D1+2&&host=a&host=b",
            "postgresql://h/d?sslmode=require&options=-c%20a%3D1+2&host=a&host=b",
        ),
        (
            "postgres://h/d?connect_timeout=5&application_name=%41",
            "postgres://h/d?connect_timeout=5&application_name=%41",
        ),
        ("postgres://h/d?connect_timeout=5s", "postgres://h/d"),
    ] {
        assert_eq!(driven(url, &[]), address);
    }
}

#[test]
fn options_of_the_driver_beside_the_url_are_encoded() {
    let beside = [("password", "p@ s&?+%"), ("schema", "shop")];
    assert_eq!(
        driven("postgres://u@h/d?sslmode=disable", &beside),
        "postgres://u@h/d?sslmode=disable&password=p%40%20s%26%3F%2B%25"
    );
}
