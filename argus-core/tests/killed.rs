//! `kill -9` and `abort` at any moment: every record whose `log` returned is in the trail after the next open, once, and the trail verifies. `ARGUS_KILL_ROUNDS` is the
//! number of kills (default 50 here; run 1,000 before a release: `just kills`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, QueueKind, Record};
use common::{Dir, WAIT, assert_ok, child, close, open, part, records};

fn rounds() -> u64 {
    std::env::var("ARGUS_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(50)
}

/// A small generator of its own: the rounds are the same each time, the moments are the machine's.
fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 7
}

/// Logs at `rate` a second and writes each number, once `log` has returned, to standard output; until it is killed, or aborts at `abort`.
fn logs_until_killed(path: &Path, rate: u64, abort: u64) -> ! {
    let logger = open(path);
    let mut out = std::fs::File::from(std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned().unwrap());
    out.write_all(format!("writer {}\n", logger.writer_id()).as_bytes()).unwrap();
    let began = Instant::now();
    for n in 0u64.. {
        let due = Duration::from_nanos(n * 1_000_000_000 / rate);
        if let Some(wait) = due.checked_sub(began.elapsed()).filter(|w| *w > Duration::from_micros(100)) {
            std::thread::sleep(wait);
        }
        if n == abort {
            std::process::abort();
        }
        logger.log(AuditEvent::info("counted").with("n", n).with("text", "some text that makes it longer")).unwrap();
        out.write_all(format!("#{n}\n").as_bytes()).unwrap();
    }
    unreachable!()
}

