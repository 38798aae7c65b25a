//! The structure of the source: which modules may import which, and the names of files and types.
//! The source is read as plain text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The maximum length of a file, in lines. A longer file holds more than one concept.
const MAX_LINES: usize = 400;

/// Modules that import only each other.
const BOTTOM: [&str; 7] = [
    "error",
    "incarnation",
    "record",
    "batch",
    "name",
    "clock",
    "writer_id",
];

/// Modules that several providers share.
const SHARED_BY_PROVIDERS: [&str; 2] = ["ledger", "sql"];

/// Modules of `layer` that are no layers.
const SHARED_BY_LAYERS: [&str; 3] = ["chain", "frame", "transform"];

const BANNED: [&str; 5] = ["manager", "helper", "util", "handler", "service"];

/// A file of `src`: `map/flusher.rs` is the module `["map", "flusher"]`.
struct File {
    path: PathBuf,
    module: Vec<String>,
    text: String,
}

impl File {
    fn read(root: &Path, path: PathBuf) -> Self {
        let inside = path.strip_prefix(root).unwrap().with_extension("");
        let module = inside.iter().map(|part| part.to_str().unwrap().to_owned());
        let module = module.filter(|part| part != "lib").collect();
        let text = fs::read_to_string(&path).unwrap();
        Self { path, module, text }
    }

    fn top(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }

    /// The code without comments and unit tests (at the end, or in a file `tests.rs`), with white
    /// space reduced to single spaces.
    fn code(&self) -> String {
        if self.module.last().is_some_and(|name| name == "tests") {
            return String::new();
        }
        let code = self.text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().map(str::trim_start);
        let lines = lines.filter(|line| !line.starts_with("//"));
        let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
        words.join(" ")
    }

    /// Every path from the crate root that the code names.
    fn paths(&self) -> BTreeSet<Vec<String>> {
        let code = self.code();
        let mut paths = BTreeSet::new();
        for (at, _) in code.match_indices("crate::") {
            collect(&code[at + "crate::".len()..], &[], &mut paths);
        }
        for (at, _) in code.match_indices("super::") {
            if code[..at].ends_with("super::") {
                continue;
            }
            let mut rest = &code[at..];
            let mut base = self.module.clone();
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
            collect(rest, &base, &mut paths);
        }
        paths
    }
}

/// Expands `a::{b, c::d}` into the paths that it names. Returns the text after it.
fn collect<'a>(text: &'a str, base: &[String], paths: &mut BTreeSet<Vec<String>>) -> &'a str {
    if let Some(mut items) = text.strip_prefix('{') {
        loop {
            items = items.trim_start_matches([' ', ',']);
            if items.is_empty() || items.starts_with('}') {
                return items.strip_prefix('}').unwrap_or_default();
            }
            items = collect(items, base, paths);
        }
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '*';
    let (word, rest) = text.split_at(text.find(|c| !is_word(c)).unwrap_or(text.len()));
    // The first token that is not part of a path ends the expansion.
    if word.is_empty() {
        return "";
    }
    let path = [base, &[word.to_owned()]].concat();
    if let Some(inner) = rest.strip_prefix("::") {
        return collect(inner, &path, paths);
    }
    paths.insert(path);
    let renamed = rest.strip_prefix(" as ");
    renamed.map_or(rest, |name| name.trim_start_matches(is_word))
}

fn files() -> Vec<File> {
    files_in("src")
}

fn files_in(folder: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(File::read(&root, path));
            }
        }
    }
    assert!(found.len() > 5, "no source found");
    found
}

/// The concrete provider or layer that the file belongs to, if any.
fn kept_apart(file: &File, kind: &str) -> Option<String> {
    match file.module.as_slice() {
        [top, name, ..] if top == kind => Some(name.clone()),
        _ => None,
    }
}

