//! The README is correct: the tests that it names exist, its first example is the quickstart, and
//! its links work.

use std::{fs, path::Path};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// All texts between the two delimiters.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    let found = text.split(before).skip(1);
    found
        .map(|rest| rest.split(after).next().unwrap())
        .collect()
}

#[test]
fn the_tests_that_back_the_promises_exist() {
    let readme = read("README.md");
    let named = between(&readme, "`tests/it/", "`");
    assert!(named.len() >= 9, "only {named:?}");
    for test in named {
        let (file, function) = test.split_once("::").unwrap_or((test, ""));
        let path = Path::new("tests/it").join(file);
        assert!(path.exists(), "{} is no file", path.display());
        let text = fs::read_to_string(&path).unwrap();
        let exists = function.is_empty() || text.contains(&format!("fn {function}()"));
        assert!(exists, "{} has no test {function}", path.display());
    }
}

#[test]
fn the_first_example_is_the_heart_of_the_quickstart() {
    let readme = read("README.md");
    let example = between(&readme, "```rust,no_run\n", "```")[0].trim_end();
    let quickstart = read("samples/quickstart.rs");
    let mut lines = quickstart.lines();
    for line in example.lines() {
        assert!(
            lines.any(|other| other == line),
            "not in the quickstart: {line}"
        );
    }
}

/// The example is compiled by the sample's own package and not as a doc test, because all doc tests
/// would then depend on a web framework.
#[test]
fn the_web_server_is_the_one_of_the_samples() {
    let readme = read("README.md");
    let example = between(&readme, "```rs\n", "```")[0];
    let sample = read("samples/web/src/main.rs");
    assert!(sample.ends_with(example), "{example}");
}

#[test]
fn links_lead_somewhere() {
    for page in [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ] {
        let text = read(page);
        let mut links = between(&text, "](", ")");
        links.extend(between(&text, "src=\"", "\""));
        for link in links.into_iter().filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let there =
                path.is_empty() || Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists();
            assert!(there, "{page}: {link}");
            let anchor = |line: &&str| {
                let words = line.trim_start_matches(['#', ' ']).to_lowercase();
                words.replace([',', '`'], "").replace(' ', "-") == heading
            };
            let found = heading.is_empty()
                || text
                    .lines()
                    .filter(|l| l.starts_with('#'))
                    .any(|l| anchor(&l));
            assert!(found, "{page}: no heading {heading}");
        }
    }
}

#[test]
fn every_sample_is_listed() {
    let readme = read("README.md");
    for sample in between(&read("Cargo.toml"), "path = \"samples/", "\"") {
        assert!(
            readme.contains(&format!("](samples/{sample})")),
            "{sample} is not listed"
        );
    }
}
