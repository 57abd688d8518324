//! The pending file when something else goes wrong, too: the opening, the file itself, its thread, a store that is stuck, a queue that is small or full.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/spilling.rs"]
mod spilling;

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Carrier, CommitObserver, ErrorKind,
    Faults, Interest, LossReason, ManualClock, Overflow, QueueKind, Receipt, Record, State, StoreFault,
};
use common::{Dir, WAIT, assert_ok, close, open, records};
use spilling::{close_now, config, events, log, numbers, pending_file, until};

#[test]
fn a_trail_that_exists_and_is_locked_or_full_at_the_opening_begins_in_the_pending_file() {
    let dir = Dir::new();
    for path in dir.both() {
        for (fault, kind) in [
            (StoreFault::Begin, ErrorKind::Busy),
            (StoreFault::Begin, ErrorKind::DiskFull),
            (StoreFault::Commit, ErrorKind::Io),
            (StoreFault::AfterCommit, ErrorKind::Io),
        ] {
            // Alone, or with what a dead writer left.
            for left in [false, true] {
                let name = format!("{fault:?}{kind:?}{left}{}", path.file_name().unwrap().to_string_lossy());
                let path = path.with_file_name(name);
                close(&open(&path));
                let faults = Faults::new();
                if left {
                    let logger = AuditLogger::open(config(&path, &faults)).unwrap();
                    faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
                    log(&logger, 1000..1100);
                    assert_eq!(close_now(&logger).left, 100);
                }
                faults.store(fault, kind, u32::MAX);
                let logger = AuditLogger::open(config(&path, &faults)).unwrap_or_else(|e| panic!("{fault:?}: {e}"));
                assert!(logger.health().degraded.is_some(), "{fault:?}");
                log(&logger, 0..100);
                let receipt = logger.log_durable(AuditEvent::info("n").with("i", 100)).unwrap();
                assert_eq!(receipt.state, State::Spilled);
                faults.heal();
                logger.flush(WAIT).unwrap();
                log(&logger, 101..110);
                close(&logger);
                // (A recovery that failed for another reason than a lock is done by the next open.)
                close(&open(&path));
                let mut expected: Vec<_> = (0..110).collect();
                expected.extend((1000..1100).filter(|_| left));
                let mut all = numbers(&path);
                all.sort_unstable();
                assert_eq!(all, expected, "{fault:?} {kind:?} {left}");
                let opens = events(&path).iter().filter(|e| *e == "audit_open").count();
                assert_eq!(opens, 3 + usize::from(left));
                assert_ok(&path);
            }
        }
    }
}

/// Records 0..=20 stand in the pending file, somebody does something to it, and then the store works again.
fn merged_after(path: &Path, change: impl FnOnce(&Path, &AuditLogger)) -> (Vec<u64>, u64) {
    let faults = Faults::new();
    // (A journal would have what the file lost, for the next open.)
    let logger = AuditLogger::open(config(path, &faults).journal(false)).unwrap();
    faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
    log(&logger, 0..20);
    logger.log_durable(AuditEvent::info("n").with("i", 20)).unwrap();
    change(&pending_file(path.parent().unwrap()).unwrap(), &logger);
    faults.heal();
    logger.flush(WAIT).unwrap();
    log(&logger, 40..45);
    close(&logger);
    let lost = logger.health().lost;
    let gaps = records(path).into_iter().filter(|r| r.event == "audit_gap");
    let named: u64 = gaps
        .map(|g| {
            let number = |k| g.context_value(k).unwrap().as_u64().unwrap();
            number("last") - number("first") + 1
        })
        .sum();
    assert!(named >= lost, "{named} of {lost}");
    assert_ok(path);
    (numbers(path), lost)
}

/// As `merged_after`, of a change that costs `least` records or more. The merge may have read some of the file already, and be about to commit it: then it is tried again.
fn harmed(path: &Path, least: u64, mut change: impl FnMut(&Path, &AuditLogger)) -> (Vec<u64>, u64) {
    let name = path.file_name().unwrap().to_string_lossy();
    let mut outcomes = (0..20).map(|n| merged_after(&path.with_file_name(format!("{n}{name}")), &mut change));
    outcomes.find(|o| o.1 >= least).unwrap()
}

