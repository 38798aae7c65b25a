//! How deeply a value may be nested.

/// `serde_json` reads at most 127 arrays and objects within each other.
const MAX_NESTED: u16 = 127;

/// How many calls of `Serialize` may be within each other. Options and newtypes
/// leave no bracket in the text, but each takes its share of the stack. A thread
/// of 2 MiB bears this depth in an unoptimised build with room to spare.
const MAX_LEVELS: u16 = 512;

/// How much deeper a value may go from here.
#[derive(Clone, Copy)]
pub(super) struct Depth {
    nested: u16,
    levels: u16,
}

impl Depth {
    pub(super) const FULL: Self = Self {
        nested: MAX_NESTED,
        levels: MAX_LEVELS,
    };

    /// Why a value that goes deeper is refused.
    pub(super) const EXCEEDED: &str = "the value is nested too deeply to be read again: at most 127 \
                                    arrays and objects within each other, and 512 levels with \
                                    options and newtypes";

    /// Within that many more arrays or objects; `None` if that is too deep.
    pub(super) fn nested(self, more: u16) -> Option<Self> {
        Some(Self {
            nested: self.nested.checked_sub(more)?,
            levels: self.levels.checked_sub(1)?,
        })
    }

    /// Within one more level that leaves no bracket in the text.
    pub(super) fn wrapped(self) -> Option<Self> {
        let levels = self.levels.checked_sub(1)?;
        Some(Self { levels, ..self })
    }
}
