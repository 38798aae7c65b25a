//! The schemes of URLs, and the provider of each.

#[cfg(any(feature = "json", feature = "sqlite"))]
mod files;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(all(test, feature = "json", feature = "sqlite", feature = "postgres"))]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};

use super::{
    mistakes::{needs_feature, suggestion, wrong},
    options::Options,
    url::Url,
};
use crate::{
    error::{Error, Result},
    provider::{Provider, memory::Memory},
};

/// A provider that is described completely and not open yet.
pub(super) type Opening = BoxFuture<'static, Result<Arc<dyn Provider>>>;

/// The options beside a URL.
pub(super) type Beside = BTreeMap<String, String>;

/// The schemes, and the features that they need.
const SCHEMES: [(&str, Option<&str>); 5] = [
    ("memory", None),
    ("json", Some("json")),
    ("sqlite", Some("sqlite")),
    ("postgres", Some("postgres")),
    ("postgresql", Some("postgres")),
];

/// Reads the options of the provider, and leaves those of layers.
pub(super) fn read(url: &Url<'_>, beside: &Beside) -> Result<(Opening, Options)> {
    let options = |scheme| Options::collect(scheme, url.pairs().collect(), beside.clone());
    match url.scheme {
        "memory" => {
            let mut options = options("memory")?;
            let store = memory(url, &mut options)?;
            Ok((opening(async { Ok(store) }), options))
        }
        #[cfg(feature = "json")]
        "json" => {
            let mut options = options("json")?;
            let builder = files::json(url, &mut options)?;
            Ok((opening(builder.open()), options))
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let mut options = options("sqlite")?;
            let builder = files::sqlite(url, &mut options)?;
            Ok((opening(builder.open()), options))
        }
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => {
            let (address, mut options) = postgres::split(url, beside)?;
            let builder = postgres::builder(&address, &mut options)?;
            Ok((opening(builder.connect()), options))
        }
        other => Err(not_known(other)),
    }
}

fn opening<P: Provider>(open: impl Future<Output = Result<P>> + Send + 'static) -> Opening {
    async { Ok(Arc::new(open.await?) as Arc<dyn Provider>) }.boxed()
}

fn not_known(scheme: &str) -> Error {
    let known = SCHEMES.iter().find(|(name, _)| *name == scheme);
    if let Some((_, Some(feature))) = known {
        return needs_feature(&format!("`{scheme}:`"), feature);
    }
    let known = SCHEMES.iter().map(|(name, _)| format!("{name}:"));
    let suggestion = suggestion(&format!("{scheme}:"), &known.collect());
    wrong(format!(
        "`{scheme}:` is no scheme of a provider{suggestion}"
    ))
}

fn memory(url: &Url<'_>, options: &mut Options) -> Result<Memory> {
    if !url.place.is_empty() {
        return Err(wrong("`memory:` is followed by nothing but options"));
    }
    let mut store = Memory::new();
    if let Some(time) = options.duration("keep_tombstones")? {
        store = store.keep_tombstones(time);
    }
    Ok(store)
}

/// The names of the columns, if one is given. The others have their default.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn columns(options: &mut Options) -> Option<[String; 3]> {
    let names = ["key", "value", "updated_at"];
    let given = names.map(|name| options.text(&format!("columns.{name}")));
    if given.iter().all(Option::is_none) {
        return None;
    }
    let [key, value, updated_at] = given;
    let or = |given: Option<String>, name: &str| given.unwrap_or_else(|| name.to_owned());
    Some([
        or(key, names[0]),
        or(value, names[1]),
        or(updated_at, names[2]),
    ])
}