fn write_at(file: &Path, at: usize, bytes: &[u8]) {
    std::fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, at as u64).unwrap();
}

#[test]
fn one_bad_line_costs_only_itself() {
    type Change = fn(&Path, &str, usize);
    let changes: [(&str, Vec<u64>, Change); 7] = [
        ("a head that is none", vec![], |file, _, _| write_at(file, 5, b"X")),
        ("a head of a newer version", vec![], |file, _, _| write_at(file, "{\"argus_pending\":".len(), b"2")),
        ("not UTF-8", vec![15], |file, line, at| write_at(file, at + line.find("\"level\"").unwrap() + 1, b"\xff")),
        ("far too long", vec![], |file, line, at| {
            let text = std::fs::read_to_string(file).unwrap();
            let mut changed: Vec<u8> = text[..at].bytes().collect();
            changed.extend(vec![b'x'; 5 << 20]);
            changed.extend(format!("\n{line}").as_bytes());
            changed.extend(text[at + line.len()..].bytes());
            let new = file.with_extension("new");
            std::fs::write(&new, changed).unwrap();
            std::fs::rename(new, file).unwrap();
        }),
        ("a number that is not there yet", vec![15], |file, line, at| {
            let number = line.find("\"writer_seq\":").unwrap() + "\"writer_seq\":".len();
            write_at(file, at + number, b"99");
        }),
        ("a number of one further down", vec![15], |file, line, at| {
            let begin = line.find("\"writer_seq\":").unwrap() + "\"writer_seq\":".len();
            let number: u64 = line[begin..begin + 2].parse().unwrap();
            write_at(file, at + begin, (number + 3).to_string().as_bytes());
        }),
        ("nothing but zeros", vec![15], |file, line, at| write_at(file, at, &vec![0; line.len()])),
    ];
    let dir = Dir::new();
    for path in dir.both() {
        for (i, (what, missing, change)) in changes.iter().enumerate() {
            let path = path.with_file_name(format!("{i}{}", path.file_name().unwrap().to_string_lossy()));
            let spoil = |file: &Path, _: &AuditLogger| {
                let text = std::fs::read_to_string(file).unwrap();
                let line = text.lines().find(|l| l.contains("\"i\":15}")).unwrap();
                change(file, line, text.find(line).unwrap());
            };
            let (all, lost) = if missing.is_empty() { merged_after(&path, spoil) } else { harmed(&path, 1, spoil) };
            let expected: Vec<u64> = (0..21).filter(|i| !missing.contains(i)).chain(40..45).collect();
            assert_eq!((all, lost), (expected, missing.len() as u64), "{what}");
            std::fs::read_dir(dir.0.path())
                .unwrap()
                .map(|e| e.unwrap().path())
                .filter(|p| p.to_string_lossy().ends_with(".torn"))
                .for_each(|p| std::fs::remove_file(p).unwrap());
        }
    }
}

#[test]
fn a_hole_that_a_merge_goes_on_behind_is_told_even_if_the_process_dies_then() {
    const NAME: &str = "a_hole_that_a_merge_goes_on_behind_is_told_even_if_the_process_dies_then";
    let zeros = |file: &Path| {
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find(|l| l.contains("\"i\":15}")).unwrap();
        write_at(file, text.find(line).unwrap(), &vec![0; line.len()]);
    };
    if let Some(part) = common::part() {
        merged_after(Path::new(&part), |file, _| zeros(file));
        unreachable!("it dies at the commit");
    }
    let dir = Dir::new();
    for path in dir.both() {
        // (The merge may have read the file before it was changed.)
        let gaps = (0..20).find_map(|again| {
            let path = path.with_file_name(format!("{again}{}", path.file_name().unwrap().to_string_lossy()));
            let mut child = common::child(NAME, path.to_str().unwrap());
            let output = child.env("ARGUS_ABORT_AT", "merge_committed").output().unwrap();
            assert!(!output.status.success());
            close(&open(&path));
            assert_ok(&path);
            let all = numbers(&path);
            let told = |r: &Record| r.event == "audit_gap" && r.context_value("last").is_some();
            (all.len() == 20).then(|| records(&path).iter().filter(|r| told(r)).count())
        });
        assert_eq!(gaps, Some(1));
    }
}

