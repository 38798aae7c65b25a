//! The public API, as a list that has to be updated on purpose:
//!
//! ```text
//! PERSISTIFY_UPDATE=1 cargo test --all-features --test it public_api
//! ```
//!
//! It is read from the source. Everything `pub` there is reachable from outside, because of the
//! lint `unreachable_pub`.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use quote::ToTokens;
use syn::{Attribute, Fields, ImplItem, Item, ItemImpl, TraitItem, Type, Visibility};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// All items of the source, without unit tests.
fn items() -> Vec<Item> {
    let texts = sources()
        .into_iter()
        .map(|path| fs::read_to_string(path).unwrap());
    let files = texts.map(|text| syn::parse_file(&text).unwrap());
    files.flat_map(|file| file.items).collect()
}

/// The code on one line, with the usual spacing.
fn code(tokens: impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string().replace('\n', " ");
    for (spaced, tight) in [
        (" :: ", "::"),
        (":: ", "::"),
        ("< ", "<"),
        (" <", "<"),
        (" >", ">"),
        (" ,", ","),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        ("& ", "&"),
        (" :", ":"),
        (",)", ")"),
    ] {
        text = text.replace(spaced, tight);
    }
    text
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The derived traits.
fn derived(attributes: &[Attribute]) -> String {
    let derives = attributes
        .iter()
        .filter(|one| one.path().is_ident("derive"));
    derives.map(|one| code(&one.meta) + " ").collect()
}

fn fields(owner: &str, fields: &Fields, all: bool) -> Vec<String> {
    let listed = fields.iter().filter(|field| all || is_public(&field.vis));
    let line = |(n, field): (usize, &syn::Field)| {
        let name = field.ident.as_ref().map_or(n.to_string(), code);
        format!("{owner}.{name}: {}", code(&field.ty))
    };
    listed.enumerate().map(line).collect()
}

/// The public names of types and traits.
fn names(items: &[Item]) -> BTreeSet<String> {
    let name = |item: &Item| match item {
        Item::Struct(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::Enum(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::Trait(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        _ => None,
    };
    items.iter().filter_map(name).collect()
}

fn methods(item: &ItemImpl, names: &BTreeSet<String>) -> Vec<String> {
    let Type::Path(path) = &*item.self_ty else {
        return Vec::new();
    };
    let base = path.path.segments.last().unwrap().ident.to_string();
    let owner = code(&item.self_ty);
    match &item.trait_ {
        Some((_, of, _)) if names.contains(&base) => vec![format!("{owner}: impl {}", code(of))],
        Some(_) => Vec::new(),
        None => {
            let public = item.items.iter().filter_map(|item| match item {
                ImplItem::Fn(item) if is_public(&item.vis) => Some(code(&item.sig)),
                ImplItem::Const(item) if is_public(&item.vis) => Some(code(&item.ident)),
                _ => None,
            });
            public.map(|line| format!("{owner}: {line}")).collect()
        }
    }
}

fn lines(item: &Item, names: &BTreeSet<String>) -> Vec<String> {
    match item {
        Item::Fn(item) if is_public(&item.vis) => vec![code(&item.sig)],
        Item::Const(item) if is_public(&item.vis) => {
            vec![format!("const {}: {}", item.ident, code(&item.ty))]
        }
        Item::Struct(item) if is_public(&item.vis) => {
            let head = format!("{}struct {}", derived(&item.attrs), item.ident);
            let mut lines = vec![head + &code(&item.generics)];
            lines.extend(fields(&item.ident.to_string(), &item.fields, false));
            lines
        }
        Item::Enum(item) if is_public(&item.vis) => {
            let head = format!("{}enum {}", derived(&item.attrs), item.ident);
            let mut lines = vec![head + &code(&item.generics)];
            for variant in &item.variants {
                let name = format!("{}::{}", item.ident, variant.ident);
                lines.extend(fields(&name, &variant.fields, true));
                lines.push(name);
            }
            lines
        }
        Item::Trait(item) if is_public(&item.vis) => {
            let bounds = code(&item.supertraits);
            let mut lines = vec![format!("trait {}: {bounds}", item.ident)];
            for method in &item.items {
                if let TraitItem::Fn(method) = method {
                    let body = method.default.as_ref().map_or("", |_| " { .. }");
                    lines.push(format!("{}: {}{body}", item.ident, code(&method.sig)));
                }
            }
            lines
        }
        Item::Impl(item) => methods(item, names),
        Item::Use(item) if is_public(&item.vis) => vec![format!("use {}", code(&item.tree))],
        _ => Vec::new(),
    }
}

/// The public API, sorted.
fn api() -> BTreeSet<String> {
    let items = items();
    let names = names(&items);
    items.iter().flat_map(|item| lines(item, &names)).collect()
}

#[test]
fn the_public_api_is_the_one_that_is_written_down() {
    let found: String = api().into_iter().map(|line| line + "\n").collect();
    let path = root().join("tests/it/public_api.txt");
    if env::var_os("PERSISTIFY_UPDATE").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let (found, written): (BTreeSet<_>, BTreeSet<_>) =
        (found.lines().collect(), written.lines().collect());
    let more: Vec<_> = found.difference(&written).collect();
    let less: Vec<_> = written.difference(&found).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "the public API has changed; if that is meant, run\n    \
         PERSISTIFY_UPDATE=1 cargo test --all-features --test it public_api\n\
         and say it in CHANGELOG.md. New: {more:#?}\nGone: {less:#?}"
    );
}

/// Through `Deref`, a method without a blocking version returns a future, which does nothing.
#[test]
fn every_async_method_of_a_map_has_a_blocking_version() {
    let api = api();
    let methods = |starts: [&str; 2]| -> BTreeSet<_> {
        let rest = |start| api.iter().filter_map(move |line| line.strip_prefix(start));
        let name = |rest: &str| rest.split(['(', '<']).next().map(str::to_owned);
        starts.into_iter().flat_map(rest).filter_map(name).collect()
    };
    let waiting = methods(["Map<V, L>: async fn ", "CachingMap<V>: async fn "]);
    let blocking = methods(["Blocking<M>: fn ", "CachingMap<V>: fn "]);
    assert!(waiting.contains("flush"), "{waiting:?}");
    let missing: Vec<_> = waiting.difference(&blocking).collect();
    assert!(
        missing.is_empty(),
        "not in `persistify::blocking`: {missing:?}"
    );
}
