//! What recovery says of files of a dead writer that are gone, empty, cut or have holes, and what it leaves alone: folders that it cannot see, writers that live.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/left.rs"]
mod left;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, ErrorKind, Faults, QueueKind, State,
    StoreFault,
};
use common::{Dir, WAIT, assert_ok, close, open, records};
use left::*;

/// The trail's path with something before its name.
fn named(path: &Path, before: &str) -> PathBuf {
    path.with_file_name(format!("{before}{}", path.file_name().unwrap().to_string_lossy()))
}

/// The highest number of a writer that the log knows of, by its records or by what is said to be lost.
fn accounted(path: &Path, writer: &str) -> Vec<u64> {
    let there = records(path).into_iter().filter(|r| r.writer.to_string() == writer).map(|r| r.writer_seq);
    let mut all: Vec<u64> = there.chain(covers(path).iter().flat_map(|c| c.0..=c.1.unwrap_or(c.0))).collect();
    all.sort_unstable();
    all
}

#[test]
fn what_is_gone_of_a_pending_file_is_told_to_the_number() {
    let dir = Dir::new();
    for path in dir.both() {
        for late in [false, true] {
            for how in ["removed", "empty", "head", "head only", "ends", "first"] {
                let path = named(&path, &format!("{how}{late}"));
                let file = leave_pending(AuditConfig::new(&path).journal(false), 50, late);
                let writer = file.to_str().unwrap().rsplit('.').nth(1).unwrap().to_owned();
                let text = fs::read_to_string(&file).unwrap();
                let lines: Vec<&str> = text.split_inclusive('\n').collect();
                let last = (lines.len() - 1) as u64 + u64::from(!late);
                let kept = match how {
                    "removed" | "empty" => String::new(),
                    "head" => text[..40].to_owned(),
                    "head only" => lines[0].to_owned(),
                    "ends" => lines[..20].concat(),
                    _ => [&lines[..1], &lines[2..]].concat().concat(),
                };
                match how {
                    "removed" => fs::remove_file(&file).unwrap(),
                    _ => fs::write(&file, &kept).unwrap(),
                }
                let told = reopen(&path);
                // All of its numbers, each once.
                assert_eq!(accounted(&path, &writer), (1..=last).collect::<Vec<_>>(), "{how} {late}");
                let lost: Vec<(u64, Option<u64>)> = match how {
                    "ends" => vec![(20 + u64::from(!late), Some(last))],
                    "first" => vec![(1 + u64::from(!late), Some(1 + u64::from(!late)))],
                    _ => vec![(1 + u64::from(!late), Some(last))],
                };
                assert_eq!(covers(&path), lost, "{how} {late}");
                // What is damaged is kept; of what is gone there is nothing to keep.
                let torn = format!("{}.torn", file.display());
                match how {
                    "head" | "first" => {
                        assert!(told.iter().any(|t| t.contains(".torn")), "{how} {late}: {told:?}");
                        assert_eq!(fs::read_to_string(torn).unwrap(), kept);
                    }
                    _ => assert!(!Path::new(&torn).exists(), "{how} {late}"),
                }
                assert!(!file.exists() && beside(&path, ".lock").is_empty());
                assert_eq!(reopen(&path), Vec::<String>::new(), "{how} {late}: once");
                assert_verifies(&path);
            }
        }
    }
}

#[test]
fn of_a_writer_that_died_before_its_first_line_nothing_is_said() {
    let dir = Dir::new();
    for path in dir.both() {
        for kept in ["", "{\"argus_pend", "head"] {
            let path = named(&path, &format!("{}", kept.len()));
            let file = leave_pending(AuditConfig::new(&path).journal(false), 5, true);
            let text = fs::read_to_string(&file).unwrap();
            let head = text.split_inclusive('\n').next().unwrap();
            fs::write(&file, if kept == "head" { head } else { kept }).unwrap();
            amend_lock(&path, |owner| {
                owner.remove("last").unwrap();
                owner.insert("queue".into(), "memory".into());
            });
            assert_eq!(reopen(&path), Vec::<String>::new());
            assert!(said(&path, "audit_recovered").is_empty() && covers(&path).is_empty(), "{kept}");
            assert!(!file.exists() && beside(&path, ".lock").is_empty());
            assert_verifies(&path);
        }
    }
}

