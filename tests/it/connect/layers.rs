//! Layers by their names: their options, their order, and their messages.

use persistify::{ErrorKind, ProviderConfig, connect};

use super::errors::message;
#[cfg(all(feature = "json", any(feature = "lz4", feature = "zstd")))]
use crate::support::{as_it_is, open};

/// The layers of a provider, from the outside to the inside.
async fn stack(url: &str) -> Vec<&'static str> {
    let shown = format!("{:?}", connect(url).await.unwrap());
    let names = [
        "CircuitBreaker",
        "Journaled",
        "Compressed",
        "Metered",
        "Namespaced",
        "Memory",
    ];
    let mut found: Vec<_> = { names.iter() }
        .filter_map(|name| Some((shown.find(&format!("{name} {{"))?, *name)))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, name)| name).collect()
}

#[cfg(all(feature = "lz4", feature = "metrics"))]
#[tokio::test]
async fn the_order_of_layers_is_fixed() {
    let options = ["namespace=acme", "compress=lz4", "metrics=main", "breaker"];
    let expected = [
        "Namespaced",
        "Metered",
        "Compressed",
        "CircuitBreaker",
        "Memory",
    ];
    for turn in 0..options.len() {
        let mut options = options;
        options.rotate_left(turn);
        let url = format!("memory:?{}", options.join("&"));
        assert_eq!(stack(&url).await, expected, "{url}");
    }
}

#[cfg(feature = "journal")]
#[tokio::test]
async fn a_journal_is_above_the_breaker() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let url = format!(
        "memory:?journal={}&journal.max_bytes=1MiB&breaker&journal.acknowledge=remote",
        spool.display()
    );
    let expected = ["Journaled", "CircuitBreaker", "Memory"];
    assert_eq!(stack(&url).await, expected);
}

#[cfg(feature = "journal")]
#[tokio::test]
async fn a_save_is_in_the_journal_of_a_url() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let store = connect(&format!("memory:?journal={}", spool.display())).await;
    let map = persistify::PersistentMap::<u32>::builder(store.unwrap(), "map");
    let map = map.open().await.unwrap();
    map.insert_and_save("a", 1).await.unwrap();
    let files = std::fs::read_dir(&spool).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().any(|name| name.starts_with("map")));
    map.close().await.unwrap();
}

#[tokio::test]
async fn a_breaker_is_added_by_its_name_or_by_an_option() {
    let with = ["CircuitBreaker", "Memory"];
    for options in [
        "breaker",
        "breaker=true",
        "breaker.failures=3",
        "breaker.window=1m",
    ] {
        assert_eq!(
            stack(&format!("memory:?{options}")).await,
            with,
            "{options}"
        );
    }
    for options in ["breaker=false", "breaker=false&breaker.failures=3"] {
        assert_eq!(
            stack(&format!("memory:?{options}")).await,
            ["Memory"],
            "{options}"
        );
    }
}

/// The options reach the layer, which checks their bounds at the first load.
#[tokio::test]
async fn the_options_of_a_breaker_reach_it() {
    for (option, name) in [
        ("breaker.failures=0", "failures"),
        ("breaker.window=0s", "window"),
        ("breaker.cool_down=0s", "cool_down"),
    ] {
        let store = connect(format!("memory:?{option}")).await.unwrap();
        let map = persistify::MapName::new("stock").unwrap();
        let error = store
            .load(&map, persistify::Wanted::All)
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(name), "{error}");
    }
    let named = connect("memory:?breaker.name=orders").await.unwrap();
    assert!(format!("{named:?}").contains("orders"), "{named:?}");
}

#[test]
fn an_option_of_a_breaker_or_of_metrics() {
    for (options, expected) in [
        (
            "breaker=5",
            "option `breaker` of `memory:`: write `true` or `false`",
        ),
        (
            "breaker.failures=many",
            "option `breaker.failures` of `memory:`: write a number, such as `8`",
        ),
        (
            "metrics",
            "option `metrics` of `memory:`: write the name of the provider in the metrics",
        ),
        (
            "metrics.slow=1s",
            "option `metrics` of `memory:`: write the name of the provider in the metrics",
        ),
    ] {
        assert_eq!(message(&format!("memory:?{options}")), expected);
    }
}

#[tokio::test]
async fn a_layer_that_is_not_named_is_not_there() {
    assert_eq!(stack("memory:").await, ["Memory"]);
}

/// The size of a stored value of 1,000 bytes.
#[cfg(all(feature = "json", any(feature = "lz4", feature = "zstd")))]
async fn stored_size(options: &str) -> usize {
    use persistify::{MapName, Wanted};
    let folder = tempfile::tempdir().unwrap();
    let url = format!("json:{}", folder.path().display());
    let store = connect(format!("{url}?{options}")).await.unwrap();
    let map = open::<String>(store.clone(), "pages", as_it_is).await;
    let numbers: Vec<_> = (0..250).map(|n| format!("{:4}", n * n % 97)).collect();
    let page = numbers.concat();
    map.insert_and_save("page", page).await.unwrap();
    map.close().await.unwrap();
    store.close().await.unwrap();
    let bare = connect(&url).await.unwrap();
    let map = MapName::new("pages").unwrap();
    let load = bare.load(&map, Wanted::All).await.unwrap();
    let records = load.into_records().await.unwrap();
    records[0].value.as_ref().unwrap().bytes.len()
}

#[cfg(all(feature = "json", feature = "lz4", feature = "zstd"))]
#[tokio::test]
async fn compression_has_its_options() {
    assert_eq!(stored_size("").await, 1_002);
    let lz4 = stored_size("compress=lz4").await;
    let zstd = stored_size("compress=zstd").await;
    let best = stored_size("compress.algorithm=zstd&compress.level=19").await;
    assert!(
        best < zstd && zstd < lz4 && lz4 < 700,
        "{best} {zstd} {lz4}"
    );
    assert_eq!(
        stored_size("compress=lz4&compress.min_size=1KiB").await,
        1_002
    );
}

#[test]
fn an_option_of_compression() {
    for (options, expected) in [
        (
            "compress",
            "option `compress` of `memory:`: write `lz4` or `zstd`",
        ),
        (
            "compress=gzip",
            "option `compress` of `memory:`: write `lz4` or `zstd`",
        ),
        (
            "compress.level=3",
            "option `compress` of `memory:`: write `lz4` or `zstd`",
        ),
        (
            "compress=lz4&compress.level=3",
            "option `compress.level` of `memory:`: `lz4` has no levels; use `zstd`",
        ),
        (
            "compress=zstd&compress.level=high",
            "option `compress.level` of `memory:`: write a number from 1 to 22",
        ),
        (
            "compress=zstd&compress.algorithm=zstd",
            "option `compress.algorithm` of `memory:`: it is given twice",
        ),
    ] {
        assert_eq!(message(&format!("memory:?{options}")), expected);
    }
}

#[test]
fn a_layer_whose_feature_is_missing() {
    for (option, feature, is_compiled) in [
        ("compress=lz4", "lz4", cfg!(feature = "lz4")),
        ("compress=zstd", "zstd", cfg!(feature = "zstd")),
        ("metrics=main", "metrics", cfg!(feature = "metrics")),
    ] {
        let checked = ProviderConfig::new(format!("memory:?{option}")).check();
        if is_compiled {
            checked.unwrap();
            continue;
        }
        let error = checked.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let option = option.trim_end_matches("=main");
        let expected = format!(
            "`{option}` needs the feature `{feature}` of persistify, which is not compiled in; add \
             it to the features of persistify in Cargo.toml"
        );
        assert_eq!(error.to_string(), expected);
    }
}
