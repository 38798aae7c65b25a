//! Copies maps from one provider to another.

mod pass;
mod sum;

use crate::{
    error::{Error, ErrorKind, Result},
    load::Wanted,
    name::MapName,
    provider::Provider,
    trace::COPY,
};

use self::{
    pass::{Pass, load, patiently},
    sum::{Sum, Sums},
};

/// The result of a [`copy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// The number of maps that are now equal in both providers.
    pub maps: usize,
    /// The number of records in these maps.
    pub records: u64,
    /// The number of records that were written. The others were in the target
    /// already.
    pub written: u64,
    /// The size of the written keys and values, in bytes.
    pub bytes: u64,
}

/// Copies maps from one provider to another, record by record.
///
/// A record is copied with its value, schema version and expiry; expired records are
/// copied too. Values are not decoded into a type, so unreadable records are copied
/// like all others. The target assigns its own revisions. It also assigns its own
/// write times, except for entries that expire.
///
/// `Ok` means that each map was re-read in both providers and compared equal: the
/// number of records, and a checksum over keys, schema versions, expiries and the
/// content of the JSON, regardless of its formatting.
///
/// `on_progress` is called after each page, with the number of records so far and,
/// if the source knows it, an estimate of the total.
///
/// Do not write to these maps during the copy, in either provider; otherwise the
/// copy may fail because the two sides differ. Memory use is independent of the size
/// of the map if the target's map is empty; otherwise the copy holds the keys of the
/// target's map and a digest of each record.
///
/// # Resuming
///
/// To resume a copy that failed or was interrupted, call it again. Records that are
/// already equal in the target are not written again; those that differ are. The
/// copy deletes nothing: if a target's map contains a key that the source's map does
/// not, nothing is written to that map. Maps are copied one after the other, in the
/// given order.
///
/// The map `<map>/unreadable`, which holds the unreadable records of a map that were
/// overwritten, is copied only if it is listed, as [`Provider::maps`] does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// use persistify::{Memory, PersistentMap, Provider};
///
/// let (from, to) = (Memory::new(), Memory::new());
/// let stock: PersistentMap<u32> = PersistentMap::builder(from.clone(), "stock").open().await?;
/// stock.insert("apple", 3);
/// stock.close().await?;
///
/// let copied = persistify::copy(&from, &to, from.maps().await?, |_, _| {}).await?;
/// assert_eq!((copied.maps, copied.records), (1, 1));
/// let stock: PersistentMap<u32> = PersistentMap::builder(to, "stock").open().await?;
/// assert_eq!(stock.get("apple"), Some(3));
/// # stock.close().await
/// # }
/// ```
///
/// # Errors
///
/// - `Invalid` if a name is not valid, if the source lists its maps and the map is
///   not among them, or if the target's map contains other keys. Nothing was
///   written to that map.
/// - `Conflict`, with the keys, if the two sides differ at the end because one of
///   them was written to.
/// - `Refused`, with the keys, if the target rejects records.
/// - Other errors of the providers. `Unavailable` is returned after five attempts; a
///   commit of unknown outcome is repeated as the identical batch.
///
/// Records written so far stay in the target. Both providers
/// [release](Provider::release) the maps in any case; a map that is open at the same
/// time keeps working.
pub async fn copy<F, T, N>(
    from: &F,
    to: &T,
    maps: impl IntoIterator<Item = N>,
    on_progress: impl Fn(u64, Option<u64>) + Send + Sync,
) -> Result<Copied>
where
    F: Provider,
    T: Provider,
    N: TryInto<MapName>,
    N::Error: Into<Error>,
{
    let maps: Result<Vec<MapName>> = { maps.into_iter() }
        .map(|map| map.try_into().map_err(Into::into))
        .collect();
    let (from, to, maps): (&dyn Provider, &dyn Provider, _) = (from, to, maps?);
    check_listed(from, &maps).await?;
    let copied = copy_all(from, to, &maps, on_progress).await;
    if copied.is_err() {
        let_go(from, to, &maps).await;
    }
    copied
}

async fn copy_all(
    from: &dyn Provider,
    to: &dyn Provider,
    maps: &[MapName],
    on_progress: impl Fn(u64, Option<u64>) + Send + Sync,
) -> Result<Copied> {
    let total = total(from, maps).await?;
    let mut copied = Copied::default();
    for map in maps {
        let so_far = copied.records;
        let report = |records| on_progress(so_far + records, total);
        let pass = Pass::begin(from, to, map).await?;
        let (written, bytes) = pass.run(report).await?;
        let records = verify(from, to, map).await?;
        copied.maps += 1;
        copied.records += records;
        copied.written += written;
        copied.bytes += bytes;
        let released = to.release(map).await.and(from.release(map).await);
        released.map_err(|error| error.on_map(map))?;
    }
    Ok(copied)
}

/// Releases all maps: the source loaded each of them for the total.
async fn let_go(from: &dyn Provider, to: &dyn Provider, maps: &[MapName]) {
    for map in maps {
        for provider in [to, from] {
            // The caller gets the error of the copy, not this one.
            if let Err(error) = provider.release(map).await {
                tracing::warn!(target: COPY, %map, error = %error.logged(), "a map was not released after a failed copy");
            }
        }
    }
}

/// Checks that the source has the maps. Otherwise a misspelt name would look like
/// an empty map.
async fn check_listed(from: &dyn Provider, maps: &[MapName]) -> Result<()> {
    let listed = match patiently(|| from.maps()).await {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(missing) = maps.iter().find(|map| !listed.contains(map)) else {
        return Ok(());
    };
    let message = "the source has no map of this name; nothing was copied";
    Err(Error::new(ErrorKind::Invalid, message).on_map(missing))
}

/// An estimate of the number of records, if the source has one for each map.
async fn total(from: &dyn Provider, maps: &[MapName]) -> Result<Option<u64>> {
    let mut total = Some(0);
    for map in maps {
        let hint = load(from, map, Wanted::All).await?.total_hint;
        total = total.zip(hint).map(|(total, hint)| total + hint);
    }
    Ok(total)
}

/// Compares the map in both providers. Returns the number of records.
async fn verify(from: &dyn Provider, to: &dyn Provider, map: &MapName) -> Result<u64> {
    let source = Sum::of(load(from, map, Wanted::All).await?).await?;
    let target = Sum::of(load(to, map, Wanted::All).await?).await?;
    if source == target {
        return Ok(source.records);
    }
    let mut sums = Sums::of(load(from, map, Wanted::All).await?).await?;
    let keys = sums.differing(load(to, map, Wanted::All).await?).await?;
    let message = format!(
        "the copy differs from the source: the source has {} records, the target {}, and these \
         keys differ; copy again, and do not write to either map during the copy",
        source.records, target.records
    );
    Err(Error::new(ErrorKind::Conflict, message)
        .on_map(map)
        .on_keys(keys))
}
