//! Random URLs.

use persistify::ProviderConfig;
use proptest::prelude::*;

/// Text that is close to a URL.
fn nearly_a_url() -> impl Strategy<Value = String> {
    let parts = vec![
        "memory:",
        "json:",
        "sqlite:",
        "postgres://",
        "postgresql:",
        "./data",
        "//",
        "/",
        ":",
        "?",
        "&",
        "=",
        "@",
        "%",
        "%4",
        "%40",
        "%ff",
        "%C3%A4",
        "ä",
        "+",
        ".",
        "namespace=",
        "acme",
        "table.",
        "file.",
        "columns.key=",
        "synchronous=",
        "normal",
        "5s",
        "64MiB",
        "0640",
        "keep_tombstones=",
        "max_connections=",
        "connect_timeout=",
        "host",
        "u:p",
        "\u{fffd}",
        "\0",
    ];
    let parts = prop::collection::vec(prop::sample::select(parts), 0..12);
    parts.prop_map(|parts| parts.concat())
}

fn check(url: &str) {
    let config = ProviderConfig::new(url);
    let is_valid = config.check().is_ok();
    let shown = format!("{config:?}");
    assert_eq!(shown.contains("\"***\""), !is_valid, "{url:?}: {shown}");
    // A description that is shown in full describes the same provider.
    if is_valid && !url.starts_with("postgres") {
        let text = serde_json::to_string(&config).unwrap();
        let again: ProviderConfig = serde_json::from_str(&text).unwrap();
        again.check().unwrap();
        assert_eq!(format!("{again:?}"), shown);
    }
}

proptest! {
    #[test]
    fn a_url_never_panics(url in nearly_a_url()) {
        check(&url);
    }

    #[test]
    fn text_never_panics(text in any::<String>()) {
        check(&text);
    }
}