#[test]
fn a_merge_that_finds_the_first_lines_of_a_new_writer_gone_says_so() {
    let dir = Dir::new();
    for path in dir.both() {
        let faults = Faults::new();
        faults.store(StoreFault::Open, ErrorKind::Io, u32::MAX);
        let logger = AuditLogger::open(AuditConfig::new(&path).service("tests", "1").faults(&faults)).unwrap();
        let writer = logger.writer_id().to_string();
        log(&logger, 0..20, "");
        assert_eq!(logger.log_durable(AuditEvent::info("last")).unwrap().state, State::Spilled);
        let file = beside(&path, &format!(".pending.{writer}.jsonl")).remove(0);
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        // Of the same length, so that what comes after stands where it should.
        let bad = format!("{}\n", "x".repeat(lines[1].len() + lines[2].len() - 1));
        fs::write(&file, [lines[0], &bad, &lines[3..].concat()].concat()).unwrap();
        faults.heal();
        logger.flush(WAIT).unwrap();
        let last = logger.health().submitted;
        close(&logger);
        assert_eq!(covers(&path), [(1, Some(2))], "of {last}");
        assert_verifies(&path);
    }
}

/// Zeroes the beginning of the nth entry: what stands there was never begun, as it seems.
fn hole(segment: &Path, nth: usize) {
    let mut bytes = fs::read(segment).unwrap();
    let mut at = HEADER;
    for _ in 0..nth {
        at += u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    }
    bytes[at..at + 8].fill(0);
    fs::write(segment, bytes).unwrap();
}

#[test]
fn what_a_journal_lost_is_told_and_the_segment_kept_wherever_the_damage_is() {
    let dir = Dir::new();
    for path in dir.both() {
        for restarted in [false, true] {
            for (how, which) in [
                ("first entry", 2),
                ("entry", 2),
                ("entry", 3),
                ("header", 2),
                ("header", 3),
                ("magic", 2),
                ("short", 2),
                ("short", 3),
            ] {
                // (A second each.)
                if restarted && (path.extension().unwrap() == "jsonl" || !matches!(how, "entry" | "header")) {
                    continue;
                }
                let path = named(&path, &format!("{how}{which}{restarted}"));
                let Some((writer, journal)) = leave_journal(&path, 1_100) else { return };
                let of = |n: u64| journal.iter().find(|s| number(s) == n).unwrap();
                let segment = of(which);
                let (mut first, behind) = (first_entry(segment), (which == 2).then(|| first_entry(of(3))));
                let mut bytes = fs::read(segment).unwrap();
                match how {
                    "first entry" | "entry" => {
                        let nth = if how == "entry" { 30 } else { 0 };
                        hole(segment, nth);
                        first += nth as u64;
                    }
                    "header" => bytes[..HEADER].fill(0),
                    "magic" => bytes[..8].fill(0),
                    _ => bytes.truncate(100),
                }
                if how.ends_with("entry") {
                    bytes = fs::read(segment).unwrap();
                } else {
                    fs::write(segment, &bytes).unwrap();
                }
                if restarted {
                    amend_lock(&path, |owner| {
                        owner.insert("boot_id".into(), "another".into());
                    });
                }
                let told = reopen(&path);
                let context = format!("{how} {which} {restarted}");
                assert!(told.iter().any(|t| t.contains(".torn")), "{context}: {told:?}");
                assert_eq!(fs::read(format!("{}.torn", segment.display())).unwrap(), bytes, "{context}");
                // The trail's number 1 is `audit_open`, 2 is `n` 0.
                let lost = |n: &u64| *n >= first && behind.is_none_or(|behind| *n < behind);
                assert_eq!(numbers(&path), (0..1_100).filter(|i| !lost(&(i + 2))).collect::<Vec<_>>(), "{context}");
                let end = restarted.then_some((1_102, None));
                let told_lost: Vec<(u64, Option<u64>)> = match behind {
                    Some(behind) => [(first, Some(behind - 1))].into_iter().chain(end).collect(),
                    None => vec![(first, None)],
                };
                assert_eq!(covers(&path), told_lost, "{context}");
                assert_eq!(text(&said(&path, "audit_recovered")[0], "writer"), writer);
                assert_eq!(reopen(&path), Vec::<String>::new(), "{context}: once");
                assert_verifies(&path);
            }
        }
    }
}

