//! Pending records: accepted, in a journal beside the trail, not in the trail. Readers show each exactly once, as pending or as committed, whatever the writer does
//! meanwhile, and touch nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use argus_core::{
    AuditConfig, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, ErrorKind, Filter, Overflow,
    PendingRecords, QueueKind, Record, TrailFiles,
};
use common::{Dir, assert_ok, child, close, open, part, records, snapshot, sql};

const HOUR: Duration = Duration::from_secs(3600);

/// A logger that commits nothing by itself.
fn patient(path: &Path) -> AuditLogger {
    let config = AuditConfig::new(path).service("patient", "1").commit_delay(HOUR).flush_interval(HOUR);
    AuditLogger::open(config.buffer_size(1_000_000)).unwrap()
}

fn journals() -> bool {
    let dir = Dir::new();
    let logger = open(&dir.path("t.db"));
    let journal = logger.health().queue == QueueKind::Journal;
    close(&logger);
    if !journal {
        println!("SKIPPED: the file system reserves no space, so there are no journals");
    }
    journal
}

fn pending(path: &Path) -> PendingRecords {
    AuditReader::open(path).unwrap().pending().unwrap()
}

fn numbers(records: impl IntoIterator<Item = Record>) -> Vec<u64> {
    records.into_iter().filter_map(|r| r.context_value("n")?.as_u64()).collect()
}

/// The part of a process that logs five records, says so, and waits to be killed.
#[test]
fn the_child() {
    let Some(path) = part() else { return };
    let logger = patient(Path::new(&path));
    for n in 0..5 {
        logger.log(AuditEvent::warn("waits").component(if n % 2 == 0 { "even" } else { "odd" }).with("n", n)).unwrap();
    }
    println!("\nlogged");
    thread::sleep(HOUR);
}

/// Leaves what a killed process leaves: five records in its journal.
fn killed(path: &Path) {
    let mut c =
        child("the_child", path.to_str().unwrap()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(c.stdout.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap() == "logged"));
    c.kill().unwrap();
    c.wait().unwrap();
}

#[test]
fn what_a_killed_process_left_is_shown_once_and_then_committed() {
    if !journals() {
        return;
    }
    let dir = Dir::new();
    for path in dir.both() {
        close(&open(&path));
        killed(&path);
        let before = (snapshot(dir.0.path()), fs::metadata(dir.0.path()).unwrap().modified().unwrap());
        let waiting = pending(&path);
        assert_eq!((waiting.total(), waiting.unreadable().len()), (5, 0), "{waiting:?}");
        assert_eq!(waiting.committed(), records(&path).last().unwrap().seq.unwrap());
        let all: Vec<Record> = waiting.map(Result::unwrap).collect();
        assert_eq!(numbers(all.clone()), [0, 1, 2, 3, 4]);
        for r in &all {
            assert_eq!((r.seq, &r.created_at, r.prev_hash, r.checksum), (None, &None, None, None));
            let line: serde_json::Value = serde_json::from_str(&r.to_jsonl()).unwrap();
            let has = |m: &str| line.get(m).is_some();
            assert!(has("record_id") && has("writer_seq"), "{line}");
            assert!(!["seq", "created_at", "prev_hash", "checksum"].into_iter().any(has), "{line}");
        }
        let by = |f: Filter| numbers(pending(&path).matching(f).map(Result::unwrap));
        assert_eq!(by(Filter::new().component("odd").newest_first()), [3, 1]);
        assert_eq!(by(Filter::new().newest_first().limit(2)), [4, 3]);
        assert_eq!(by(Filter::new().app("patient").after(1)), [0, 1, 2, 3, 4]);
        assert!(by(Filter::new().app("other")).is_empty());
        let report = AuditReader::open(&path).unwrap().verify().unwrap();
        assert!(report.is_ok() && report.to_string().contains("\npending: 5 "), "{report}");
        assert_eq!((report.pending, report.pending_unreadable), (5, 0));
        let files = TrailFiles::beside(&path).unwrap();
        assert_eq!(files.writers.len(), 1);
        assert_eq!((files.writers[0].alive, files.writers[0].service_name.as_deref()), (Some(false), Some("patient")));
        assert!(numbers(records(&path)).is_empty());
        let after = (snapshot(dir.0.path()), fs::metadata(dir.0.path()).unwrap().modified().unwrap());
        assert!(before == after, "the folder was changed");

        close(&open(&path));
        assert_eq!(pending(&path).total(), 0);
        let committed: Vec<Record> = records(&path).into_iter().filter(|r| r.event == "waits").collect();
        assert_eq!(committed.len(), 5);
        for (was, mut is) in all.into_iter().zip(committed) {
            (is.seq, is.created_at, is.prev_hash, is.checksum) = (None, None, None, None);
            assert_eq!(was, is);
        }
        assert_eq!(TrailFiles::beside(&path).unwrap().writers, []);
        fs::remove_file(&path).unwrap();
    }
}

