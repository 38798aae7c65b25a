//! Runs the sample on a server and checks its output.

use std::process::Command;

use super::Database;

/// The output of the sample.
fn run(url: &str) -> String {
    let arguments = [
        "run",
        "--quiet",
        "--all-features",
        "--example",
        "postgres",
        "--manifest-path",
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
    ];
    let mut sample = Command::new(env!("CARGO"));
    let output = sample.args(arguments).env("DATABASE_URL", url).output();
    let output = output.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_sample_finds_what_it_left() {
    let database = Database::fresh();
    let first = run(database.url());
    assert!(first.starts_with("orders from last time: 0\n"), "{first}");
    assert!(first.contains("orders now: 65\n"), "{first}");
    let second = run(database.url());
    assert!(second.contains("orders from last time: 65\n"), "{second}");
    assert!(second.contains("orders now: 66\n"), "{second}");
    let customers = database
        .witness()
        .rows("SELECT value->>'customer' FROM persistify_sample.map_orders");
    assert_eq!(customers.len(), 66);
    assert!(customers.iter().all(|row| row.get::<_, &str>(0) == "Ada"));
}
