//! The calls of a map, and the calls that run closures.

use super::*;

pub(super) type Call = Arc<dyn Fn(&PersistentMap<u32>, &Runtime) + Send + Sync>;

pub(super) fn call(call: impl Fn(&PersistentMap<u32>, &Runtime) + Send + Sync + 'static) -> Call {
    Arc::new(call)
}

/// All calls that access entries, or wait for the task that does.
///
/// `retain` locked shards before it checked whether it was inside a closure, and `flush`,
/// `reload` and the closes did not check at all: they waited for the task, which waited for
/// the lock under which the closure ran.
pub(super) fn calls() -> Vec<(&'static str, Call)> {
    vec![
        ("get", call(|map, _| ignore(map.get("a")))),
        ("read", call(|map, _| ignore(map.read("a", |n| *n)))),
        ("contains_key", call(|map, _| ignore(map.contains_key("a")))),
        ("len", call(|map, _| ignore(map.len()))),
        ("is_empty", call(|map, _| ignore(map.is_empty()))),
        ("keys", call(|map, _| ignore(map.keys().count()))),
        ("iter", call(|map, _| ignore(map.iter().count()))),
        ("for_each", call(|map, _| map.for_each(|_, _| ()))),
        ("snapshot", call(|map, _| ignore(map.snapshot()))),
        ("insert", call(|map, _| ignore(map.insert("b", 1)))),
        ("try_insert", call(|map, _| ignore(map.try_insert("a", 1)))),
        ("replace", call(|map, _| ignore(map.replace("a", 1)))),
        ("remove", call(|map, _| ignore(map.remove("a")))),
        (
            "remove_if",
            call(|map, _| ignore(map.remove_if("a", |_| true))),
        ),
        (
            "update",
            call(|map, _| ignore(map.update("a", |n| *n += 1))),
        ),
        ("upsert", call(|map, _| map.upsert("a", 1, |n| *n += 1))),
        (
            "get_or_insert_with",
            call(|map, _| ignore(map.get_or_insert_with("c", || 1))),
        ),
        ("retain", call(|map, _| map.retain(|_, _| true))),
        ("clear", call(|map, _| map.clear())),
        ("extend", call(|map, _| map.extend([("a", 1)]))),
        (
            "insert_and_save",
            call(|map, rt| ignore(rt.block_on(map.insert_and_save("a", 1)))),
        ),
        (
            "clear_and_save",
            call(|map, rt| ignore(rt.block_on(map.clear_and_save()))),
        ),
        ("flush", call(|map, rt| ignore(rt.block_on(map.flush())))),
        ("reload", call(|map, rt| ignore(rt.block_on(map.reload())))),
        ("close", call(|map, rt| ignore(rt.block_on(map.close())))),
        (
            "close_within",
            call(|map, rt| ignore(rt.block_on(map.close_within(HOUR)))),
        ),
        (
            "blocking_close",
            call(|map, _| ignore(map.blocking_close())),
        ),
    ]
}

pub(super) type Outside = fn(&PersistentMap<u32>, &dyn Fn());

/// Every call that runs a closure under a lock.
pub(super) fn outsides() -> Vec<(&'static str, Outside)> {
    vec![
        ("read", |map, inside| ignore(map.read("a", |_| inside()))),
        ("update", |map, inside| {
            ignore(map.update("a", |_| inside()));
        }),
        ("upsert", |map, inside| map.upsert("a", 1, |_| inside())),
        ("for_each", |map, inside| map.for_each(|_, _| inside())),
        ("retain", |map, inside| {
            map.retain(|_, _| {
                inside();
                true
            });
        }),
        ("remove_if", |map, inside| {
            map.remove_if("a", |_| {
                inside();
                true
            });
        }),
        ("get_or_insert_with", |map, inside| {
            map.get_or_insert_with("new", || {
                inside();
                1
            });
        }),
    ]
}
