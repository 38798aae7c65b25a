//! No message and no description of a provider contains a password.

use persistify::{ProviderConfig, connect};

/// Every part of a password contains it, whatever the characters at which it is split.
const SECRET: &str = "s3cr3t";

/// Options that the documentation leaves to the driver.
pub(super) fn is_of_the_driver(name: &str) -> bool {
    let few = [
        "user", "password", "dbname", "host", "port", "hostaddr", "options",
    ];
    let families = ["ssl", "keepalives", "tcp_", "target_", "load_", "channel_"];
    few.contains(&name) || families.iter().any(|family| name.starts_with(family))
}

fn check_hidden(of: &str, text: &str) {
    let lower = text.to_lowercase();
    assert!(!lower.contains(SECRET), "{of} shows a secret: {text}");
}

/// Tries everything that shows a part of a configuration.
async fn check(config: &ProviderConfig, of: &str) {
    check_hidden(of, &format!("{config:?} {config:#?}"));
    check_hidden(of, &serde_json::to_string(config).unwrap());
    check_hidden(of, &toml::to_string(config).unwrap());
    match config.connect().await {
        Ok(store) => check_hidden(of, &format!("{store:?}")),
        Err(error) => {
            let with_causes = std::error::Error::source(&error).map(ToString::to_string);
            check_hidden(of, &format!("{error} {error:?} {error:#?} {with_causes:?}"));
        }
    }
}

/// Passwords as people write them in a URL: some encoded, most not.
fn passwords() -> Vec<String> {
    let specials = [
        "", "@", "/", "?", "#", ":", "&", "=", "%", "%40", "%zz", "%ff", "+", " ", ",", "[", "]",
        "\\", "'", "\"", "ä", "?x=", "&schema=", "@x?y=", "://", "\n",
    ];
    let around = |special: &&str| format!("{SECRET}{special}{SECRET}");
    specials.iter().map(around).collect()
}

#[tokio::test]
async fn a_password_in_a_url_is_never_shown() {
    // Port 1 refuses connections.
    let forms = [
        "postgres://u:{}@127.0.0.1:1/d",
        "postgresql://u:{}@127.0.0.1:1/d?sslmode=disable&schema=shop",
        "postgres://u:{}@127.0.0.1:1/d?shema=shop",
        "postgres://u:{}@127.0.0.1:1/d?sslmode=wrong",
        "postgres://u:{}@127.0.0.1:1/d?statement_timeout=5",
        "postgres://u:{}@127.0.0.1:1/d?schema=a&schema=b",
        "postgres://u:{}@127.0.0.1:1/d?max_connections=0",
        "postgres://u:{}@127.0.0.1:1/d?encrypt={}",
        "postgres://u:{}@127.0.0.1:99999/d",
        "postgres://u:{}@127.0.0.1:port/d",
        "postgres://u:{}@[::1/d",
        "postgres://u:{}@/d",
        "postgres://127.0.0.1:1/d?user=u&password={}",
        "postgres://127.0.0.1:1/d?password={}&shema=x",
        "postgres:u:{}@127.0.0.1:1",
        "postgres:host=127.0.0.1 port=1 password={}",
        "postgress://u:{}@127.0.0.1:1/d",
        "mysql://u:{}@127.0.0.1:1/d",
        "u:{}@127.0.0.1:1/d",
        "//u:{}@127.0.0.1:1/d",
        "memory:?encrypt={}",
        "memory:?key={}",
        "memory:?namespace=a&keep_tombstones={}",
    ];
    for form in forms {
        for password in passwords() {
            let url = form.replace("{}", &password);
            // Here, this is an option of its own.
            if form.contains("={}") && password.contains('&') {
                continue;
            }
            check(&ProviderConfig::new(&*url), &url).await;
            if let Err(error) = connect(&url).await {
                check_hidden(&url, &format!("{error:?}"));
            }
        }
    }
}

/// Without an `@`, the password is where a port or options would be.
#[tokio::test]
async fn a_password_without_a_host_is_never_shown() {
    for password in passwords()
        .iter()
        .filter(|password| !password.contains('@'))
    {
        for form in ["postgres://u:{}", "postgres://u:{}/d", "postgres://u:x?{}"] {
            let url = form.replace("{}", password);
            check(&ProviderConfig::new(&*url), &url).await;
        }
    }
}

/// Beside the URL, a password is not encoded.
#[tokio::test]
async fn a_password_beside_the_url_is_never_shown() {
    for password in passwords() {
        for rest in [
            r#""schema": "shop""#,
            r#""shema": "shop""#,
            r#""sslmode": "wrong""#,
            r#""statement_timeout": 5"#,
        ] {
            let text = serde_json::to_string(&password).unwrap();
            let text =
                format!(r#"{{ "url": "postgres://u@127.0.0.1:1/d", "password": {text}, {rest} }}"#);
            let config: ProviderConfig = serde_json::from_str(&text).unwrap();
            check(&config, &text).await;
        }
    }
}

#[test]
fn a_description_shows_the_options_that_are_no_secrets() {
    let shown = |url: &str| serde_json::to_string(&ProviderConfig::new(url)).unwrap();
    assert_eq!(
        shown("memory:?namespace=acme"),
        r#"{"namespace":"acme","url":"memory:"}"#
    );
    assert_eq!(shown("memory:?namespac=acme"), r#"{"url":"***"}"#);
    let debug = format!("{:?}", ProviderConfig::new("memory:?namespace=acme"));
    assert_eq!(
        debug,
        r#"ProviderConfig {"namespace": "acme", "url": "memory:"}"#
    );
    #[cfg(feature = "postgres")]
    assert_eq!(
        shown("postgres://u:p@h/d?schema=shop&application_name=x"),
        r#"{"schema":"shop","url":"postgres://***"}"#
    );
}
