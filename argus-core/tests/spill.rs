//! The pending file: what happens to accepted records while the store fails or the queue overflows, and that each is committed once, in order, when it can be.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/spilling.rs"]
mod spilling;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Carrier, CommitObserver,
    ErrorKind, Faults, Overflow, Receipt, Record, State, StoreFault, Trace, TraceContext,
};
use common::{Dir, WAIT, assert_ok, close, open, records};
use spilling::{close_now, config, events, log, numbers, pending_file, until};

/// The account holds, whenever anybody looks.
fn assert_account(logger: &AuditLogger) {
    let h = logger.health();
    assert_eq!(h.submitted, h.committed + h.rejected + h.lost + h.queued + h.pending, "{h:?}");
}

#[test]
fn a_failing_store_loses_nothing_and_the_pending_file_is_merged_in_order() {
    let dir = Dir::new();
    for path in dir.both() {
        for (fault, journal) in [
            (StoreFault::Begin, true),
            (StoreFault::Insert, false),
            (StoreFault::Commit, true),
            (StoreFault::AfterCommit, false),
        ] {
            let path =
                path.with_file_name(format!("{fault:?}{journal}{}", path.file_name().unwrap().to_string_lossy()));
            let faults = Faults::new();
            let (tell, told) = mpsc::channel();
            let config = config(&path, &faults).journal(journal).on_error(move |e| drop(tell.send(e.clone())));
            let logger = AuditLogger::open(config).unwrap();
            log(&logger, 0..10);
            logger.flush(WAIT).unwrap();
            faults.store(fault, ErrorKind::DiskFull, u32::MAX);
            log(&logger, 10..20);
            // Who waits for durability gets it, of the pending file.
            let receipt = logger.log_durable(AuditEvent::info("n").with("i", 20)).unwrap();
            assert_eq!((receipt.state, receipt.seq), (State::Spilled, None), "{fault:?}");
            log(&logger, 21..30);
            until("the spill", || logger.health().pending == 20);
            assert_account(&logger);
            assert!(logger.health().degraded.is_some() && !logger.health().is_ok());
            let file = pending_file(dir.0.path()).unwrap();
            until("the notice", || {
                told.try_iter().any(|e| matches!(e, AuditError::Spilling { file: f, .. } if *f == *file))
            });
            // Readers see them, once. (A commit that only says that it failed makes some of them records.)
            let seen = AuditReader::open(&path).unwrap().pending().unwrap();
            let seen = seen.filter(|r| r.as_ref().unwrap().event == "n").count();
            assert!(seen == 20 || fault == StoreFault::AfterCommit, "{seen}");

            faults.heal();
            logger.flush(WAIT).unwrap();
            until("the merge's end", || pending_file(dir.0.path()).is_none());
            let h = logger.health();
            assert_eq!((h.committed, h.pending, h.queued, h.lost, h.degraded), (30, 0, 0, 0, None));
            log(&logger, 30..40);
            close(&logger);
            assert_eq!(numbers(&path), (0..40).collect::<Vec<_>>(), "{fault:?}");
            let events = events(&path);
            assert_eq!(events.iter().filter(|e| *e == "audit_fallback").count(), 1);
            assert_eq!(events.iter().filter(|e| *e == "audit_recovered").count(), 1);
            assert_ok(&path);
        }
    }
}

type Seen = Arc<Mutex<Vec<(String, Option<u64>, u8, String)>>>;

struct Observer(Seen);

impl CommitObserver for Observer {
    fn committed(&self, record: &Record, receipt: &Receipt, carrier: &Carrier<'_>) {
        let trace = match carrier.trace {
            Trace::Parent(t) => (t.flags, t.trace_state.to_owned()),
            _ => (0, String::new()),
        };
        self.0.lock().unwrap().push((record.event.clone(), receipt.seq, trace.0, trace.1));
    }
}

