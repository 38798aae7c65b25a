/// The unit of a measure. Less is better in each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Nanoseconds,
    Bytes,
    Changes,
}

/// The value with three digits and its unit.
#[must_use]
pub fn in_unit(value: f64, unit: Unit) -> String {
    let (value, name) = match unit {
        Unit::Changes if value < 1e3 => (value, ""),
        Unit::Changes => (value / 1e3, "k"),
        Unit::Bytes if value < 1e3 => (value, "B"),
        Unit::Bytes if value < 1e6 => (value / 1e3, "kB"),
        Unit::Bytes => (value / 1e6, "MB"),
        Unit::Nanoseconds if value < 1e3 => (value, "ns"),
        Unit::Nanoseconds if value < 1e6 => (value / 1e3, "µs"),
        Unit::Nanoseconds if value < 1e9 => (value / 1e6, "ms"),
        Unit::Nanoseconds => (value / 1e9, "s"),
    };
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {name}")
}
