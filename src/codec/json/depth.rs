//! How deeply a value may be nested.

/// `serde_json` reads at most 127 arrays and objects within each other.
const MAX_NESTED: u16 = 127;

/// The maximum number of nested calls of `Serialize`. Options and newtypes leave no
/// bracket in the text, but each takes stack space. This depth fits into a stack of 2
/// MiB in an unoptimised build, with room to spare.
const MAX_LEVELS: u16 = 512;

/// The depth that is left for the parts of a value.
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

    /// The message for a value that is nested more deeply.
    pub(super) const EXCEEDED: &str = "the value is nested too deeply to be read again: at most 127 \
                                    arrays and objects within each other, and 512 levels with \
                                    options and newtypes";

    /// The depth that is left within `more` arrays or objects; `None` if too deep.
    pub(super) fn nested(self, more: u16) -> Option<Self> {
        Some(Self {
            nested: self.nested.checked_sub(more)?,
            levels: self.levels.checked_sub(1)?,
        })
    }

    /// The depth that is left within one more level that leaves no bracket in the text.
    pub(super) fn wrapped(self) -> Option<Self> {
        let levels = self.levels.checked_sub(1)?;
        Some(Self { levels, ..self })
    }
}
