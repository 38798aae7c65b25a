//! Opening a provider, with its layers, by a URL or a configuration.

mod config;
mod layers;
mod mistakes;
mod options;
mod quantity;
mod schemes;
mod setting;
mod url;

use std::sync::Arc;

use crate::{error::Result, provider::Provider};

pub use config::ProviderConfig;

/// Opens the provider that a URL describes, with its layers.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// use persistify::{PersistentMap, connect};
///
/// let store = connect("memory:?namespace=acme").await?;
/// let stock: PersistentMap<u32> = PersistentMap::builder(store, "stock").open().await?;
/// stock.insert_and_save("apple", 3).await?;
/// # stock.close().await
/// # }
/// ```
///
/// Options may follow the path or address: `sqlite:app.db?synchronous=normal&namespace=acme`.
/// [`ProviderConfig`] has the same options in a configuration file.
///
/// # Providers
///
/// | URL | feature | opens | options |
/// | --- | --- | --- | --- |
/// | `memory:` | | [`Memory`](crate::Memory) | `keep_tombstones` |
/// | `json:./data` | `json` | [`JsonFile`](crate::JsonFileBuilder), by the path of the folder | `max_journal`, `keep_tombstones`, `file_mode`, `file.<map>` |
/// | `sqlite:app.db` | `sqlite` | [`Sqlite`](crate::SqliteBuilder), by the path of the file | `busy_timeout`, `synchronous` (`full` or `normal`), `keep_tombstones`, `file_mode`, `table.<map>`, `columns.key`, `columns.value`, `columns.updated_at` |
/// | `postgres://user:password@host/database` (or `postgresql://`) | `postgres` | [`Postgres`](crate::PostgresBuilder) | `schema`, `max_connections`, `connect_timeout`, `wait_timeout`, `statement_timeout`, `lock_timeout`, `tls` (`off`, `prefer` or `require`), `root_certificate`, `value_type` (`jsonb`, `json`, `text` or `bytea`), `keep_tombstones`, `table.<map>`, `columns.key`, `columns.value`, `columns.updated_at` |
///
/// Each option is the method of the builder with that name, and has its default and its bounds.
/// `table.limits=Limits` stores the map `limits` in the existing table `Limits`, and
/// `file.limits=Limits.json` stores it in that file.
///
/// All other options of a Postgres URL are those of the driver, such as `sslmode` and
/// `application_name`; it gets them unchanged. A `connect_timeout` without a unit is the driver's,
/// in seconds.
///
/// # Layers
///
/// | option | feature | layer |
/// | --- | --- | --- |
/// | `breaker=true` | | [`CircuitBreaker`](crate::CircuitBreaker), with `breaker.failures`, `breaker.window`, `breaker.cool_down` and `breaker.name`; each of them alone adds it, and `breaker=false` leaves it out |
/// | `journal=./spool` | `journal` | `Journaled` with this folder, with `journal.max_bytes` and `journal.acknowledge` (`local` or `remote`) |
/// | `compress=zstd` or `compress=lz4` | `zstd`, `lz4` | `Compressed`, with `compress.level` (3, for `zstd` only) and `compress.min_size` |
/// | `metrics=main` | `metrics` | `Metered` of this name, with `metrics.slow`; measures the calls above all layers but namespaces |
/// | `namespace=acme` | | [`Namespaced`](crate::Namespaced); `namespace=acme/eu` nests two |
///
/// The first layer of this table is nearest to the store, and maps call the last one first; the
/// order in a URL does not matter. In a configuration file, `journal.folder`, `compress.algorithm`
/// and `metrics.name` are other names of `journal`, `compress` and `metrics`. The options have the
/// defaults and the bounds of the layer.
///
/// `Encrypted` is not among them, because keys belong neither in a URL nor in a configuration
/// file. Add it in code: `connect("sqlite:app.db").await?.layer(Encrypted::new(keys))`. Then add
/// the layers that belong above it in code, too: compression and namespaces.
///
/// # Syntax
///
/// - Times have a unit: `250ms`, `5s`, `10m`, `2h`, `1d`. Sizes are bytes, or have a unit:
///   `1048576`, `64KiB`, `64MiB`, `1GiB`. A `file_mode` is octal: `0640`.
/// - Paths and values are percent-decoded: `%20` is a space, `%3F` a `?`, `%26` an `&`. A `+` is a
///   plus sign. A relative path starts at the current folder; `//` after `json:` or `sqlite:` is an
///   error.
/// - Each option is given once, in any order.
///
/// # Errors
///
/// - `Invalid`: the scheme, an option or a value is not known. The message lists the known ones,
///   and suggests the nearest. It quotes no value except an invalid namespace, and no part of a
///   Postgres URL that might be a password. Nothing was opened or created. A value out of its
///   bounds is `Invalid` only once the provider is opened, or, for most options of layers, when a
///   map is.
/// - `Unsupported`: the scheme or the layer needs a feature of this crate that is not compiled
///   in.
/// - Those of opening the provider: [`JsonFileBuilder::open`](crate::JsonFileBuilder::open),
///   [`SqliteBuilder::open`](crate::SqliteBuilder::open),
///   [`PostgresBuilder::connect`](crate::PostgresBuilder::connect).
pub async fn connect(url: impl AsRef<str>) -> Result<Arc<dyn Provider>> {
    ProviderConfig::new(url.as_ref()).connect().await
}
