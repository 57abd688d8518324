//! `kill -9` of a process that recovers what a dead writer left, at any moment of it, again and again; and two processes that recover the same. Each record is in the trail once,
//! in order, and nothing is left beside it. `ARGUS_KILL_ROUNDS` as in `killed.rs`, of which an eighth are done here (a round recovers some thousand records).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/spilling.rs"]
mod spilling;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Instant;

use argus_core::{
    AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, ErrorKind, Faults, QueueKind, StoreFault,
};
use common::{Dir, WAIT, assert_ok, child, close, open, part, records};
use spilling::close_now;

fn rounds() -> u64 {
    let kills: Option<u64> = std::env::var("ARGUS_KILL_ROUNDS").ok().and_then(|n| n.parse().ok());
    kills.unwrap_or(50).div_ceil(8)
}

/// As in `killed.rs`: the moments are the same parts of the time in each run.
fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 7
}

/// Records that a dead writer left: of two transactions of recovery (4 MiB each), and of many where many rounds are asked for.
fn left() -> u64 {
    if rounds() > 10 { 6_000 } else { 800 }
}

/// Leaves them in a folder, in a journal or a pending file, and gives the trail's name and the writer. `None` where there is no journal.
fn leave(dir: &Dir, name: &str, journal: bool) -> Option<String> {
    let path = dir.path(name);
    let faults = Faults::new();
    let config = AuditConfig::new(&path).service("tests", "1").faults(&faults).queue_bytes(64 << 20);
    let logger = AuditLogger::open(config.journal(journal)).unwrap();
    if journal && logger.health().queue == QueueKind::Memory {
        println!("SKIPPED: no journal on this file system");
        return None;
    }
    logger.flush(WAIT).unwrap();
    if journal {
        faults.spill(ErrorKind::DiskFull);
    }
    faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
    let text = "x".repeat(6_000);
    for i in 0..left() {
        logger.log(AuditEvent::info("n").with("a", text.as_str()).with("i", i)).unwrap();
    }
    let (report, h) = (close_now(&logger), logger.health());
    let file = if journal { 0 } else { left() };
    assert_eq!((report.left, h.pending, h.lost), (left(), file, 0), "{report:?}");
    Some(logger.writer_id().to_string())
}

/// A copy of what was left, for one round.
fn copy(from: &Dir, name: &str) -> (Dir, PathBuf) {
    let dir = Dir::new();
    for entry in fs::read_dir(from.0.path()).unwrap().map(|e| e.unwrap()) {
        fs::copy(entry.path(), dir.0.path().join(entry.file_name())).unwrap();
    }
    let path = dir.path(name);
    (dir, path)
}

/// A process that stands before the opening of a trail.
struct Opener(Child, BufReader<ChildStdout>);

impl Opener {
    fn new(path: &Path) -> Self {
        let mut c = child("the_opener", path.to_str().unwrap());
        let mut c = c.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(c.stdout.take().unwrap());
        let mut opener = Self(c, out);
        assert!(opener.says("ready"));
        opener
    }

    /// Reads until it says so. False: it ended first.
    fn says(&mut self, what: &str) -> bool {
        let mut line = Vec::new();
        while self.1.read_until(b'\n', &mut line).unwrap() > 0 {
            if line.ends_with(format!("{what}\n").as_bytes()) {
                return true;
            }
            line.clear();
        }
        false
    }

    fn go(&mut self) {
        writeln!(self.0.stdin.as_mut().unwrap(), "go").unwrap();
    }

    fn ends(mut self) {
        assert!(self.says("opened"));
        assert!(self.0.wait().unwrap().success());
    }
}

/// The part that a child plays; alone it does nothing.
#[test]
fn the_opener() {
    let Some(part) = part() else { return };
    println!("\nready");
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    let end = Instant::now() + WAIT;
    let logger = loop {
        match AuditLogger::open(AuditConfig::new(&part).service("tests", "1")) {
            // A JSONL trail has one process at a time.
            Err(e) if e.kind() == ErrorKind::InUse && Instant::now() < end => std::thread::yield_now(),
            opened => break opened.unwrap(),
        }
    };
    println!("\nopened");
    close(&logger);
}