/// The files that each file imports. A file and the files in its folder count as one, because a
/// type and its builder import each other.
fn imports_of_files(files: &[File]) -> BTreeMap<String, BTreeSet<String>> {
    let modules: BTreeSet<_> = files.iter().map(|file| &file.module).collect();
    let file_of = |mut path: Vec<String>| {
        while !modules.contains(&path) {
            path.pop()?;
        }
        Some(path)
    };
    let apart = |a: &[String], b: &[String]| !a.starts_with(b) && !b.starts_with(a);
    let mut imports = BTreeMap::new();
    for file in files.iter().filter(|file| file.top() != "lib") {
        let known = file.paths().into_iter().filter_map(file_of);
        let known = known.filter(|to| apart(to, &file.module));
        let known = known.map(|to| to.join("/")).collect();
        imports.insert(file.module.join("/"), known);
    }
    imports
}

/// The top-level modules that each top-level module imports.
fn imports(files: &[File]) -> BTreeMap<String, BTreeSet<String>> {
    let tops: BTreeSet<String> = files.iter().map(|f| f.top().to_owned()).collect();
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.top() != "lib") {
        let known = file
            .paths()
            .into_iter()
            .filter_map(|path| path.into_iter().next());
        let known = known.filter(|to| tops.contains(to) && to != file.top());
        imports
            .entry(file.top().to_owned())
            .or_default()
            .extend(known);
    }
    imports
}

/// Removes modules that import none of the remaining ones, until none can be removed.
fn check_no_circle(mut left: BTreeMap<String, BTreeSet<String>>) {
    while let Some(free) = left
        .iter()
        .find(|(_, known)| known.iter().all(|to| !left.contains_key(to)))
    {
        let free = free.0.clone();
        left.remove(&free);
    }
    assert!(
        left.is_empty(),
        "these import each other in a circle: {left:#?}"
    );
}

#[test]
fn modules_import_each_other_in_one_direction() {
    check_no_circle(imports(&files()));
}

#[test]
fn files_import_each_other_in_one_direction() {
    check_no_circle(imports_of_files(&files()));
}

#[test]
fn the_bottom_knows_only_the_bottom() {
    let imports = imports(&files());
    for module in BOTTOM {
        let known = imports.get(module).into_iter().flatten();
        let above: Vec<_> = known.filter(|to| !BOTTOM.contains(&to.as_str())).collect();
        assert!(above.is_empty(), "{module} imports {above:?}");
    }
}

#[test]
fn modules_import_from_modules_and_not_from_the_root() {
    for file in files().iter().filter(|file| file.top() != "lib") {
        for path in file.paths() {
            let root = path.len() == 1 && path[0].starts_with(char::is_uppercase);
            assert!(!root, "{}: crate::{}", file.path.display(), path[0]);
        }
    }
}

#[test]
fn only_the_root_knows_connect_and_what_is_for_tests() {
    for (module, known) in imports(&files()) {
        assert!(!known.contains("testing"), "{module} imports testing");
        assert!(!known.contains("connect"), "{module} imports connect");
    }
}

#[test]
fn concrete_providers_never_know_each_other_and_nobody_else_knows_them() {
    let files = files();
    let concrete: BTreeSet<_> = files
        .iter()
        .filter_map(|f| kept_apart(f, "provider"))
        .filter(|name| !SHARED_BY_PROVIDERS.contains(&name.as_str()))
        .collect();
    assert!(concrete.contains("memory"));
    // `connect` is above all providers and layers: it makes them by their names in a URL.
    let below = files
        .iter()
        .filter(|f| !["lib", "connect"].contains(&f.top()));
    for file in below {
        let own = kept_apart(file, "provider");
        for path in file.paths().iter().filter(|path| path[0] == "provider") {
            let named = path.get(1).filter(|name| concrete.contains(*name));
            let allowed = named.is_none() || named == own.as_ref();
            assert!(allowed, "{} names {}", file.path.display(), path.join("::"));
        }
    }
}

