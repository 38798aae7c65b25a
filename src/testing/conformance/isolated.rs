//! Maps are isolated from each other, whatever their names.

use super::{
    trial::Trial,
    writer::{Writer, put},
};
use crate::{
    batch::Change,
    error::{ErrorKind, Result},
    name::MapName,
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    trial.check("names that are easily taken for one another");
    let names = match names(trial.tag()) {
        Ok(names) => names,
        Err(error) => trial.broken("valid names", error),
    };
    let mut writers: Vec<_> = names.iter().map(|_| Writer::new()).collect();
    fill(trial, &names, &mut writers).await;
    listed(trial, &names).await;
    clear_every_other(trial, &names, &mut writers).await;
}

/// Difficult names, all distinct. Each contains the tag of this run, so that no other run uses
/// it.
fn names(tag: &str) -> Result<Vec<MapName>> {
    let plain = [
        "",
        "a",
        "A",
        "aa",
        "aA",
        "Aa",
        "AA",
        " a",
        "a ",
        "a.",
        "a.json",
        "a.meta",
        "a-wal",
        "%41",
        "%61",
        "%",
        "%%",
        "%25",
        "\"",
        "\"\"",
        "'",
        "''",
        "`",
        "\\",
        "\\\\",
        "; DROP TABLE a; --",
        "a%2fb",
        "a%2Fb",
        "a_b",
        "a-b",
        "a b",
        "a:b",
        "a\\b",
        "a?b",
        "a*b",
        "$a",
        "é",
        "e\u{301}",
        "É",
        "ß",
        "ss",
        "ẞ",
        "İ",
        "i",
        "ı",
        "日本",
        "🦀",
        "\u{202e}a",
        "~",
        "~1",
        "con",
        "_meta",
    ];
    let long = "x".repeat(255 - tag.len() - 1);
    let long = ["a", "b", "A"].map(|last| format!("{long}{last}"));
    let nested = [
        "a/b", "a/B", "a/%62", "a/..", "a/.", "../a", "a/b/c", "a/con", "a/a.json",
    ];
    let plain = plain.map(|name| MapName::new(format!("{tag}{name}")));
    let long = long.iter().map(|name| MapName::new(format!("{tag}{name}")));
    let nested = nested.map(|name| MapName::parse(format!("{tag}{name}")));
    plain.into_iter().chain(long).chain(nested).collect()
}

async fn fill(trial: &mut Trial<'_>, names: &[MapName], writers: &mut [Writer]) {
    for ((map, writer), n) in names.iter().zip(writers).zip(0..) {
        trial.doing(format!(
            "put the same key into many maps, among them {map:?}"
        ));
        let own = format!("key of {map}");
        let batch = writer.batch(map, vec![put("key", n), put(&own, n)]);
        trial.commit(&batch).await;
        trial.verify(map).await;
    }
    trial.verify_all().await;
}

async fn listed(trial: &mut Trial<'_>, names: &[MapName]) {
    let listed = match trial.provider().maps().await {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            return trial.leave_out("a list of the maps", "not supported");
        }
        Err(error) => trial.broken("a list of the maps", error),
    };
    trial.check("a list of the maps");
    for map in names {
        let times = listed.iter().filter(|found| *found == map).count();
        trial.ensure(times == 1, &format!("{map:?} listed once"), times);
    }
}

async fn clear_every_other(trial: &mut Trial<'_>, names: &[MapName], writers: &mut [Writer]) {
    trial.check("a change to a map leaves the others as they are");
    for ((map, writer), n) in names.iter().zip(writers).zip(0..) {
        let batch = match n % 3 {
            0 => writer.clearing(map, vec![]),
            1 => writer.batch(map, vec![Change::delete("key"), put("more", n)]),
            _ => continue,
        };
        trial.commit(&batch).await;
        trial.expect_ok(trial.provider().release(map).await);
    }
    trial.verify_all().await;
}
