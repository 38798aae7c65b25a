//! Compares Persistify with the crates and the hand-written code that it replaces.
//!
//! `compare [--quick] [--tsv FILE] [SUBJECT…]`; benches/README.md explains the tables.

#[path = "compare/batches.rs"]
mod batches;
#[path = "compare/by_hand.rs"]
mod by_hand;
#[path = "compare/child.rs"]
mod child;
#[path = "compare/commit.rs"]
mod commit;
#[path = "compare/dictionary.rs"]
mod dictionary;
#[path = "compare/entry_size.rs"]
mod entry_size;
#[path = "compare/latencies.rs"]
mod latencies;
#[path = "compare/machine.rs"]
mod machine;
#[path = "compare/maps.rs"]
mod maps;
#[path = "compare/memory.rs"]
mod memory;
#[path = "compare/one_change.rs"]
mod one_change;
#[path = "compare/open.rs"]
mod open;
#[path = "compare/ours.rs"]
mod ours;
#[path = "compare/outage.rs"]
mod outage;
#[path = "compare/postgres.rs"]
mod postgres;
#[path = "compare/resident.rs"]
mod resident;
#[path = "compare/saves.rs"]
mod saves;
#[path = "compare/shared_map.rs"]
mod shared_map;
#[path = "compare/steady.rs"]
mod steady;
#[path = "compare/switched.rs"]
mod switched;
#[path = "compare/table.rs"]
mod table;
#[path = "compare/ttl.rs"]
mod ttl;
#[path = "compare/work.rs"]
mod work;

use std::{
    fs::File,
    io::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::work::Row;

const USAGE: &str = "\
usage: compare [--quick] [--tsv FILE] [SUBJECT…]

  --quick      fewer rounds and smaller maps; about three minutes at most
  --tsv FILE   also writes the rows to FILE, as tab-separated values

subjects: dictionary saves memory open ttl one-change entry-size batches outage (all
of them, if none is named) postgres (only if named: it needs PostgreSQL installed)";

/// Runs only if it is named.
const NEEDS_A_SERVER: &str = "postgres";

type Subject = fn(&Bench) -> Vec<Row>;

const SUBJECTS: [(&str, Subject); 10] = [
    ("dictionary", dictionary::run),
    ("saves", saves::run),
    ("memory", memory::run),
    ("open", open::run),
    ("ttl", ttl::run),
    ("one-change", one_change::run),
    ("entry-size", entry_size::run),
    ("batches", batches::run),
    ("outage", outage::run),
    (NEEDS_A_SERVER, postgres::run),
];

/// How the subjects are to run.
struct Bench {
    quick: bool,
    /// With a worker thread per core, as `#[tokio::main]` has.
    runtime: Runtime,
    start: Instant,
}

/// A quick comparison that has taken this long continues with a single round each.
const LATE: Duration = Duration::from_secs(75);

impl Bench {
    fn either<T>(&self, thorough: T, quick: T) -> T {
        if self.quick { quick } else { thorough }
    }

    fn rounds(&self, thorough: usize, quick: usize) -> usize {
        let is_late = self.start.elapsed() > LATE;
        self.either(thorough, if is_late { 1 } else { quick })
    }
}

/// Creates a folder beside this program, because the system's temporary folder may be
/// in memory.
fn folder() -> TempDir {
    let program = std::env::current_exe().expect("a path of this program");
    let beside = program.parent().expect("a folder of this program");
    TempDir::new_in(beside).expect("a folder")
}

struct Arguments {
    quick: bool,
    tsv: Option<String>,
    subjects: Vec<String>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut quick, mut tsv, mut subjects) = (false, None, Vec::new());
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => quick = true,
                "--tsv" => tsv = Some(words.next().ok_or("--tsv needs the name of a file")?),
                "--help" | "-h" => return Err(USAGE.into()),
                name if SUBJECTS.iter().any(|(subject, _)| *subject == name) => subjects.push(word),
                _ => return Err(format!("{word}: no such subject or option\n\n{USAGE}")),
            }
        }
        Ok(Self {
            quick,
            tsv,
            subjects,
        })
    }

    fn wants(&self, subject: &str) -> bool {
        if self.subjects.is_empty() {
            return subject != NEEDS_A_SERVER;
        }
        self.subjects.iter().any(|one| one == subject)
    }
}

fn main() -> ExitCode {
    if let Some(task) = child::task() {
        run_as_child(&task);
        return ExitCode::SUCCESS;
    }
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| compare(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run_as_child(task: &str) {
    let numbers = entry_size::run_as_child(task).or_else(|| outage::run_as_child(task));
    child::report(&numbers.expect("a task of a subject"));
}

fn compare(arguments: &Arguments) -> Result<(), String> {
    let bench = Bench {
        quick: arguments.quick,
        start: Instant::now(),
        runtime: Runtime::new().map_err(|error| format!("no runtime starts: {error}"))?,
    };
    let mut notes = vec![
        machine::describe(folder().path()),
        commit::describe_run(bench.quick),
    ];
    notes.extend(machine::warning().map(String::from));
    println!("{}\n{}", table::LEGEND, notes.join("\n"));
    let mut tsv = arguments.tsv.as_deref().map(Tsv::create).transpose()?;
    if let Some(tsv) = &mut tsv {
        let notes: Vec<_> = notes.iter().map(|note| format!("# {note}")).collect();
        tsv.write(&notes)?;
        tsv.write(&[table::TSV_HEADING.to_owned()])?;
    }
    for (name, run) in SUBJECTS {
        if arguments.wants(name) {
            let lines: Vec<_> = run(&bench)
                .iter()
                .map(|row| table::tsv_line(name, row))
                .collect();
            tsv.as_mut().map_or(Ok(()), |tsv| tsv.write(&lines))?;
        }
    }
    Ok(())
}

/// A file that holds the rows of each subject once it has ended.
struct Tsv<'a> {
    path: &'a str,
    file: File,
}

impl<'a> Tsv<'a> {
    fn create(path: &'a str) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| format!("cannot create {path}: {error}"))?;
        Ok(Self { path, file })
    }

    fn write(&mut self, lines: &[String]) -> Result<(), String> {
        let mut lines = lines.iter();
        let written = lines.try_for_each(|line| writeln!(self.file, "{line}"));
        written.map_err(|error| format!("cannot write {}: {error}", self.path))
    }
}