#[test]
fn a_file_that_is_cut_takes_what_comes_after() {
    let dir = Dir::new();
    for path in dir.both() {
        // In the middle of its head, in the middle of a line, to nothing.
        for cut in [Some(5), None, Some(0)] {
            let path = path.with_file_name(format!("{cut:?}{}", path.file_name().unwrap().to_string_lossy()));
            let mut kept = 0;
            let least = if cut.is_some() { 21 } else { 14 };
            let (all, lost) = harmed(&path, least, |file, logger| {
                let text = std::fs::read_to_string(file).unwrap();
                let len = cut.unwrap_or_else(|| {
                    kept = 7;
                    text.find(text.lines().find(|l| l.contains("\"i\":7}")).unwrap()).unwrap() + 20
                });
                std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(len as u64).unwrap();
                log(logger, 21..30);
                let receipt = logger.log_durable(AuditEvent::info("n").with("i", 30)).unwrap();
                assert_eq!(receipt.state, State::Spilled);
            });
            let expected: Vec<u64> = (0..kept).chain(21..31).chain(40..45).collect();
            assert_eq!((all, lost), (expected, 21 - kept), "{cut:?}");
        }
    }
}

#[test]
fn a_full_queue_keeps_room_for_the_record_that_says_what_was_lost() {
    let dir = Dir::new();
    for path in dir.both() {
        let faults = Faults::new();
        let config = config(&path, &faults).queue_bytes(9 << 20).overflow(Overflow::Reject);
        let logger = AuditLogger::open(config).unwrap();
        if logger.health().queue != QueueKind::Journal {
            println!("SKIPPED: no journal on this file system");
            return;
        }
        faults.spill(ErrorKind::DiskFull);
        faults.store(StoreFault::Begin, ErrorKind::DiskFull, u32::MAX);
        let text = "x".repeat(60_000);
        let full = (0..).find_map(|i| logger.log(AuditEvent::info("n").with("i", i).with("t", text.as_str())).err());
        assert!(matches!(full, Some(AuditError::Full { .. })), "{full:?}");
        // The last bytes that callers get.
        while logger.log(AuditEvent::info("small")).is_ok() {}
        let relay = Carrier::relay(Duration::ZERO);
        assert!(logger.submit(&AuditEvent::warn("relayed"), &relay).is_err());
        logger.report_loss(LossReason::Invalid, 3);
        assert!(close_now(&logger).error.is_some());
        drop(logger);
        close(&open(&path));
        let mut told: Vec<_> = records(&path).into_iter().filter(|r| r.event == "audit_gap").collect();
        told.sort_by_key(|g| g.context_value("count").unwrap().as_u64());
        let told: Vec<_> = told
            .iter()
            .map(|g| (g.context_value("reason").unwrap().to_string(), g.context_value("count").unwrap().to_string()))
            .collect();
        assert_eq!(told, [("\"queue_full\"".into(), "1".into()), ("\"invalid\"".into(), "3".into())], "{path:?}");
        assert_ok(&path);
    }
}

#[test]
fn a_file_that_failed_once_is_tried_again() {
    let dir = Dir::new();
    for path in dir.both() {
        let faults = Faults::new();
        let logger = AuditLogger::open(config(&path, &faults).journal(false)).unwrap();
        faults.spill(ErrorKind::DiskFull);
        faults.store(StoreFault::Begin, ErrorKind::DiskFull, u32::MAX);
        log(&logger, 0..10);
        until("both to fail", || logger.health().degraded.is_some());
        // Longer than a short trouble lasts.
        std::thread::sleep(Duration::from_millis(400));
        faults.heal();
        logger.flush(WAIT).unwrap();
        faults.store(StoreFault::Begin, ErrorKind::DiskFull, u32::MAX);
        log(&logger, 10..20);
        let report = close_now(&logger);
        assert_eq!((report.left, logger.health().lost), (10, 0), "{report:?}");
        drop(logger);
        close(&open(&path));
        assert_eq!(numbers(&path), (0..20).collect::<Vec<_>>());
        assert_ok(&path);
    }
}