#[test]
fn a_journal_that_is_gone_whole_is_a_loss_that_is_told() {
    let dir = Dir::new();
    for path in dir.both() {
        let Some((_, journal)) = leave_journal(&path, 100) else { return };
        journal.iter().for_each(|s| fs::remove_file(s).unwrap());
        assert_eq!(reopen(&path), Vec::<String>::new());
        // `audit_open` was committed.
        assert_eq!((numbers(&path), covers(&path)), (vec![], vec![(2, None)]));
        assert_verifies(&path);
    }
}

#[test]
fn an_append_that_was_not_finished_is_no_hole() {
    let dir = Dir::new();
    for path in dir.both() {
        let Some((_, journal)) = leave_journal(&path, 100) else { return };
        // Its length is written last.
        let segment = journal.iter().find(|s| number(s) == 1).unwrap();
        let mut at = HEADER;
        let bytes = fs::read(segment).unwrap();
        while at + 4 < bytes.len() && bytes[at..at + 4] != [0; 4] {
            let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            if bytes[at + len..at + len + 4] == [0; 4] {
                hole(segment, 99);
                break;
            }
            at += len;
        }
        assert_eq!(reopen(&path), Vec::<String>::new());
        assert_eq!((numbers(&path), covers(&path)), ((0..99).collect(), vec![]));
        assert_verifies(&path);
    }
}

#[test]
fn a_writer_whose_pending_file_is_in_a_folder_that_cannot_be_seen_waits_for_it() {
    let dir = Dir::new();
    for path in dir.both() {
        let spill = dir.path(&format!("spill{}", path.extension().unwrap().to_string_lossy()));
        let away = spill.with_extension("away");
        let file = leave_pending(AuditConfig::new(&path).journal(false).spill_dir(&spill), 20, false);
        fs::rename(&spill, &away).unwrap();
        for _ in 0..2 {
            let (tell, told) = mpsc::channel();
            let config = AuditConfig::new(&path).on_error(move |e| drop(tell.send(e.to_string())));
            close(&AuditLogger::open(config).unwrap());
            let told: Vec<String> = told.try_iter().collect();
            assert!(told.iter().any(|t| t.contains(spill.to_str().unwrap())), "{told:?}");
            assert!(said(&path, "audit_recovered").is_empty() && covers(&path).is_empty());
        }
        fs::rename(&away, &spill).unwrap();
        assert_eq!(reopen(&path), Vec::<String>::new());
        assert_eq!(numbers(&path), (0..20).collect::<Vec<_>>());
        assert!(!file.exists());
        assert_verifies(&path);
    }
}

