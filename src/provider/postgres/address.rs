//! The address of the server: parses URLs and creates connection pools.

use std::{fmt, path::PathBuf, time::Duration};

use deadpool_postgres::{Manager, Pool, PoolBuilder, Runtime};
use tokio_postgres::{
    Config, NoTls,
    config::{Host, SslMode, TargetSessionAttrs},
};

use super::{
    options::{DRIVER_OPTIONS, invalid},
    sessions::{MAX_PING, before_reuse},
    tls::{self, Tls},
};
use crate::error::{Error, Result};

const MAX_CONNECTIONS: usize = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// A silent connection is probed after this time, and then every few seconds; the
/// defaults of the system are hours.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// How long sent data may stay unacknowledged by the peer.
const TCP_TIMEOUT: Duration = Duration::from_secs(30);

/// The system's default for the keepalive.
const NO_KEEPALIVE: Duration = Duration::from_secs(2 * 60 * 60);

/// Options of the connections; a pool of the user has its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pooling {
    pub(super) max_connections: Option<usize>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) wait_timeout: Option<Duration>,
    pub(super) application_name: Option<String>,
    pub(super) tls: Option<Tls>,
    pub(super) root_certificate: Option<PathBuf>,
}

/// A parsed URL.
pub(super) struct Address {
    config: Config,
    tls: Tls,
    root_certificate: Option<PathBuf>,
}

