//! Names of maps: which are valid, and how they become names of files and tables.

use std::collections::HashMap;

use persistify::{ErrorKind, MapName};
use proptest::prelude::*;

fn name(text: &str) -> MapName {
    MapName::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_name_has_1_to_255_bytes() {
    for good in ["a".to_owned(), "a".repeat(255), "é".repeat(127)] {
        assert_eq!(MapName::new(&good).unwrap().as_str(), good);
    }
    for bad in [String::new(), "a".repeat(256), "é".repeat(128)] {
        let error = MapName::new(&bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("1 to 255 bytes"), "{error}");
    }
}

#[test]
fn a_name_holds_no_control_character_and_no_slash() {
    for bad in [
        "a\0", "\n", "\t", "a\u{7f}", "\u{85}", "\u{9f}", "/", "a/b", "/a", "a/",
    ] {
        let error = MapName::new(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
    }
    for good in [
        " ", ".", "..", "a b", "ü", "\\", "%", "'", "\"", "🦀", "\u{202e}",
    ] {
        assert_eq!(MapName::new(good).unwrap().as_str(), good);
    }
}

#[test]
fn the_error_says_which_name_and_why() {
    let empty = MapName::new("").unwrap_err().to_string();
    assert!(empty.contains("it is empty"), "{empty}");
    let slash = MapName::new("a/b").unwrap_err().to_string();
    assert!(slash.contains("\"a/b\"") && slash.contains("namespaces"));
    let control = MapName::new("a\nb").unwrap_err().to_string();
    assert!(control.contains(r#""a\nb""#) && control.contains("control character"));
}

#[test]
fn nested_names_are_made_of_valid_names() {
    let stock = MapName::new("stock").unwrap();
    let nested = stock.nested("unreadable").unwrap();
    assert_eq!(nested.as_str(), "stock/unreadable");
    assert_eq!(nested, name("stock/unreadable"));
    assert_eq!(nested.nested("x").unwrap(), name("stock/unreadable/x"));
    for bad in ["", "a/b", "a\n", &"a".repeat(256)] {
        let error = stock.nested(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    for bad in ["", "/", "a/", "/a", "a//b", "a/\n"] {
        assert_eq!(MapName::parse(bad).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn names_convert_and_display() {
    assert_eq!(MapName::try_from("a").unwrap(), name("a"));
    assert_eq!(MapName::try_from("a".to_owned()).unwrap(), name("a"));
    assert!(MapName::try_from("").is_err());
    assert_eq!(name("a b").to_string(), "a b");
    assert_eq!(format!("{:?}", name("a b")), "\"a b\"");
}

#[test]
fn an_encoded_name_reads_well_where_it_can() {
    assert_eq!(name("stock-2_b").encoded(63), "stock-2_b");
    assert_eq!(name("Stock").encoded(63), "%53tock");
    assert_eq!(name("a/b").encoded(63), "a%2fb");
    assert_eq!(name("a%2fb").encoded(63), "a%252fb");
    assert_eq!(name(".").encoded(63), "%2e");
}

#[test]
fn a_file_name_that_no_map_encodes_to_does_not_decode() {
    for bad in [
        "", "A", "%41b%", "%4", "%zz", "%61", "%2F", "%00", "%ff", "a b", "%+1", "é", "%é", "a%%00",
    ] {
        assert_eq!(MapName::decoded(bad), None, "{bad:?}");
    }
}

/// Names of small alphabets, so that collisions are likely if they are possible.
fn nasty() -> impl Strategy<Value = MapName> {
    let part = prop_oneof![
        "[aAbB%_. 124-]{1,12}",
        "[aA%]{50,80}",
        "(%4[1a]|%6[1A]|[AaJj]){1,30}",
        "[éÉßſıİK🦀a]{1,30}",
        "x{200}[aAbB]{1,55}",
        "[^\\p{Cc}/]{1,60}",
    ];
    prop::collection::vec(part, 1..3)
        .prop_filter_map("too long", |parts| MapName::parse(parts.join("/")).ok())
}

proptest! {
    #[test]
    fn encoded_names_are_safe_and_fit(name in nasty(), max in 40_usize..260) {
        let encoded = name.encoded(max);
        prop_assert!(encoded.len() <= max, "{encoded}");
        prop_assert!(!encoded.is_empty());
        let safe = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'%');
        prop_assert!(encoded.bytes().all(safe), "{encoded}");
    }

    #[test]
    fn names_that_were_not_cut_decode_back(name in nasty()) {
        prop_assert_eq!(MapName::decoded(&name.encoded(usize::MAX)), Some(name.clone()));
        for max in [40, 63, 200] {
            let encoded = name.encoded(max);
            let cut = encoded.contains("%%");
            let expected = (!cut).then(|| name.clone());
            prop_assert_eq!(MapName::decoded(&encoded), expected);
        }
    }

    #[test]
    fn different_names_never_share_an_encoding(names in prop::collection::vec(nasty(), 2..60)) {
        for max in [40, 63, 200] {
            let mut by_encoding: HashMap<String, &MapName> = HashMap::new();
            for name in &names {
                let encoded = name.encoded(max).to_ascii_lowercase();
                if let Some(other) = by_encoding.insert(encoded, name) {
                    prop_assert_eq!(other, name);
                }
            }
        }
    }

    #[test]
    fn names_a_letter_apart_stay_apart(name in nasty(), letter in "[aA%b.]") {
        let Ok(longer) = MapName::parse(format!("{name}{letter}")) else { return Ok(()) };
        for other in [longer, self::swapped_case(&name)] {
            for max in [40, 63, 200] {
                let same = name.encoded(max).eq_ignore_ascii_case(&other.encoded(max));
                prop_assert_eq!(same, name == other);
            }
        }
    }
}

fn swapped_case(of: &MapName) -> MapName {
    let swap = |c: char| {
        if c.is_ascii_lowercase() {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        }
    };
    name(&of.as_str().chars().map(swap).collect::<String>())
}
