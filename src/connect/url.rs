//! The parts of a URL.

use super::mistakes::wrong;
use crate::error::Result;

/// A URL, as it is written.
pub(super) struct Url<'a> {
    pub(super) scheme: &'a str,
    /// The path or the address: the part between the scheme and the options.
    pub(super) place: &'a str,
    pub(super) query: &'a str,
}

impl<'a> Url<'a> {
    /// # Errors
    ///
    /// `Invalid` if it has no scheme. The message quotes nothing, because the text may be a
    /// password.
    pub(super) fn split(url: &'a str) -> Result<Self> {
        let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let (scheme, rest) = { url.split_once(':') }
            .filter(|(scheme, _)| !scheme.is_empty() && is_word(scheme))
            .ok_or_else(|| {
                wrong(
                    "the URL of the provider has no scheme; write it as `sqlite:app.db`, \
                     `json:./data` or `postgres://user:password@host/database`",
                )
            })?;
        // For the driver of Postgres, a password ends at the first `@`, and may contain a `?`.
        let user = rest.strip_prefix("//").and_then(|rest| rest.find('@'));
        let start = user.map_or(0, |at| "//".len() + at);
        let query = rest[start..].find('?').map(|at| start + at);
        let (place, query) = query.map_or((rest, ""), |at| (&rest[..at], &rest[at + 1..]));
        Ok(Self {
            scheme,
            place,
            query,
        })
    }

    /// The options, as they are written.
    pub(super) fn pairs(&self) -> impl Iterator<Item = &'a str> {
        self.query.split('&').filter(|pair| !pair.is_empty())
    }

    /// The path of a file or a folder.
    #[cfg(any(feature = "json", feature = "sqlite"))]
    pub(super) fn path(&self) -> Result<String> {
        let scheme = self.scheme;
        if self.place.starts_with("//") {
            return Err(wrong(format!(
                "`{scheme}:` is followed by a path and not by `//`; write `{scheme}:data/file` for \
                 a path in the current folder, or `{scheme}:/var/lib/file`"
            )));
        }
        match decoded(self.place) {
            Some(path) if !path.is_empty() => Ok(path),
            Some(_) => Err(wrong(format!(
                "`{scheme}:` is followed by a path; this one is empty"
            ))),
            None => Err(wrong(format!(
                "the path after `{scheme}:` is not UTF-8 once it is percent-decoded"
            ))),
        }
    }

    /// The URL without options and without anything that may be secret.
    pub(super) fn shown(&self) -> String {
        match self.scheme {
            "postgres" | "postgresql" => format!("{}://***", self.scheme),
            scheme => format!("{scheme}:{}", self.place),
        }
    }
}

/// The name and the value of an option. `None` if they are not UTF-8.
pub(super) fn decoded_pair(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    Some((decoded(name)?, decoded(value)?))
}

/// Percent-decodes text of a URL. `None` if the result is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    // The characters that mean something in a form. As for the driver of Postgres, and in paths, a
    // `+` is no space.
    let escaped = text.replace('+', "%2B");
    let escaped = escaped.replace('&', "%26").replace('=', "%3D");
    let mut parsed = form_urlencoded::parse(escaped.as_bytes());
    let decoded = parsed.next().map(|(text, _)| text.into_owned());
    let decoded = decoded.unwrap_or_default();
    let was_replaced = decoded.contains('\u{fffd}') && !text.contains('\u{fffd}');
    (!was_replaced).then_some(decoded)
}