#[test]
fn a_journal_is_recovered_whatever_became_of_the_pending_file_beside_it() {
    let dir = Dir::new();
    for path in dir.both() {
        let faults = Faults::new();
        close(&open(&path));
        // `audit_open` is committed by nobody.
        faults.store(StoreFault::Commit, ErrorKind::Io, u32::MAX);
        let logger = AuditLogger::open(AuditConfig::new(&path).service("tests", "1").faults(&faults)).unwrap();
        if logger.health().queue == QueueKind::Memory {
            println!("SKIPPED: no journal on this file system");
            return;
        }
        log(&logger, 0..50, "");
        abandon(&logger);
        let file = beside(&path, &format!(".pending.{}.jsonl", logger.writer_id())).remove(0);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen("{\"argus_pend", "{\"argus_lend", 1)).unwrap();
        let told = reopen(&path);
        assert!(told.iter().any(|t| t.contains(".torn")), "{told:?}");
        assert_eq!(numbers(&path), (0..50).collect::<Vec<_>>());
        assert_verifies(&path);
    }
}

#[test]
fn what_a_log_that_could_not_be_begun_was_meant_to_have_is_in_the_next() {
    let dir = Dir::new();
    for path in dir.both() {
        let faults = Faults::new();
        faults.store(StoreFault::Commit, ErrorKind::DiskFull, u32::MAX);
        let logger = AuditLogger::open(AuditConfig::new(&path).service("tests", "1").faults(&faults)).unwrap();
        log(&logger, 0..50, "");
        abandon(&logger);
        assert_eq!(reopen_only(&path), Vec::<String>::new());
        assert_eq!(numbers(&path), (0..50).collect::<Vec<_>>());
        assert!(said(&path, "log_replaced").is_empty());
        assert_verifies(&path);
    }
}

#[test]
fn a_folder_that_is_a_link_and_leads_elsewhere_later_takes_no_file_with_it() {
    const NAME: &str = "a_folder_that_is_a_link_and_leads_elsewhere_later_takes_no_file_with_it";
    if let Some(part) = common::part() {
        let path = Path::new(&part);
        let current = path.parent().unwrap();
        let faults = Faults::new();
        let config = AuditConfig::new(path).service("tests", "1").faults(&faults).queue_bytes(16 << 20);
        let logger = AuditLogger::open(config).unwrap();
        logger.flush(WAIT).unwrap();
        faults.spill(ErrorKind::DiskFull);
        faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
        fs::remove_file(current).unwrap();
        std::os::unix::fs::symlink(current.with_file_name("second"), current).unwrap();
        log(&logger, 0..1_000, &"x".repeat(2_000));
        println!("journal {}", logger.health().queue == QueueKind::Journal);
        std::process::abort();
    }
    let dir = Dir::new();
    for name in ["t.db", "t.jsonl"] {
        let _ = fs::remove_file(dir.path("current"));
        ["first", "second"].iter().for_each(|d| fs::create_dir_all(dir.path(d)).unwrap());
        std::os::unix::fs::symlink(dir.path("first"), dir.path("current")).unwrap();
        let output = common::child(NAME, dir.path("current").join(name).to_str().unwrap()).output().unwrap();
        if !String::from_utf8_lossy(&output.stdout).contains("journal true") {
            println!("SKIPPED: no journal on this file system");
            return;
        }
        assert_eq!(fs::read_dir(dir.path("second")).unwrap().count(), 0);
        let path = dir.path("first").join(name);
        assert_eq!(reopen(&path), Vec::<String>::new());
        assert_eq!(numbers(&path), (0..1_000).collect::<Vec<_>>());
        assert_verifies(&path);
    }
}

#[test]
fn a_writer_that_lives_is_left_alone_even_without_its_lock() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let logger = open(&path);
    if logger.health().queue == QueueKind::Memory {
        println!("SKIPPED: no journal on this file system");
        return;
    }
    log(&logger, 0..10, "");
    logger.flush(WAIT).unwrap();
    fs::remove_file(beside(&path, ".lock").remove(0)).unwrap();
    let (tell, told) = mpsc::channel();
    let config = AuditConfig::new(&path).on_error(move |e| drop(tell.send(e.to_string())));
    let other = AuditLogger::open(config).unwrap();
    let told: Vec<String> = told.try_iter().collect();
    assert!(told.iter().any(|t| t.contains("lock") && t.contains("lives")), "{told:?}");
    log(&logger, 10..20, "");
    [&other, &logger].iter().for_each(|l| close(l));
    assert!(said(&path, "audit_recovered").is_empty());
    assert_eq!(numbers(&path), (0..20).collect::<Vec<_>>());
    assert_verifies(&path);
}

