//! What dead writers leave beside a trail, made and damaged by tests, and what the next opening makes of it.

#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, ErrorKind, Faults,
    QueueKind, Record, StoreFault,
};

use crate::common::{WAIT, assert_ok, close, records};

/// Bytes before the first entry of a segment: `docs/record-format.md`, section 8.
pub const HEADER: usize = 8192;

pub fn log(logger: &AuditLogger, numbers: std::ops::Range<u64>, text: &str) {
    for i in numbers {
        logger.log(AuditEvent::info("n").with("a", text).with("i", i)).unwrap();
    }
}

/// Closes a logger whose store fails.
pub fn abandon(logger: &AuditLogger) {
    let report = logger.close(Duration::from_millis(1));
    let report = if report.error == Some(AuditError::Timeout) { logger.close(WAIT) } else { report };
    assert!(matches!(report.error, Some(AuditError::Store(_))), "{report:?}");
}

/// Leaves `n` records in a pending file, and gives the file. The trail is there, or not (`late`: it could not be opened).
pub fn leave_pending(config: AuditConfig, n: u64, late: bool) -> PathBuf {
    let faults = Faults::new();
    let fail = |fault| faults.store(fault, ErrorKind::Io, u32::MAX);
    if late {
        fail(StoreFault::Open);
    }
    let (path, dir) = (config.output_file.clone(), config.spill_dir.clone());
    let logger = AuditLogger::open(config.service("tests", "1").faults(&faults)).unwrap();
    if !late {
        logger.flush(WAIT).unwrap();
        fail(StoreFault::Begin);
    }
    log(&logger, 0..n, "");
    abandon(&logger);
    let dir = dir.unwrap_or_else(|| path.parent().unwrap().into());
    let id = logger.writer_id();
    dir.join(format!("{}.pending.{id}.jsonl", path.file_name().unwrap().to_str().unwrap()))
}

/// Leaves `n` records in a journal, and gives the writer and its segments: one for about 480 of them. `None` where there is no journal.
pub fn leave_journal(path: &Path, n: u64) -> Option<(String, Vec<PathBuf>)> {
    let faults = Faults::new();
    let config = AuditConfig::new(path).service("tests", "1").faults(&faults).queue_bytes(16 << 20);
    let logger = AuditLogger::open(config).unwrap();
    if logger.health().queue == QueueKind::Memory {
        println!("SKIPPED: no journal on this file system");
        return None;
    }
    logger.flush(WAIT).unwrap();
    faults.spill(ErrorKind::DiskFull);
    faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
    log(&logger, 0..n, &"x".repeat(2_000));
    abandon(&logger);
    Some((logger.writer_id().to_string(), beside(path, ".journal")))
}

/// The files beside a trail that end so.
pub fn beside(path: &Path, ending: &str) -> Vec<PathBuf> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let all = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().path());
    let ours =
        |p: &PathBuf| p.file_name().unwrap().to_str().is_some_and(|n| n.starts_with(name) && n.ends_with(ending));
    let mut all: Vec<PathBuf> = all.filter(ours).collect();
    all.sort();
    all
}

/// The number of a segment in use.
pub fn number(segment: &Path) -> u64 {
    u64::from_le_bytes(fs::read(segment).unwrap()[16..24].try_into().unwrap())
}

/// The number of a segment's first entry.
pub fn first_entry(segment: &Path) -> u64 {
    u64::from_le_bytes(fs::read(segment).unwrap()[HEADER + 8..HEADER + 16].try_into().unwrap())
}

pub fn damage_entry(segment: &Path, nth: usize) {
    let mut bytes = fs::read(segment).unwrap();
    let mut at = HEADER;
    for _ in 0..nth {
        at += u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    }
    bytes[at + 130] ^= 1;
    fs::write(segment, bytes).unwrap();
}

/// Opens the trail, closes it again, and gives what it was told meanwhile. What a reader showed before as pending is what is in then.
pub fn reopen_with(config: AuditConfig) -> Vec<String> {
    let (tell, told) = mpsc::channel();
    let path = config.output_file.clone();
    let expected = path.exists().then(|| [numbers(&path), shown(&path)].concat());
    close(&AuditLogger::open(config.on_error(move |e| drop(tell.send(e.to_string())))).unwrap());
    if let Some(expected) = expected {
        assert!(numbers(&path) == expected, "shown: {expected:?}, then there: {:?}", numbers(&path));
    }
    told.try_iter().collect()
}

/// As `reopen`, without a look at what readers showed before.
pub fn reopen_only(path: &Path) -> Vec<String> {
    let (tell, told) = mpsc::channel();
    close(&AuditLogger::open(AuditConfig::new(path).on_error(move |e| drop(tell.send(e.to_string())))).unwrap());
    told.try_iter().collect()
}

/// The numbers of the events `n` that a reader shows as pending.
pub fn shown(path: &Path) -> Vec<u64> {
    let all = AuditReader::open(path).unwrap().pending().unwrap().map(Result::unwrap);
    all.filter(|r| r.event == "n").map(|r| r.context_value("i").unwrap().as_u64().unwrap()).collect()
}

pub fn reopen(path: &Path) -> Vec<String> {
    reopen_with(AuditConfig::new(path))
}

/// The numbers of the events `n`, in the order of the trail.
pub fn numbers(path: &Path) -> Vec<u64> {
    let all = records(path);
    all.iter().filter(|r| r.event == "n").map(|r| r.context_value("i").unwrap().as_u64().unwrap()).collect()
}

pub fn said(path: &Path, event: &str) -> Vec<Record> {
    records(path).into_iter().filter(|r| r.event == event).collect()
}

pub fn text(record: &Record, key: &str) -> String {
    record.context_value(key).unwrap().as_str().unwrap().to_owned()
}

pub fn count(record: &Record, key: &str) -> u64 {
    record.context_value(key).unwrap().as_u64().unwrap()
}

/// The numbers that gap records cover.
pub fn covers(path: &Path) -> Vec<(u64, Option<u64>)> {
    let last = |g: &Record| g.context_value("last").and_then(|l| l.as_u64());
    said(path, "audit_gap").iter().map(|g| (count(g, "first"), last(g))).collect()
}

/// Both verifiers are content.
pub fn assert_verifies(path: &Path) {
    assert_ok(path);
    if let Some((code, text)) = argus_testkit::verify_with_python(path) {
        assert_eq!(code, 0, "{text}");
    }
}

pub fn plant(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Changes what the lock of the only dead writer says.
pub fn amend_lock(path: &Path, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let lock = beside(path, ".lock").remove(0);
    let mut owner = serde_json::from_slice(&fs::read(&lock).unwrap()).unwrap();
    change(&mut owner);
    plant(&lock, &serde_json::to_string(&owner).unwrap());
}
