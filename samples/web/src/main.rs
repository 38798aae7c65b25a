//! A web server with a map: graceful shutdown, `/health` and `/metrics`.

use std::{error::Error, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use persistify::{PersistentMap, Sqlite};
use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

type Stock = PersistentMap<u32>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = Sqlite::open("shop.db").await?;
    let stock: Stock = PersistentMap::builder(file, "stock").open().await?;
    let app = Router::new()
        .route("/stock/{name}", get(show).put(restock))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(stock.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    axum::serve(listener, app)
        .with_graceful_shutdown(stopped())
        .await?;
    // Shorter than the grace period of systemd, Docker or Kubernetes.
    stock.close_within(Duration::from_secs(8)).await?;
    Ok(())
}

async fn stopped() {
    let mut terminated = signal(SignalKind::terminate()).expect("a SIGTERM handler");
    tokio::select! {
        _ = ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

async fn show(State(stock): State<Stock>, Path(name): Path<String>) -> Result<String, StatusCode> {
    stock
        .get(name)
        .map(|n| n.to_string())
        .ok_or(StatusCode::NOT_FOUND)
}

/// Responds once the change is saved.
async fn restock(State(stock): State<Stock>, Path(name): Path<String>) -> Result<(), StatusCode> {
    let saved = stock.insert_and_save(name, 100).await;
    saved.map(drop).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn health(State(stock): State<Stock>) -> StatusCode {
    match stock.health().borrow().is_healthy() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn metrics(State(stock): State<Stock>) -> String {
    let stats = stock.stats();
    let oldest = stats.oldest_pending.unwrap_or_default().as_secs_f64();
    format!(
        "persistify_pending {}\npersistify_oldest_pending_seconds {oldest}\npersistify_refused {}\n\
         persistify_commits_total {}\npersistify_failed_attempts_total {}\n",
        stats.pending, stats.refused, stats.commits, stats.failed_attempts
    )
}
