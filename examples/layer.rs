//! The `tracing` layer: one line more on the subscriber a service has already.
//!
//! `cargo run --example layer [PATH]`

use std::time::Duration;

use argus_core::{AuditConfig, AuditLogger, AuditReader, AuditSink};
use argus_tracing_layer::{AuditLayer, audit_security};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

#[tracing::instrument(skip(password), fields(audit.actor = user))]
fn login(user: &str, password: &str) {
    // Not for the trail: no field is tagged.
    tracing::debug!("checking credentials");
    if password != "correct horse" {
        // The actor comes from the span. Span fields that are not tagged stay out of the trail.
        audit_security!("login_denied", audit.outcome = "failure", ip = "192.0.2.7", "wrong password");
        return;
    }
    tracing::info!(audit.event = "login", audit.outcome = "success", ip = "192.0.2.7");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("argus-layer/audit.db"), Into::into);
    let logger = AuditLogger::open(AuditConfig::new(&path).service("shop", "1.4.2"))?;

    // The filter stands on `fmt`, not on the whole registry: what is not printed is audited all the same.
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env()?;
    tracing_subscriber::registry()
        .with(fmt::layer().with_writer(std::io::stderr).with_filter(filter))
        .with(AuditLayer::new(logger.clone()))
        .init();

    login("jane", "correct horse");
    login("joe", "password1");

    logger.close(Duration::from_secs(5));
    println!("{}", AuditReader::open(&path)?.verify()?);
    Ok(())
}