#[test]
fn a_close_whose_time_is_over_leaves_a_slow_file_that_works_all_the_time_it_needs() {
    fn case(path: &Path) {
        let faults = Faults::new();
        let logger = AuditLogger::open(config(path, &faults).journal(false)).unwrap();
        logger.flush(WAIT).unwrap();
        faults.spill_slow(Duration::from_millis(700));
        faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
        // Twelve MiB, of which the first one to four are written at once: more than may pass in which nothing comes.
        let text = "x".repeat(64 << 10);
        for i in 0..192 {
            logger.log(AuditEvent::info("n").with("i", i).with("text", text.as_str())).unwrap();
        }
        let report = close_now(&logger);
        let h = logger.health();
        assert_eq!((report.left, h.pending, h.queued, h.lost), (192, 192, 0, 0), "{h:?}");
        drop(logger);
        close(&open(path));
        assert_eq!(numbers(path), (0..192).collect::<Vec<_>>());
        assert!(!events(path).contains(&"audit_gap".to_owned()));
    }
    let dir = Dir::new();
    std::thread::scope(|s| {
        for path in dir.both() {
            s.spawn(move || case(&path));
        }
    });
}

#[test]
fn a_close_while_a_write_of_the_file_hangs_leaves_the_file_to_its_writer() {
    // With so many records behind those that are being written.
    fn case(path: &Path, behind: u64) {
        let faults = Faults::new();
        let logger = AuditLogger::open(config(path, &faults).journal(false)).unwrap();
        faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
        // The second stands behind `audit_fallback`.
        for i in 0..2 {
            logger.log_durable(AuditEvent::info("n").with("i", i)).unwrap();
        }
        faults.spill_stuck();
        log(&logger, 2..3);
        faults.wait_until_stuck();
        log(&logger, 3..3 + behind);
        let report = close_now(&logger);
        assert!(report.error.is_some() && report.left == 3 + behind, "{report:?}");
        assert_eq!(logger.health().lost, behind);
        // Nobody takes what is still being written.
        close(&open(path));
        assert_eq!(numbers(path), Vec::<u64>::new());
        faults.heal();
        // The thread ends, and with it the lock.
        until("the records", || {
            close(&open(path));
            !numbers(path).is_empty()
        });
        assert_eq!(numbers(path), [0, 1, 2]);
        assert_eq!(events(path).contains(&"audit_gap".to_owned()), behind > 0);
        assert_ok(path);
    }
    let dirs = [Dir::new(), Dir::new()];
    // (Each waits 5 s for the hanging write.)
    std::thread::scope(|scope| {
        for (behind, dir) in dirs.iter().enumerate() {
            for path in dir.both() {
                scope.spawn(move || case(&path, behind as u64));
            }
        }
    });
}

#[test]
fn one_caller_that_waits_for_room_learns_that_the_store_is_stuck() {
    let dir = Dir::new();
    for path in dir.both() {
        let faults = Faults::new();
        let patient = Overflow::Block { timeout: WAIT };
        let config = config(&path, &faults).queue_bytes(64 << 10).journal(false).overflow(patient);
        let logger = AuditLogger::open(config).unwrap();
        faults.store(StoreFault::Stuck, ErrorKind::Io, u32::MAX);
        log(&logger, 0..1);
        faults.wait_until_stuck();
        log(&logger, 1..1_000);
        let report = logger.close(Duration::ZERO);
        assert_eq!((report.error, report.left), (Some(AuditError::Timeout), 1_000));
        faults.heal();
        close_now(&logger);
        close(&open(&path));
        assert_eq!(numbers(&path), (0..1_000).collect::<Vec<_>>());
        assert_ok(&path);
    }
}

