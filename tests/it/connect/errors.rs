//! The messages of configurations that are not valid.

use persistify::{ErrorKind, ProviderConfig};

/// The message of the error of a URL that is not valid.
pub(super) fn message(url: &str) -> String {
    let error = ProviderConfig::new(url).check().unwrap_err();
    let kind = error.kind();
    assert_eq!(kind, ErrorKind::Invalid, "{url}: {error}");
    error.to_string()
}

/// The options of layers.
const LAYERS: &str = "breaker, breaker.cool_down, breaker.failures, breaker.name, breaker.window, \
    compress, compress.algorithm, compress.level, compress.min_size, journal, \
    journal.acknowledge, journal.folder, journal.max_bytes, metrics, metrics.name, \
    metrics.slow, namespace";

/// The end of a message with these options of the provider, and those of layers.
pub(super) fn known(own: &str) -> String {
    let mut names: Vec<_> = own.split(", ").chain(LAYERS.split(", ")).collect();
    names.sort_unstable();
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("nown are {}", names.join(", "))
}

#[test]
fn a_url_without_a_scheme() {
    let expected = "the URL of the provider has no scheme; write it as `sqlite:app.db`, \
                    `json:./data` or `postgres://user:password@host/database`";
    for url in [
        "app.db",
        ":",
        ":app.db",
        "./a:b",
        "my file:x",
        "//u:secret@h",
    ] {
        assert_eq!(message(url), expected, "{url}");
    }
    let expected = "the configuration of the provider has no `url`, such as `sqlite:app.db`";
    assert_eq!(message(""), expected);
}

#[test]
fn a_scheme_that_is_not_known() {
    let known = "nown are `json:`, `memory:`, `postgres:`, `postgresql:`, `sqlite:`";
    for (url, suggestion) in [
        ("sqlit:app.db", "; did you mean `sqlite:`? K"),
        ("SQLite:app.db", "; did you mean `sqlite:`? K"),
        ("sqlite3:app.db", "; did you mean `sqlite:`? K"),
        ("postgress://u:secret@h/d", "; did you mean `postgres:`? K"),
        ("mem:", "; did you mean `memory:`? K"),
        ("mysql://u:secret@h/d", "; k"),
        ("redis://h", "; k"),
    ] {
        let scheme = url.split(':').next().unwrap();
        let expected = format!("`{scheme}:` is no scheme of a provider{suggestion}{known}");
        assert_eq!(message(url), expected);
    }
}

#[test]
fn an_option_of_memory() {
    let known = known("keep_tombstones");
    for (url, expected) in [
        (
            "memory:x",
            "`memory:` is followed by nothing but options".to_owned(),
        ),
        (
            "memory:?keep_tombstone=1h",
            format!(
                "option \"keep_tombstone\" of `memory:` is not known; did you mean `keep_tombstones`? K{known}"
            ),
        ),
        (
            "memory:?x=secret",
            format!("option \"x\" of `memory:` is not known; k{known}"),
        ),
        (
            "memory:?namespace=a&namespace=b",
            "option \"namespace\" of `memory:` is given twice".to_owned(),
        ),
        (
            "memory:?namespace=%ff",
            "an option of `memory:` is not UTF-8 once it is percent-decoded".to_owned(),
        ),
        (
            "memory:?namespace=",
            "\"\" cannot name a map: it is empty; use 1 to 255 bytes of UTF-8 without control \
             characters or `/`"
                .to_owned(),
        ),
    ] {
        assert_eq!(message(url), expected, "{url}");
    }
}

#[test]
fn a_value_of_the_wrong_form() {
    let time = "write a time with its unit, such as `5s`; the units are ms, s, m, h and d";
    for value in [
        "",
        "5",
        "s",
        "5 s",
        "-5s",
        "1.5s",
        "5sec",
        "99999999999999999999s",
        "9999999999999999d",
    ] {
        let url = format!("memory:?keep_tombstones={value}");
        let expected = format!("option `keep_tombstones` of `memory:`: {time}");
        assert_eq!(message(&url), expected, "{url}");
    }
}

/// The keys of the layer are never a part of a configuration.
#[test]
fn encryption() {
    for name in [
        "encrypt",
        "encrypted",
        "encryption",
        "encryption_key",
        "encrypt.key",
    ] {
        let expected = format!(
            "option `{}` of `memory:`: keys belong neither in a URL nor in a configuration file; \
             open the store without it, and wrap it in code: `store.layer(Encrypted::new(keys))`",
            name.split('.').next().unwrap()
        );
        assert_eq!(message(&format!("memory:?{name}=secret")), expected);
    }
}

