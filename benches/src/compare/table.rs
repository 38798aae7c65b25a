//! Prints rows as a table, and as tab-separated values.

use persistify_benches::{Unit, in_unit};

use crate::work::{Role, Row};

pub const TSV_HEADING: &str = "subject\twork\tmeasure\tcontender\trole\tfsync\tunit\trounds\tmedian\tmin\tmax\tto_limit\tto_best_peer";

pub const LEGEND: &str = "\
vs limit, vs peer: the median of the limit, or of the best peer, divided by this one.
0.50 takes twice as much time (or memory), 2.00 half as much. Contenders that do not
wait for the disk (fsync \"never\" or \"sync_file_range\") are not the best peer.";

/// Prints the rows of one work: a heading, and a table per measure.
pub fn print(rows: &[Row]) {
    let mut last = "";
    for row in rows {
        if row.measure != last {
            print_heading(row);
            last = row.measure;
        }
        let [median, min, max] =
            [row.median, row.min, row.max].map(|value| in_unit(value, row.unit));
        println!(
            "  {:<38} {:<24} {median:>9} {:>21} {:>9} {:>9}",
            row.contender,
            row.fsync,
            format!("{min} – {max}"),
            ratio(row.to_limit),
            ratio(row.to_best_peer),
        );
    }
}

fn print_heading(row: &Row) {
    let plural = if row.rounds == 1 { "" } else { "s" };
    println!(
        "\n{}: {} ({} round{plural})",
        row.work, row.measure, row.rounds
    );
    println!(
        "  {:<38} {:<24} {:>9} {:>21} {:>9} {:>9}",
        "", "fsync", "median", "min – max", "vs limit", "vs peer"
    );
}

pub fn tsv_line(subject: &str, row: &Row) -> String {
    let unit = match row.unit {
        Unit::Nanoseconds => "ns",
        Unit::Bytes => "bytes",
        Unit::Changes => "changes",
    };
    let role = match row.role {
        Role::Ours => "ours",
        Role::Peer => "peer",
        Role::LessDurable => "less durable",
        Role::Limit => "limit",
    };
    let number = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.4}")).unwrap_or_default();
    [
        subject,
        &row.work,
        row.measure,
        &row.contender,
        role,
        row.fsync,
        unit,
        &row.rounds.to_string(),
        &format!("{:.1}", row.median),
        &format!("{:.1}", row.min),
        &format!("{:.1}", row.max),
        &number(row.to_limit),
        &number(row.to_best_peer),
    ]
    .join("\t")
}

fn ratio(ratio: Option<f64>) -> String {
    match ratio {
        Some(ratio) if ratio < 0.1 => format!("{ratio:.3}"),
        Some(ratio) => format!("{ratio:.2}"),
        None => "–".into(),
    }
}
