//! A trail on a disk that is full to the last byte when it is opened: a writer's lock has no text there. And on one that reserves no space.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/disk.rs"]
mod disk;
#[path = "common/spilling.rs"]
mod spilling;

use std::fs;
use std::path::{Path, PathBuf};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, ErrorKind, QueueKind, TrailFiles};
use common::{Dir, WAIT, assert_ok, close, open, part};
use disk::{Disk, with_mounts};
use spilling::{close_now, log, numbers, until};

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| p.to_string_lossy().ends_with(ending)).collect()
}

/// Runs a test on a full disk of its own, with a trail of each kind that was there before.
fn on_a_full_disk(name: &str, test: impl Fn(&Path, &Disk, AuditConfig)) {
    if part().is_none() {
        if !with_mounts(name, "mounts") {
            println!("SKIPPED: mounting is not allowed here");
        }
        return;
    }
    for ending in ["db", "jsonl"] {
        for journal in [false, true] {
            let dir = Dir::new();
            let Some(disk) = Disk::mount(&dir.path("disk"), 1) else { return println!("SKIPPED: no mount") };
            let path = dir.path(&format!("disk/trail.{ending}"));
            close(&open(&path));
            disk.fill();
            test(&path, &disk, AuditConfig::new(&path).service("tests", "1").journal(journal));
        }
    }
}

#[test]
fn where_no_space_can_be_reserved_the_queue_is_memory_and_that_is_told() {
    let name = "where_no_space_can_be_reserved_the_queue_is_memory_and_that_is_told";
    if part().is_none() {
        if !with_mounts(name, "mounts") {
            println!("SKIPPED: mounting is not allowed here");
        }
        return;
    }
    let dir = Dir::new();
    let Some(_disk) = Disk::of("ramfs", &dir.path("disk"), "mode=0700") else { return println!("SKIPPED: no ramfs") };
    for path in ["disk/trail.db", "disk/trail.jsonl"].map(|p| dir.path(p)) {
        let logger = open(&path);
        assert_eq!(logger.health().queue, QueueKind::Memory);
        log(&logger, 0..20);
        assert_eq!(files(path.parent().unwrap(), ".journal"), Vec::<PathBuf>::new());
        close(&logger);
        assert_eq!(numbers(&path), (0..20).collect::<Vec<_>>());
        let opened = common::records(&path).into_iter().find(|r| r.event == "audit_open").unwrap();
        assert_eq!(opened.context_value("queue").unwrap(), "memory");
        let why = opened.context_value("queue_reason").unwrap().to_string();
        assert!(why.contains("0x858458f6"), "{why}");
        assert_ok(&path);
    }
}

#[test]
fn a_lock_without_a_text_is_alive_as_long_as_it_is_held() {
    on_a_full_disk("a_lock_without_a_text_is_alive_as_long_as_it_is_held", |path, disk, config| {
        let (at, spill) = (path.parent().unwrap(), path.with_file_name("../spill"));
        let logger = AuditLogger::open(config.clone().spill_dir(&spill)).unwrap();
        let lock = files(at, ".lock");
        assert_eq!((lock.len(), fs::metadata(&lock[0]).unwrap().len()), (1, 0), "there is no room for a text");
        log(&logger, 0..20);
        // (The last page of a JSONL trail may have room for a few.)
        until("the pending file", || logger.health().pending > 0 && logger.health().queued == 0);
        // Another one that has no place at all says what to do, and leaves nothing; one that has goes on beside it, where the store lets it.
        let error = AuditLogger::open(config.clone()).map(drop).unwrap_err();
        let kind = error.kind();
        let in_use = path.extension().is_some_and(|e| e == "jsonl");
        assert!(kind == if in_use { ErrorKind::InUse } else { ErrorKind::DiskFull }, "{error}");
        assert!(error.to_string().contains(if in_use { "its own file" } else { "free some space" }), "{error}");
        if !in_use {
            let other = AuditLogger::open(config.clone().spill_dir(&spill)).unwrap();
            other.log_durable(AuditEvent::info("other")).unwrap();
            assert!(close_now(&other).error.is_some());
        }
        assert!(lock[0].exists());
        let seen = TrailFiles::beside(path).unwrap();
        let seen = seen.writers.iter().find(|w| w.writer == logger.writer_id()).unwrap();
        assert_eq!((seen.alive, seen.lock.is_some()), (None, true), "nobody can tell, and nobody says that it is dead");
        disk.free();
        logger.flush(WAIT).unwrap();
        log(&logger, 20..30);
        close(&logger);
        assert_eq!(numbers(path), (0..30).collect::<Vec<_>>());
        close(&AuditLogger::open(config.spill_dir(&spill)).unwrap());
        assert_eq!((files(at, ".lock"), files(&spill, ".jsonl")), (vec![], vec![]));
        let there = common::records(path).iter().filter(|r| r.event == "other").count();
        assert_eq!(there, usize::from(!in_use));
        assert_ok(path);
    });
}

#[test]
fn what_a_writer_without_a_text_left_is_recovered() {
    on_a_full_disk("what_a_writer_without_a_text_left_is_recovered", |path, disk, config| {
        let config = config.spill_dir(path.with_file_name("../spill"));
        let logger = AuditLogger::open(config.clone()).unwrap();
        log(&logger, 0..20);
        assert!(close_now(&logger).error.is_some());
        assert_eq!(fs::metadata(&files(path.parent().unwrap(), ".lock")[0]).unwrap().len(), 0);
        disk.free();
        close(&AuditLogger::open(config).unwrap());
        assert_eq!(numbers(path), (0..20).collect::<Vec<_>>());
        assert_eq!(files(path.parent().unwrap(), ".lock"), Vec::<PathBuf>::new());
        assert_ok(path);
    });
}
