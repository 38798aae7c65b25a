//! URLs of Postgres: our options, and those of the driver.

use super::{Beside, columns};
use crate::{
    connect::{
        mistakes::wrong,
        options::Options,
        url::{Url, decoded_pair},
    },
    error::Result,
    provider::postgres::{
        Postgres, builder::PostgresBuilder, options::DRIVER_OPTIONS, tls::Tls, values::ValueType,
    },
};

/// Splits the URL into the one for the driver and our options.
pub(super) fn split(url: &Url<'_>, beside: &Beside) -> Result<(String, Options)> {
    // It would be the second `@`: the first one may be within a password.
    if url.query.contains('@') {
        return Err(wrong(
            "the options of `postgres:` contain an `@`; write it as `%40`. If it is the one before \
             the host, percent-encode the password: `?` as `%3F`, `@` as `%40`",
        ));
    }
    let (drivers, ours): (Vec<_>, Vec<_>) = url.pairs().partition(|pair| is_drivers(pair));
    let (more, beside): (Beside, Beside) =
        { beside.clone().into_iter() }.partition(|(name, value)| is_option_of_driver(name, value));
    let more = more.iter().map(|(name, value)| encoded(name, value));
    let drivers: Vec<_> = drivers.into_iter().map(str::to_owned).chain(more).collect();
    let mark = if drivers.is_empty() { "" } else { "?" };
    let address = format!("{}:{}{mark}{}", url.scheme, url.place, drivers.join("&"));

    let options = Options::collect("postgres", ours, beside)?;
    Ok((address, options.also_known(&DRIVER_OPTIONS)))
}

pub(super) fn builder(address: &str, options: &mut Options) -> Result<PostgresBuilder> {
    let builder = connections(Postgres::builder(address), options)?;
    tables(builder, options)
}

/// The options of connections.
fn connections(mut builder: PostgresBuilder, options: &mut Options) -> Result<PostgresBuilder> {
    if let Some(connections) = options.number("max_connections")? {
        builder = builder.max_connections(connections);
    }
    if let Some(time) = options.duration("connect_timeout")? {
        builder = builder.connect_timeout(time);
    }
    if let Some(time) = options.duration("wait_timeout")? {
        builder = builder.wait_timeout(time);
    }
    if let Some(time) = options.duration("statement_timeout")? {
        builder = builder.statement_timeout(time);
    }
    if let Some(time) = options.duration("lock_timeout")? {
        builder = builder.lock_timeout(time);
    }
    let words = [
        ("off", Tls::Off),
        ("prefer", Tls::Prefer),
        ("require", Tls::Require),
    ];
    if let Some(tls) = options.choice("tls", &words)? {
        builder = builder.tls(tls);
    }
    if let Some(path) = options.text("root_certificate") {
        builder = builder.root_certificate(path);
    }
    Ok(builder)
}

/// The options of the tables.
fn tables(mut builder: PostgresBuilder, options: &mut Options) -> Result<PostgresBuilder> {
    if let Some(schema) = options.text("schema") {
        builder = builder.schema(schema);
    }
    let words = [
        ("jsonb", ValueType::Jsonb),
        ("json", ValueType::Json),
        ("text", ValueType::Text),
        ("bytea", ValueType::Bytea),
    ];
    if let Some(value_type) = options.choice("value_type", &words)? {
        builder = builder.value_type(value_type);
    }
    if let Some(time) = options.duration("keep_tombstones")? {
        builder = builder.keep_tombstones(time);
    }
    if let Some([key, value, updated_at]) = columns(options) {
        builder = builder.columns(key, value, updated_at);
    }
    for (map, table) in options.by_map("table") {
        builder = builder.table(map, table);
    }
    Ok(builder)
}

fn is_drivers(pair: &str) -> bool {
    decoded_pair(pair).is_some_and(|(name, value)| is_option_of_driver(&name, &value))
}

/// Whether the driver reads the option. A `connect_timeout` with a unit is ours.
fn is_option_of_driver(name: &str, value: &str) -> bool {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    DRIVER_OPTIONS.contains(&name) && (name != "connect_timeout" || is_number)
}

/// An option for the driver, to which a `+` is no space.
fn encoded(name: &str, value: &str) -> String {
    let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
    format!("{name}={}", value.replace('+', "%20"))
}