fn start(path: &Path, rate: u64, abort: u64) -> Child {
    child("the_child", &format!("{rate}:{abort}:{}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// The part that a child plays; alone it does nothing.
#[test]
fn the_child() {
    let Some(part) = part() else { return };
    let mut words = part.splitn(3, ':');
    let mut number = || words.next().unwrap().parse().unwrap();
    let (rate, abort) = (number(), number());
    logs_until_killed(Path::new(words.next().unwrap()), rate, abort);
}

/// What a child told: its writer, and the highest number that returned.
#[derive(Debug, PartialEq)]
struct Told {
    writer: String,
    last: u64,
}

/// Waits for the first number, lets it run for a while, kills it, and gives what it told.
fn kill(mut c: Child, after: Duration) -> Told {
    let mut out = c.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let (tell, mut first) = (std::time::Instant::now(), [0; 4096]);
        while !text.windows(3).any(|w| w == b"#0\n") && tell.elapsed() < WAIT {
            let n = out.read(&mut first).unwrap();
            assert!(n > 0, "the child ended by itself: {}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&first[..n]);
        }
        (out, text)
    });
    let (mut out, mut text) = reader.join().unwrap();
    let rest = std::thread::spawn(move || {
        let _ = out.read_to_end(&mut text);
        text
    });
    std::thread::sleep(after);
    c.kill().unwrap();
    c.wait().unwrap();
    last_told(&rest.join().unwrap())
}

fn last_told(text: &[u8]) -> Told {
    let text = String::from_utf8_lossy(text);
    // A number without its line end was being written.
    let whole = text.rsplit_once('\n').map_or("", |t| t.0);
    let writer = whole.lines().find_map(|l| Some(l.rsplit_once("writer ")?.1.to_owned())).expect("it told who it is");
    let last = whole.lines().filter_map(|l| l.rsplit_once('#')?.1.parse().ok()).max().expect("it told a number");
    Told { writer, last }
}

/// Every number of each writer up to what it told is there, once, in order.
fn assert_all(path: &Path, told: &[Told]) {
    assert_ok(path);
    let mut by_writer: HashMap<String, Vec<u64>> = HashMap::new();
    for r in records(path).iter().filter(|r| r.event == "counted") {
        by_writer.entry(r.writer.to_string()).or_default().push(number(r));
    }
    assert_eq!(by_writer.len(), told.len());
    for Told { writer, last } in told {
        let numbers = &by_writer[writer];
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "each once, in order");
        assert!(numbers.len() as u64 > *last, "{writer} told {last}, {} are there", numbers.len());
    }
    let report = AuditReader::open(path).unwrap().verify().unwrap();
    assert_eq!(report.unclosed_writers.len(), 0);
}

fn number(r: &Record) -> u64 {
    r.context_value("n").unwrap().as_u64().unwrap()
}

fn journals() -> bool {
    let dir = Dir::new();
    let (tell, told) = std::sync::mpsc::channel();
    let config = AuditConfig::new(dir.path("t.db")).on_error(move |e| drop(tell.send(e.to_string())));
    let logger = AuditLogger::open(config).unwrap();
    let journal = logger.health().queue == QueueKind::Journal;
    close(&logger);
    if !journal {
        // Only the file system may be why.
        let why = told.recv_timeout(WAIT).unwrap();
        assert!(why.contains("file system"), "{why}");
        println!("SKIPPED: {why}");
    }
    journal
}

#[test]
fn whatever_returned_survives_kill_9() {
    if !journals() {
        return;
    }
    for round in 0..rounds() {
        let dir = Dir::new();
        let path = &dir.both()[usize::from(round % 2 == 1)];
        let rate = [1_000, 100_000, 10, 1_000_000][(round / 2 % 4) as usize];
        let after = Duration::from_micros(mix(round) % if rate == 10 { 150_000 } else { 40_000 });
        let told = kill(start(path, rate, u64::MAX), after);
        // Readers work before anybody recovers; and what is recovered is recovered once, however often the trail is opened.
        assert_ok(path);
        close(&open(path));
        let last = told.last;
        assert_all(path, &[told]);
        let count = records(path).len();
        close(&open(path));
        assert_eq!(records(path).len(), count + 2);
        assert_ok(path);
        // A line of a JSONL trail that was being written is kept aside.
        let mut left: Vec<_> = std::fs::read_dir(dir.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.retain(|f| !f.to_string_lossy().ends_with(".jsonl.torn"));
        assert_eq!(left.len(), 1, "journal and lock are gone: {left:?}");
        let recovered: Vec<_> = records(path)
            .into_iter()
            .filter(|r| r.event == "audit_recovered" && r.context_value("writer").is_some())
            .collect();
        assert_eq!(recovered.len(), 1);
        assert!(
            recovered[0].context_value("last").unwrap().as_u64().unwrap() >= last + 2,
            "audit_open, and numbers from 0"
        );
        if round < 2
            && let Some((code, text)) = argus_testkit::verify_with_python(path)
        {
            assert_eq!(code, 0, "{text}");
        }
    }
}

#[test]
fn four_killed_processes_on_one_database() {
    if !journals() {
        return;
    }
    for round in 0..rounds().div_ceil(12) {
        let dir = Dir::new();
        let path = dir.path("t.db");
        close(&open(&path));
        let children: Vec<Child> = (0..4).map(|_| start(&path, 20_000, u64::MAX)).collect();
        let killers: Vec<_> = children
            .into_iter()
            .enumerate()
            .map(|(i, c)| {
                std::thread::spawn(move || kill(c, Duration::from_micros(mix(round * 4 + i as u64) % 60_000)))
            })
            .collect();
        let told: Vec<Told> = killers.into_iter().map(|k| k.join().unwrap()).collect();
        // Two recover at once.
        let others: Vec<_> =
            (0..2).map(|_| path.clone()).map(|p| std::thread::spawn(move || close(&open(&p)))).collect();
        others.into_iter().for_each(|o| o.join().unwrap());
        assert_all(&path, &told);
    }
}

#[test]
fn abort_is_no_worse() {
    if !journals() {
        return;
    }
    let dir = Dir::new();
    for path in dir.both() {
        let out = start(&path, 1_000_000, 5_000).wait_with_output().unwrap();
        assert!(!out.status.success());
        let told = last_told(&out.stdout);
        assert_eq!(told.last, 4_999);
        close(&open(&path));
        assert_all(&path, &[told]);
    }
}

#[test]
fn after_a_restart_of_the_machine_what_the_journal_holds_is_committed_and_the_rest_is_told() {
    if !journals() {
        return;
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let dir = Dir::new();
    for path in dir.both() {
        for restarted in [true, false] {
            let path = path.with_file_name(format!("{restarted}{}", path.file_name().unwrap().to_string_lossy()));
            let told = kill(start(&path, 1_000_000, u64::MAX), Duration::from_millis(5));
            if restarted {
                // As another boot left it: the file says which one, and who locked it is gone.
                let files = std::fs::read_dir(dir.0.path()).unwrap().map(|e| e.unwrap().path());
                let of_ours = |f: &std::path::PathBuf| f.to_string_lossy().starts_with(&*path.to_string_lossy());
                let lock = files.filter(of_ours).find(|f| f.extension().is_some_and(|e| e == "lock")).unwrap();
                let text = std::fs::read_to_string(&lock).unwrap();
                let other = text.replace(boot.trim(), "8ed3f6ad-685b-459e-ad70-22518e1af76c");
                assert_ne!(text, other);
                std::fs::write(&lock, other).unwrap();
            }
            // Once, however often it is opened.
            close(&open(&path));
            close(&open(&path));
            assert_all(&path, &[told]);
            let all = records(&path);
            let writer = all.iter().find(|r| r.event == "counted").unwrap().writer.to_string();
            let said = |event: &str| -> Vec<&Record> { all.iter().filter(|r| r.event == event).collect() };
            let recovered = said("audit_recovered").into_iter().find(|r| r.context_value("cause").unwrap() == "dead");
            let (recovered, gaps) = (recovered.unwrap(), said("audit_gap"));
            let text = |r: &Record, key: &str| r.context_value(key).and_then(|v| v.as_str().map(str::to_owned));
            assert_eq!(text(recovered, "writer").unwrap(), writer);
            if !restarted {
                assert_eq!((gaps.len(), text(recovered, "gap")), (0, None));
                continue;
            }
            assert_eq!(text(recovered, "gap").unwrap(), "machine_restarted");
            assert_eq!(gaps.len(), 1);
            let last = recovered.context_value("last").unwrap().as_u64().unwrap();
            assert_eq!(gaps[0].context_value("first").unwrap(), last + 1);
            assert_eq!(text(gaps[0], "reason").unwrap(), "machine_restarted");
            assert_eq!(text(gaps[0], "writer").unwrap(), writer);
            assert!(gaps[0].seq > recovered.seq);
            if let Some((code, text)) = argus_testkit::verify_with_python(&path) {
                assert_eq!(code, 0, "{text}");
            }
        }
    }
}

#[test]
fn a_killed_memory_queue_says_that_it_may_have_lost() {
    if let Some(part) = part() {
        let logger = AuditLogger::open(AuditConfig::new(part).journal(false)).unwrap();
        logger.log_durable(AuditEvent::info("durable")).unwrap();
        std::process::abort();
    }
    let dir = Dir::new();
    for path in dir.both() {
        let c = child("a_killed_memory_queue_says_that_it_may_have_lost", path.to_str().unwrap()).output().unwrap();
        assert!(!c.status.success());
        close(&open(&path));
        let all = records(&path);
        let gap = all.iter().find(|r| r.event == "audit_gap").unwrap();
        assert_eq!(gap.context_value("reason").unwrap(), "process_died");
        assert_eq!(gap.context_value("first").unwrap(), 3);
        assert!(all.iter().any(|r| r.event == "durable"));
        assert_ok(&path);
        if let Some((code, text)) = argus_testkit::verify_with_python(&path) {
            assert_eq!(code, 0, "{text}");
        }
    }
}
