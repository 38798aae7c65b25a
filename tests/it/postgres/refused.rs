//! Refused changes and unusable databases, and their errors.

use persistify::{ErrorKind, PersistentMap, ValueType};

use super::*;

#[tokio::test]
async fn a_value_that_jsonb_refuses_is_named_and_the_rest_is_committed() {
    let (url, other) = database();
    let postgres = Postgres::connect(&url).await.unwrap();
    let map = name("m");
    let bad = vec![
        put("good", "1"),
        put("bad", r#""a\u0000""#),
        put("fine", r#""\\u0000""#),
    ];
    let refused = error(Pen::new().write(&postgres, &map, bad).await);
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused:?}");
    assert_eq!(refused.keys(), ["bad".into()]);
    let message = refused.to_string();
    assert!(message.contains("ValueType::Text"), "{message}");
    assert!(all(&postgres, &map).await.is_empty());

    let texts: PersistentMap<String> = PersistentMap::builder(postgres, "m").open().await.unwrap();
    texts.insert("good", "1".into());
    texts.insert("bad", "a\0".into());
    let failed = texts.flush().await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Refused);
    assert_eq!(texts.refused().len(), 1);
    assert_eq!(
        other.text("SELECT value FROM map_m WHERE key = 'good'"),
        "\"1\""
    );
    texts.insert("bad", "a".into());
    texts.close().await.unwrap();
}

#[tokio::test]
async fn json_and_text_columns_preserve_text_that_jsonb_refuses() {
    for (value_type, kind) in [(ValueType::Json, "json"), (ValueType::Text, "text")] {
        let (url, other) = database();
        let postgres = Postgres::builder(&url)
            .value_type(value_type)
            .connect()
            .await
            .unwrap();
        let (map, mut pen) = (name("m"), Pen::new());
        for value in [
            r#""a\u0000""#,
            r#""\ud800""#,
            r#"{"b" : 1e2,"a":[ ]}"#,
            "-0.0",
        ] {
            pen.put(&postgres, &map, "k", value).await;
            assert_eq!(text(&one(&postgres, &map, "k").await.unwrap()), value);
            assert_eq!(text(&all(&postgres, &map).await[0]), value);
        }
        assert_eq!(other.text("SELECT pg_typeof(value) FROM map_m"), kind);
        // The table keeps its type, regardless of later options.
        let later = Postgres::connect(&url).await.unwrap();
        pen.put(&later, &map, "k", r#""\u0000""#).await;
    }
}

#[tokio::test]
async fn a_value_that_breaks_a_rule_of_the_table_is_refused() {
    let (url, other) = database();
    let postgres = Postgres::connect(&url).await.unwrap();
    let (map, mut pen) = (name("m"), Pen::new());
    pen.put(&postgres, &map, "k", "1").await;
    other.run("ALTER TABLE map_m ADD CHECK (value <> '13')");
    let refused = error(pen.write(&postgres, &map, vec![put("k", "13")]).await);
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(!refused.may_have_applied());
    // A deferred constraint, checked in the COMMIT itself, also refuses the change.
    other.run(
        "CREATE TABLE names (key text PRIMARY KEY);
         INSERT INTO names VALUES ('k');
         ALTER TABLE map_m ADD FOREIGN KEY (key) REFERENCES names DEFERRABLE INITIALLY DEFERRED",
    );
    let refused = error(pen.write(&postgres, &map, vec![put("nobody", "1")]).await);
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused:?}");
    assert!(!refused.may_have_applied());
    pen.put(&postgres, &map, "k", "2").await;
}

