//! Every failure of a store x each store x each overflow policy x journal and memory queue x what comes next: it heals, the logger closes and the trail is opened again,
//! or the process is killed at a step of the merge. What holds afterwards is the same for all: each call that returned is in the trail, once and in order, no call
//! that was refused is, the account of `health()` holds, and the trail verifies.
//!
//! A sample runs in the normal tests; `ARGUS_FAULT_MATRIX=all` runs the whole (`just faults`), and any other value those whose name holds it, as
//! `ARGUS_FAULT_MATRIX='Deleted, ending: "db"'`. Real full disks and read-only remounts need the right to mount; without it they say `SKIPPED`.
//! [`cases`] is the table, [`broken`] makes the failures, [`oracle`] looks at what is left.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod broken;
mod cases;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/disk.rs"]
mod disk;
mod oracle;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Carrier, ErrorKind, Faults, LossReason,
    ManualClock, QueueKind, StoreFault,
};
use broken::{Broken, another, away};
use cases::{Case, Failure, Then};
use common::{WAIT, child, close, open, part};
use disk::Disk;
use oracle::{HEALED, account, look};

const NAME: &str = "whatever_fails_what_was_accepted_is_there_once_and_in_order";

/// Waits for something that comes by itself.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + 2 * WAIT;
    while !is() {
        assert!(Instant::now() < end, "{what} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Logs through a failure and what comes next; tells of each call that returned. False: it cannot be made here.
fn run(case: Case, dir: &Path, mut returned: impl FnMut(u64)) -> bool {
    let path = dir.join(format!("disk/trail.{}", case.ending));
    let of_spill = matches!(case.failure, Failure::FullSpillDisk { .. });
    // (A disk of 1 MiB has no place for a journal.)
    let mib = if case.journal && !of_spill { 8 } else { 1 };
    let at = dir.join(if of_spill { "spill" } else { "disk" });
    let disk = if case.real() { Disk::mount(&at, mib) } else { None };
    if case.real() && disk.is_none() {
        println!("SKIPPED {case:?}: mounting is not allowed here");
        return false;
    }
    if case.failure == Failure::Replaced {
        close(&open(&another(&path)));
    }
    if case.failure == Failure::Damaged {
        close(&open(&path));
    }
    let clock = Arc::new(ManualClock::new(SystemTime::now()));
    let mut broken = Broken { case, path: &path, faults: Faults::new(), disk, other: None, clock: clock.clone() };
    let mut config = AuditConfig::new(&path).service("matrix", "1").faults(&broken.faults).journal(case.journal);
    if case.failure == Failure::ClockBack {
        config = config.clock(clock);
    }
    config = config.overflow(case.overflow()).queue_bytes(1 << 20);
    if case.real() {
        config = config.spill_dir(dir.join("spill"));
    }
    let at_open = case.at_open();
    if case.failure == Failure::ReadOnlyDisk {
        // Nothing may be open for writing at the moment of the remount, so the trail is made, and opened again read-only.
        close(&open(&path));
        broken.disk.as_ref().unwrap().remount("ro");
        let error = AuditLogger::open(config.clone()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        broken.mend();
    }
    if at_open {
        broken.fail();
    }
    let logger = AuditLogger::open(config.clone()).unwrap();
    if case.real() && !of_spill {
        assert_eq!(logger.health().queue == QueueKind::Journal, case.journal, "tmpfs reserves space");
    }
    let mut log = |i: u64| match logger.log(AuditEvent::info("n").with("i", i)) {
        Ok(_) => {
            returned(i);
            true
        }
        Err(e) => {
            assert!(matches!(e, AuditError::Full { .. }), "{e}");
            false
        }
    };
    if !at_open {
        (0..20).for_each(|i| assert!(log(i)));
        logger.flush(WAIT).unwrap();
        broken.fail();
    }
    let (few, many) = if case.real() { (20..60, 60..70) } else { (20..HEALED, HEALED..HEALED + 20) };
    for i in few {
        log(i);
    }
    if case.spills() {
        until("the spill", || logger.health().pending > 0 && logger.health().queued == 0);
        assert!(logger.health().degraded.is_some());
    }
    if case.failure == (Failure::FullSpillDisk { begun: true }) {
        broken.disk.as_ref().unwrap().fill();
        let mut i = 1_000;
        until("a full disk", || {
            i += 1;
            // (As long as there is room.)
            let _ = logger.health().queue_bytes < 256 << 10 && log(i);
            logger.health().degraded.is_some_and(|d| d.contains("neither"))
        });
    }
    if case.failure == Failure::StuckReader {
        logger.flush(WAIT).unwrap();
    }
    // By a relay that has no event of it.
    logger.report_loss(LossReason::Invalid, 1);
    if case.fills_queue() {
        let relay = Carrier::relay(Duration::ZERO);
        let text = "x".repeat(2_000);
        let relayed = AuditEvent::info("relayed").with("text", text.as_str());
        until("a full queue", || logger.submit(&relayed, &relay).is_err());
        // (Under `Spill` a caller waits for five seconds.)
        let mut tries = 2_000_000..2_000_100;
        assert!(case.overflow == "spill" || tries.any(|i| !log(i)), "nobody is refused");
        assert!(logger.health().lost > 0 && logger.health().degraded.is_some());
    }
    account(&logger);
    if case.then == Then::Closes {
        let report = logger.close(Duration::ZERO);
        let report = if report.error == Some(AuditError::Timeout) { logger.close(2 * WAIT) } else { report };
        let works = matches!(
            case.failure,
            Failure::ReadOnlyDisk | Failure::StuckReader | Failure::Told(StoreFault::AfterCommit, _)
        );
        assert!(report.error.is_some() || works, "{report:?}");
        account(&logger);
        broken.mend();
        drop(logger);
        close(&AuditLogger::open(config).unwrap());
    } else {
        broken.mend();
        if case.overflow == "spill" {
            // Nobody need ask for it.
            until("the store by itself", || logger.health().queued == 0 && logger.health().pending == 0);
        }
        logger.flush(2 * WAIT).unwrap();
        many.for_each(|i| assert!(log(3_000_000 + i), "there is room after a flush"));
        close(&logger);
        let h = account(&logger);
        assert_eq!((h.queued, h.pending, &h.degraded), (0, 0, &None), "{h:?}");
    }
    if case.real() {
        // Looked at before the disk goes.
        oracle::nothing_left(dir);
        fs::copy(&path, dir.join(format!("kept.{}", case.ending))).unwrap();
    }
    true
}

/// As `check`, in another process with mounts of its own.
fn check_with_mounts(case: Case) {
    if !disk::with_mounts(NAME, &format!("{} mounts", index(case))) {
        println!("SKIPPED {case:?}: mounting is not allowed here");
    }
}

fn index(case: Case) -> usize {
    Case::all().iter().position(|c| *c == case).unwrap()
}

/// As `run`, in another process, which is killed at a step; then the trail is opened again.
fn run_killed(case: Case, step: &str, dir: &Path) -> Vec<u64> {
    let part = format!("{} {}", index(case), dir.display());
    let output = child(NAME, &part).env("ARGUS_ABORT_AT", step).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "the step is never reached: {text}");
    assert!(!text.contains("panicked"), "{text}");
    let path = dir.join(format!("disk/trail.{}", case.ending));
    if away(&path).exists() {
        fs::rename(away(&path), &path).unwrap();
    }
    broken::put_back(&path);
    close(&open(&path));
    text.lines().filter_map(|l| l.strip_prefix("returned ")?.parse::<u64>().ok()).collect()
}

fn check(case: Case) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("disk")).unwrap();
    let mut returned = Vec::new();
    if let Then::Killed(step) = case.then {
        returned = run_killed(case, step, dir.path());
    } else if !run(case, dir.path(), |i| returned.push(i)) {
        return;
    }
    look(case, dir.path(), &returned);
}

