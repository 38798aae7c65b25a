//! The layers of a configuration, and their order.

use std::{sync::Arc, time::Duration};

use super::options::Options;
#[cfg(any(feature = "lz4", feature = "zstd"))]
use crate::layer::compressed::Compressed;
#[cfg(feature = "journal")]
use crate::layer::journaled::{Acknowledge, Journaled};
#[cfg(feature = "metrics")]
use crate::layer::metered::Metered;
use crate::{
    error::Result,
    layer::{
        chain::{IntoLayer, ProviderExt},
        circuit_breaker::CircuitBreaker,
        namespaced::Namespaced,
    },
    name::MapName,
    provider::Provider,
};

/// Wraps a store in a layer.
type Wrap = Box<dyn FnOnce(Arc<dyn Provider>) -> Result<Arc<dyn Provider>> + Send>;

/// The layers around a provider, from the inside to the outside.
pub(super) struct Layers(Vec<Wrap>);

impl Layers {
    /// The order is that of this list, whatever the order in a URL:
    ///
    /// - The breaker is directly around the store, so that all other layers are told at once that
    ///   it is down.
    /// - The journal is above the store, which may be down. It holds compressed values.
    /// - Metrics measure the calls as the maps experience them.
    /// - The namespace is the outermost, so that the other layers see the full names of maps.
    pub(super) fn read(options: &mut Options) -> Result<Self> {
        refuse_keys(options)?;
        let inner = [
            breaker(options)?,
            journal(options)?,
            compress(options)?,
            metrics(options)?,
        ];
        let mut layers: Vec<_> = inner.into_iter().flatten().collect();
        layers.extend(namespaces(options)?);
        Ok(Self(layers))
    }

    pub(super) fn around(self, store: Arc<dyn Provider>) -> Result<Arc<dyn Provider>> {
        self.0
            .into_iter()
            .try_fold(store, |store, wrap| wrap(store))
    }
}

fn wrap(layer: impl IntoLayer<Arc<dyn Provider>> + Send + 'static) -> Wrap {
    Box::new(|store| Ok(Arc::new(store.layer(layer))))
}

fn breaker(options: &mut Options) -> Result<Option<Wrap>> {
    let is_given = options.is_given("breaker");
    let is_wanted = options.flag("breaker")?.unwrap_or(is_given);
    let mut breaker = CircuitBreaker::new();
    if let Some(name) = options.text("breaker.name") {
        breaker = breaker.named(name);
    }
    if let Some(failures) = options.number("breaker.failures")? {
        breaker = breaker.failures(failures);
    }
    if let Some(window) = options.duration("breaker.window")? {
        breaker = breaker.window(window);
    }
    if let Some(time) = options.duration("breaker.cool_down")? {
        breaker = breaker.cool_down(time);
    }
    Ok(is_wanted.then(|| wrap(breaker)))
}

fn journal(options: &mut Options) -> Result<Option<Wrap>> {
    let is_given = options.is_given("journal");
    let folder = options.either("journal", "journal.folder")?;
    let max_bytes = options.size("journal.max_bytes")?;
    let words = [("local", true), ("remote", false)];
    let is_local = options.choice("journal.acknowledge", &words)?;
    if !is_given {
        return Ok(None);
    }
    let folder = options.needed("journal", folder, "the path of a folder, such as `./spool`")?;
    journaled(&folder, max_bytes, is_local.unwrap_or(true)).map(Some)
}

#[cfg(feature = "journal")]
#[expect(clippy::unnecessary_wraps, reason = "an error without the feature")]
fn journaled(folder: &str, max_bytes: Option<u64>, is_local: bool) -> Result<Wrap> {
    let mut journal = Journaled::new(folder);
    if let Some(bytes) = max_bytes {
        journal = journal.max_bytes(bytes);
    }
    if !is_local {
        journal = journal.acknowledge(Acknowledge::Remote);
    }
    Ok(wrap(journal))
}

#[cfg(not(feature = "journal"))]
fn journaled(_: &str, _: Option<u64>, _: bool) -> Result<Wrap> {
    Err(super::mistakes::needs_feature("`journal`", "journal"))
}