/// Committed up to the moment of the pending ones, and these.
fn everything(reader: &AuditReader) -> (Vec<u64>, u64) {
    let pending = reader.pending().unwrap();
    assert_eq!(pending.unreadable(), []);
    let (end, count) = (pending.committed(), pending.total());
    let committed = reader.query(Filter::new()).unwrap().map(Result::unwrap).take_while(|r| r.seq <= Some(end));
    (numbers(committed.chain(pending.map(Result::unwrap))), count)
}

#[test]
fn each_record_is_seen_once_at_every_look_while_a_busy_writer_is_stalled_and_goes_on() {
    if !journals() {
        return;
    }
    let dir = Dir::new();
    for (path, stalls) in dir.both().into_iter().zip([true, false]) {
        // Small segments, so that they are used again under the reader.
        let config = AuditConfig::new(&path).queue_bytes(4 << 20);
        let logger = AuditLogger::open(config.overflow(Overflow::Block { timeout: common::WAIT })).unwrap();
        let reader = AuditReader::open(&path).unwrap();
        let (told, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let conn = stalls.then(|| sql(&path));
        let stall = || {
            if let Some(c) = &conn {
                c.busy_timeout(common::WAIT).unwrap();
                c.execute_batch("BEGIN IMMEDIATE").unwrap();
            }
        };
        stall();
        let busy = thread::spawn({
            let (logger, told, stop) = (logger.clone(), told.clone(), stop.clone());
            let text = "x".repeat(8000);
            move || {
                for n in 0..2000 {
                    logger.log(AuditEvent::info("busy").with("n", n).with("text", text.as_str())).unwrap();
                    told.store(n + 1, Ordering::SeqCst);
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                }
            }
        });
        let (mut looks, mut most) = (0, 0);
        while !busy.is_finished() || looks < 4 {
            let stalled = looks % 3 == 0;
            if stalled {
                if looks > 0 {
                    stall();
                }
                // Until something is accepted, or the queue is full.
                let (before, until) = (told.load(Ordering::SeqCst), Instant::now() + Duration::from_secs(1));
                while told.load(Ordering::SeqCst) < before + 20 && !busy.is_finished() && Instant::now() < until {
                    thread::yield_now();
                }
            }
            for _ in 0..2 {
                let before = told.load(Ordering::SeqCst);
                let (seen, count) = everything(&reader);
                assert!(seen.iter().copied().eq(0..seen.len() as u64), "each once, in order: {seen:?}");
                assert!(seen.len() as u64 >= before, "{before} were logged, {} are seen", seen.len());
                most = most.max(count);
                looks += 1;
            }
            for c in conn.iter().filter(|_| stalled) {
                c.execute_batch("COMMIT").unwrap();
            }
        }
        stop.store(true, Ordering::SeqCst);
        busy.join().unwrap();
        assert!(!stalls || most > 0, "something was pending");
        close(&logger);
        let (seen, count) = everything(&reader);
        assert_eq!((seen.len() as u64, count), (told.load(Ordering::SeqCst), 0));
        assert_ok(&path);
    }
}

#[test]
fn a_verdict_counts_what_a_stalled_writer_has_accepted() {
    if !journals() {
        return;
    }
    let dir = Dir::new();
    for path in dir.both() {
        let logger = patient(&path);
        for n in 0..3 {
            logger.log(AuditEvent::info("waits").with("n", n)).unwrap();
        }
        let report = || AuditReader::open(&path).unwrap().verify().unwrap();
        assert_eq!((report().is_ok(), report().pending, report().records), (true, 3, records(&path).len() as u64));
        let files = TrailFiles::beside(&path).unwrap();
        let w = files.writers.iter().find(|w| w.service_name.as_deref() == Some("patient")).unwrap();
        assert_eq!((w.alive, w.process_id), (Some(true), Some(u64::from(std::process::id()))));
        assert!(w.lock.is_some() && !w.journals.is_empty());
        close(&logger);
        assert_eq!((report().pending, numbers(records(&path))), (0, vec![0, 1, 2]));
    }
}

/// Files of a folder by their ending.
fn journals_in(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|p| {
        p.extension().is_some_and(|e| e == "journal") && fs::read(p).unwrap().get(16..24).is_some_and(|n| n != [0; 8])
    });
    all
}