#[test]
fn an_observer_hears_of_a_spilled_record_after_its_commit_and_with_its_trace() {
    let dir = Dir::new();
    for path in dir.both() {
        let faults = Faults::new();
        let logger = AuditLogger::open(config(&path, &faults).include_stack(true)).unwrap();
        let seen = Seen::default();
        let id = logger.subscribe(Arc::new(Observer(seen.clone()))).unwrap();
        faults.store(StoreFault::Commit, ErrorKind::Io, u32::MAX);
        let trace = TraceContext { trace_id: [7; 16], span_id: [8; 8], flags: 1, remote: true, trace_state: "a=b" };
        let carrier = Carrier::default().with_observer(id).with_trace(Trace::Parent(trace));
        let pending = logger.submit_durable(&AuditEvent::security("traced"), &carrier).unwrap();
        assert_eq!(pending.wait(WAIT).unwrap().state, State::Spilled);
        assert!(seen.lock().unwrap().is_empty(), "not before the commit");
        faults.heal();
        logger.flush(WAIT).unwrap();
        close(&logger);
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(seen[0].0 == "traced" && seen[0].1.is_some() && seen[0].2 == 1 && seen[0].3 == "a=b", "{seen:?}");
        let record = records(&path).into_iter().find(|r| r.event == "traced").unwrap();
        assert_eq!((record.trace_id, record.span_id), (Some([7; 16]), Some([8; 8])));
        assert!(record.stack.unwrap().contains("an_observer_hears"), "the names of the caller's own process");
        assert_ok(&path);
    }
}

#[test]
fn under_spill_a_full_queue_makes_nobody_fail_while_the_store_is_stuck() {
    let dir = Dir::new();
    for path in dir.both() {
        for journal in [true, false] {
            let path = path.with_file_name(format!("{journal}{}", path.file_name().unwrap().to_string_lossy()));
            let faults = Faults::new();
            let config = config(&path, &faults).queue_bytes(1 << 20).overflow(Overflow::Spill).journal(journal);
            let logger = AuditLogger::open(config).unwrap();
            faults.store(StoreFault::Stuck, ErrorKind::Io, u32::MAX);
            log(&logger, 0..1);
            faults.wait_until_stuck();
            // Many times what the queue holds.
            let threads: Vec<_> = (0..4u64)
                .map(|t| {
                    let logger = logger.clone();
                    std::thread::spawn(move || log(&logger, 1 + t * 4_000..1 + (t + 1) * 4_000))
                })
                .collect();
            threads.into_iter().for_each(|t| t.join().unwrap());
            assert_account(&logger);
            let h = logger.health();
            assert!(h.pending > 6_000 && h.queue_bytes <= 1 << 20 && h.rejected == 0 && h.lost == 0, "{h:?}");
            faults.heal();
            logger.flush(WAIT).unwrap();
            close(&logger);
            let mut all = numbers(&path);
            all.sort_unstable();
            assert_eq!(all, (0..16_001).collect::<Vec<_>>());
            assert!(events(&path).contains(&"audit_fallback".to_owned()));
            assert_eq!(pending_file(dir.0.path()), None);
            assert_ok(&path);
        }
    }
}

#[test]
fn what_a_failing_store_did_not_take_before_the_close_is_committed_by_the_next_open() {
    let dir = Dir::new();
    for path in dir.both() {
        for journal in [true, false] {
            let path = path.with_file_name(format!("{journal}{}", path.file_name().unwrap().to_string_lossy()));
            let faults = Faults::new();
            let logger = AuditLogger::open(config(&path, &faults).journal(journal)).unwrap();
            log(&logger, 0..10);
            logger.flush(WAIT).unwrap();
            faults.store(StoreFault::Begin, ErrorKind::DiskFull, u32::MAX);
            log(&logger, 10..5_000);
            let report = close_now(&logger);
            assert!(matches!(report.error, Some(AuditError::Store(_))), "{report:?}");
            let h = logger.health();
            assert_eq!((report.left, h.pending, h.queued, h.lost), (4_990, 4_990, 0, 0), "{h:?}");
            drop(logger);
            close(&open(&path));
            assert_eq!(numbers(&path), (0..5_000).collect::<Vec<_>>());
            // All of it stood in the file: nothing can be lost.
            assert!(!events(&path).contains(&"audit_gap".to_owned()));
            assert_eq!(pending_file(dir.0.path()), None);
            assert_ok(&path);
        }
    }
}

