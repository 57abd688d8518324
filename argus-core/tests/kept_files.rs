//! No file of a dead writer goes before each record in it was found in the log: whatever a count, a flag or a number says that was damaged, and whatever comes back
//! after its loss was told.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/left.rs"]
mod left;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, ErrorKind, Faults, StoreFault};
use common::{Dir, WAIT, assert_ok, close, open, records, sql, tamper};
use left::*;

/// What was told of one file that was kept, in the log, too.
fn assert_kept(path: &Path, told: &[String], torn: &Path) {
    assert!(told.iter().any(|t| t.contains(torn.to_str().unwrap())), "{told:?}");
    let named = |r: &argus_core::Record| {
        r.context_value("journal_torn").is_some_and(|t| t.as_str().unwrap() == torn.to_str().unwrap())
    };
    assert!(said(path, "audit_recovered").iter().any(named), "{:?}", said(path, "audit_recovered"));
    assert!(torn.exists());
}

fn torn(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.torn", file.display()))
}

/// Changes text in a file, which must be there once, or the last time that it is there.
fn change(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    let at = text.rfind(from).unwrap();
    let new = [&text[..at], to, &text[at + from.len()..]].concat();
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(new.as_bytes(), 0).unwrap();
    file.set_len(new.len() as u64).unwrap();
}

#[test]
fn a_pending_file_that_comes_back_after_its_loss_was_told_is_kept() {
    const NAME: &str = "a_pending_file_that_comes_back_after_its_loss_was_told_is_kept";
    if let Some(path) = common::part() {
        let path = Path::new(&path);
        drop(AuditLogger::open(AuditConfig::new(path).spill_dir(path.with_extension("spill"))));
        return;
    }
    let dir = Dir::new();
    // By a close, which leaves the last number in the lock; and as by a kill, without.
    for (path, closed) in [("a.db", true), ("a.jsonl", true), ("b.db", false), ("b.jsonl", false)] {
        let path = dir.path(path);
        let disk = path.with_extension("spill");
        let file = leave_pending(AuditConfig::new(&path).spill_dir(&disk).journal(false), 50, false);
        // (Of a machine that was started again, so that its process does not live.)
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        change(&file, boot.trim(), "00000000-0000-4000-8000-000000000000");
        if !closed {
            amend_lock(&path, |owner| {
                owner.retain(|key, _| key != "last" && key != "log_id");
                owner.insert("queue".into(), "memory".into());
            });
        }
        let bytes = fs::read(&file).unwrap();
        // As where a disk is not mounted: its folder is there, and empty.
        let away = path.with_extension("away");
        fs::rename(&disk, &away).unwrap();
        fs::create_dir(&disk).unwrap();
        fs::set_permissions(&disk, fs::metadata(&away).unwrap().permissions()).unwrap();
        let config = || AuditConfig::new(&path).spill_dir(&disk);
        reopen_with(config());
        assert_eq!(numbers(&path), Vec::<u64>::new());
        assert!(!said(&path, "audit_gap").is_empty(), "the loss is told");
        fs::remove_dir(&disk).unwrap();
        fs::rename(&away, &disk).unwrap();
        // Killed between the record and the new name.
        let killed = common::child(NAME, path.to_str().unwrap()).env("ARGUS_ABORT_AT", "recovered").output().unwrap();
        assert!(!killed.status.success() && file.exists());
        assert_kept(&path, &reopen_with(config()), &torn(&file));
        assert_eq!(fs::read(torn(&file)).unwrap(), bytes);
        assert_verifies(&path);
        reopen_with(config());
        let named = said(&path, "audit_recovered").iter().filter(|r| r.context_value("journal_torn").is_some()).count();
        assert_eq!(named, 1, "told once");
    }
}

#[test]
fn a_count_that_is_too_high_takes_no_record_of_a_dead_writer_with_it() {
    let path = Dir::new();
    let path = path.path("t.db");
    let Some((writer, segments)) = leave_journal(&path, 100) else { return };
    tamper(&path, &format!("UPDATE writers SET last_seq = 200 WHERE writer = '{writer}'"));
    assert_kept(&path, &reopen(&path), &torn(&segments[0]));
}