type Spoil = fn(&Path);

#[test]
fn journals_that_cannot_be_read_are_told_and_never_an_error() {
    if !journals() {
        return;
    }
    fn write(path: &Path, at: u64, byte: u8) {
        fs::File::options().write(true).open(path).unwrap().write_all_at(&[byte], at).unwrap();
    }
    fn turn(path: &Path, at: u64) {
        write(path, at, !fs::read(path).unwrap()[usize::try_from(at).unwrap()]);
    }
    fn instead(path: &Path) -> PathBuf {
        let away = path.with_extension("away");
        fs::rename(path, &away).unwrap();
        away
    }
    /// Where the nth entry begins.
    fn entry(path: &Path, n: usize) -> u64 {
        let bytes = fs::read(path).unwrap();
        let len = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        (0..n).fold(8192, |at, _| at + len(at)) as u64
    }
    let cases: BTreeMap<&str, (Spoil, ErrorKind, u64)> = BTreeMap::from([
        ("a newer version", ((|p| write(p, 8, 255)) as Spoil, ErrorKind::NewerVersion, 0)),
        ("a damaged header", (|p| turn(p, 41), ErrorKind::Damaged, 0)),
        // Of the five entries.
        ("a damaged entry", (|p| turn(p, entry(p, 2) + 30), ErrorKind::Damaged, 2)),
        ("a torn entry", (|p| write(p, entry(p, 4) + 3, 0xee), ErrorKind::Damaged, 4)),
        (
            "a missing beginning",
            (
                |p| {
                    let mut bytes = fs::read(p).unwrap();
                    bytes.drain(8192..entry(p, 1) as usize);
                    fs::write(p, bytes).unwrap();
                },
                ErrorKind::Damaged,
                4,
            ),
        ),
        (
            "too long",
            (|p| fs::File::options().write(true).open(p).unwrap().set_len(20 << 20).unwrap(), ErrorKind::Damaged, 0),
        ),
        ("a link", (|p| symlink(instead(p), p).unwrap(), ErrorKind::Unsafe, 0)),
        ("a second name", (|p| fs::hard_link(p, p.with_extension("two")).unwrap(), ErrorKind::Unsafe, 0)),
        (
            "a folder",
            (
                |p| {
                    instead(p);
                    fs::create_dir(p).unwrap();
                },
                ErrorKind::Unsafe,
                0,
            ),
        ),
        (
            "a pipe",
            (
                |p| {
                    instead(p);
                    rustix::fs::mkfifoat(rustix::fs::CWD, p, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
                },
                ErrorKind::Unsafe,
                0,
            ),
        ),
        ("open to all", (|p| fs::set_permissions(p, fs::Permissions::from_mode(0o666)).unwrap(), ErrorKind::Unsafe, 0)),
        (
            "the same number twice",
            (
                |p| assert!(fs::copy(p, p.to_str().unwrap().replace(".journal", "9.journal")).is_ok()),
                ErrorKind::Damaged,
                5,
            ),
        ),
    ]);
    for (what, (spoil, kind, shown)) in cases {
        let dir = Dir::new();
        let path = dir.path("t.db");
        close(&open(&path));
        killed(&path);
        spoil(&journals_in(dir.0.path())[0]);
        let waiting = pending(&path);
        let kinds: Vec<ErrorKind> = waiting.unreadable().iter().map(|u| u.error.kind()).collect();
        assert_eq!((kinds, waiting.total()), (vec![kind], shown), "{what}: {waiting:?}");
        let first = u64::from(what == "a missing beginning");
        assert_eq!(numbers(waiting.map(Result::unwrap)), (first..first + shown).collect::<Vec<_>>(), "{what}");
        let report = AuditReader::open(&path).unwrap().verify().unwrap();
        assert!(report.is_ok() && report.to_string().contains("\npending: 1 unreadable"), "{what}: {report}");
        assert_eq!((report.pending, report.pending_unreadable), (shown, 1), "{what}");
    }
}

#[test]
fn journals_of_others_are_not_of_this_trail() {
    if !journals() {
        return;
    }
    let dir = Dir::new();
    for (path, other) in dir.both().into_iter().zip([dir.path("other.db"), dir.path("other.jsonl")]) {
        close(&open(&path));
        killed(&path);
        close(&open(&other));
        let journal = journals_in(dir.0.path()).pop().unwrap();
        let name = journal.file_name().unwrap().to_str().unwrap().to_owned();
        let trail = path.file_name().unwrap().to_str().unwrap();
        // Of the same writer, beside another log; and under another writer's name, beside its own.
        let planted = dir.path(&name.replacen(trail, other.file_name().unwrap().to_str().unwrap(), 1));
        fs::copy(&journal, &planted).unwrap();
        let waiting = pending(&other);
        assert_eq!((waiting.total(), waiting.unreadable()[0].error.kind()), (0, ErrorKind::Replaced), "{waiting:?}");
        fs::remove_file(&planted).unwrap();
        let stranger = "00000000-0000-4000-8000-000000000000";
        let planted = dir.path(&format!("{trail}.{stranger}.1.journal"));
        fs::copy(&journal, &planted).unwrap();
        let waiting = pending(&path);
        assert_eq!((waiting.total(), waiting.unreadable().len()), (5, 1));
        assert_eq!(
            (&waiting.unreadable()[0].path, waiting.unreadable()[0].error.kind()),
            (&planted, ErrorKind::Damaged)
        );
        fs::remove_file(&planted).unwrap();
        if std::os::unix::fs::chown(&journal, Some(12345), None).is_ok() {
            let waiting = pending(&path);
            assert_eq!((waiting.total(), waiting.unreadable()[0].error.kind()), (0, ErrorKind::Unsafe));
            std::os::unix::fs::chown(&journal, Some(0), None).unwrap();
        } else {
            println!("SKIPPED: only root can give a file away");
            fs::set_permissions(&journal, fs::Permissions::from_mode(0o000)).unwrap();
            let waiting = pending(&path);
            assert_eq!((waiting.total(), waiting.unreadable()[0].error.kind()), (0, ErrorKind::PermissionDenied));
        }
        for p in fs::read_dir(dir.0.path()).unwrap() {
            fs::remove_file(p.unwrap().path()).unwrap();
        }
    }
}
