//! Draws the charts of the README from the rows that `compare --tsv` writes.
//!
//! `charts FILE FOLDER`; a chart whose subject is not in the file is skipped.

#[path = "charts/axis.rs"]
mod axis;
#[path = "charts/latency.rs"]
mod latency;
#[path = "charts/marker.rs"]
mod marker;
#[path = "charts/numbers.rs"]
mod numbers;
#[path = "charts/one_change.rs"]
mod one_change;
#[path = "charts/page.rs"]
mod page;
#[path = "charts/rows.rs"]
mod rows;
#[path = "charts/style.rs"]
mod style;
#[path = "charts/throughput.rs"]
mod throughput;

use std::{error::Error, fs, path::Path, process::ExitCode};

use self::rows::Table;

const USAGE: &str = "\
usage: charts FILE FOLDER

Draws throughput.svg, latency.svg and one_change.svg into FOLDER. FILE is what
compare --tsv FILE wrote.";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Chart {
    file: &'static str,
    /// The subjects of `compare` that it shows.
    subjects: &'static [&'static str],
    draw: fn(&Table) -> Result<String>,
}

const CHARTS: [Chart; 3] = [
    Chart {
        file: "throughput.svg",
        subjects: &throughput::SUBJECTS,
        draw: throughput::draw,
    },
    Chart {
        file: "latency.svg",
        subjects: &[latency::SUBJECT],
        draw: latency::draw,
    },
    Chart {
        file: "one_change.svg",
        subjects: &[one_change::SUBJECT],
        draw: one_change::draw,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [rows, folder] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    match draw_all(Path::new(rows), Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn draw_all(rows: &Path, folder: &Path) -> Result<()> {
    let table = Table::read(rows).map_err(|error| format!("{}: {error}", rows.display()))?;
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for chart in CHARTS {
        let path = folder.join(chart.file);
        let missing = chart.subjects.iter().find(|one| !table.has(one));
        if let Some(subject) = missing {
            println!("{}: skipped, no rows of {subject}", path.display());
            continue;
        }
        let svg = (chart.draw)(&table)?;
        fs::write(&path, svg).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{}: drawn", path.display());
    }
    Ok(())
}