#[test]
fn with_both_disks_full_callers_are_told_and_a_relays_loss_is_recorded_when_there_is_space_again() {
    let dir = Dir::new();
    for path in dir.both() {
        for overflow in [Overflow::Block { timeout: Duration::from_millis(20) }, Overflow::Reject] {
            let path = path.with_file_name(format!("{overflow:?}{}", path.file_name().unwrap().to_string_lossy()));
            let faults = Faults::new();
            let config = config(&path, &faults).queue_bytes(256 << 10).overflow(overflow);
            let logger = AuditLogger::open(config).unwrap();
            faults.spill(ErrorKind::DiskFull);
            faults.store(StoreFault::Commit, ErrorKind::DiskFull, u32::MAX);
            let mut accepted = Vec::new();
            let error = (0..)
                .find_map(|i| match logger.log(AuditEvent::info("n").with("i", i)) {
                    Ok(_) => {
                        accepted.push(i);
                        None
                    }
                    Err(e) => Some(e),
                })
                .unwrap();
            assert!(matches!(error, AuditError::Full { .. }), "{error:?}");
            let relay = Carrier::relay(Duration::from_millis(5));
            assert!(logger.submit(&AuditEvent::warn("relayed"), &relay).is_err());
            until("the trouble's name", || {
                logger.health().degraded.is_some_and(|d| d.contains("neither") || d.contains("told to fail"))
            });
            assert_account(&logger);
            faults.heal();
            logger.flush(WAIT).unwrap();
            let more = accepted.len() as u64..accepted.len() as u64 + 10;
            log(&logger, more.clone());
            close(&logger);
            accepted.extend(more);
            assert_eq!(numbers(&path), accepted);
            let gap = records(&path).into_iter().find(|r| r.event == "audit_gap").unwrap();
            assert_eq!(gap.context_value("reason").unwrap(), "queue_full");
            assert_ok(&path);
        }
    }
}

#[test]
fn a_trail_that_cannot_be_opened_for_now_begins_in_the_pending_file() {
    let dir = Dir::new();
    for path in dir.both() {
        let faults = Faults::new();
        faults.store(StoreFault::Open, ErrorKind::Busy, u32::MAX);
        let (tell, told) = mpsc::channel();
        let config = config(&path, &faults).on_error(move |e| drop(tell.send(e.clone())));
        let logger = AuditLogger::open(config).unwrap();
        assert!(logger.health().degraded.is_some());
        until("the trouble", || {
            told.try_iter().any(|e| matches!(e, AuditError::Store(e) if e.kind() == ErrorKind::Busy))
        });
        log(&logger, 0..100);
        let receipt = logger.log_durable(AuditEvent::info("n").with("i", 100)).unwrap();
        assert_eq!(receipt.state, State::Spilled);
        faults.heal();
        logger.flush(WAIT).unwrap();
        log(&logger, 101..110);
        close(&logger);
        assert_eq!(numbers(&path), (0..110).collect::<Vec<_>>());
        let all = events(&path);
        assert!(all.contains(&"audit_open".to_owned()) && all.last().unwrap() == "audit_close", "{all:?}");
        assert_ok(&path);
    }
}

#[test]
fn what_a_logger_that_never_got_at_its_store_left_is_found_by_the_next() {
    let dir = Dir::new();
    for path in dir.both() {
        // The trail exists, or not.
        for exists in [false, true] {
            let path = path.with_file_name(format!("{exists}{}", path.file_name().unwrap().to_string_lossy()));
            if exists {
                close(&open(&path));
            }
            let faults = Faults::new();
            faults.store(StoreFault::Open, ErrorKind::Io, u32::MAX);
            let logger = AuditLogger::open(config(&path, &faults)).unwrap();
            log(&logger, 0..100);
            let report = close_now(&logger);
            assert!(report.error.is_some() && report.left == 100, "{report:?}");
            drop(logger);
            close(&open(&path));
            assert_eq!(numbers(&path), (0..100).collect::<Vec<_>>());
            assert_eq!(pending_file(dir.0.path()), None);
            assert_ok(&path);
        }
    }
}