#[test]
fn layers_know_the_trait_only_and_not_each_other() {
    for file in files().iter().filter(|file| file.top() == "layer") {
        let own =
            kept_apart(file, "layer").filter(|name| !SHARED_BY_LAYERS.contains(&name.as_str()));
        for path in file.paths() {
            let is_shared = |name: &String| SHARED_BY_LAYERS.contains(&name.as_str());
            let is_own = |name: &String| name == "Layer" || Some(name) == own.as_ref();
            let is_other = |name: &String| !is_own(name) && !is_shared(name);
            let other = path[0] == "layer" && own.is_some() && path.get(1).is_some_and(is_other);
            let above = ["map", "cache", "testing"].contains(&path[0].as_str());
            assert!(
                !other && !above,
                "{} names {}",
                file.path.display(),
                path.join("::")
            );
        }
    }
}

#[test]
fn maps_know_of_a_provider_only_the_trait_and_its_capabilities() {
    for file in files() {
        if !["map", "cache"].contains(&file.top()) {
            continue;
        }
        for path in file.paths().iter().filter(|path| path[0] == "provider") {
            let allowed = ["Provider", "Capabilities"];
            let trait_only = path
                .get(1)
                .is_some_and(|name| allowed.contains(&name.as_str()));
            assert!(
                trait_only,
                "{} names {}",
                file.path.display(),
                path.join("::")
            );
        }
    }
}

#[test]
fn the_map_does_not_know_the_cache() {
    let imports = imports(&files());
    let known = imports.get("map").cloned().unwrap_or_default();
    assert!(!known.contains("cache"));
    for (module, known) in imports {
        let above =
            known.contains("map") && !["blocking", "cache", "testing"].contains(&module.as_str());
        assert!(!above, "{module} imports map");
    }
}

#[test]
fn files_are_named_for_what_they_hold() {
    for file in files() {
        let name = file.path.file_stem().unwrap().to_str().unwrap();
        let banned = BANNED.iter().chain(&["mod", "common", "misc"]);
        for word in banned {
            let words: Vec<_> = name.split('_').collect();
            let plural = format!("{word}s");
            let found = words.contains(word) || words.contains(&plural.as_str());
            assert!(!found, "{}", file.path.display());
        }
    }
}

#[test]
fn types_are_named_for_what_they_are() {
    for file in files() {
        let code = file.code();
        let words: Vec<_> = code.split(' ').collect();
        for pair in words.windows(2) {
            if !["struct", "enum", "trait", "type", "union"].contains(&pair[0]) {
                continue;
            }
            let name = pair[1].to_lowercase();
            let banned = BANNED.iter().find(|word| name.contains(*word));
            assert!(banned.is_none(), "{}: {}", file.path.display(), pair[1]);
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for file in files() {
        let documented = file.text.starts_with("//! ");
        assert!(
            documented,
            "{} has no `//!` at its top",
            file.path.display()
        );
    }
}

#[test]
fn no_file_is_long() {
    for file in files().iter().chain(&files_in("tests")) {
        let lines = file.text.lines().count();
        assert!(lines <= MAX_LINES, "{}: {lines} lines", file.path.display());
    }
}

#[test]
fn there_are_no_macros_of_our_own() {
    for file in files() {
        let found = file.code().contains("macro_rules!");
        assert!(!found, "{}", file.path.display());
    }
}

#[test]
fn paths_are_read_from_every_form_of_import() {
    let file = |text: &str| File {
        path: PathBuf::new(),
        module: vec!["map".to_owned(), "flusher".to_owned()],
        text: text.to_owned(),
    };
    let text = "use crate::{\n    a::{B, c::D as E},\n    f,\n};\nuse super::{g::H, I};\n\
                fn x() { crate::j::k(); super::super::l::m() }\n// use crate::not;\n";
    let paths: Vec<_> = file(text)
        .paths()
        .iter()
        .map(|path| path.join("::"))
        .collect();
    let expected = [
        "a::B",
        "a::c::D",
        "f",
        "j::k",
        "l::m",
        "map::I",
        "map::g::H",
    ];
    assert_eq!(paths, expected);
}
