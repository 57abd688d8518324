//! The trail as metrics, scraped by Prometheus from the process itself: `argus_audit_events_total` equals `argus stats`, after restarts, too.
//!
//! `cargo run --example prometheus [PATH] [ADDRESS]`, then `curl http://127.0.0.1:9464/metrics`. With `--once` in place of the address it prints them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use argus_core::{ActorType, AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt};
use argus_otel::AuditMetrics;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("argus-prometheus/audit.db"), Into::into);
    let logger = AuditLogger::open(AuditConfig::new(&path).service("shop", "1.4.2"))?;

    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
    let provider = SdkMeterProvider::builder().with_reader(exporter).build();
    // Hold it: the metrics live as long as it does.
    let _metrics = AuditMetrics::builder().follow(logger.reader()?).install(&provider.meter("argus"), &logger)?;

    logger.log_config_change("/etc/shop/prices.toml", 10, 12)?;
    logger.log(AuditEvent::security("price_override").component("till").actor("jane", ActorType::User))?;
    logger.flush(Duration::from_secs(5))?;

    let address = std::env::args().nth(2).unwrap_or_else(|| "127.0.0.1:9464".into());
    if address == "--once" {
        print!("{}", TextEncoder::new().encode_to_string(&registry.gather())?);
        return Ok(());
    }
    // As little of a web server as a scrape needs; a service adds a route to the one it has.
    let listener = TcpListener::bind(&address)?;
    println!("http://{}/metrics", listener.local_addr()?);
    for mut stream in listener.incoming().flatten() {
        let head = BufReader::new(&stream).lines();
        head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
        let body = TextEncoder::new().encode_to_string(&registry.gather())?;
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}", body.len());
        // A scraper that goes away before the answer is no reason to end.
        let _ = write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}");
    }
    Ok(())
}
