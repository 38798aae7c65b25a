//! How deeply a value may be nested.

/// `serde_json` reads 127 arrays and objects within each other, and no more.
const MAX_NESTED: u16 = 127;

/// How many calls of `Serialize` may be within each other. Options and newtypes
/// leave no bracket in the text, but each of them takes its part of the stack:
/// this is the depth that a thread of 2 MiB bears in an unoptimised build, with
/// room to spare, and four times the brackets.
const MAX_LEVELS: u16 = 512;

/// How much deeper a value may become from here on.
#[derive(Clone, Copy)]
pub(super) struct Room {
    nested: u16,
    levels: u16,
}

impl Room {
    pub(super) const WHOLE: Self = Self {
        nested: MAX_NESTED,
        levels: MAX_LEVELS,
    };

    /// Why nothing goes below.
    pub(super) const SPENT: &str = "the value is nested too deeply to be read again: at most 127 \
                                    arrays and objects within each other, and 512 levels with \
                                    options and newtypes";

    /// Within so many more arrays or objects.
    pub(super) fn nested(self, more: u16) -> Option<Self> {
        Some(Self {
            nested: self.nested.checked_sub(more)?,
            levels: self.levels.checked_sub(1)?,
        })
    }

    /// Within one more level that leaves no trace in the text.
    pub(super) fn wrapped(self) -> Option<Self> {
        let levels = self.levels.checked_sub(1)?;
        Some(Self { levels, ..self })
    }
}
