//! A merge that was broken off, by a kill in the middle of a write or by a store that failed: what is in already stays, and what is not comes once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/spilling.rs"]
mod spilling;

use std::fs;
use std::path::{Path, PathBuf};

use argus_core::{AuditLogger, AuditSink, ErrorKind, Faults, StoreFault};
use common::{Dir, WAIT, assert_ok, child, close, open, part, records};
use spilling::{config, log, numbers, pending_file, until};

const COUNT: u64 = 40;

/// The files beside a trail, and what is in them.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).map(|p| (p.clone(), fs::read(p).unwrap())).collect()
}

fn put_back(dir: &Path, all: &[(PathBuf, Vec<u8>)]) {
    fs::read_dir(dir).unwrap().for_each(|e| fs::remove_file(e.unwrap().path()).unwrap());
    for (path, bytes) in all {
        use std::os::unix::fs::PermissionsExt;
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// Records go to the pending file.
fn spilled(path: &Path, faults: &Faults, journal: bool) -> AuditLogger {
    let logger = AuditLogger::open(config(path, faults).journal(journal)).unwrap();
    logger.flush(WAIT).unwrap();
    faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
    log(&logger, 0..COUNT);
    until("the spill", || logger.health().pending == COUNT && logger.health().queued == 0);
    logger
}

#[test]
fn a_merge_that_is_killed_within_a_write_is_done_again() {
    const NAME: &str = "a_merge_that_is_killed_within_a_write_is_done_again";
    if let Some(part) = part() {
        let (journal, path) = part.split_once(' ').unwrap();
        let faults = Faults::new();
        let logger = spilled(Path::new(path), &faults, journal == "true");
        faults.heal();
        let _ = logger.flush(WAIT);
        unreachable!("it dies at the commit");
    }
    for journal in [false, true] {
        let dir = Dir::new();
        let path = dir.path("trail.jsonl");
        let mut child = child(NAME, &format!("{journal} {}", path.display()));
        let output = child.env("ARGUS_ABORT_AT", "merge_committed").output().unwrap();
        assert!(!output.status.success());
        let left = files(dir.0.path());
        assert!(pending_file(dir.0.path()).is_some());
        let whole = fs::read(&path).unwrap();
        let ends: Vec<usize> = (1..=whole.len()).filter(|i| whole[i - 1] == b'\n').collect();
        // `audit_segment` and `audit_open` were in before. Some of the others, and the last ones, which Argus says itself.
        let last = ends.len() - 3;
        let ends = ends.into_iter().enumerate().skip(1).filter(|(i, _)| i % 9 == 1 || *i >= last).map(|(_, end)| end);
        // At each line's end, and within the line behind it.
        for cut in ends.flat_map(|end| [end, end + 7, end + 300]).filter(|cut| *cut <= whole.len()) {
            put_back(dir.0.path(), &left);
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut as u64).unwrap();
            close(&open(&path));
            assert_eq!(numbers(&path), (0..COUNT).collect::<Vec<_>>(), "{cut} bytes");
            assert_ok(&path);
        }
    }
}

/// Readers of a JSONL trail may have seen lines that were never synced: what is written in their place must be the same.
#[test]
fn a_merge_whose_commit_failed_is_tried_again_as_it_was() {
    let dir = Dir::new();
    for path in dir.both() {
        for good in [0, 1] {
            let path = path.with_file_name(format!("{good}{}", path.file_name().unwrap().to_string_lossy()));
            let faults = Faults::new();
            let logger = spilled(&path, &faults, false);
            faults.commits(good, ErrorKind::Io, u32::MAX);
            until("a try that fails", || faults.tries().len() > good as usize + 1);
            // What stands in the file by now is more.
            log(&logger, COUNT..2 * COUNT);
            let tries = faults.tries().len();
            until("another one", || faults.tries().len() > tries + 1);
            let tries = faults.tries().split_off(good as usize);
            faults.heal();
            logger.flush(WAIT).unwrap();
            let first = &tries[0];
            assert!(!first.is_empty());
            for (i, again) in tries.iter().enumerate() {
                // (The last one may have just begun.)
                assert!(again == first || (i + 1 == tries.len() && first.starts_with(again)), "{i}: {tries:?}");
            }
            let stored: Vec<String> = records(&path).iter().map(|r| r.checksum.unwrap().to_string()).collect();
            assert!(first.iter().all(|sum| stored.contains(sum)), "as it was");
            close(&logger);
            assert_eq!(numbers(&path), (0..2 * COUNT).collect::<Vec<_>>());
            assert_ok(&path);
        }
    }
}