#[test]
fn a_mistake_is_an_error_of_the_opening_and_so_is_trouble_without_a_pending_file() {
    let dir = Dir::new();
    for path in dir.both() {
        for (kind, spill) in
            [(ErrorKind::PermissionDenied, false), (ErrorKind::NotATrail, false), (ErrorKind::Busy, true)]
        {
            let faults = Faults::new();
            faults.store(StoreFault::Open, kind, u32::MAX);
            if spill {
                faults.spill(ErrorKind::DiskFull);
            }
            let error = AuditLogger::open(config(&path, &faults)).map(drop).unwrap_err();
            assert_eq!(error.kind(), kind);
            let left: Vec<_> = std::fs::read_dir(dir.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert!(left.iter().all(|f| !f.to_string_lossy().contains(".lock")), "{left:?}");
            assert_eq!(pending_file(dir.0.path()), None);
        }
    }
}

#[test]
fn another_folder_for_pending_files_serves_several_trails_of_one_name() {
    let dir = Dir::new();
    let spill = dir.path("spill");
    for name in ["audit.db", "audit.jsonl"] {
        let trails = [dir.path("a").join(name), dir.path("b").join(name)];
        for (i, path) in trails.iter().enumerate() {
            let faults = Faults::new();
            let logger = AuditLogger::open(config(path, &faults).spill_dir(&spill)).unwrap();
            faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
            let i = 1000 * i as u64;
            log(&logger, i..i + 50);
            let report = close_now(&logger);
            assert_eq!(report.left, 50);
        }
        assert_eq!(std::fs::read_dir(&spill).unwrap().count(), 2);
        // Who reads, and who opens it without the setting, learns of the folder from the writer's lock.
        let pending = AuditReader::open(&trails[0]).unwrap().pending().unwrap();
        assert_eq!(pending.filter(|r| r.as_ref().unwrap().event == "n").count(), 50);
        close(&open(&trails[0]));
        assert_eq!(numbers(&trails[0]), (0..50).collect::<Vec<_>>());
        close(&AuditLogger::open(AuditConfig::new(&trails[1]).spill_dir(&spill)).unwrap());
        assert_eq!(numbers(&trails[1]), (1000..1050).collect::<Vec<_>>());
        assert_eq!(std::fs::read_dir(&spill).unwrap().count(), 0);
        trails.iter().for_each(|t| assert_ok(t));
    }
}

#[test]
fn numbers_that_a_pending_file_lost_are_named_and_the_file_is_kept() {
    let dir = Dir::new();
    for path in dir.both() {
        let (mut done, mut tries) = (0, 0);
        while let Some(how) = ["cut", "gone", "changed"].get(done).copied() {
            tries += 1;
            assert!(tries < 20, "{how}");
            let path = path.with_file_name(format!("{how}{tries}{}", path.file_name().unwrap().to_string_lossy()));
            let faults = Faults::new();
            let logger = AuditLogger::open(config(&path, &faults)).unwrap();
            faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
            log(&logger, 0..20);
            logger.log_durable(AuditEvent::info("n").with("i", 20)).unwrap();
            let file = pending_file(dir.0.path()).unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            let line = text.lines().find(|l| l.contains("\"i\":7}")).unwrap();
            match how {
                "cut" => {
                    let len = text.find(line).unwrap() as u64;
                    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(len).unwrap();
                }
                "gone" => std::fs::remove_file(&file).unwrap(),
                // In place, in one write: a merge that reads meanwhile sees one or the other.
                _ => {
                    use std::os::unix::fs::FileExt;
                    let at = text.find(line).unwrap() + line.find("\"level\":\"INFO\"").unwrap();
                    let file = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
                    file.write_all_at(b"\"level\":\"NONE\"", at as u64).unwrap();
                }
            }
            faults.heal();
            logger.flush(WAIT).unwrap();
            log(&logger, 21..30);
            close(&logger);
            let lost: Vec<u64> = (0..30).filter(|i| !numbers(&path).contains(i)).collect();
            let expected: Vec<u64> = match how {
                "cut" => (7..21).collect(),
                "gone" => (0..21).collect(),
                _ => vec![7],
            };
            if lost.len() < expected.len() {
                // The merge had read some of the file already, and was about to commit it.
                continue;
            }
            done += 1;
            assert_eq!(lost, expected, "{how}");
            let gap = records(&path).into_iter().find(|r| r.event == "audit_gap").unwrap();
            assert!(gap.context_value("first").is_some() && gap.context_value("last").is_some());
            assert!(logger.health().lost > 0);
            let kept = PathBuf::from(format!("{}.torn", file.display())).exists();
            assert!(kept || how == "gone", "{how}");
            assert_ok(&path);
        }
    }
}

#[test]
fn a_process_killed_at_any_step_of_a_merge_loses_nothing_and_doubles_nothing() {
    if let Some(part) = common::part() {
        return killed_child(Path::new(&part));
    }
    let dir = Dir::new();
    for step in ["spill_synced", "merge_begin", "merge_transact", "merge_committed", "merge_end"] {
        for path in dir.both() {
            let path = path.with_file_name(format!("{step}{}", path.file_name().unwrap().to_string_lossy()));
            let mut child = common::child(
                "a_process_killed_at_any_step_of_a_merge_loses_nothing_and_doubles_nothing",
                path.to_str().unwrap(),
            );
            let output = child.env("ARGUS_ABORT_AT", step).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(!output.status.success(), "{step} is never reached: {text}");
            let returned = text.lines().filter_map(|l| l.strip_prefix("returned ")?.parse::<u64>().ok()).max();
            close(&open(&path));
            let all = numbers(&path);
            assert_eq!(all, (0..all.len() as u64).collect::<Vec<_>>(), "{step}");
            assert!(returned.is_none_or(|r| r < all.len() as u64), "{step}: {returned:?} of {}", all.len());
            // The others are reached while the store still fails.
            let late = ["merge_committed", "merge_end"].contains(&step);
            assert!(!late || returned.is_some_and(|r| r >= 4_999), "{step}: {returned:?}");
            assert_eq!(pending_file(dir.0.path()), None, "{step}");
            assert_ok(&path);
        }
    }
}

fn killed_child(path: &Path) {
    use std::io::Write;
    let faults = Faults::new();
    let logger = AuditLogger::open(config(path, &faults).queue_bytes(1 << 20)).unwrap();
    log(&logger, 0..10);
    logger.flush(WAIT).unwrap();
    faults.store(StoreFault::Commit, ErrorKind::DiskFull, u32::MAX);
    let mut out = std::io::stdout();
    for i in 10..5_000u64 {
        logger.log(AuditEvent::info("n").with("i", i)).unwrap();
        writeln!(out, "\nreturned {i}").unwrap();
    }
    out.flush().unwrap();
    until("the spill", || logger.health().pending > 0 && logger.health().queued == 0);
    faults.heal();
    logger.flush(WAIT).unwrap();
    close(&logger);
}

#[test]
fn callers_that_overflow_the_queue_again_and_again_lose_nothing() {
    for round in 0..6 {
        let dir = Dir::new();
        let path = dir.path("trail.db");
        let config = config(&path, &Faults::new()).queue_bytes(64 << 10).journal(false).overflow(Overflow::Spill);
        let logger = AuditLogger::open(config).unwrap();
        // As many as make the spill begin again at each moment of a merge's end.
        let threads: Vec<_> = (0..6)
            .map(|_| {
                let logger = logger.clone();
                std::thread::spawn(move || {
                    (0..4_000u64).filter(|i| logger.log(AuditEvent::info("n").with("i", *i)).is_ok()).count()
                })
            })
            .collect();
        let accepted: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
        logger.flush(WAIT).unwrap();
        let h = logger.health();
        assert_eq!((h.lost, h.pending, h.queued), (0, 0, 0), "round {round}: {h:?}");
        close(&logger);
        assert_eq!(numbers(&path).len(), accepted, "round {round}");
        assert_ok(&path);
    }
}

#[test]
fn segments_that_the_spill_let_go_behind_a_held_batch_hide_nothing_from_recovery() {
    const NAME: &str = "segments_that_the_spill_let_go_behind_a_held_batch_hide_nothing_from_recovery";
    if let Some(part) = common::part() {
        let path = Path::new(&part);
        let faults = Faults::new();
        let config = config(path, &faults).queue_bytes(16 << 20).overflow(Overflow::Spill);
        let logger = AuditLogger::open(config).unwrap();
        println!("queue {:?}", logger.health().queue);
        faults.store(StoreFault::Stuck, ErrorKind::Io, u32::MAX);
        log(&logger, 0..1);
        faults.wait_until_stuck();
        let text = "x".repeat(2_000);
        for i in 1..20_000u64 {
            logger.log(AuditEvent::info("n").with("i", i).with("t", text.as_str())).unwrap();
        }
        until("the spill", || logger.health().queued == 0);
        // From here on only the journal has them.
        faults.spill(ErrorKind::DiskFull);
        log(&logger, 20_000..20_100);
        println!("accepted");
        std::process::abort();
    }
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let output = common::child(NAME, path.to_str().unwrap()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("queue Memory") {
        println!("SKIPPED: no journal on this file system");
        return;
    }
    assert!(text.contains("accepted"), "{text}");
    close(&open(&path));
    assert!(numbers(&path).into_iter().eq(0..20_100), "{} of 20100", numbers(&path).len());
    assert_ok(&path);
}
