//! Which path leads where.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;
use tower_http::limit::RequestBodyLimitLayer;

pub use super::envelope::RequestIds;
use super::{envelope, health, metrics, refusals, statistics, streams};
use crate::control::process::ProcessMeter;
use crate::control::server::Facts;
use crate::control::snapshot::Snapshots;

/// No request needs a body; one that has a larger one is refused.
const BODY_SIZE_MAX: usize = 64 << 10;

const OPENAPI: &str = include_str!("openapi.json");

/// What handlers share.
pub struct House {
    /// What shards say.
    pub snapshots: Snapshots,
    /// What the process takes.
    pub process: ProcessMeter,
    /// What else is known of the process.
    pub facts: Facts,
    /// Names for requests.
    pub request_ids: RequestIds,
    /// Whether the thread is about to end.
    pub stopping: watch::Receiver<bool>,
}

impl House {
    /// How long the process has been at work.
    pub fn uptime(&self) -> Duration {
        self.facts.started.elapsed()
    }
}

/// All routes, each answer in its envelope.
pub fn router(house: Arc<House>) -> Router {
    Router::new()
        .route("/api/v1/streams", get(streams::list))
        .route("/api/v1/streams/{id}", get(streams::one))
        .route("/api/v1/streams/{id}/stats", get(streams::stats))
        .route("/api/v1/streams/{id}/parameters", get(streams::parameters))
        .route("/api/v1/streams/stats/video", get(statistics::video))
        .route("/api/v1/stats", get(statistics::house))
        .route("/api/v1/refusals", get(refusals::list))
        .route("/health", get(health::health))
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/version", get(health::version))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(RequestBodyLimitLayer::new(BODY_SIZE_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&house), envelope::wrap))
        .with_state(house)
}

async fn openapi() -> impl IntoResponse {
    let text = OPENAPI.replacen("\"version\": \"0\"", concat!("\"version\": \"", env!("CARGO_PKG_VERSION"), "\""), 1);
    ([(header::CONTENT_TYPE, "application/json")], text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_names_every_route_and_no_other() {
        let described: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let mut described: Vec<&str> = described["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let source = include_str!("routes.rs");
        let mut routed: Vec<&str> =
            source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next()).collect();
        described.sort_unstable();
        routed.sort_unstable();
        assert_eq!(described, routed);
        assert!(OPENAPI.contains("\"version\": \"0\""));
    }
}
