//! The layers of a configuration.

use std::sync::Arc;

use super::options::Options;
use crate::{error::Result, layer::namespaced::Namespaced, name::MapName, provider::Provider};

/// The layers around a provider.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// From the outermost to the innermost.
    namespaces: Vec<MapName>,
}

impl Layers {
    pub(super) fn read(options: &mut Options) -> Result<Self> {
        refuse_keys(options)?;
        let namespace = options.text("namespace");
        let names = namespace.iter().flat_map(|names| names.split('/'));
        Ok(Self {
            namespaces: names.map(MapName::new).collect::<Result<_>>()?,
        })
    }

    /// Wraps the store, from the inside to the outside.
    pub(super) fn around(self, mut store: Arc<dyn Provider>) -> Result<Arc<dyn Provider>> {
        // The outermost layer, so that the others see the full names of maps.
        for namespace in self.namespaces {
            store = Arc::new(Namespaced::new(store, namespace)?);
        }
        Ok(store)
    }
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
