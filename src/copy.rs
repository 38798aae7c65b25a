//! Moves maps from one provider to another.

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

/// What a [`copy`] has brought about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Maps that are now the same in both providers.
    pub maps: usize,
    /// Records that they hold.
    pub records: u64,
    /// Those of them that had to be written; the others were there already.
    pub written: u64,
    /// Bytes of the keys and values that were written.
    pub bytes: u64,
}

/// Copies maps from one provider to another, record by record: values, the
/// numbers of their shapes and expiries, expired records included. It needs to
/// know no type of value, so unreadable ones are copied like all others.
///
/// `Ok` means that each map was read again in both providers, and that the two
/// hold the same: as many records, and the same checksum over what the JSON
/// means, whatever way it is written. Revisions are the target's own; so are times
/// of writing, except those of entries that expire.
///
/// Nobody should write to these maps meanwhile, in either provider; if someone
/// does, the copy may end with the error that they differ. Records are read and
/// written in pages and batches; the memory that this takes does not follow the
/// map, unless a target holds something already: then its keys are held.
///
/// # Again
///
/// A copy that was cut short, by an error or the end of the process, is gone on
/// with by calling it again: what is there already and is the same is not
/// written again, and what differs is. A target's map is never cleared, and no
/// record of it deleted: if it holds a key that the source does not, nothing is
/// written to it. Maps are copied in order, and each whole before the next.
///
/// A map of the name `<map>/unreadable`, where a map sets records aside, is
/// copied if it is named, as it is by [`Provider::maps`].
///
/// `on_progress` is called after each page, with the number of records so far
/// and, if the source knows, about how many there are in all.
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
/// - `Invalid` if a name is none, the source lists its maps and this is not one
///   of them, or the target's map holds other keys; nothing was written to it.
/// - `Conflict`, naming keys, if the two differ at the end: someone has written
///   to one of them.
/// - `Refused`, naming the keys, if the target takes no such records.
/// - Otherwise what the providers err with. What is `Unavailable` was tried a
///   few times; a commit of which the outcome is not known, as the identical
///   batch.
///
/// In all of them, what was written so far stays. Whatever becomes of it, the
/// providers are told to [let go](Provider::release) of the maps; one that is
/// open meanwhile goes on.
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

/// The source was asked about all of them at the beginning.
async fn let_go(from: &dyn Provider, to: &dyn Provider, maps: &[MapName]) {
    for map in maps {
        for provider in [to, from] {
            // Why the copy has ended is what its caller has to hear.
            if let Err(error) = provider.release(map).await {
                tracing::warn!(target: COPY, %map, error = %error.logged(), "a map was not released after a copy that failed");
            }
        }
    }
}

/// A name that was misspelt must not look like an empty map that was copied.
async fn check_listed(from: &dyn Provider, maps: &[MapName]) -> Result<()> {
    let listed = match patiently(|| from.maps()).await {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(missing) = maps.iter().find(|map| !listed.contains(map)) else {
        return Ok(());
    };
    let message = "the source holds no map of this name; nothing was copied";
    Err(Error::new(ErrorKind::Invalid, message).on_map(missing))
}

/// About how many records there are, if that is known of all maps.
async fn total(from: &dyn Provider, maps: &[MapName]) -> Result<Option<u64>> {
    let mut total = Some(0);
    for map in maps {
        let hint = load(from, map, Wanted::All).await?.total_hint;
        total = total.zip(hint).map(|(total, hint)| total + hint);
    }
    Ok(total)
}

/// That the two hold the same; how many records that is.
async fn verify(from: &dyn Provider, to: &dyn Provider, map: &MapName) -> Result<u64> {
    let source = Sum::of(load(from, map, Wanted::All).await?).await?;
    let target = Sum::of(load(to, map, Wanted::All).await?).await?;
    if source == target {
        return Ok(source.records);
    }
    let mut sums = Sums::of(load(from, map, Wanted::All).await?).await?;
    let keys = sums.differing(load(to, map, Wanted::All).await?).await?;
    let message = format!(
        "the copy is not the same as the map: the source holds {} records, the target {}, and \
         these keys differ; nobody may write to either meanwhile: copy again",
        source.records, target.records
    );
    Err(Error::new(ErrorKind::Conflict, message)
        .on_map(map)
        .on_keys(keys))
}
