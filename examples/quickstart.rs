//! The direct API: open a trail, record facts, read them back, verify.
//!
//! `cargo run --example quickstart [PATH]`

use std::time::Duration;

use argus_core::{
    ActorType, AuditConfig, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Filter, Outcome, audit,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("argus-quickstart/audit.db"), Into::into);
    let logger = AuditLogger::open(AuditConfig::new(&path).service("shop", "1.4.2").component("checkout"))?;
    // Closes the trail when `main` ends, however it ends.
    let _guard = logger.guard();

    // `log` returns when the record is accepted; the trail's own thread commits it.
    logger.log(AuditEvent::info("started").with("version", env!("CARGO_PKG_VERSION")))?;
    logger.log_config_change(
        "/etc/shop/app.yaml",
        &serde_json::json!({"port": 80}),
        &serde_json::json!({"port": 443}),
    )?;
    audit!(logger, Warn, "quota_exceeded", used = 120, limit = 100)?;

    // Who did what, and how it ended. The password is withheld because of its key.
    logger.log(
        AuditEvent::security("login")
            .actor("jane", ActorType::User)
            .action("login")
            .outcome(Outcome::Failure)
            .with("ip", "192.0.2.7")
            .with("password", "hunter2"),
    )?;

    // Intent now, outcome later: a panic in between is recorded as `abandoned`.
    let scope = logger.begin(AuditEvent::critical("schema_migration").with("to", 7))?;
    scope.success()?;

    // `log_durable` returns when the record is on the disk and in the chain.
    let receipt = logger.log_durable(AuditEvent::critical("key_rotated"))?;
    println!("record {} is number {} of the trail {}", receipt.record_id, receipt.seq.unwrap_or(0), path.display());

    let report = logger.close(Duration::from_secs(5));
    println!("closed: {} committed, {} left", report.committed, report.left);

    let reader = AuditReader::open(&path)?;
    for record in reader.query(Filter::new().event("login").newest_first().limit(1))? {
        println!("{}", record?.to_jsonl());
    }
    println!("{}", reader.verify()?);
    Ok(())
}
