//! The description of a provider in a configuration file.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};

use super::{layers::Layers, schemes, setting::Setting, url::Url};
use crate::{
    error::{Error, ErrorKind, Result},
    provider::Provider,
};

/// Shown in place of a part that may be a secret.
const HIDDEN: &str = "***";

/// The description of a provider and its layers, for a configuration file.
///
/// It is a URL, as for [`connect`](crate::connect()), alone or in a table with its options:
///
/// ```toml
/// cache = "memory:"
///
/// [store]
/// url = "sqlite:app.db"
/// synchronous = "normal"
/// busy_timeout = "10s"
/// namespace = "acme"
/// table.limits = "Limits" # the map `limits` is in the table `Limits`
/// ```
///
/// The keys beside `url` are the options that [`connect`](crate::connect()) lists, with the same
/// values. Integers and booleans need no quotes, except for `file_mode`, whose digits are octal:
/// `file_mode = "0640"`. A name with a dot may be written as a table. Options may also be in the
/// URL, but each is given once. The crate does not read files: use the parser of your choice.
///
/// ```
/// use persistify::ProviderConfig;
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Config {
///     store: ProviderConfig,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let text = r#"
///     [store]
///     url = "memory:"
///     namespace = "acme"
/// "#;
/// let config: Config = toml::from_str(text)?;
/// let store = config.store.connect().await?;
///
/// let text = r#"{ "store": { "url": "memory:", "namespace": "acme" } }"#;
/// let config: Config = serde_json::from_str(text)?;
/// let store = config.store.connect().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Secrets
///
/// Percent-encode the password in a Postgres URL, or write it unencoded under a key of its own:
/// `password = "…"`. `Debug` and [`Serialize`] show the options and the path, but nothing of a
/// Postgres URL except its scheme, and nothing at all of a description that is not valid. So a
/// serialized Postgres URL cannot be used to connect.
///
/// [`connect`](Self::connect) and [`check`](Self::check) check the options, and parsing does not:
/// parsers quote the line of an error, which may contain a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderConfig {
    url: String,
    /// The options beside the URL.
    options: BTreeMap<String, String>,
}

impl ProviderConfig {
    /// Creates the description of a provider by its URL; see [`connect`](crate::connect()). It is
    /// not checked yet.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            options: BTreeMap::new(),
        }
    }

    /// Checks the URL and the options, without opening anything. Most bounds are checked later:
    /// those of providers when they are opened, those of layers when a map is opened.
    ///
    /// # Errors
    ///
    /// `Invalid` or `Unsupported`, as for [`connect`](crate::connect()).
    pub fn check(&self) -> Result<()> {
        self.plan().map(drop)
    }

    /// Opens the provider, with its layers.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](crate::connect()).
    pub async fn connect(&self) -> Result<Arc<dyn Provider>> {
        let plan = self.plan()?;
        plan.layers.around(plan.opening.await?)
    }

    fn plan(&self) -> Result<Plan> {
        if self.url.is_empty() {
            let message = "the configuration of the provider has no `url`, such as `sqlite:app.db`";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let url = Url::split(&self.url)?;
        let (opening, mut options) = schemes::read(&url, &self.options)?;
        let layers = Layers::read(&mut options)?;
        let mut shown = options.finish()?;
        shown.insert("url".to_owned(), url.shown());
        Ok(Plan {
            opening,
            layers,
            shown,
        })
    }

    /// The description without secrets. An option in the URL is like one beside it.
    fn shown(&self) -> BTreeMap<String, String> {
        let hidden = || [("url".to_owned(), HIDDEN.to_owned())].into();
        self.plan().map_or_else(|_| hidden(), |plan| plan.shown)
    }
}

/// A valid description.
struct Plan {
    opening: schemes::Opening,
    layers: Layers,
    shown: BTreeMap<String, String>,
}

impl fmt::Debug for ProviderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProviderConfig ")?;
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for ProviderConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.shown())
    }
}

impl<'de> Deserialize<'de> for ProviderConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UrlOrTable)
    }
}

struct UrlOrTable;

impl<'de> Visitor<'de> for UrlOrTable {
    type Value = ProviderConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the URL of a provider, or a table with its `url` and its options")
    }

    fn visit_str<E>(self, url: &str) -> Result<ProviderConfig, E> {
        Ok(ProviderConfig::new(url))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<ProviderConfig, A::Error> {
        let mut options = BTreeMap::new();
        while let Some(name) = table.next_key::<String>()? {
            table.next_value::<Setting>()?.add_to(&mut options, name);
        }
        let url = options.remove("url").unwrap_or_default();
        Ok(ProviderConfig { url, options })
    }
}
