//! Postgres by a URL: our options, and those of the driver.

use persistify::{ErrorKind, MapName, ProviderConfig, connect};

use super::errors::{known, message};
use crate::{
    postgres::Database,
    support::{as_it_is, open},
};

#[tokio::test]
async fn our_options_and_those_of_the_driver_have_their_effect() {
    let database = Database::fresh();
    let other = database.witness();
    other.execute("CREATE TABLE \"Limits\" (key text PRIMARY KEY, \"Value\" json)");
    let url = format!(
        "{}?schema=shop&application_name=the%20shop&value_type=text&sslmode=disable\
         &table.acme/limits=public.Limits&columns.value=Value&namespace=acme&max_connections=2",
        database.url()
    );
    let store = connect(url).await.unwrap();
    for map in ["limits", "stock"] {
        let map = open::<u32>(store.clone(), map, as_it_is).await;
        map.insert_and_save("a", 1).await.unwrap();
    }
    let cell = |sql: &str| other.cell(sql);
    let limit = cell("SELECT \"Value\"::text FROM \"Limits\" WHERE key = 'a'");
    assert_eq!(limit.as_deref(), Some("1"));
    let stock = cell("SELECT pg_typeof(\"Value\")::text FROM shop.\"map_acme%2fstock\"");
    assert_eq!(stock.as_deref(), Some("text"));
    let named = "FROM pg_stat_activity WHERE datname = current_database() \
                 AND application_name = 'the shop'";
    let connections = other.number(format!("SELECT count(*) {named}"));
    assert!((1..=2).contains(&connections), "{connections}");
}

#[tokio::test]
async fn a_table_has_a_password_and_options_of_the_driver() {
    let database = Database::fresh();
    let text = format!(
        r#"{{ "url": "{}", "password": "p@ss &?+", "application_name": "a + b", "schema": "shop" }}"#,
        database.url()
    );
    let config: ProviderConfig = serde_json::from_str(&text).unwrap();
    let store = config.connect().await.unwrap();
    let map = open::<u32>(store.clone(), "stock", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    assert_eq!(
        store.maps().await.unwrap(),
        [MapName::new("stock").unwrap()]
    );
    let named = "FROM pg_stat_activity WHERE datname = current_database() \
                 AND application_name = 'a + b'";
    let witness = database.witness();
    assert!(witness.number(format!("SELECT count(*) {named}")) > 0);
}

const OPTIONS: &str = "application_name, channel_binding, columns.key, columns.updated_at, columns.value, \
    connect_timeout, dbname, host, hostaddr, keep_tombstones, keepalives, \
    keepalives_idle, keepalives_interval, keepalives_retries, load_balance_hosts, \
    lock_timeout, max_connections, options, password, port, root_certificate, schema, \
    sslmode, sslnegotiation, sslrootcert, statement_timeout, table.<map>, \
    target_session_attrs, tcp_user_timeout, tls, user, value_type, wait_timeout";

#[test]
fn an_option_of_postgres() {
    let known = known(OPTIONS);
    for (url, expected) in [
        (
            "postgres://h/d?shema=shop",
            format!("an option of `postgres:` is not known; did you mean `schema`? K{known}"),
        ),
        (
            "postgres://h/d?ssl_mode=require",
            format!("an option of `postgres:` is not known; did you mean `sslmode`? K{known}"),
        ),
        ("postgres://h/d?q=1", format!("an option of `postgres:` is not known; k{known}")),
        (
            "postgres://h/d?tls=yes",
            "option `tls` of `postgres:`: write one of `off`, `prefer`, `require`".to_owned(),
        ),
        (
            "postgres://h/d?max_connections=many",
            "option `max_connections` of `postgres:`: write a number, such as `8`".to_owned(),
        ),
        (
            "postgres://u@h/d?application_name=a@b",
            "the options of `postgres:` contain an `@`; write it as `%40`. If it is the one before \
             the host, percent-encode the password: `?` as `%3F`, `@` as `%40`"
                .to_owned(),
        ),
    ] {
        assert_eq!(message(url), expected, "{url}");
    }
    // In a table, a name is no part of a password.
    let text = r#"{ "url": "postgres://h/d", "shema": "shop" }"#;
    let config: ProviderConfig = serde_json::from_str(text).unwrap();
    let error = config.check().unwrap_err().to_string();
    let expected =
        "option \"shema\" of `postgres:` is not known; did you mean `schema`? Known are ";
    assert!(error.starts_with(expected), "{error}");
}

/// The address itself is checked by the driver.
#[tokio::test]
async fn an_address_that_cannot_be_read() {
    for (url, expected) in [
        ("postgres:h/d", "does not begin with `postgres://`"),
        ("postgres://h:port/d", "it cannot be read"),
        ("postgres:///d", "it names no host"),
        ("postgres://u:p@w@h/d", "characters that end it"),
        (
            "postgres://h/d?application_name=a@b",
            "characters that end it",
        ),
        (
            "postgres://h/d?sslmode=wrong",
            "has a value that it does not take",
        ),
        (
            "postgres://h/d?connect_timeout=",
            "has a value that it does not take",
        ),
        (
            "postgres://h/d?max_connections=0",
            "option `max_connections`",
        ),
    ] {
        let error = connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        assert!(error.to_string().contains(expected), "{url}: {error}");
    }
}
