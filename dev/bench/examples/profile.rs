//! Something to hold a profiler to: so many calls of one kind, then a close. `profile KIND [CALLS]`, where KIND is `memory`, `journal`, `watch`,
//! `change`, `bare` or `durable`; see
//! `docs/performance.md`.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, audit};
use serde_json::json;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or("journal".into());
    let calls: u32 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(2_000);
    let dir = tempfile::tempdir().unwrap();
    let config = AuditConfig::new(dir.path().join("profile.db")).queue_bytes(512 << 20).journal(kind != "memory");
    let logger = AuditLogger::open(config).unwrap();
    let old = json!({"host": "db-1", "port": 5432, "tls": false});
    let new = json!({"host": "db-2", "port": 5432, "tls": true});
    for _ in 0..calls {
        let recorded = match kind.as_str() {
            "watch" => logger.log_file_watch("file_watch_start", "/etc/shop/db.yaml"),
            "bare" => logger.log(AuditEvent::info("request")),
            "durable" => {
                let event = AuditEvent::info("request").with("user", "jane").with("status", 200);
                logger.log_durable(event.with("path", "/orders")).map(|r| Some(r.record_id))
            }
            "change" => {
                let event = AuditEvent::critical("config_change").file_path("/etc/shop/db.yaml");
                let event = event.old_value(&old).new_value(&new);
                logger.log(event.with("user", "jane").with("attempt", 1).with("dry_run", false))
            }
            _ => audit!(logger, Info, "request", user = "jane", status = 200, path = "/orders"),
        };
        recorded.unwrap();
    }
    println!("{:?}", logger.close(Duration::from_secs(60)));
}
