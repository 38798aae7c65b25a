//! Values of arbitrary bytes are loaded as they were committed.

use std::time::Duration;

use super::{
    same::same_found,
    trial::Trial,
    writer::{Writer, put},
};
use crate::{
    batch::{Change, Expect, Otherwise},
    record::Payload,
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    any_bytes(trial).await;
    bytes_that_a_condition_finds(trial).await;
}

async fn any_bytes(trial: &mut Trial<'_>) {
    if !trial.claims().bytes {
        return trial.leave_out("values of any bytes", "not claimed");
    }
    trial.check("values of any bytes");
    let map = trial.map("bytes");
    let mut writer = Writer::new();
    let all: Vec<u8> = (0..=255).collect();
    let json = b"{\"a\": 1}";
    for bytes in [&b""[..], b"\0", b"\xff\xfe", json, b" 1 ", b"'; --", &all] {
        trial.doing(format!(
            "put the bytes {:.40?}",
            bytes.escape_ascii().to_string()
        ));
        let payload = || Payload::binary(bytes.to_vec()).with_schema(7);
        let changes = ["old", "new"].map(|key| Change::put(key, payload(), None));
        trial.commit(&writer.batch(&map, changes.into())).await;
        trial.verify(&map).await;
        trial.doing("replace them by JSON of that text, touch, delete");
        let later = writer.at + Duration::from_secs(60 * 60);
        let touch = Change::touch("old", Some(later));
        trial.commit(&writer.batch(&map, vec![touch])).await;
        trial.verify(&map).await;
        let changes = vec![put("old", 1), Change::delete("new")];
        trial.commit(&writer.batch(&map, changes)).await;
        trial.verify(&map).await;
    }
    trial.doing("put 1 MiB of bytes");
    let big = Payload::binary(all.repeat(4 * 1024));
    let change = Change::put("big", big, None);
    trial.commit(&writer.batch(&map, vec![change])).await;
    trial.verify(&map).await;
}

/// The answer to a skipped change contains the bytes of the stored record, also when the
/// answer is repeated.
async fn bytes_that_a_condition_finds(trial: &mut Trial<'_>) {
    let claims = trial.claims();
    if !claims.bytes || !claims.conditions {
        return trial.leave_out(
            "bytes that a condition finds",
            "bytes and conditions are not both claimed",
        );
    }
    trial.check("bytes that a condition finds");
    let map = trial.map("bytes found");
    let mut writer = Writer::new();
    let bytes = Payload::binary(b"{\"a\": 1}".to_vec()).with_schema(7);
    let change = Change::put("old", bytes, None);
    trial.commit(&writer.batch(&map, vec![change])).await;
    let old = trial.model(&map).records.get("old").cloned();
    trial.doing("put bytes that are skipped because there are others");
    let other = Change::put("old", Payload::binary(b"\xff".to_vec()), None);
    let other = other.expect(Expect::Absent, Otherwise::Skip);
    let batch = writer.batch(&map, vec![other, put("new", 1)]);
    let answer = trial.commit(&batch).await;
    let found = answer.skipped.first().and_then(|skip| skip.found.as_ref());
    let same = answer.skipped.len() == 1 && same_found(old.as_ref(), found);
    trial.ensure(same, "one skipped change, with the bytes it found", &answer);
    trial.verify(&map).await;
    trial.doing("overwrite these bytes and repeat the batch that was skipped");
    trial
        .commit(&Writer::new().batch(&map, vec![put("old", 3)]))
        .await;
    trial.repeat(&batch, &answer).await;
}
