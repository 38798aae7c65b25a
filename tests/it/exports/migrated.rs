//! An export of a migrated map, imported again, gives an equal map.

use super::*;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it is a step")]
fn wrap(value: Value) -> Value {
    json!({ "v": value })
}

/// Schema version 1 wraps a value of version 0 in `{"v": …}`; version 2 wraps one of version 1.
fn shaped(store: &Store, schema: u32) -> PersistentMapBuilder<Value> {
    let map = builder(store).schema(schema).retry(impatient());
    let map = if schema > 0 {
        map.migrate(0, wrap)
    } else {
        map
    };
    if schema > 1 {
        map.migrate(1, wrap)
    } else {
        map
    }
}

/// A store in which one commit in three fails with an unknown outcome.
fn failing() -> Store {
    let store = store();
    store.fail_one_in(3);
    store
}

async fn migrate_export_import(pairs: HashMap<String, Value>, from: u32) {
    let wrapped = |value: Value| (from..2).fold(value, |value, _| wrap(value));
    let expected: HashMap<_, _> = { pairs.clone().into_iter() }
        .map(|(key, value)| (key, wrapped(value)))
        .collect();
    let store = failing();
    let old = shaped(&store, from).open().await.unwrap();
    old.extend(pairs.clone());
    while old.flush().await.is_err() {}
    let mut lines = Vec::new();
    old.export(&mut lines).await.unwrap();
    while old.close().await.is_err() {}

    // Values may be migrated on load or on import, with the same result.
    let new = shaped(&store, 2).rewrite_on_load().open().await.unwrap();
    assert_eq!(new.snapshot(), expected);
    while new.close().await.is_err() {}
    let mut migrated = Vec::new();
    new.export(&mut migrated).await.unwrap();
    for lines in [lines, migrated] {
        let store = failing();
        let map = shaped(&store, 2).open().await.unwrap();
        while map.import(&lines[..]).await.is_err() {}
        assert_eq!(map.snapshot(), expected);
        while map.close().await.is_err() {}
        let map = shaped(&store, 2).open().await.unwrap();
        assert_eq!(map.snapshot(), expected);
        assert_eq!(store.calls(Method::Load), 2);
    }
}

#[test]
fn migrate_export_import_is_the_identity() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().start_paused(true).build().unwrap();
    let pairs = prop::collection::hash_map(any::<String>(), value(), 0..20);
    let config = ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&(pairs, 0..3_u32), |(pairs, from)| {
            runtime.block_on(migrate_export_import(pairs, from));
            Ok(())
        })
        .unwrap();
}