impl Address {
    /// # Errors
    ///
    /// `Invalid`. The message quotes no part of the URL, because it may contain a
    /// password.
    pub(super) fn parse(url: &str, pooling: &Pooling) -> Result<Self> {
        if has_ambiguous_user(url) {
            return Err(unreadable(
                "what stands before its host has characters that end it",
            ));
        }
        let url = Url::split(url);
        let config: Result<Config, _> = url.rest.parse();
        let mut config = config.map_err(|_| url.problem())?;
        // TLS and error messages need the name of a host.
        if config.get_hosts().is_empty() {
            for address in config.get_hostaddrs().to_vec() {
                config.host(address.to_string());
            }
        }
        if config.get_hosts().is_empty() {
            return Err(url.problem());
        }
        let said = match config.get_ssl_mode() {
            SslMode::Disable => Tls::Off,
            SslMode::Require => Tls::Require,
            _ => Tls::Prefer,
        };
        let said = if url.verified { Tls::Require } else { said };
        let tls = pooling.tls.unwrap_or(said);
        config.ssl_mode(match tls {
            Tls::Off => SslMode::Disable,
            Tls::Prefer => SslMode::Prefer,
            Tls::Require => SslMode::Require,
        });
        if config.get_hosts().len() > 1 && !url.rest.contains("target_session_attrs") {
            // A read-only standby may lag behind, and would load old entries.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        set_up(&mut config, pooling);
        let given = pooling.root_certificate.clone();
        Ok(Self {
            config,
            tls,
            root_certificate: given.or(url.root_certificate),
        })
    }

    /// Names the database in messages.
    pub(super) fn place(&self) -> String {
        let config = &self.config;
        let user = config.get_user().unwrap_or_default();
        let database = config.get_dbname().unwrap_or(user);
        let ports = config.get_ports();
        let hosts = config.get_hosts().iter().enumerate().map(|(n, host)| {
            let port = ports.get(n).or(ports.first()).unwrap_or(&5432);
            match host {
                Host::Tcp(host) if host.contains(':') => format!("[{host}]:{port}"),
                Host::Tcp(host) => format!("{host}:{port}"),
                #[cfg(unix)]
                Host::Unix(path) => path.display().to_string(),
            }
        });
        let hosts: Vec<_> = hosts.collect();
        format!("database {database:?} at {}", hosts.join(", "))
    }

    /// Creates a pool, without opening a connection.
    ///
    /// # Errors
    ///
    /// `Invalid` if an option is out of bounds, or if the root certificate cannot be
    /// read.
    pub(super) fn pool(self, pooling: &Pooling) -> Result<Pool> {
        let size = pooling.max_connections.unwrap_or(MAX_CONNECTIONS);
        if size == 0 {
            return Err(invalid("max_connections", "it is at least one"));
        }
        let in_url = self.config.get_connect_timeout().copied();
        let create_timeout = pooling.connect_timeout.or(in_url);
        let create_timeout = create_timeout.unwrap_or(CONNECT_TIMEOUT);
        let manager = match self.tls {
            Tls::Off => Manager::new(self.config, NoTls),
            mode => {
                let tls = tls::connector(mode, self.root_certificate.as_deref())?;
                Manager::new(self.config, tls)
            }
        };
        let pool: PoolBuilder = Pool::builder(manager)
            .max_size(size)
            .wait_timeout(Some(pooling.wait_timeout.unwrap_or(WAIT_TIMEOUT)))
            .create_timeout(Some(create_timeout))
            .recycle_timeout(Some(MAX_PING * 2))
            .pre_recycle(before_reuse())
            .runtime(Runtime::Tokio1);
        pool.build()
            .map_err(|cause| invalid("pool", "it cannot be made").with_source(cause))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

/// Sets the options that the URL does not set.
fn set_up(config: &mut Config, pooling: &Pooling) {
    match (&pooling.application_name, config.get_application_name()) {
        (Some(name), _) => {
            config.application_name(name);
        }
        (None, None) => {
            config.application_name("persistify");
        }
        _ => {}
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(pooling.connect_timeout.unwrap_or(CONNECT_TIMEOUT));
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(TCP_TIMEOUT);
    }
    if config.get_keepalives_idle() == NO_KEEPALIVE {
        config.keepalives_idle(KEEPALIVE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVE_INTERVAL);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(KEEPALIVE_RETRIES);
    }
}

/// A URL without the options that the driver does not know.
struct Url {
    rest: String,
    root_certificate: Option<PathBuf>,
    /// Whether `sslmode` is stricter than any mode of the driver.
    verified: bool,
}

impl Url {
    fn split(url: &str) -> Self {
        let mut split = Self {
            rest: String::new(),
            root_certificate: None,
            verified: false,
        };
        split.rest = match url.split_once('?') {
            _ if !url.contains("://") => split.kept(url, ' ', str::to_owned),
            Some((before, query)) => format!("{before}?{}", split.kept(query, '&', decoded)),
            None => url.to_owned(),
        };
        split
    }

    fn kept(&mut self, pairs: &str, between: char, value_of: fn(&str) -> String) -> String {
        let pairs = pairs.split(between);
        let kept: Vec<_> = pairs.filter(|pair| self.keep(pair, value_of)).collect();
        kept.join(&between.to_string())
    }

    /// Explains why the driver rejects the rest of the URL: because of an option, if it
    /// accepts the URL without options.
    fn problem(&self) -> Error {
        let without = self.rest.split_once('?').map(|(before, _)| before);
        if without.is_some_and(|before| before.parse::<Config>().is_ok()) {
            let known = DRIVER_OPTIONS.join(", ");
            return invalid(
                "url",
                &format!(
                    "an option after the `?` is not known, or has a value that it does not take; known are {known}"
                ),
            );
        }
        let scheme = self.rest.split_once("://").map(|(scheme, _)| scheme);
        let is_ours = |scheme| ["postgres", "postgresql"].contains(&scheme);
        unreadable(match scheme {
            _ if self.rest.trim().is_empty() => "it is empty",
            Some(scheme) if !is_ours(scheme) => "it is not one of Postgres",
            None if !self.rest.contains('=') => "it does not begin with `postgres://`",
            _ if self.rest.parse::<Config>().is_ok() => "it names no host",
            _ => "it cannot be read",
        })
    }

    /// Handles an option that the driver does not know; returns whether it knows it.
    fn keep(&mut self, pair: &str, value_of: fn(&str) -> String) -> bool {
        match pair.split_once('=') {
            Some(("sslmode", "verify-ca" | "verify-full") | ("sslrootcert", "system")) => {
                self.verified = true;
                false
            }
            Some(("sslrootcert", path)) => {
                self.root_certificate = Some(value_of(path).into());
                false
            }
            _ => true,
        }
    }
}

/// Decodes percent-encoded text of a URL.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = byte.filter(|_| first == b'%') {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether the part before the host contains characters that end it. The rest of a
/// password would then be parsed as a host name, and appear in messages and DNS queries.
fn has_ambiguous_user(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    // Before the options, the host follows the last `@`.
    let before = rest.split_once('?').map_or(rest, |(before, _)| before);
    let user = before.rsplit_once('@').map(|(user, _)| user);
    // The driver uses the first `@`, even inside an option.
    let first = rest.split_once('@').map(|(user, _)| user);
    let has_options = |user: &str| user.split_once('?').is_some_and(|(_, o)| o.contains('='));
    user.is_some_and(|user| user.contains(['@', '/', '#']))
        || first.is_some_and(|user| user.contains('/') || has_options(user))
}

/// An error with the reason and the syntax of a URL.
fn unreadable(why: &str) -> Error {
    let form = "write it as postgres://user:password@host:5432/database, with other characters than letters and digits percent-encoded";
    invalid("url", &format!("{why}; {form}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Address {
        Address::parse(url, &Pooling::default()).unwrap()
    }

    /// The value was used as the name of a file.
    #[test]
    fn the_roots_of_the_system_can_be_named() {
        for url in [
            "postgres://host/db?sslrootcert=system",
            "host=h sslrootcert=system sslmode=prefer",
        ] {
            let address = parsed(url);
            assert_eq!(address.tls, Tls::Require, "{url}");
            assert_eq!(address.root_certificate, None, "{url}");
        }
    }

    /// A URL of another database, and an empty one, were only called unreadable.
    #[test]
    fn a_url_that_cannot_be_used_is_told_why_and_without_a_secret() {
        for (url, why) in [
            ("", "it is empty"),
            (" ", "it is empty"),
            ("mysql://u:secret@h/d", "it is not one of Postgres"),
            ("secret", "it does not begin with `postgres://`"),
            ("postgres://u:secret@/d", "it names no host"),
            ("password=secret", "it names no host"),
            ("postgres://u:secret@h:port/d", "it cannot be read"),
            ("postgres://u:se/cret@h/d", "characters that end it"),
        ] {
            let failed = Address::parse(url, &Pooling::default()).unwrap_err();
            let said = failed.to_string();
            assert!(said.contains(why), "{url}: {said}");
            assert!(said.contains("postgres://user:password@host"), "{said}");
            assert!(!format!("{failed:?}").contains("secret"), "{failed:?}");
        }
    }

    #[test]
    fn of_several_hosts_one_is_wanted_that_takes_writes() {
        for (url, wanted) in [
            ("postgres://a,b/db", TargetSessionAttrs::ReadWrite),
            (
                "postgres://a,b/db?target_session_attrs=any",
                TargetSessionAttrs::Any,
            ),
            ("postgres://a/db", TargetSessionAttrs::Any),
        ] {
            assert_eq!(
                parsed(url).config.get_target_session_attrs(),
                wanted,
                "{url}"
            );
        }
    }

    /// More than 10 seconds in the URL had no effect.
    #[test]
    fn a_connect_timeout_of_the_url_is_that_of_the_pool() {
        let pool = |url| parsed(url).pool(&Pooling::default()).unwrap();
        for (url, seconds) in [
            ("postgres://h/d?connect_timeout=30&sslmode=disable", 30),
            ("postgres://h/d?sslmode=disable", 10),
        ] {
            let timeout = pool(url).timeouts().create;
            assert_eq!(timeout, Some(Duration::from_secs(seconds)), "{url}");
        }
    }

    #[test]
    fn a_place_is_told_without_a_secret() {
        for (url, place) in [
            ("postgres://u:secret@[::1]:7/d", "\"d\" at [::1]:7"),
            (
                "postgres://u:secret@/d?hostaddr=127.0.0.1",
                "\"d\" at 127.0.0.1:5432",
            ),
            ("postgres://u:p%40secret@a,b:7/d", "\"d\" at a:5432, b:7"),
            ("user=u password=secret host=/run", "\"u\" at /run"),
        ] {
            assert_eq!(parsed(url).place(), format!("database {place}"));
        }
    }
}
