//! Sustained writing against raw inserts of the same rows with the same indexes, batches and synchronisation; verification against reading the rows and hashing
//! the same number of bytes.

use std::path::Path;
use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Filter};
use rusqlite::Connection;
use sha2::{Digest, Sha256};

use crate::row::{Row, interleaved};

const RECORDS: u64 = 50_000;
const SCHEMA: &str = include_str!("../../../argus-core/src/store/sqlite/schema.sql");

fn write_ours(path: &Path) -> f64 {
    let logger = AuditLogger::open(AuditConfig::new(path).queue_bytes(256 << 20)).unwrap();
    let t = Instant::now();
    for i in 0..RECORDS {
        let e = AuditEvent::info("request")
            .component("shop")
            .file_path("/etc/shop.yaml")
            .with("user", "jane")
            .with("status", 200)
            .with("n", i);
        logger.log(e).unwrap();
    }
    logger.flush(Duration::from_secs(120)).unwrap();
    let rate = RECORDS as f64 / t.elapsed().as_secs_f64();
    logger.close(Duration::from_secs(60));
    rate
}

/// Inserts the rows of `from` as they are, in batches of about the size that our writer forms.
fn write_raw(from: &Path, to: &Path) -> f64 {
    let columns = 25;
    let source = Connection::open(from).unwrap();
    let mut select = source.prepare("SELECT * FROM audit_events ORDER BY id").unwrap();
    let rows: Vec<Vec<rusqlite::types::Value>> =
        select.query_map([], |r| (0..columns).map(|i| r.get(i)).collect()).unwrap().map(Result::unwrap).collect();
    let conn = Connection::open(to).unwrap();
    conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF;").unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    let marks = vec!["?"; columns].join(",");
    let mut insert = conn.prepare(&format!("INSERT INTO audit_events VALUES ({marks})")).unwrap();
    let t = Instant::now();
    for batch in rows.chunks(8192) {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for row in batch {
            insert.execute(rusqlite::params_from_iter(row)).unwrap();
        }
        conn.execute_batch("COMMIT").unwrap();
    }
    rows.len() as f64 / t.elapsed().as_secs_f64()
}

pub(crate) fn sustained(wanted: &dyn Fn(&str) -> bool) -> Option<Row> {
    const NAME: &str = "sustained_sqlite";
    if !wanted(NAME) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    let last = std::cell::RefCell::new(dir.path().join("none.db"));
    let (ours, floor) = interleaved(
        || {
            n += 1;
            let path = dir.path().join(format!("ours-{n}.db"));
            let rate = write_ours(&path);
            *last.borrow_mut() = path;
            rate
        },
        || {
            let from = last.borrow().clone();
            let to = from.with_extension("raw.db");
            let rate = write_raw(&from, &to);
            for f in [from, to] {
                let _ = std::fs::remove_file(f);
            }
            rate
        },
    );
    Some(Row {
        name: NAME,
        what: "log to commit, FULL, chained, 5 indexes; floor: raw rusqlite inserts of the same rows",
        unit: "records/s",
        ours,
        floor,
        aim: ">= 0.70",
    })
}

pub(crate) fn verify(wanted: &dyn Fn(&str) -> bool) -> Option<Row> {
    const NAME: &str = "verify";
    if !wanted(NAME) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trail.db");
    write_ours(&path);
    // The canonical form is as long as the JSONL line without its checksum.
    let bytes: usize =
        AuditReader::open(&path).unwrap().query(Filter::new()).unwrap().map(|r| r.unwrap().to_jsonl().len() - 78).sum();
    let each = vec![0u8; bytes / RECORDS as usize];
    let (ours, floor) = interleaved(
        || {
            let t = Instant::now();
            let report = AuditReader::open(&path).unwrap().verify().unwrap();
            assert!(report.is_ok(), "{report}");
            report.records as f64 / t.elapsed().as_secs_f64()
        },
        || {
            let conn = Connection::open(&path).unwrap();
            let t = Instant::now();
            conn.query_row("PRAGMA integrity_check", [], |_| Ok(())).unwrap();
            let mut s = conn.prepare("SELECT * FROM audit_events ORDER BY id").unwrap();
            let mut rows = s.query([]).unwrap();
            let (mut n, mut total) = (0u64, 0usize);
            while let Some(r) = rows.next().unwrap() {
                n += 1;
                total += (0..25).filter_map(|i| r.get_ref(i).unwrap().as_str().ok().map(str::len)).sum::<usize>();
                std::hint::black_box(Sha256::digest(&each));
            }
            std::hint::black_box(total);
            n as f64 / t.elapsed().as_secs_f64()
        },
    );
    Some(Row {
        name: NAME,
        what: "whole verification; floor: integrity_check, reading every cell, hashing as many bytes",
        unit: "records/s",
        ours,
        floor,
        aim: "(reported)",
    })
}