/// Each record is there once, in order, it was said once, and beside the trail is nothing. (A line of a JSONL trail that was being written is kept aside.)
fn assert_recovered(path: &Path, writer: &str) {
    assert_ok(path);
    let all = records(path);
    let theirs: Vec<_> = all.iter().filter(|r| r.event == "n" && r.writer.to_string() == writer).collect();
    let numbers: Vec<u64> = theirs.iter().map(|r| r.context_value("i").unwrap().as_u64().unwrap()).collect();
    let found = format!("{} of {} each once, in order; beside the trail {:?}", numbers.len(), left(), beside(path));
    assert!(numbers.iter().copied().eq(0..left()), "{found}");
    assert!(theirs.windows(2).all(|w| w[0].writer_seq < w[1].writer_seq));
    assert_eq!(all.iter().filter(|r| r.event == "n").count(), theirs.len());
    let of_it = |event: &str| {
        let all = all.iter().filter(|r| r.event == event);
        all.filter(|r| r.context_value("writer").is_some_and(|w| w == writer)).count()
    };
    assert_eq!((of_it("audit_recovered"), of_it("audit_gap")), (1, 0));
    let files = beside(path);
    assert!(files.iter().all(|f| f.ends_with(".jsonl.torn")), "{files:?}");
}

/// How many records a trail has, without a look at them.
fn count(path: &Path) -> u64 {
    match path.extension().unwrap().to_str().unwrap() {
        "db" => common::sql(path).query_row("SELECT count(*) FROM audit_events", [], |r| r.get(0)).unwrap(),
        _ => fs::read(path).unwrap().iter().filter(|b| **b == b'\n').count() as u64,
    }
}

/// The names of the files beside a trail.
fn beside(path: &Path) -> Vec<String> {
    let all = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    all.filter(|n| *n != path.file_name().unwrap().to_string_lossy()).collect()
}

const CASES: [(&str, bool); 4] =
    [("trail.db", true), ("trail.jsonl", true), ("trail.db", false), ("trail.jsonl", false)];

#[test]
fn a_recovery_that_is_killed_is_done_again() {
    let mut cut_short = 0;
    for (case, (name, journal)) in CASES.into_iter().enumerate() {
        let from = Dir::new();
        let Some(writer) = leave(&from, name, journal) else { continue };
        let before = count(&from.path(name));
        let whole = {
            let (_dir, path) = copy(&from, name);
            let mut opener = Opener::new(&path);
            let began = Instant::now();
            opener.go();
            assert!(opener.says("opened"));
            let whole = began.elapsed();
            assert!(opener.0.wait().unwrap().success());
            assert_recovered(&path, &writer);
            whole
        };
        for round in (0..rounds()).filter(|r| r % 4 == case as u64) {
            let (_dir, path) = copy(&from, name);
            // One after the other, each a part further, or not.
            for kill in 0..=round / 4 % 2 {
                let part = mix(round * 2 + kill) % 1_000;
                let mut opener = Opener::new(&path);
                opener.go();
                std::thread::sleep(whole.mul_f64(part as f64 / 1_000.0));
                opener.0.kill().unwrap();
                opener.0.wait().unwrap();
                let there = count(&path);
                cut_short += u64::from((before + 1..before + left()).contains(&there));
                println!("{name}, journal {journal}: killed after {part}/1000 of {whole:?}, {there} records");
            }
            close(&open(&path));
            assert_recovered(&path, &writer);
            let all = count(&path);
            close(&open(&path));
            assert_eq!(count(&path), all + 2, "once");
        }
    }
    println!("{cut_short} were killed between two transactions");
    // With few rounds none may have met that moment.
    assert!(cut_short > 0 || rounds() < 50);
}

#[test]
fn two_processes_that_recover_the_same_do_it_once() {
    for (name, journal) in CASES {
        let from = Dir::new();
        let Some(writer) = leave(&from, name, journal) else { continue };
        for _ in 0..rounds().div_ceil(16) {
            let (_dir, path) = copy(&from, name);
            let mut both = [Opener::new(&path), Opener::new(&path)];
            both.iter_mut().for_each(Opener::go);
            both.into_iter().for_each(Opener::ends);
            assert_recovered(&path, &writer);
        }
    }
}
