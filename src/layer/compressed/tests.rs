//! Frames that the layer never writes.

use super::*;
use crate::error::ErrorKind;

#[cfg(feature = "lz4")]
const OPTIONS: Options = Compressed::lz4().options;
#[cfg(not(feature = "lz4"))]
const OPTIONS: Options = Compressed::zstd(3).options;

/// Whether the value is damaged.
fn decode(stored: &Payload) -> Result<bool> {
    let decoded = OPTIONS.decode(&MapName::new("map")?, "key", stored)?;
    Ok(matches!(decoded, Decoded::Damaged))
}

/// A frame with an intact header.
fn crafted(kind: u8, length: u32, body: &[u8]) -> Payload {
    let mut head = vec![0];
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&[7; 8]);
    let mut frame = Frame::begin(MAGIC, kind, &head, body.len());
    frame.extend_from_slice(body);
    Payload::binary(frame)
}

#[test]
fn a_record_that_claims_to_be_huge_is_damaged() {
    let kind = OPTIONS.algorithm.kind();
    for length in [0, 1, 1 << 20, 256 << 20, (256 << 20) + 1, u32::MAX] {
        for body in [&b""[..], b"\0", b"\xff\xff\xff\xff\xff", &[0x1f; 40]] {
            assert!(decode(&crafted(kind, length, body)).unwrap());
        }
    }
}

#[test]
fn a_head_of_another_length_is_damaged() {
    for length in [0, 1, 12, 14, 255] {
        let frame = Frame::begin(MAGIC, STORED, &vec![0; length], 0);
        assert!(decode(&Payload::binary(frame)).unwrap());
    }
}

#[test]
fn an_unknown_algorithm_fails_the_load() {
    let error = decode(&crafted(77, 1, b"x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("77"), "{error}");
}

#[test]
fn a_later_version_fails_the_load() {
    let frame = Frame::of_version(9, MAGIC, STORED, b"", 0);
    let error = decode(&Payload::binary(frame)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[cfg(not(all(feature = "lz4", feature = "zstd")))]
#[test]
fn an_algorithm_that_is_not_compiled_in_fails_the_load_and_names_the_feature() {
    let (kind, feature) = if cfg!(feature = "lz4") {
        (2, "`zstd`")
    } else {
        (1, "`lz4`")
    };
    let error = decode(&crafted(kind, 1, b"x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains(feature), "{error}");
}