#[test]
fn a_store_that_is_stuck_in_a_row_of_another_program_is_noticed_too() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let faults = Faults::new();
    let patient = Overflow::Block { timeout: WAIT };
    let config = config(&path, &faults).queue_bytes(64 << 10).journal(false).overflow(patient);
    let logger = AuditLogger::open(config.flush_interval(Duration::from_millis(10))).unwrap();
    faults.store(StoreFault::Stuck, ErrorKind::Io, u32::MAX);
    let insert = "INSERT INTO audit_events (timestamp, level, event, component, original_output_file, context, process_id, process_name)
        VALUES ('2024-01-01T00:00:00Z', 'INFO', 'foreign', 'c', 'f', '{}', 1, 'p')";
    common::sql(&path).execute(insert, []).unwrap();
    faults.wait_until_stuck();
    log(&logger, 0..1_000);
    faults.heal();
    logger.flush(WAIT).unwrap();
    close(&logger);
    assert_eq!(numbers(&path), (0..1_000).collect::<Vec<_>>());
    assert!(events(&path).contains(&"foreign".to_owned()));
    assert_ok(&path);
}

/// Makes the store stuck once it has committed something.
struct Sticks(Faults, std::sync::Once);

impl CommitObserver for Sticks {
    fn interest(&self) -> Interest {
        Interest::All
    }
    fn committed(&self, _: &Record, _: &Receipt, _: &Carrier<'_>) {
        self.1.call_once(|| self.0.store(StoreFault::Stuck, ErrorKind::Io, u32::MAX));
    }
}

#[test]
fn a_close_in_the_middle_of_a_merge_leaves_the_rest_in_the_file() {
    let dir = Dir::new();
    for path in dir.both() {
        let faults = Faults::new();
        let logger = AuditLogger::open(config(&path, &faults)).unwrap();
        logger.flush(WAIT).unwrap();
        faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
        // Several transactions.
        let text = "x".repeat(50_000);
        for i in 0..400 {
            logger.log(AuditEvent::info("n").with("i", i).with("t", text.as_str())).unwrap();
        }
        logger.log_durable(AuditEvent::info("n").with("i", 400)).unwrap();
        logger.subscribe(Arc::new(Sticks(faults.clone(), std::sync::Once::new()))).unwrap();
        faults.heal();
        faults.wait_until_stuck();
        assert!(logger.health().pending > 0);
        assert_eq!(logger.close(Duration::ZERO).error, Some(AuditError::Timeout));
        // This transaction fails, and the next would work.
        faults.store(StoreFault::Insert, ErrorKind::Io, 1);
        let report = logger.close(WAIT);
        assert!(matches!(report.error, Some(AuditError::Store(_))) && report.left > 0, "{report:?}");
        drop(logger);
        close(&open(&path));
        assert_eq!(numbers(&path), (0..401).collect::<Vec<_>>());
        assert_ok(&path);
    }
}

#[test]
fn an_opening_that_fails_leaves_no_file() {
    let dir = Dir::new();
    for path in dir.both() {
        close(&open(&path));
        let all = || common::snapshot(dir.0.path()).into_keys().collect::<Vec<_>>();
        let before = all();
        for kind in [ErrorKind::Busy, ErrorKind::Replaced] {
            let faults = Faults::new();
            faults.store(StoreFault::Begin, kind, u32::MAX);
            faults.spill(ErrorKind::DiskFull);
            assert_eq!(AuditLogger::open(config(&path, &faults)).map(drop).unwrap_err().kind(), kind);
            let left: Vec<_> = all().into_iter().filter(|p| !before.contains(p)).collect();
            let sqlite = |p: &PathBuf| ["-wal", "-shm"].iter().any(|e| p.to_string_lossy().ends_with(e));
            assert!(left.iter().all(sqlite), "{left:?}");
        }
    }
}