fn compress(options: &mut Options) -> Result<Option<Wrap>> {
    let is_given = options.is_given("compress");
    let algorithm = options.either("compress", "compress.algorithm")?;
    let form = "write a number from 1 to 22";
    let level = options.parsed("compress.level", form, |text| text.parse().ok())?;
    let min_size = options.size("compress.min_size")?;
    if !is_given {
        return Ok(None);
    }
    match options
        .needed("compress", algorithm, "`lz4` or `zstd`")?
        .as_str()
    {
        "lz4" if level.is_some() => {
            Err(options.wrong("compress.level", "`lz4` has no levels; use `zstd`"))
        }
        "lz4" => compressed_by_lz4(min_size).map(Some),
        "zstd" => compressed_by_zstd(level.unwrap_or(3), min_size).map(Some),
        _ => Err(options.wrong("compress", "write `lz4` or `zstd`")),
    }
}

#[cfg(feature = "lz4")]
#[expect(clippy::unnecessary_wraps, reason = "an error without the feature")]
fn compressed_by_lz4(min_size: Option<u64>) -> Result<Wrap> {
    Ok(compressed(Compressed::lz4(), min_size))
}

#[cfg(not(feature = "lz4"))]
fn compressed_by_lz4(_: Option<u64>) -> Result<Wrap> {
    Err(super::mistakes::needs_feature("`compress=lz4`", "lz4"))
}

#[cfg(feature = "zstd")]
#[expect(clippy::unnecessary_wraps, reason = "an error without the feature")]
fn compressed_by_zstd(level: i32, min_size: Option<u64>) -> Result<Wrap> {
    Ok(compressed(Compressed::zstd(level), min_size))
}

#[cfg(not(feature = "zstd"))]
fn compressed_by_zstd(_: i32, _: Option<u64>) -> Result<Wrap> {
    Err(super::mistakes::needs_feature("`compress=zstd`", "zstd"))
}

#[cfg(any(feature = "lz4", feature = "zstd"))]
fn compressed(layer: Compressed, min_size: Option<u64>) -> Wrap {
    let bytes = min_size.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    wrap(match bytes {
        Some(bytes) => layer.min_size(bytes),
        None => layer,
    })
}

fn metrics(options: &mut Options) -> Result<Option<Wrap>> {
    let is_given = options.is_given("metrics");
    let name = options.either("metrics", "metrics.name")?;
    let slow = options.duration("metrics.slow")?;
    if !is_given {
        return Ok(None);
    }
    let name = options.needed("metrics", name, "the name of the provider in the metrics")?;
    metered(name, slow).map(Some)
}

#[cfg(feature = "metrics")]
#[expect(clippy::unnecessary_wraps, reason = "an error without the feature")]
fn metered(name: String, slow: Option<Duration>) -> Result<Wrap> {
    let metered = Metered::new(name);
    Ok(wrap(match slow {
        Some(limit) => metered.slow(limit),
        None => metered,
    }))
}

#[cfg(not(feature = "metrics"))]
fn metered(_: String, _: Option<Duration>) -> Result<Wrap> {
    Err(super::mistakes::needs_feature("`metrics`", "metrics"))
}

fn namespaces(options: &mut Options) -> Result<Vec<Wrap>> {
    let names = options.text("namespace");
    let names = names.iter().flat_map(|names| names.split('/'));
    let namespace = |name| {
        let name = MapName::new(name)?;
        let wrap = |store| Ok(Arc::new(Namespaced::new(store, name)?) as Arc<dyn Provider>);
        Ok(Box::new(wrap) as Wrap)
    };
    names.map(namespace).collect()
}

/// Keys are neither in URLs nor in files of options.
fn refuse_keys(options: &Options) -> Result<()> {
    for name in ["encrypt", "encrypted", "encryption", "encryption_key"] {
        if options.is_given(name) {
            let problem = "keys belong neither in a URL nor in a configuration file; open the store \
                           without it, and wrap it in code: `store.layer(Encrypted::new(keys))`";
            return Err(options.wrong(name, problem));
        }
    }
    Ok(())
}