/// An error of a deferred trigger, raised in the COMMIT itself, was treated as a fault of the
/// whole store: one entry prevented all others of the map from being saved.
#[tokio::test]
async fn an_error_of_a_deferred_trigger_is_refused() {
    let (url, other) = database();
    let map = PersistentMap::<u64>::builder(Postgres::connect(&url).await.unwrap(), "m");
    let map = map.open().await.unwrap();
    map.insert_and_save("k", 1).await.unwrap();
    for (key, raised) in [("13", "EXCEPTION 'no'"), ("14", "unique_violation")] {
        other.run(&format!(
            "CREATE FUNCTION f{key}() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE {raised}; END $$;
             CREATE CONSTRAINT TRIGGER t{key} AFTER INSERT ON map_m
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
                WHEN (NEW.key = '{key}') EXECUTE FUNCTION f{key}()"
        ));
        map.insert(key, 1);
        map.insert("k", 2);
        let failed = error(map.flush().await);
        assert_eq!(failed.kind(), ErrorKind::Refused, "{failed:?}");
        assert_eq!(failed.keys(), [Arc::from(key)]);
        assert_eq!(map.pending(), 0);
        map.remove(key);
    }
}

/// The server closes the connection on a message of more than a gigabyte. A value of that size
/// was retried forever and prevented all others from being saved.
#[tokio::test]
async fn a_value_longer_than_a_message_is_refused_by_its_key() {
    let (url, _other) = database();
    let postgres = Postgres::connect(&url).await.unwrap();
    let (map, mut pen) = (name("m"), Pen::new());
    // The first commit reads before it writes; the second takes a single round trip.
    for round in 0..2 {
        let endless = Change::put("endless", Payload::json(vec![0; 1 << 30]), None);
        let changes = vec![put("k", "1"), endless];
        let refused = error(pen.write(&postgres, &map, changes).await);
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused:?}");
        assert!(!refused.may_have_applied());
        assert_eq!(refused.keys(), [Arc::from("endless")]);
        assert!(all(&postgres, &map).await.len() == round);
        pen.put(&postgres, &map, "k", "2").await;
    }
}

#[tokio::test]
async fn a_store_that_needs_repair_is_unusable_until_then() {
    let (url, other) = database();
    let postgres = Postgres::connect(&url).await.unwrap();
    let (map, mut pen) = (name("m"), Pen::new());
    pen.put(&postgres, &map, "k", "0").await;
    let cases = [
        (
            "ALTER TABLE map_m RENAME TO gone",
            "ALTER TABLE gone RENAME TO map_m",
        ),
        (
            "ALTER TABLE map_m RENAME value TO v",
            "ALTER TABLE map_m RENAME v TO value",
        ),
        (
            "ALTER TABLE map_m ALTER value TYPE integer USING 0",
            "ALTER TABLE map_m ALTER value TYPE jsonb USING '0'",
        ),
        (
            "CREATE PUBLICATION p FOR ALL TABLES; ALTER TABLE map_m REPLICA IDENTITY NOTHING",
            "DROP PUBLICATION p",
        ),
    ];
    for (n, (broken, mended)) in (1..).zip(cases) {
        other.run(broken);
        let batch = pen.changes(&map, vec![put("k", &n.to_string())]);
        let failed = error(postgres.commit(&batch).await);
        assert_eq!(failed.kind(), ErrorKind::Unusable, "{broken}: {failed:?}");
        assert!(!failed.may_have_applied(), "{broken}");
        other.run(mended);
        postgres.commit(&batch).await.unwrap();
        assert_eq!(
            text(&one(&postgres, &map, "k").await.unwrap()),
            n.to_string()
        );
    }
}