#[cfg(feature = "json")]
#[test]
fn an_option_of_json_files() {
    let size = "write a number of bytes, or one with a unit, such as `64MiB`; the units are KiB, \
                MiB and GiB";
    let path = "`json:` is followed by a path";
    for (url, expected) in [
        ("json:", format!("{path}; this one is empty")),
        (
            "json://data",
            format!(
                "{path} and not by `//`; write `json:data/file` for a path in the current folder, \
                 or `json:/var/lib/file`"
            ),
        ),
        (
            "json:%ff",
            "the path after `json:` is not UTF-8 once it is percent-decoded".to_owned(),
        ),
        (
            "json:d?max_journal=1MB",
            format!("option `max_journal` of `json:`: {size}"),
        ),
        (
            "json:d?file_mode=rw",
            "option `file_mode` of `json:`: write it in octal, such as `0640`".to_owned(),
        ),
        (
            "json:d?table.a=b",
            format!(
                "option \"table.a\" of `json:` is not known; k{}",
                known("file.<map>, file_mode, keep_tombstones, max_journal")
            ),
        ),
    ] {
        assert_eq!(message(url), expected, "{url}");
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn an_option_of_sqlite() {
    let own = "busy_timeout, columns.key, columns.updated_at, columns.value, file_mode, \
               keep_tombstones, synchronous, table.<map>";
    let known = known(own);
    for (url, expected) in [
        (
            "sqlite:///var/app.db",
            "`sqlite:` is followed by a path and not by `//`; write `sqlite:data/file` for a path \
             in the current folder, or `sqlite:/var/lib/file`"
                .to_owned(),
        ),
        (
            "sqlite:a.db?synchronous=off",
            "option `synchronous` of `sqlite:`: write one of `full`, `normal`".to_owned(),
        ),
        (
            "sqlite:a.db?synchronus=normal",
            format!(
                "option \"synchronus\" of `sqlite:` is not known; did you mean `synchronous`? K{known}"
            ),
        ),
    ] {
        assert_eq!(message(url), expected, "{url}");
    }
}

/// Bounds are checked by the builder, whose messages name the option as well.
#[cfg(all(feature = "json", feature = "sqlite"))]
#[tokio::test]
async fn a_value_out_of_bounds_names_its_option() {
    for (url, expected) in [
        (
            "json:./data?max_journal=1",
            "max_journal is 1 bytes; it must be 1024 at least",
        ),
        (
            "json:./data?file_mode=0400",
            "file_mode is 0o400; it must let the owner read and write (0o600), and be 0o777 at most",
        ),
        (
            "sqlite:a.db?busy_timeout=25d",
            "option `busy_timeout` of the SQLite file: it is at most 2147483647 milliseconds",
        ),
        (
            "sqlite::memory:",
            "`:memory:` is not a file; for maps that are kept in memory only, use `Memory`",
        ),
    ] {
        let error = persistify::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        assert_eq!(error.to_string(), expected, "{url}");
    }
}

#[test]
fn a_provider_whose_feature_is_missing() {
    for (url, feature, is_compiled) in [
        ("json:d", "json", cfg!(feature = "json")),
        ("sqlite:d", "sqlite", cfg!(feature = "sqlite")),
        ("postgres://h", "postgres", cfg!(feature = "postgres")),
        ("postgresql://h", "postgres", cfg!(feature = "postgres")),
    ] {
        let checked = ProviderConfig::new(url).check();
        if is_compiled {
            checked.unwrap();
            continue;
        }
        let error = checked.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let scheme = url.split(':').next().unwrap();
        let expected = format!(
            "`{scheme}:` needs the feature `{feature}` of persistify, which is not compiled in; add \
             it to the features of persistify in Cargo.toml"
        );
        assert_eq!(error.to_string(), expected);
    }
}

/// The options that a message lists are those of the documentation.
#[test]
fn every_option_is_documented() {
    let source = include_str!("../../../src/connect.rs");
    for url in ["memory:?x", "json:d?x", "sqlite:d?x", "postgres://h?x"] {
        let Err(error) = ProviderConfig::new(url).check() else {
            panic!("{url} is valid");
        };
        if error.kind() == ErrorKind::Unsupported {
            continue;
        }
        let error = error.to_string();
        let known = error.split("nown are ").nth(1).unwrap();
        for name in known.split(", ") {
            let name = name.trim_matches('`');
            let is_drivers = url.starts_with("postgres") && !source.contains(&format!("`{name}"));
            assert!(
                is_drivers && super::secrets::is_of_the_driver(name)
                    || source.contains(&format!("`{name}")),
                "{name} is not documented"
            );
        }
    }
}