#[test]
fn nothing_is_committed_behind_a_recovery_of_a_writer_that_lives() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let logger = AuditLogger::open(AuditConfig::new(&path).journal(false)).unwrap();
    log(&logger, 0..10, "");
    logger.flush(WAIT).unwrap();
    // Without its lock and without any file that names it, it cannot be told from a dead one.
    fs::remove_file(beside(&path, ".lock").remove(0)).unwrap();
    close(&open(&path));
    assert_eq!(said(&path, "audit_recovered").len(), 1);
    let receipt = logger.log_durable(AuditEvent::info("n").with("i", 10)).unwrap();
    assert_eq!(receipt.state, State::Spilled);
    let degraded = logger.health().degraded.unwrap_or_default();
    assert!(degraded.contains("taken") || degraded.contains("pending file"), "{degraded}");
    let first = logger.close(Duration::from_millis(1));
    let report = if first.error == Some(AuditError::Timeout) { logger.close(WAIT) } else { first };
    assert!(matches!(&report.error, Some(AuditError::Store(e)) if e.kind() == ErrorKind::InUse), "{report:?}");
    assert_verifies(&path);
    // As long as the process lives, its file is left to it.
    let told = reopen_only(&path);
    assert!(told.iter().any(|t| t.contains("lives")), "{told:?}");
    let file = beside(&path, &format!(".pending.{}.jsonl", logger.writer_id())).remove(0);
    let text = fs::read_to_string(&file).unwrap();
    // Later (another process has its number) it is evidence, and no evidence is written over.
    let ended = text.replacen("\"started\":", "\"started\":1", 1);
    fs::write(file.with_extension("jsonl.torn"), "older").unwrap();
    fs::write(&file, &ended).unwrap();
    let told = reopen_only(&path);
    assert!(told.iter().any(|t| t.contains(".2.torn")), "{told:?}");
    assert_eq!(numbers(&path), (0..10).collect::<Vec<_>>());
    let torn = fs::read_to_string(file.with_extension("jsonl.2.torn")).unwrap();
    assert!(torn == ended && torn.contains("\"i\":10"), "{torn}");
    assert_eq!(fs::read_to_string(file.with_extension("jsonl.torn")).unwrap(), "older");
    assert_verifies(&path);
}

#[test]
fn of_a_writer_that_the_log_does_not_know_the_torn_files_are_named() {
    let dir = Dir::new();
    for path in dir.both() {
        let file = leave_pending(AuditConfig::new(&path).journal(false), 5, true);
        amend_lock(&path, |owner| {
            // As after a kill.
            owner.remove("last").unwrap();
            owner.insert("queue".into(), "memory".into());
        });
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen("{\"argus_pend", "{\"argus_lend", 1)).unwrap();
        let told = reopen_only(&path);
        assert!(told.iter().any(|t| t.contains(".torn")), "{told:?}");
        let all = said(&path, "audit_recovered");
        assert_eq!((all.len(), left::text(&all[0], "cause")), (1, "torn_file".to_owned()));
        assert_eq!(left::text(&all[0], "journal_torn"), format!("{}.torn", file.display()));
        assert_verifies(&path);
    }
}

#[test]
fn a_lock_of_a_writer_that_is_over_asks_for_no_folder() {
    let dir = Dir::new();
    for path in dir.both() {
        let spill = dir.path(&format!("spill{}", path.extension().unwrap().to_string_lossy()));
        leave_pending(AuditConfig::new(&path).journal(false).spill_dir(&spill), 20, false);
        let lock = beside(&path, ".lock").remove(0);
        let owner = fs::read_to_string(&lock).unwrap();
        reopen_only(&path);
        // Killed before it was removed; and the folder is empty, so somebody removes that.
        plant(&lock, &owner);
        fs::remove_dir(&spill).unwrap();
        assert_eq!(reopen(&path), Vec::<String>::new());
        assert!(!lock.exists() && covers(&path).is_empty());
        assert_verifies(&path);
    }
}