#[tokio::test]
async fn a_user_without_permission_finds_the_store_unusable() {
    let (url, other) = database();
    let owner = Postgres::connect(&url).await.unwrap();
    let (map, mut pen) = (name("m"), Pen::new());
    pen.put(&owner, &map, "k", "1").await;
    let user = format!("reader_{}", pen.id);
    other.run(&format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'secret'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}"
    ));
    let (_, server) = url.split_once('@').unwrap();
    let theirs = format!("postgres://{user}:secret@{server}");
    let reader = Postgres::connect(&theirs).await.unwrap();
    assert_eq!(text(&one(&reader, &map, "k").await.unwrap()), "1");
    for failed in [
        error(pen.write(&reader, &map, vec![put("k", "2")]).await),
        error(reader.ping().await),
    ] {
        assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
        assert!(failed.to_string().contains("grant"), "{failed}");
        assert!(!format!("{failed:?}").contains("secret"));
    }
    drop(reader);
    other.run(&format!("DROP OWNED BY {user}; DROP ROLE {user}"));
}

#[tokio::test]
async fn a_read_only_database_is_unusable_and_still_loads() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    pen.put(&postgres, &map, "k", "1").await;
    postgres.close().await.unwrap();
    let database = url.rsplit_once('/').unwrap().1.to_owned();
    other.run(&format!(
        "ALTER DATABASE {database} SET default_transaction_read_only = on"
    ));
    let postgres = Postgres::connect(&url).await.unwrap();
    let batch = pen.changes(&map, vec![put("k", "2")]);
    for failed in [
        error(postgres.commit(&batch).await),
        error(postgres.ping().await),
    ] {
        assert_eq!(failed.kind(), ErrorKind::Unusable);
        assert!(failed.to_string().contains("read-only"), "{failed}");
    }
    assert_eq!(text(&one(&postgres, &map, "k").await.unwrap()), "1");
}

#[tokio::test]
async fn a_later_format_is_refused_with_both_numbers() {
    let (url, other) = database();
    Postgres::connect(&url).await.unwrap();
    other.run("UPDATE persistify_meta SET value = 9 WHERE name = 'format'");
    let failed = error(Postgres::connect(&url).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable);
    let message = failed.to_string();
    assert!(
        message.contains("format 9") && message.contains("up to 2"),
        "{message}"
    );
}

#[tokio::test]
async fn a_table_in_the_way_is_unusable_and_not_touched() {
    let (url, other) = database();
    other.run("CREATE TABLE map_m (id integer)");
    let postgres = Postgres::connect(&url).await.unwrap();
    let failed = error(
        Pen::new()
            .write(&postgres, &name("m"), vec![put("k", "1")])
            .await,
    );
    assert_eq!(failed.kind(), ErrorKind::Unusable);
    assert!(failed.to_string().contains("\"map_m\""), "{failed}");
    assert!(postgres.maps().await.unwrap().is_empty());
}

/// A policy that forbids the user to write some rows was mistaken for a missing permission: one
/// such entry prevented all others from being saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_a_policy_rejects_is_refused() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let owner = Postgres::connect(&url).await.unwrap();
    pen.put(&owner, &map, "hidden", "0").await;
    let user = format!("guarded_{}", pen.id);
    other.run(&format!(
        "CREATE ROLE {user} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {user};
         ALTER TABLE map_m ENABLE ROW LEVEL SECURITY;
         CREATE POLICY guard ON map_m USING (key <> 'hidden') WITH CHECK (key NOT LIKE 'no%')"
    ));
    let (_, server) = url.split_once('@').unwrap();
    let guarded = Postgres::connect(format!("postgres://{user}@{server}"));
    let opened = PersistentMap::builder(guarded.await.unwrap(), "m").open();
    let opened: PersistentMap<u32> = opened.await.unwrap();
    for key in ["no", "yes", "hidden", "also"] {
        opened.insert(key, 1);
    }
    let failed = error(opened.flush().await);
    assert_eq!(failed.kind(), ErrorKind::Refused, "{failed}");
    let keys: std::collections::BTreeSet<_> = failed.keys().iter().map(|k| &**k).collect();
    assert_eq!(keys, ["hidden", "no"].into());
    assert_eq!(other.text("SELECT count(*) FROM map_m"), "3");
    drop(opened);
    other.run(&format!("DROP OWNED BY {user}; DROP ROLE {user}"));
}
