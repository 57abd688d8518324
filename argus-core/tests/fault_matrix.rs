//! Every failure of a store x each store x each overflow policy x journal and memory queue x what comes next: it heals, the logger closes, or the process is killed at
//! a step of the merge. What holds afterwards is the same for all: each call that returned is in the trail, once and in order, and the trail verifies.
//!
//! A sample runs in the normal tests; `ARGUS_FAULT_MATRIX=all` runs the whole (`just faults`). Real full disks and read-only remounts need the right to mount.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Carrier, ErrorKind, Faults, Overflow,
    StoreFault,
};
use common::{WAIT, assert_ok, child, close, open, part, records};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    Told(StoreFault, ErrorKind),
    /// The pending file fails, too.
    BothFull,
    /// A real disk of 1 MiB, filled up; the pending file stands elsewhere.
    FullDisk,
    /// The disk of the trail is mounted read-only: the opening is refused, and works when that is mended.
    ReadOnlyDisk,
    MovedAway,
    /// Cut while it is written (JSONL).
    Cut,
    /// Another program holds the database (SQLite). The writer waits ten seconds.
    Locked,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Heals,
    Closes,
    Killed(&'static str),
}

#[derive(Clone, Copy, Debug)]
struct Case {
    failure: Failure,
    ending: &'static str,
    overflow: &'static str,
    journal: bool,
    then: Then,
}

const FAILURES: &[Failure] = &[
    Failure::Told(StoreFault::Begin, ErrorKind::Busy),
    Failure::Told(StoreFault::Insert, ErrorKind::Io),
    Failure::Told(StoreFault::Commit, ErrorKind::DiskFull),
    Failure::Told(StoreFault::AfterCommit, ErrorKind::Io),
    Failure::Told(StoreFault::Stuck, ErrorKind::Io),
    Failure::Told(StoreFault::Open, ErrorKind::Damaged),
    Failure::BothFull,
    Failure::FullDisk,
    Failure::ReadOnlyDisk,
    Failure::MovedAway,
    Failure::Cut,
    Failure::Locked,
];
const STEPS: [&str; 5] = ["spill_synced", "merge_begin", "merge_transact", "merge_committed", "merge_end"];

fn overflow(name: &str) -> Overflow {
    match name {
        "block" => Overflow::Block { timeout: Duration::from_millis(50) },
        "reject" => Overflow::Reject,
        _ => Overflow::Spill,
    }
}

impl Case {
    fn makes_sense(&self) -> bool {
        use Failure as F;
        let killed = matches!(self.then, Then::Killed(_));
        match self.failure {
            F::Cut => self.ending == "jsonl" && self.then == Then::Heals,
            // (Ten seconds each.)
            F::Locked => self.ending == "db" && self.journal && self.overflow == "block" && !killed,
            // Nothing is merged before it heals, and then nothing went to a file.
            F::BothFull => !killed,
            // Such a logger cannot close before its store comes back.
            F::Told(StoreFault::Stuck, _) => self.then == Then::Heals,
            // The mount goes with this process.
            F::FullDisk | F::ReadOnlyDisk => !killed,
            _ => true,
        }
    }

    fn all() -> Vec<Case> {
        let mut all = Vec::new();
        for &failure in FAILURES {
            for ending in ["db", "jsonl"] {
                for overflow in ["block", "reject", "spill"] {
                    for journal in [true, false] {
                        let thens = [Then::Heals, Then::Closes].into_iter().chain(STEPS.map(Then::Killed));
                        all.extend(thens.map(|then| Case { failure, ending, overflow, journal, then }));
                    }
                }
            }
        }
        all.retain(Case::makes_sense);
        all
    }

    /// Each failure once on each store, with the policies and what comes next in turn.
    fn sample() -> Vec<Case> {
        let all = Case::all();
        let mut some = Vec::new();
        let mut turn = 0;
        for &failure in FAILURES.iter().filter(|f| **f != Failure::Locked) {
            for ending in ["db", "jsonl"] {
                let of: Vec<_> = all.iter().filter(|c| c.failure == failure && c.ending == ending).collect();
                // A step that walks through all of them, failure by failure.
                some.extend(of.get((turn * 17) % of.len().max(1)).copied().copied());
                turn += 1;
            }
        }
        some
    }
}

