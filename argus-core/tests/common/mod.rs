//! Helpers that the integration tests share.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use argus_core::{AuditConfig, AuditLogger, AuditReader, AuditSink, Filter, Record};

/// For what comes in a moment, on a machine that has much else to do.
pub const WAIT: Duration = Duration::from_secs(60);

/// A fresh folder with a trail's path of each kind.
pub struct Dir(pub tempfile::TempDir);

impl Dir {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// One path for each store.
    pub fn both(&self) -> [PathBuf; 2] {
        [self.path("trail.db"), self.path("trail.jsonl")]
    }
}

pub fn open(path: &Path) -> AuditLogger {
    AuditLogger::open(AuditConfig::new(path).service("tests", "1")).unwrap()
}

pub fn close(logger: &AuditLogger) {
    let report = logger.close(WAIT);
    assert_eq!(report.error, None);
}

pub fn records(path: &Path) -> Vec<Record> {
    AuditReader::open(path).unwrap().query(Filter::new()).unwrap().map(Result::unwrap).collect()
}

pub fn assert_ok(path: &Path) {
    let report = AuditReader::open(path).unwrap().verify().unwrap();
    assert!(report.is_ok(), "{report}");
}

pub fn findings(path: &Path) -> Vec<String> {
    AuditReader::open(path).unwrap().verify().unwrap().findings.iter().map(|f| f.to_string()).collect()
}

/// Every file of a folder with its length and a hash of its bytes. Never beside a live writer of this process: closing a file drops SQLite's locks on it.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (usize, u64)> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let read = |p: &PathBuf| {
        let bytes = std::fs::read(p).unwrap();
        let mut h = DefaultHasher::new();
        bytes.hash(&mut h);
        (bytes.len(), h.finish())
    };
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).map(|p| (p.clone(), read(&p))).collect()
}

/// Runs one test of this binary again, as another process; it finds its part in the variable `ARGUS_CHILD`.
pub fn child(test: &str, part: &str) -> std::process::Command {
    let mut c = std::process::Command::new(std::env::current_exe().unwrap());
    c.args(["--exact", test, "--nocapture", "--test-threads=1"]).env("ARGUS_CHILD", part);
    c
}

/// The part that this process plays as a child.
pub fn part() -> Option<String> {
    std::env::var("ARGUS_CHILD").ok()
}

/// A plain connection of some other program: nothing of ours is set on it.
pub fn sql(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
}

/// As `sql`, for a tamperer: our triggers do not stop him.
pub fn tamper(path: &Path, statements: &str) {
    let c = sql(path);
    c.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    c.execute_batch(statements).unwrap();
    c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}
