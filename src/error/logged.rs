//! Errors as they are logged: without keys and values.

use std::{error::Error as StdError, fmt};

use super::{Error, ErrorKind};

/// Prints an error without keys and values.
///
/// The causes of an error about entries may quote stored data, as those of a
/// decoder do. They are left out, and keys are counted instead of named. The causes
/// of an error about the whole store are printed.
pub(super) struct Logged<'a>(pub(super) &'a Error);

impl fmt::Display for Logged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        write!(f, "{:?}: {}", error.kind(), error.0.message)?;
        match error.keys().len() {
            0 => {}
            1 => f.write_str(" (1 key)")?,
            keys => write!(f, " ({keys} keys)")?,
        }
        if is_about_entries(error) {
            return Ok(());
        }
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref() {
                return write!(f, "; caused by: {}", Logged(error));
            }
            write!(f, "; caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

fn is_about_entries(error: &Error) -> bool {
    use ErrorKind::{Conflict, Corrupt, Refused};
    matches!(error.kind(), Conflict | Corrupt | Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caused(kind: ErrorKind) -> Error {
        Error::new(kind, "it failed").with_source("secret")
    }

    #[test]
    fn an_error_of_the_whole_store_is_logged_with_its_causes() {
        let logged = Logged(&caused(ErrorKind::Unavailable)).to_string();
        assert_eq!(logged, "Unavailable: it failed; caused by: secret");
    }

    #[test]
    fn an_error_of_entries_is_logged_without_keys_and_causes() {
        let refused = caused(ErrorKind::Refused).on_keys(["apple".into(), "pear".into()]);
        assert_eq!(Logged(&refused).to_string(), "Refused: it failed (2 keys)");
        let unsaved = Error::new(ErrorKind::Unavailable, "not saved").with_source(refused);
        assert_eq!(
            Logged(&unsaved).to_string(),
            "Unavailable: not saved; caused by: Refused: it failed (2 keys)"
        );
        let corrupt = Logged(&caused(ErrorKind::Corrupt)).to_string();
        assert_eq!(corrupt, "Corrupt: it failed");
    }
}
