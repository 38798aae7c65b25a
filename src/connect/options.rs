//! The options of a provider and its layers, by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    mistakes::{suggestion, wrong},
    quantity,
    url::decoded_pair,
};
use crate::error::{Error, Result};

/// The given options. Each is read by the part that knows it; the rest is not known.
pub(super) struct Options {
    scheme: &'static str,
    given: BTreeMap<String, String>,
    read: BTreeMap<String, String>,
    /// The names that were asked for.
    known: BTreeSet<String>,
    /// Whether messages quote names that are not known.
    quotes_names: bool,
}

impl Options {
    /// Collects the options in a URL, as they are written, and those beside it.
    ///
    /// # Errors
    ///
    /// `Invalid` if one is given twice, or is not UTF-8.
    pub(super) fn collect(
        scheme: &'static str,
        in_url: Vec<&str>,
        beside: BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut options = Self {
            scheme,
            given: beside,
            read: BTreeMap::new(),
            known: BTreeSet::new(),
            // There, it may be a part of a password that is not percent-encoded.
            quotes_names: scheme != "postgres" || in_url.is_empty(),
        };
        for pair in in_url {
            let problem = "is not UTF-8 once it is percent-decoded";
            let (name, value) = decoded_pair(pair)
                .ok_or_else(|| wrong(format!("an option of `{scheme}:` {problem}")))?;
            if options.given.contains_key(&name) {
                let option = options.quoted(&name);
                return Err(wrong(format!("{option} of `{scheme}:` is given twice")));
            }
            options.given.insert(name, value);
        }
        Ok(options)
    }

    /// Adds names that are read elsewhere.
    #[cfg(feature = "postgres")]
    pub(super) fn also_known(mut self, names: &[&str]) -> Self {
        self.known
            .extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// Reads an option, if it is given.
    ///
    /// # Errors
    ///
    /// `Invalid` if it cannot be parsed; `form` says how it is written.
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        form: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let parsed = parse(&text).ok_or_else(|| self.wrong(name, form))?;
        Ok(Some(parsed))
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.known.insert(name.to_owned());
        let (name, text) = self.given.remove_entry(name)?;
        self.read.insert(name, text.clone());
        Some(text)
    }

    /// Reads an option that has two names, because a table cannot be a text as well.
    pub(super) fn either(&mut self, name: &str, inner: &str) -> Result<Option<String>> {
        match (self.text(name), self.text(inner)) {
            (Some(_), Some(_)) => Err(self.wrong(inner, "it is given twice")),
            (outer, inner) => Ok(outer.or(inner)),
        }
    }

    /// The value of an option that others depend on.
    pub(super) fn needed(&self, name: &str, value: Option<String>, form: &str) -> Result<String> {
        let value = value.filter(|value| !value.is_empty());
        value.ok_or_else(|| self.wrong(name, &format!("write {form}")))
    }

    /// Without a value it is `true`.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        self.parsed(name, "write `true` or `false`", |text| match text {
            "true" | "" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    }

    pub(super) fn duration(&mut self, name: &str) -> Result<Option<Duration>> {
        let form = "write a time with its unit, such as `5s`; the units are ms, s, m, h and d";
        self.parsed(name, form, quantity::duration)
    }

    pub(super) fn size(&mut self, name: &str) -> Result<Option<u64>> {
        let form = "write a number of bytes, or one with a unit, such as `64MiB`; the units are KiB, \
                    MiB and GiB";
        self.parsed(name, form, quantity::size)
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<usize>> {
        self.parsed(name, "write a number, such as `8`", |text| {
            text.parse().ok()
        })
    }

    /// The mode of a file.
    #[cfg(any(feature = "json", feature = "sqlite"))]
    pub(super) fn mode(&mut self, name: &str) -> Result<Option<u32>> {
        let form = "write it in octal, such as `0640`";
        self.parsed(name, form, |text| u32::from_str_radix(text, 8).ok())
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<Option<T>> {
        let listed: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let form = format!("write one of {}", listed.join(", "));
        let find = |text: &str| words.iter().find(|(word, _)| *word == text);
        self.parsed(name, &form, |text| find(text).map(|(_, meant)| *meant))
    }

    /// The options `<name>.<map>`, by map.
    #[cfg(any(feature = "json", feature = "sqlite", feature = "postgres"))]
    pub(super) fn by_map(&mut self, name: &str) -> Vec<(String, String)> {
        self.known.insert(format!("{name}.<map>"));
        let prefix = format!("{name}.");
        let is_one = |option: &&String| option.starts_with(&prefix);
        let names: Vec<_> = self.given.keys().filter(is_one).cloned().collect();
        let read = names.into_iter().filter_map(|name| {
            let (name, text) = self.given.remove_entry(&name)?;
            self.read.insert(name.clone(), text.clone());
            Some((name[prefix.len()..].to_owned(), text))
        });
        read.collect()
    }

    /// Whether the option, or one within it, is given.
    pub(super) fn is_given(&self, name: &str) -> bool {
        let mut given = self
            .given
            .keys()
            .filter_map(|given| given.strip_prefix(name));
        given.any(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// Returns the options that were read.
    ///
    /// # Errors
    ///
    /// `Invalid` if others are given.
    pub(super) fn finish(self) -> Result<BTreeMap<String, String>> {
        let Some(unknown) = self.given.keys().next() else {
            return Ok(self.read);
        };
        let message = format!(
            "{} of `{}:` is not known",
            self.quoted(unknown),
            self.scheme
        );
        Err(wrong(message + &suggestion(unknown, &self.known)))
    }

    /// Names an option that may be a part of a password.
    fn quoted(&self, name: &str) -> String {
        if self.quotes_names {
            format!("option {name:?}")
        } else {
            "an option".to_owned()
        }
    }

    pub(super) fn wrong(&self, name: &str, problem: &str) -> Error {
        wrong(format!("option `{name}` of `{}:`: {problem}", self.scheme))
    }
}
