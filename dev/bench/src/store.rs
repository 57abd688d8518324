//! Sustained writing against raw inserts of the same rows with the same indexes, batches and synchronisation; verification against reading the rows and hashing
//! the same number of bytes.

use std::path::Path;
use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Filter};
use rusqlite::Connection;
use rusqlite::types::Value;
use sha2::{Digest, Sha256};

use crate::row::{RUNS, Row, interleaved};

const RECORDS: u64 = 50_000;
const COLUMNS: usize = 25;
/// Places among them.
const RECORD_ID: usize = 22;
const TIMES: [usize; 2] = [1, 14];
const SCHEMA: &str = include_str!("../../../argus-core/src/store/sqlite/schema.sql");

/// Logs so many records as fast as it goes.
pub(crate) fn log_many(logger: &AuditLogger, records: u64) {
    for i in 0..records {
        let e = AuditEvent::info("request")
            .component("shop")
            .file_path("/etc/shop.yaml")
            .with("user", "jane")
            .with("status", 200)
            .with("n", i);
        logger.log(e).unwrap();
    }
}

/// Makes a trail of so many records; records a second from the first call to the last commit.
pub(crate) fn write_ours(path: &Path, records: u64) -> f64 {
    let logger = AuditLogger::open(AuditConfig::new(path).queue_bytes(256 << 20)).unwrap();
    let t = Instant::now();
    log_many(&logger, records);
    logger.flush(Duration::from_secs(120)).unwrap();
    let rate = records as f64 / t.elapsed().as_secs_f64();
    logger.close(Duration::from_secs(60));
    rate
}

/// A database with the same tables and indexes, synchronised the same way, without anything of ours around it.
pub(crate) struct RawStore {
    conn: Connection,
    rows: Vec<Vec<Value>>,
    at: usize,
}

impl RawStore {
    /// With the rows of another trail ready to be inserted.
    pub(crate) fn like(from: &Path, to: &Path) -> Self {
        let source = Connection::open(from).unwrap();
        let mut select = source.prepare("SELECT * FROM audit_events ORDER BY id").unwrap();
        let rows =
            select.query_map([], |r| (0..COLUMNS).map(|i| r.get(i)).collect()).unwrap().map(Result::unwrap).collect();
        let conn = Connection::open(to).unwrap();
        conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF;").unwrap();
        conn.execute_batch(SCHEMA).unwrap();
        conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
        Self { conn, rows, at: 0 }
    }

    /// Inserts the next `batch` rows in one transaction, or as many as are left; after the last it begins again, with new identities and times.
    pub(crate) fn insert(&mut self, batch: usize) -> usize {
        if self.at == self.rows.len() {
            self.at = 0;
            let round = self.rows.len() as i64;
            for row in &mut self.rows {
                if let Value::Integer(id) = &mut row[0] {
                    *id += round;
                }
                if let Value::Text(id) = &mut row[RECORD_ID] {
                    *id = format!("{:08x}{}", u32::from_str_radix(&id[..8], 16).unwrap() + 1, &id[8..]);
                }
                // A year later: ids and times come in order, and these go on doing so, at the end of each index.
                for time in TIMES {
                    if let Value::Text(t) = &mut row[time] {
                        *t = format!("{:04}{}", t[..4].parse::<u32>().unwrap() + 1, &t[4..]);
                    }
                }
            }
        }
        let end = (self.at + batch).min(self.rows.len());
        let marks = vec!["?"; COLUMNS].join(",");
        let mut insert = self.conn.prepare_cached(&format!("INSERT INTO audit_events VALUES ({marks})")).unwrap();
        self.conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for row in &self.rows[self.at..end] {
            insert.execute(rusqlite::params_from_iter(row)).unwrap();
        }
        self.conn.execute_batch("COMMIT").unwrap();
        end - std::mem::replace(&mut self.at, end)
    }
}

/// Inserts the rows of `from` as they are, in batches of about the size that our writer forms.
fn write_raw(from: &Path, to: &Path) -> f64 {
    let mut raw = RawStore::like(from, to);
    let t = Instant::now();
    while raw.at < raw.rows.len() {
        raw.insert(8192);
    }
    raw.rows.len() as f64 / t.elapsed().as_secs_f64()
}

pub(crate) fn sustained() -> Row {
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    let last = std::cell::RefCell::new(dir.path().join("none.db"));
    let (ours, floor) = interleaved(
        RUNS,
        || {
            n += 1;
            let path = dir.path().join(format!("ours-{n}.db"));
            let rate = write_ours(&path, RECORDS);
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
    Row {
        name: "",
        what: "log to commit, FULL, chained, 5 indexes; floor: raw rusqlite inserts of the same rows",
        unit: "records/s",
        ours,
        floor,
        aim: ">= 0.85",
        runs: RUNS,
    }
}

pub(crate) fn verify() -> Row {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trail.db");
    write_ours(&path, RECORDS);
    // The canonical form is as long as the JSONL line without its checksum.
    let bytes: usize =
        AuditReader::open(&path).unwrap().query(Filter::new()).unwrap().map(|r| r.unwrap().to_jsonl().len() - 78).sum();
    let each = vec![0u8; bytes / RECORDS as usize];
    let (ours, floor) = interleaved(
        RUNS,
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
    Row {
        name: "",
        what: "whole verification; floor: integrity_check, reading every cell, hashing as many bytes",
        unit: "records/s",
        ours,
        floor,
        aim: "(reported)",
        runs: RUNS,
    }
}
