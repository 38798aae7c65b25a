//! An error with its causes.

use std::{error::Error, fmt};

/// The error and all its causes, in one line.
pub(super) struct InFull<'a>(pub(super) &'a dyn Error);

impl fmt::Display for InFull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, "; caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