#[test]
fn a_count_that_is_too_high_acknowledges_nothing_of_a_live_logger() {
    let dir = Dir::new();
    let path = dir.path("t.db");
    let logger = open(&path);
    log(&logger, 0..50, "");
    logger.flush(WAIT).unwrap();
    let count = |n: u64| tamper(&path, &format!("UPDATE writers SET last_seq = {n} WHERE id = 1"));
    let was: u64 = sql(&path).query_row("SELECT last_seq FROM writers WHERE id = 1", [], |r| r.get(0)).unwrap();
    count(was + 64);
    log(&logger, 50..60, "");
    let end = std::time::Instant::now() + WAIT;
    while logger.health().pending < 10 {
        assert!(std::time::Instant::now() < end, "{:?}", logger.health());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let degraded = logger.health().degraded.unwrap();
    assert!(degraded.contains("counts records"), "{degraded}");
    count(was);
    logger.flush(WAIT).unwrap();
    close(&logger);
    assert_eq!(numbers(&path), (0..60).collect::<Vec<_>>());
    assert_verifies(&path);
}

#[test]
fn an_old_line_with_a_number_too_high_takes_nothing_with_it() {
    let dir = Dir::new();
    // One of many, and the last but one.
    for number in [9, 20] {
        let path = dir.path(&format!("{number}.jsonl"));
        let faults = Faults::new();
        let logger = AuditLogger::open(AuditConfig::new(&path).faults(&faults)).unwrap();
        log(&logger, 0..20, "");
        logger.flush(WAIT).unwrap();
        assert_eq!(records(&path).last().unwrap().writer_seq, 21);
        faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
        log(&logger, 20..40, "");
        abandon(&logger);
        let line = |n: u64| format!("\"writer\":\"{}\",\"writer_seq\":{n},", logger.writer_id());
        change(&path, &line(number), &line(10 * number));
        reopen_with(AuditConfig::new(&path));
        change(&path, &line(10 * number), &line(number));
        assert_eq!(numbers(&path), (0..40).collect::<Vec<_>>());
        assert_verifies(&path);
    }
}

#[test]
fn a_last_line_with_a_number_too_low_is_damage_and_nothing_is_in_twice() {
    let dir = Dir::new();
    let path = dir.path("t.jsonl");
    let faults = Faults::new();
    let logger = AuditLogger::open(AuditConfig::new(&path).faults(&faults)).unwrap();
    log(&logger, 0..90, "");
    logger.flush(WAIT).unwrap();
    let last = records(&path).last().unwrap().writer_seq;
    faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
    log(&logger, 90..100, "");
    abandon(&logger);
    let line = format!("\"writer_seq\":{last},");
    change(&path, &line, "\"writer_seq\":31,");
    let logger = AuditLogger::open(AuditConfig::new(&path)).unwrap();
    let degraded = logger.health().degraded.unwrap();
    assert!(degraded.contains("does not match its checksum"), "{degraded}");
    change(&path, "\"writer_seq\":31,", &line);
    logger.flush(WAIT).unwrap();
    close(&logger);
    reopen_only(&path);
    assert_eq!(numbers(&path), (0..100).collect::<Vec<_>>());
    assert_verifies(&path);
}

#[test]
fn a_segment_that_has_lost_its_number_is_kept() {
    let dir = Dir::new();
    for path in dir.both() {
        let Some((_, segments)) = leave_journal(&path, 100) else { return };
        let segment = fs::OpenOptions::new().write(true).open(&segments[0]).unwrap();
        segment.write_all_at(&[0; 8], 16).unwrap();
        let bytes = fs::read(&segments[0]).unwrap();
        assert_kept(&path, &reopen(&path), &torn(&segments[0]));
        assert_eq!(fs::read(torn(&segments[0])).unwrap(), bytes);
        assert!(covers(&path).iter().any(|c| c.1.is_none()), "nobody knows where it ended");
        assert_verifies(&path);
    }
}

#[test]
fn a_flag_that_says_a_dead_writer_is_over_takes_nothing_with_it() {
    let dir = Dir::new();
    let path = dir.path("t.db");
    let Some((writer, segments)) = leave_journal(&path, 100) else { return };
    let closed = |n: i64| tamper(&path, &format!("UPDATE writers SET closed = {n} WHERE writer = '{writer}'"));
    // One that says nothing: it waits.
    closed(7);
    let told = reopen_only(&path);
    assert!(told.iter().any(|t| t.contains("`closed` of a writer is 7")), "{told:?}");
    assert!(segments[0].exists());
    // One that lies.
    closed(1);
    let bytes = fs::read(&segments[0]).unwrap();
    assert_kept(&path, &reopen_only(&path), &torn(&segments[0]));
    assert_eq!(fs::read(torn(&segments[0])).unwrap(), bytes);
}

#[test]
fn a_log_with_two_ids_is_damaged_and_nothing_is_taken_for_another_ones() {
    let dir = Dir::new();
    for path in dir.both() {
        leave_pending(AuditConfig::new(&path), 50, false);
        let id = records(&path)[0].writer.to_string();
        let other = "00000000-0000-4000-8000-000000000000";
        let swap = |from: &str, to: &str| {
            if path.extension().unwrap() == "db" {
                tamper(&path, &format!("UPDATE log_info SET log_id = '{to}'"));
            } else {
                let at = fs::read_to_string(&path).unwrap().find(&format!("\"log_id\":\"{from}\"")).unwrap() + 10;
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(to.as_bytes(), at as u64).unwrap();
            }
        };
        let log_id = match path.extension().unwrap().to_str().unwrap() {
            "db" => sql(&path).query_row("SELECT log_id FROM log_info", [], |r| r.get(0)).unwrap(),
            _ => id,
        };
        swap(&log_id, other);
        let logger = AuditLogger::open(AuditConfig::new(&path)).unwrap();
        logger.log(AuditEvent::info("n").with("i", 50)).unwrap();
        assert!(logger.health().degraded.unwrap().contains("log"), "{:?}", logger.health());
        assert_eq!(beside(&path, ".orphan"), Vec::<PathBuf>::new());
        swap(other, &log_id);
        logger.flush(WAIT).unwrap();
        close(&logger);
        reopen(&path);
        assert_eq!(numbers(&path), (0..51).collect::<Vec<_>>());
        assert_verifies(&path);
    }
}

#[test]
fn a_number_in_the_last_line_that_is_not_its_own_is_damage() {
    let dir = Dir::new();
    for path in dir.both() {
        let file = leave_pending(AuditConfig::new(&path).journal(false), 50, false);
        let last: u64 = records(&path).last().unwrap().writer_seq + 50;
        // As where it was killed behind the fiftieth.
        let text = fs::read_to_string(&file).unwrap();
        let end = text.find(&format!("\"writer_seq\":{last}")).unwrap();
        let end = end + text[end..].find('\n').unwrap() + 1;
        fs::write(&file, &text[..end]).unwrap();
        amend_lock(&path, |owner| owner.retain(|key, _| key != "last" && key != "log_id"));
        change(&file, &format!("\"writer_seq\":{last}"), "\"writer_seq\":900");
        let told = reopen(&path);
        assert_kept(&path, &told, &torn(&file));
        assert_eq!(numbers(&path), (0..49).collect::<Vec<_>>());
        assert!(covers(&path).iter().all(|c| c.0 == last && c.1.is_none()), "{:?}", covers(&path));
        assert_verifies(&path);
    }
}

#[test]
fn a_lock_that_says_nothing_hides_no_folder_that_the_journal_names() {
    let dir = Dir::new();
    for path in dir.both() {
        let disk = path.with_extension("spill");
        for text in ["{}", "rubbish"] {
            let file = leave_pending(AuditConfig::new(&path).spill_dir(&disk), 10, false);
            if beside(&path, ".journal").is_empty() {
                println!("SKIPPED: no journal on this file system");
                return;
            }
            let lock = beside(&path, ".lock").remove(0);
            fs::write(&lock, text).unwrap();
            reopen_only(&path);
            // (That more may have been lost it says: such a lock does not tell where its writer ended.)
            assert!(!file.exists() && covers(&path).iter().all(|c| c.1.is_none()), "{:?}", covers(&path));
            assert_ok(&path);
        }
        assert_eq!(numbers(&path).len(), 20);
    }
}
