//! A map with `/metrics` for Prometheus and `/health` for a load balancer. It scrapes itself.

use std::{error::Error, net::SocketAddr, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use persistify::{CircuitBreaker, Metered, PersistentMap, ProviderExt, Sqlite};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[derive(Clone)]
struct App {
    stock: PersistentMap<u32>,
    recorder: PrometheusHandle,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Before the layers: they register their metrics with the recorder that they find.
    let recorder = PrometheusBuilder::new().install_recorder()?;
    let store = Sqlite::open("observed.db")
        .await?
        .layer(Metered::new("shop").slow(Duration::from_secs(1)))
        .layer(CircuitBreaker::new().named("shop"));
    let stock = PersistentMap::builder(store, "stock").open().await?;
    let app = App {
        stock: stock.clone(),
        recorder,
    };
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(app);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });

    stock.insert_and_save("apple", 3).await?;
    stock.insert("pear", 5);
    let scraped = fetch(address, "/metrics").await?;
    for line in scraped.lines().filter(|line| is_of_interest(line)) {
        println!("{line}");
    }
    assert!(scraped.contains("persistify_pending_keys{provider=\"shop\",map=\"stock\"} 1"));
    let health = fetch(address, "/health").await?;
    println!("/health: {}", health.lines().next().unwrap_or_default());
    assert!(health.starts_with("HTTP/1.1 200"));
    stock.close().await?;
    Ok(())
}

/// The map's own figures are recorded now, those of the layers were recorded with each call.
async fn metrics(State(app): State<App>) -> String {
    app.stock.record_metrics("shop");
    app.recorder.render()
}

async fn health(State(app): State<App>) -> (StatusCode, String) {
    match app.stock.health().borrow().error() {
        None => (StatusCode::OK, "healthy\n".to_owned()),
        Some(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

fn is_of_interest(line: &str) -> bool {
    let metric = line.starts_with("persistify_");
    metric && !line.contains("quantile") && !line.ends_with(" 0")
}

async fn fetch(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut server = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    server.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    server.read_to_string(&mut answer).await?;
    Ok(answer)
}
