//! An axum service with all three sides on one trail: direct calls, a watched configuration file, tagged `tracing` events. Spans and metrics go to a Collector.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 SHOP_CONFIG=/etc/shop.json ARGUS_AUDIT_OUTPUT_FILE=/var/lib/shop/audit.db cargo run --example axum_service`

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argus_core::{ActorType, AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Watcher, WatcherConfig};
use argus_examples::{request_span, zipkin_from_env};
use argus_otel::{AuditMetrics, OtelAuditWrapper, OtelWrapperConfig, otlp_from_env_with, otlp_metrics_from_env};
use argus_tracing_layer::{AuditLayer, audit_security};
use axum::extract::{Path, State};
use axum::routing::{get, post, put};
use axum::{Json, Router, http::StatusCode, middleware::from_fn};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime, signal::unix};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt, prelude::*};

const WAIT: Duration = Duration::from_secs(5);

struct Shop {
    audit: OtelAuditWrapper<AuditLogger>,
    prices: Mutex<HashMap<String, u64>>,
    max_price: AtomicU64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let config = AuditConfig::new("/var/lib/shop/audit.db").service("shop", "1.4.2").overlay_env()?;
    let logger = AuditLogger::open(config.clone())?;
    // Without OTEL_EXPORTER_OTLP_ENDPOINT there are no spans, and the trail is written all the same.
    let otlp = otlp_from_env_with("shop", zipkin_from_env)?;
    let audit = match &otlp {
        Some(o) => OtelAuditWrapper::new(logger, o.tracer(), OtelWrapperConfig::default().account(o.account())),
        None => OtelAuditWrapper::without_tracer(logger),
    };
    // Counts what the trail holds, so that the counters go on where they were after a restart.
    let meters = otlp_metrics_from_env("shop")?;
    let counted = AuditMetrics::builder().follow(audit.inner().reader()?).wrapper(&audit);
    let _metrics = meters.as_ref().map(|m| counted.exports(m).install(&m.meter(), &audit)).transpose()?;
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env()?;
    tracing_subscriber::registry()
        .with(fmt::layer().with_writer(std::io::stderr).with_filter(filter))
        .with(otlp.as_ref().map(|o| tracing_opentelemetry::layer().with_tracer(o.tracer())))
        .with(AuditLayer::new(audit.clone()))
        .init();

    let shop = Arc::new(Shop { audit: audit.clone(), prices: Mutex::default(), max_price: AtomicU64::new(0) });
    let (limits, path) = (shop.clone(), std::env::var("SHOP_CONFIG").unwrap_or("/etc/shop.json".into()));
    let watcher = Watcher::with_sink(WatcherConfig::new(config), audit.clone());
    watcher.watch(&path, move |change| {
        // A file that is gone or says nothing leaves the limit that was.
        let max = change.new.as_ref().and_then(|c| c["max_price"].as_u64());
        limits.max_price.store(max.unwrap_or(limits.max_price.load(Relaxed)), Relaxed);
    })?;
    watcher.start()?;
    let first: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    shop.max_price.store(first["max_price"].as_u64().ok_or("max_price is missing")?, Relaxed);

    let served = Runtime::new()?.block_on(serve(shop));
    watcher.stop()?;
    // The trail before the pipelines: its last commit makes the last spans and counts.
    println!("closed: {:?}", audit.close(WAIT));
    // No failure of the service if the Collector is away: the records are safe.
    println!("sent: {:?}", (otlp.map(|o| o.shutdown(WAIT)), meters.map(|m| m.shutdown(WAIT))));
    served
}

async fn serve(shop: Arc<Shop>) -> Result<(), Box<dyn Error>> {
    let shop_routes = Router::new().route("/price/{sku}", put(set_price)).route("/login", post(login));
    let app = shop_routes.layer(from_fn(request_span)).route("/health", get(health)).with_state(shop);
    let listener = TcpListener::bind(std::env::var("SHOP_LISTEN").unwrap_or("127.0.0.1:3000".into())).await?;
    let mut term = unix::signal(unix::SignalKind::terminate())?;
    println!("listening on {}", listener.local_addr()?);
    let stop = async move {
        tokio::select! { _ = term.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
    };
    Ok(axum::serve(listener, app).with_graceful_shutdown(stop).await?)
}

/// Direct calls: a change that cannot be recorded does not happen.
async fn set_price(State(shop): State<Arc<Shop>>, Path(sku): Path<String>, Json(body): Json<Value>) -> StatusCode {
    let (user, price) = (body["user"].as_str().unwrap_or("nobody"), body["price"].as_u64().unwrap_or_default());
    let allowed = price <= shop.max_price.load(Relaxed);
    let event = if allowed { AuditEvent::info("price_change") } else { AuditEvent::security("price_refused") };
    let event = event.component("prices").actor(user, ActorType::User).with("sku", &*sku).new_value(price);
    // Held over the call, so that the trail has the changes in the order in which they took effect.
    let mut prices = shop.prices.lock().unwrap_or_else(PoisonError::into_inner);
    match shop.audit.log(event.old_value(&prices.get(&sku))) {
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        Ok(_) if !allowed => StatusCode::FORBIDDEN,
        Ok(_) => {
            prices.insert(sku, price);
            StatusCode::OK
        }
    }
}

/// Tagged events: the layer makes records of them.
async fn login(Json(body): Json<Value>) -> StatusCode {
    let user = body["user"].as_str().unwrap_or_default();
    if body["password"] != "correct horse" {
        audit_security!("login_denied", audit.component = "accounts", audit.actor = user, audit.outcome = "failure");
        return StatusCode::UNAUTHORIZED;
    }
    tracing::info!(audit.event = "login", audit.component = "accounts", audit.actor = user, audit.outcome = "success");
    StatusCode::OK
}

/// 503 while records cannot be committed. A loss in the past is for an alert: a service that is taken out for it never comes back.
async fn health(State(shop): State<Arc<Shop>>) -> (StatusCode, Json<Value>) {
    let (h, errors) = (shop.audit.health(), shop.audit.tracing_errors());
    let status = if h.degraded.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let waiting = h.queued + h.pending;
    (status, Json(json!({"lost": h.lost, "waiting": waiting, "degraded": h.degraded, "tracing_errors": errors})))
}
