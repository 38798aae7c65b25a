//! The claims of the manifest: the minimum supported Rust version, and the licences of the
//! dependencies. They are checked with `cargo metadata`, so nothing has to be installed.

use std::{
    collections::{BTreeSet, HashMap},
    env, fs,
    path::Path,
    process::Command,
};

use persistify::serde_json::{self, Value};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let done = command.args(arguments).current_dir(root()).output();
    let done = done.unwrap_or_else(|error| panic!("{program}: {error}"));
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{program} {arguments:?}: {complaint}"
    );
    String::from_utf8(done.stdout).unwrap()
}

/// Every package that a user of the crate compiles, with all features.
fn dependencies() -> Vec<Value> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = [
        "metadata",
        "--format-version=1",
        "--all-features",
        "--locked",
        "--offline",
        // Packages for other platforms are not downloaded.
        "--filter-platform=host-tuple",
    ];
    let metadata: Value = serde_json::from_str(&output(&cargo, &arguments)).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap().iter();
    let nodes: HashMap<_, _> = nodes
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let mut wanted = BTreeSet::new();
    let mut left = vec![metadata["resolve"]["root"].as_str().unwrap()];
    while let Some(id) = left.pop() {
        if wanted.insert(id) {
            left.extend(used_by(nodes[id]));
        }
    }
    let packages = metadata["packages"].as_array().unwrap().iter();
    let of_users = packages.filter(|package| wanted.contains(package["id"].as_str().unwrap()));
    of_users.cloned().collect()
}

/// The dependencies of a package, except those of its tests.
fn used_by(node: &Value) -> impl Iterator<Item = &str> {
    let is_used = |dependency: &&Value| {
        let mut kinds = dependency["dep_kinds"].as_array().unwrap().iter();
        kinds.any(|kind| kind["kind"] != "dev")
    };
    let dependencies = node["deps"].as_array().unwrap().iter().filter(is_used);
    dependencies.map(|dependency| dependency["pkg"].as_str().unwrap())
}

/// Parses a version. `1.85` equals `1.85.0`.
fn version(text: &str) -> [u32; 3] {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap());
    [(); 3].map(|()| numbers.next().unwrap_or(0))
}

fn named(package: &Value) -> String {
    format!("{} {}", package["name"], package["version"])
}

#[test]
fn no_dependency_needs_a_later_rust_than_the_crate_says() {
    let ours = version(env!("CARGO_PKG_RUST_VERSION"));
    let packages = dependencies();
    assert!(packages.len() > 50, "only {} packages", packages.len());
    let is_later = |package: &&Value| {
        let needed = package["rust_version"].as_str();
        needed.is_some_and(|needed| version(needed) > ours)
    };
    let later: Vec<_> = packages.iter().filter(is_later).map(named).collect();
    assert!(
        later.is_empty(),
        "{later:?}; if Cargo.lock is an old one, delete it: cargo then chooses what fits"
    );
}

#[test]
fn the_readme_names_the_rust_version_of_the_manifest() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let named = format!("Rust {}", env!("CARGO_PKG_RUST_VERSION"));
    assert!(text.contains(&named), "it does not say {named}");
}

/// Whether one of the alternatives of an SPDX expression is allowed.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    // `AND` binds more tightly than `OR`. If the alternatives are in parentheses, all other parts
    // have to be allowed, too.
    let needed = if expression.contains('(') {
        plain.split(" AND ").collect()
    } else {
        vec![plain.as_str()]
    };
    let mut needed = needed.into_iter();
    needed.all(|part| {
        let mut alternatives = part.split(" OR ");
        alternatives.any(|one| one.split(" AND ").all(|name| allowed.contains(name.trim())))
    })
}

#[test]
fn every_dependency_has_a_licence_that_the_deny_file_allows() {
    let deny = fs::read_to_string(root().join("deny.toml")).unwrap();
    let list = deny.split("allow = [").nth(1).unwrap();
    let quoted = list
        .split(']')
        .next()
        .unwrap()
        .split('"')
        .skip(1)
        .step_by(2);
    let allowed: BTreeSet<String> = quoted.map(str::to_owned).collect();
    assert!(allowed.contains("MIT"), "{allowed:?}");
    let is_refused = |package: &&Value| {
        let licence = package["license"].as_str();
        licence.is_none_or(|licence| !is_allowed(licence, &allowed))
    };
    let packages = dependencies();
    let refused = packages.iter().filter(is_refused);
    let refused: Vec<_> = refused
        .map(|package| format!("{}: {}", named(package), package["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn licence_expressions_are_read_by_their_alternatives() {
    let allowed = ["MIT", "ISC", "Unicode-3.0"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT", true),
        ("MIT/Apache-2.0", true),
        ("MIT AND ISC", true),
        ("MIT AND OpenSSL", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND OpenSSL", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}