#[test]
fn a_batch_never_holds_a_small_queue_whole() {
    let dir = Dir::new();
    for path in dir.both() {
        for journal in [false, true] {
            let path = path.with_file_name(format!("{journal}{}", path.file_name().unwrap().to_string_lossy()));
            let faults = Faults::new();
            let config = config(&path, &faults).queue_bytes(64 << 10).overflow(Overflow::Spill).journal(journal);
            let logger = AuditLogger::open(config.commit_delay(WAIT).buffer_size(1_000_000)).unwrap();
            faults.store(StoreFault::Stuck, ErrorKind::Io, u32::MAX);
            // All that the queue takes is one batch, for the writer waits for more until there is no room.
            log(&logger, 0..5_000);
            faults.heal();
            logger.flush(WAIT).unwrap();
            close(&logger);
            assert_eq!(numbers(&path), (0..5_000).collect::<Vec<_>>());
            assert_ok(&path);
        }
    }
}

#[test]
fn nothing_is_committed_behind_records_that_a_dead_spill_thread_had() {
    let dir = Dir::new();
    for path in dir.both() {
        for journal in [false, true] {
            let path = path.with_file_name(format!("{journal}{}", path.file_name().unwrap().to_string_lossy()));
            let faults = Faults::new();
            let logger = AuditLogger::open(config(&path, &faults).journal(journal)).unwrap();
            let journal = logger.health().queue == QueueKind::Journal;
            faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
            logger.log_durable(AuditEvent::info("n").with("i", 0)).unwrap();
            faults.spill_panics();
            let mut i = 1;
            while logger.log(AuditEvent::info("n").with("i", i)).is_ok() {
                i += 1;
            }
            faults.heal();
            let report = logger.close(WAIT);
            assert_eq!(report.error, Some(AuditError::Panicked { field: "spill".into() }));
            let h = logger.health();
            drop(logger);
            close(&open(&path));
            let all = numbers(&path);
            assert_eq!(all, (0..all.len() as u64).collect::<Vec<_>>());
            let gap = events(&path).contains(&"audit_gap".to_owned());
            if journal {
                assert_eq!((all.len() as u64, h.lost, gap), (i, 0, false));
            } else {
                assert_eq!((all.len() as u64 + h.lost, gap), (i, true));
            }
            assert_ok(&path);
        }
    }
}

#[test]
fn a_commit_after_a_failed_begin_has_the_time_of_its_own() {
    let dir = Dir::new();
    for path in dir.both() {
        let faults = Faults::new();
        let clock = Arc::new(ManualClock::new(std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
        let logger = AuditLogger::open(config(&path, &faults).clock(clock.clone())).unwrap();
        log(&logger, 0..1);
        logger.flush(WAIT).unwrap();
        clock.advance(Duration::from_secs(3_600));
        faults.store(StoreFault::Begin, ErrorKind::Busy, 1);
        log(&logger, 1..2);
        logger.flush(WAIT).unwrap();
        close(&logger);
        let last = records(&path).into_iter().rfind(|r| r.event == "n").unwrap();
        assert_eq!(last.created_at.as_deref(), Some("2023-11-14 23:13:20"));
    }
}

#[test]
fn a_folder_that_others_may_write_to_is_no_spill_dir() {
    let dir = Dir::new();
    let spill = dir.path("spill");
    std::fs::create_dir(&spill).unwrap();
    let try_it = || AuditLogger::open(AuditConfig::new(dir.path("trail.db")).spill_dir(&spill)).map(|l| close(&l));
    for mode in [0o777, 0o1777] {
        std::fs::set_permissions(&spill, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = try_it().unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Unsafe, Some(spill.as_path())), "{mode:o}");
    }
    std::fs::set_permissions(&spill, std::fs::Permissions::from_mode(0o700)).unwrap();
    try_it().unwrap();
    if std::os::unix::fs::chown(&spill, Some(54_321), Some(54_321)).is_err() {
        return println!("SKIPPED in part: only root can give a folder away");
    }
    assert_eq!(try_it().unwrap_err().kind(), ErrorKind::Unsafe);
}
