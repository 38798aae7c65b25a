//! Providers in configuration files.

use persistify::{ErrorKind, ProviderConfig};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    store: ProviderConfig,
}

fn toml(text: &str) -> ProviderConfig {
    toml::from_str::<Config>(text).unwrap().store
}

fn json(text: &str) -> ProviderConfig {
    serde_json::from_str::<Config>(text).unwrap().store
}

/// The same provider in four forms.
#[cfg(feature = "sqlite")]
#[test]
fn a_table_describes_the_same_provider_as_a_url() {
    let url = ProviderConfig::new(
        "sqlite:app.db?synchronous=normal&busy_timeout=10s&file_mode=640&table.acme/a=A\
         &columns.value=Value",
    );
    let alone = toml(
        r#"store = "sqlite:app.db?synchronous=normal&busy_timeout=10s&file_mode=640&table.acme/a=A&columns.value=Value""#,
    );
    assert_eq!(alone, url);
    let table = toml(
        r#"
        [store]
        url = "sqlite:app.db?synchronous=normal"
        busy_timeout = "10s"
        file_mode = 640
        columns.value = "Value"
        [store.table]
        "acme/a" = "A"
        "#,
    );
    let object = json(
        r#"{ "store": { "table": { "acme/a": "A" }, "busy_timeout": "10s", "file_mode": "640",
             "url": "sqlite:app.db", "synchronous": "normal", "columns.value": "Value" } }"#,
    );
    for config in [&alone, &table, &object] {
        config.check().unwrap();
        assert_eq!(format!("{config:?}"), format!("{url:?}"));
    }
}

#[tokio::test]
async fn a_provider_is_opened_from_toml_and_from_json() {
    for config in [
        toml("store = \"memory:\""),
        toml("[store]\nurl = \"memory:\"\nnamespace = \"acme\""),
        json(r#"{ "store": "memory:?namespace=acme" }"#),
        json(r#"{ "store": { "namespace": "acme", "url": "memory:" } }"#),
    ] {
        let store = config.connect().await.unwrap();
        assert!(store.maps().await.unwrap().is_empty());
    }
}

/// Mistakes are errors of `connect`, and not of the parser, which would quote the line.
#[tokio::test]
async fn a_mistake_in_a_file_is_explained() {
    for (text, expected) in [
        (
            "[store]\nurl = \"memory:\"\nnamespac = \"acme\"",
            "option \"namespac\" of `memory:` is not known; did you mean `namespace`? Known are ",
        ),
        (
            "[store]\nurl = \"memory:?namespace=a\"\nnamespace = \"b\"",
            "option \"namespace\" of `memory:` is given twice",
        ),
        (
            "[store]\nulr = \"memory:\"",
            "the configuration of the provider has no `url`, such as `sqlite:app.db`",
        ),
        (
            "[store]\nurl = 5",
            "the URL of the provider has no scheme; write it as ",
        ),
        (
            "[store]\nurl = \"memory:\"\nkeep_tombstones = 5",
            "option `keep_tombstones` of `memory:`: write a time with its unit",
        ),
    ] {
        let config = toml(text);
        let error = config.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(config.check().unwrap_err().to_string(), error.to_string());
    }
}

#[test]
fn a_value_of_another_type_is_an_error_of_the_parser() {
    let of = |text: &str| toml::from_str::<Config>(text).err().unwrap().to_string();
    let table = "the URL of a provider, or a table with its `url` and its options";
    assert!(of("store = 5").contains(table), "{}", of("store = 5"));
    let value = "text, an integer, `true` or `false`, or a table of them";
    let list = of("[store]\nurl = \"memory:\"\nnamespace = [\"a\"]");
    assert!(list.contains(value) && list.contains("line 3"), "{list}");
    let json = serde_json::from_str::<Config>(r#"{ "store": { "url": null } }"#);
    let json = json.err().unwrap().to_string();
    assert!(json.contains(value), "{json}");
}

/// A description is serialized as a table, with the options in the URL as keys.
#[test]
fn a_description_is_written_and_read_again() {
    let config = ProviderConfig::new("memory:?namespace=acme&keep_tombstones=1h");
    let text = toml::to_string(&config).unwrap();
    assert_eq!(
        text,
        "keep_tombstones = \"1h\"\nnamespace = \"acme\"\nurl = \"memory:\"\n"
    );
    let again: ProviderConfig = toml::from_str(&text).unwrap();
    assert_eq!(format!("{again:?}"), format!("{config:?}"));
}