/// Each of them, so many at once; those that fail, with the reason.
fn check_all(cases: &[Case], at_once: usize) -> Vec<String> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|s| {
        for _ in 0..at_once {
            s.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    let check = if case.real() { check_with_mounts } else { check };
                    let result = catch_unwind(AssertUnwindSafe(|| check(*case)));
                    println!("{:>6} ms {case:?}", begun.elapsed().as_millis());
                    if let Err(panic) = result {
                        let why = panic.downcast_ref::<String>().cloned();
                        let why = why.or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default();
                        failed.lock().unwrap().push(format!("{case:?}: {why}"));
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}

#[test]
fn whatever_fails_what_was_accepted_is_there_once_and_in_order() {
    if let Some(part) = part() {
        use std::io::Write;
        let (index, dir) = part.split_once(' ').unwrap();
        let case = Case::all()[index.parse::<usize>().unwrap()];
        if dir == "mounts" {
            return check(case);
        }
        run(case, Path::new(dir), |i| {
            let mut out = std::io::stdout();
            writeln!(out, "\nreturned {i}").unwrap();
            out.flush().unwrap();
        });
        return;
    }
    let cases = match std::env::var("ARGUS_FAULT_MATRIX").as_deref() {
        Err(_) => Case::sample(),
        Ok("all") => Case::all(),
        Ok(some) => Case::all().into_iter().filter(|c| format!("{c:?}").contains(some)).collect(),
    };
    assert!(!cases.is_empty());
    // A child that is just being started holds the locks of this process a moment longer: nobody starts one beside a case that opens its trail again here.
    let starts = |c: &Case| c.real() || c.killed();
    let (starting, others): (Vec<_>, Vec<_>) = cases.iter().copied().partition(starts);
    let by_a_shell = |c: &Case| matches!(c.failure, Failure::Cut | Failure::Damaged | Failure::DamagedPages);
    let (cut, others): (Vec<_>, Vec<_>) = others.into_iter().partition(by_a_shell);
    let mut failed = check_all(&starting, 4);
    failed.extend(check_all(&cut, 1));
    failed.extend(check_all(&others, 8));
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
    println!("{} cases", cases.len());
}