/// A disk of 1 MiB, as long as it lives.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|o| o.status.success()).then(|| Disk(at.into()))
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap();
        assert!(done.success(), "remount {how}");
    }

    fn fill(&self) {
        use std::io::Write;
        let mut filler = fs::File::create(self.0.join("filler")).unwrap();
        for size in [65536, 4096, 64, 1] {
            while filler.write_all(&vec![7; size]).is_ok() {}
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Waits for something that comes by itself.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + 2 * WAIT;
    while !is() {
        assert!(Instant::now() < end, "{what} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Something that can be made to fail, and mended.
struct Broken<'a> {
    case: Case,
    path: &'a Path,
    faults: Faults,
    disk: Option<Disk>,
    bytes: Vec<u8>,
    other: Option<rusqlite::Connection>,
}

impl Broken<'_> {
    fn away(&self) -> PathBuf {
        self.path.with_extension("away")
    }

    fn fail(&mut self) {
        match self.case.failure {
            Failure::Told(fault, kind) => self.faults.store(fault, kind, u32::MAX),
            Failure::BothFull => {
                self.faults.spill(ErrorKind::DiskFull);
                self.faults.store(StoreFault::Commit, ErrorKind::DiskFull, u32::MAX);
            }
            Failure::FullDisk => self.disk.as_ref().unwrap().fill(),
            // At the opening: the kernel remounts nothing read-only while a file there is open for writing.
            Failure::ReadOnlyDisk => {}
            Failure::MovedAway => fs::rename(self.path, self.away()).unwrap(),
            Failure::Cut => {
                self.bytes = fs::read(self.path).unwrap();
                fs::OpenOptions::new().write(true).open(self.path).unwrap().set_len(10).unwrap();
            }
            Failure::Locked => {
                let c = rusqlite::Connection::open(self.path).unwrap();
                c.execute_batch("BEGIN IMMEDIATE").unwrap();
                self.other = Some(c);
            }
        }
    }

    fn mend(&mut self) {
        self.faults.heal();
        match self.case.failure {
            Failure::FullDisk => fs::remove_file(self.disk.as_ref().unwrap().0.join("filler")).unwrap(),
            Failure::ReadOnlyDisk => self.disk.as_ref().unwrap().remount("rw"),
            Failure::MovedAway => fs::rename(self.away(), self.path).unwrap(),
            Failure::Cut => {
                use std::os::unix::fs::FileExt;
                let file = fs::OpenOptions::new().write(true).open(self.path).unwrap();
                file.write_all_at(&self.bytes, 0).unwrap();
            }
            _ => self.other = None,
        }
    }
}

/// Logs through a failure and what comes next; tells of each call that returned. False: it cannot be made here.
fn run(case: Case, dir: &Path, mut returned: impl FnMut(u64)) -> bool {
    let path = dir.join(format!("disk/trail.{}", case.ending));
    let real = matches!(case.failure, Failure::FullDisk | Failure::ReadOnlyDisk);
    let disk = if real { Disk::mount(&dir.join("disk")) } else { None };
    if real && disk.is_none() {
        println!("SKIPPED {case:?}: mounting is not allowed here");
        return false;
    }
    let mut broken = Broken { case, path: &path, faults: Faults::new(), disk, bytes: Vec::new(), other: None };
    let mut config = AuditConfig::new(&path).service("matrix", "1").faults(&broken.faults).journal(case.journal);
    config = config.overflow(overflow(case.overflow)).queue_bytes(1 << 20);
    if real {
        config = config.spill_dir(dir.join("spill"));
    }
    let at_open = matches!(case.failure, Failure::Told(StoreFault::Open, _));
    if case.failure == Failure::ReadOnlyDisk {
        // Nothing may be open for writing at the moment of the remount, so the trail is made, and opened again read-only.
        close(&open(&path));
        broken.disk.as_ref().unwrap().remount("ro");
        let error = AuditLogger::open(config.clone()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{case:?}: {error}");
        broken.mend();
    }
    if at_open {
        broken.fail();
    }
    let logger = AuditLogger::open(config).unwrap();
    let mut log = |i: u64| match logger.log(AuditEvent::info("n").with("i", i)) {
        Ok(_) => {
            returned(i);
            true
        }
        Err(e) => {
            assert!(matches!(e, AuditError::Full { .. }), "{case:?}: {e}");
            false
        }
    };
    if !at_open {
        (0..20).for_each(|i| assert!(log(i)));
        logger.flush(WAIT).unwrap();
        broken.fail();
    }
    let (few, many) = if real { (20..60, 60..70) } else { (20..400, 400..420) };
    for i in few {
        log(i);
    }
    let spills = !matches!(case.failure, Failure::BothFull | Failure::ReadOnlyDisk);
    if spills && !matches!(case.failure, Failure::Told(StoreFault::Stuck, _)) {
        until("the spill", || logger.health().pending > 0 && logger.health().queued == 0);
        assert!(logger.health().degraded.is_some(), "{case:?}");
    }
    if case.failure == Failure::BothFull {
        let relay = Carrier::relay(Duration::ZERO);
        until("a full queue", || logger.submit(&AuditEvent::info("relayed"), &relay).is_err());
    }
    let h = logger.health();
    assert_eq!(h.submitted, h.committed + h.rejected + h.lost + h.queued + h.pending, "{case:?}: {h:?}");
    if case.then == Then::Closes {
        let report = logger.close(Duration::ZERO);
        let report = if report.error == Some(AuditError::Timeout) { logger.close(2 * WAIT) } else { report };
        let works =
            case.failure == Failure::ReadOnlyDisk || matches!(case.failure, Failure::Told(StoreFault::AfterCommit, _));
        assert!(report.error.is_some() || works, "{case:?}: {report:?}");
        broken.mend();
        drop(logger);
        if case.failure != Failure::BothFull || case.journal {
            close(&open(&path));
        }
    } else {
        broken.mend();
        logger.flush(2 * WAIT).unwrap();
        many.for_each(|i| assert!(log(i), "{case:?}"));
        close(&logger);
    }
    if real {
        // Looked at before the disk goes.
        let to = dir.join(format!("kept.{}", case.ending));
        fs::copy(&path, to).unwrap();
    }
    true
}

fn look(case: Case, dir: &Path, mut returned: Vec<u64>) {
    let kept = dir.join(format!("kept.{}", case.ending));
    let path = if kept.exists() { kept } else { dir.join(format!("disk/trail.{}", case.ending)) };
    let all = records(&path);
    let numbers: Vec<u64> =
        all.iter().filter(|r| r.event == "n").map(|r| r.context_value("i").unwrap().as_u64().unwrap()).collect();
    if let Then::Killed(_) = case.then {
        // What the last call accepted was perhaps not printed any more.
        let kept = numbers.starts_with(&returned);
        // A trail that could not be opened has no journal.
        let memory = !case.journal || matches!(case.failure, Failure::Told(StoreFault::Open, _));
        // What a killed memory queue held is gone, from the end; and somebody says so.
        let told = returned.starts_with(&numbers)
            && all.iter().any(|r| r.event == "audit_gap" && r.context_value("reason").unwrap() == "process_died");
        assert!(kept || (memory && told), "{case:?}: {} of {} returned", numbers.len(), returned.len());
        returned.clone_from(&numbers);
    }
    let lost_with_memory = case.failure == Failure::BothFull && case.then == Then::Closes && !case.journal;
    if lost_with_memory {
        assert!(returned.starts_with(&numbers), "{case:?}");
    } else {
        assert_eq!(numbers, returned, "{case:?}");
    }
    let spilled = all.iter().any(|r| r.event == "audit_fallback");
    let must = !matches!(case.failure, Failure::BothFull | Failure::ReadOnlyDisk | Failure::Told(StoreFault::Stuck, _));
    assert!(spilled || !must || matches!(case.then, Then::Killed(_)), "{case:?}: no audit_fallback");
    let relays = case.failure == Failure::BothFull && case.then == Then::Heals;
    assert!(!relays || all.iter().any(|r| r.event == "audit_gap"), "{case:?}: a relay's loss is not recorded");
    assert_ok(&path);
    for folder in ["disk", "spill", "."] {
        let files = fs::read_dir(dir.join(folder)).into_iter().flatten().map(|f| f.unwrap().file_name());
        let left: Vec<_> = files.filter(|f| f.to_string_lossy().contains(".pending.")).collect();
        assert!(left.is_empty(), "{case:?}: {left:?}");
    }
}

#[test]
fn whatever_fails_what_was_accepted_is_there_once_and_in_order() {
    if let Some(part) = part() {
        use std::io::Write;
        let (index, dir) = part.split_once(' ').unwrap();
        let case = Case::all()[index.parse::<usize>().unwrap()];
        run(case, Path::new(dir), |i| {
            let mut out = std::io::stdout();
            writeln!(out, "\nreturned {i}").unwrap();
            out.flush().unwrap();
        });
        return;
    }
    let whole = std::env::var("ARGUS_FAULT_MATRIX").is_ok_and(|v| v == "all");
    let cases = if whole { Case::all() } else { Case::sample() };
    for (n, case) in cases.iter().copied().enumerate() {
        if whole {
            println!("{} of {}: {case:?}", n + 1, cases.len());
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("disk")).unwrap();
        let mut returned = Vec::new();
        if let Then::Killed(step) = case.then {
            let index = Case::all().iter().position(|c| format!("{c:?}") == format!("{case:?}")).unwrap();
            let mut child = child(
                "whatever_fails_what_was_accepted_is_there_once_and_in_order",
                &format!("{index} {}", dir.path().display()),
            );
            let output = child.env("ARGUS_ABORT_AT", step).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(!output.status.success(), "{case:?}: the step is never reached: {text}");
            assert!(!text.contains("panicked"), "{case:?}: {text}");
            returned.extend(text.lines().filter_map(|l| l.strip_prefix("returned ")?.parse::<u64>().ok()));
            // It was killed with its trail away.
            let path = dir.path().join(format!("disk/trail.{}", case.ending));
            if path.with_extension("away").exists() {
                fs::rename(path.with_extension("away"), &path).unwrap();
            }
            close(&open(&path));
        } else if !run(case, dir.path(), |i| returned.push(i)) {
            continue;
        }
        look(case, dir.path(), returned);
    }
}