#[test]
fn a_new_log_says_of_files_of_another_only_that_they_are_there() {
    let dir = Dir::new();
    for path in dir.both() {
        for spill in [None, Some(dir.path("spill"))] {
            let path = named(&path, if spill.is_some() { "spill" } else { "" });
            let config = AuditConfig::new(&path).journal(false);
            let config = spill.iter().fold(config, |c, d| c.spill_dir(d));
            leave_pending(config.clone(), 5, false);
            for ending in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(format!("{}{ending}", path.display()));
            }
            close(&AuditLogger::open(config).unwrap());
            assert_eq!(covers(&path), []);
            assert!(said(&path, "audit_recovered").is_empty());
            assert_verifies(&path);
        }
    }
}

#[test]
fn nothing_is_written_behind_what_another_program_wrote_to_a_jsonl_trail() {
    let dir = Dir::new();
    let path = dir.path("trail.jsonl");
    let faults = Faults::new();
    let logger = AuditLogger::open(AuditConfig::new(&path).service("tests", "1").faults(&faults)).unwrap();
    log(&logger, 0..5, "");
    logger.flush(WAIT).unwrap();
    let whole = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"a note").unwrap();
    let receipt = logger.log_durable(AuditEvent::info("n").with("i", 5)).unwrap();
    assert_eq!(receipt.state, State::Spilled);
    let text = fs::read(&path).unwrap();
    assert!(text.ends_with(b"}\na note") && text.len() as u64 == whole + 6);
    // Taken away, it goes on by itself.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole).unwrap();
    logger.flush(WAIT).unwrap();
    close(&logger);
    assert_eq!(numbers(&path), (0..6).collect::<Vec<_>>());
    assert_verifies(&path);
}

#[test]
fn a_jsonl_trail_that_ends_in_a_line_of_another_program_begins_in_the_pending_file() {
    let dir = Dir::new();
    let path = dir.path("trail.jsonl");
    let logger = open(&path);
    log(&logger, 0..5, "");
    close(&logger);
    let whole = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"a note\n").unwrap();
    let logger = open(&path);
    let receipt = logger.log_durable(AuditEvent::info("n").with("i", 5)).unwrap();
    assert_eq!(receipt.state, State::Spilled);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole).unwrap();
    logger.flush(WAIT).unwrap();
    close(&logger);
    assert_eq!(numbers(&path), (0..6).collect::<Vec<_>>());
    assert_verifies(&path);
}

#[test]
fn a_torn_line_is_told_although_the_opening_that_found_it_failed() {
    let dir = Dir::new();
    let path = dir.path("trail.jsonl");
    let logger = open(&path);
    log(&logger, 0..5, "");
    close(&logger);
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"torn").unwrap();
    let before = fs::read(&path).unwrap();
    for _ in 0..2 {
        let faults = Faults::new();
        faults.store(StoreFault::Commit, ErrorKind::DiskFull, u32::MAX);
        faults.spill(ErrorKind::DiskFull);
        AuditLogger::open(AuditConfig::new(&path).faults(&faults)).unwrap_err();
        assert!(fs::read(&path).unwrap() == before, "it is there until something says that it was");
    }
    reopen_only(&path);
    let causes: Vec<String> = said(&path, "audit_recovered").iter().map(|r| text(r, "cause")).collect();
    assert_eq!(causes, ["torn_line"]);
    assert_eq!(fs::read(format!("{}.torn", path.display())).unwrap(), b"{\"torn\n", "saved once");
    assert_ok(&path);
    assert_verifies(&path);
}
