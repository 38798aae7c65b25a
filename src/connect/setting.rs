//! The value of an option in a configuration file.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

/// The text of a value, as it would be in a URL; or a table of them.
pub(super) enum Setting {
    Text(String),
    Table(Vec<(String, Setting)>),
}

impl Setting {
    /// Adds it under this name. `limits` in the table `table` is `table.limits`.
    pub(super) fn add_to(self, options: &mut BTreeMap<String, String>, name: String) {
        match self {
            Self::Text(text) => {
                options.insert(name, text);
            }
            Self::Table(table) => {
                for (inner, setting) in table {
                    setting.add_to(options, format!("{name}.{inner}"));
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrTable)
    }
}

struct TextOrTable;

impl<'de> Visitor<'de> for TextOrTable {
    type Value = Setting;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, an integer, `true` or `false`, or a table of them")
    }

    fn visit_str<E>(self, text: &str) -> Result<Setting, E> {
        Ok(Setting::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Setting, E> {
        Ok(Setting::Text(flag.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Setting, E> {
        Ok(Setting::Text(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Setting, E> {
        Ok(Setting::Text(number.to_string()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Setting, A::Error> {
        let mut settings = Vec::new();
        while let Some(setting) = table.next_entry()? {
            settings.push(setting);
        }
        Ok(Setting::Table(settings))
    }
}
