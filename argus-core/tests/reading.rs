//! Queries and tails give each record exactly once, on both stores, in both orders, whatever the filter, the page, and who writes meanwhile.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use argus_core::{
    ActorType, AuditEvent, AuditReader, AuditSinkExt, ErrorKind, Filter, Level, Record, Trace, TraceContext,
};
use common::{Dir, assert_ok, close, open, records, sql, tamper};

/// More than one step of a scan.
const MANY: u64 = 4_600;

fn time(i: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + i)
}

/// Records of all kinds, in times that mostly rise.
fn fill(path: &std::path::Path, n: u64) {
    let logger = open(path);
    let files = ["/etc/a.yaml", "/etc/b.yaml", "/var/c"];
    let names = ["alpha", "beta", "gamma", "delta", "epsilon"];
    for i in 0..n {
        let trace = TraceContext {
            trace_id: [u8::try_from(i % 7).unwrap() + 1; 16],
            span_id: [9; 8],
            flags: 1,
            remote: false,
            trace_state: "",
        };
        let level = [Level::Info, Level::Info, Level::Warn, Level::Critical, Level::Security][(i % 5) as usize];
        let mut e =
            AuditEvent::new(level, names[(i % 3 + i % 2) as usize]).at(time(if i % 100 == 0 { i / 2 } else { i }));
        e = e.component(["web", "db"][(i % 2) as usize]).with("n", i % 11);
        if i % 4 == 0 {
            e = e.file_path(files[(i / 4 % 3) as usize]);
        }
        if i % 6 == 0 {
            e = e.trace(Trace::Parent(trace));
        }
        if i % 9 == 0 {
            e = e.actor("jane", ActorType::User);
        }
        logger.log(e).unwrap();
    }
    close(&logger);
}

type Rule = (Filter, Box<dyn Fn(&Record) -> bool>);

fn rules() -> Vec<Rule> {
    fn rule(f: Filter, is: impl Fn(&Record) -> bool + 'static) -> Rule {
        (f, Box::new(is))
    }
    vec![
        rule(Filter::new(), |_| true),
        rule(Filter::new().min_level(Level::Critical), |r| r.level >= Level::Critical),
        rule(Filter::new().event("delta"), |r| r.event == "delta"),
        rule(Filter::new().event("no such event"), |_| false),
        rule(Filter::new().since(time(4_200)), |r| r.timestamp >= time(4_200)),
        rule(Filter::new().since(time(4_200)).until(time(4_300)), |r| {
            (time(4_200)..time(4_300)).contains(&r.timestamp)
        }),
        rule(Filter::new().until(time(50)), |r| r.timestamp < time(50)),
        rule(Filter::new().until(SystemTime::now() + Duration::from_secs(400_000_000_000)), |_| true),
        rule(Filter::new().since(SystemTime::now() + Duration::from_secs(400_000_000_000)), |_| false),
        rule(Filter::new().file("/etc/a.yaml"), |r| r.file_path.as_deref() == Some("/etc/a.yaml")),
        rule(Filter::new().file("/etc/a.yaml").min_level(Level::Security).since(time(100)), |r| {
            r.file_path.as_deref() == Some("/etc/a.yaml") && r.level == Level::Security && r.timestamp >= time(100)
        }),
        rule(Filter::new().file_prefix("/etc/"), |r| r.file_path.as_ref().is_some_and(|f| f.starts_with("/etc/"))),
        rule(Filter::new().trace("02".repeat(16)), |r| r.trace_id == Some([2; 16])),
        rule(Filter::new().trace("02".repeat(16)).file("/var/c").component("web"), |r| {
            r.trace_id == Some([2; 16]) && r.file_path.as_deref() == Some("/var/c") && r.component == "web"
        }),
        rule(Filter::new().actor("jane").context("n", 3), |r| {
            r.actor_id.as_deref() == Some("jane") && r.context_value("n") == Some(3.into())
        }),
        rule(Filter::new().app("tests"), |r| r.event != "audit_segment"),
        rule(Filter::new().pid(std::process::id().into()).component("db"), |r| r.component == "db"),
        rule(Filter::new().pid(u64::MAX), |_| false),
    ]
}

#[test]
fn every_filter_gives_each_record_once_in_both_orders_and_in_pages_of_any_size() {
    let dir = Dir::new();
    for path in dir.both() {
        fill(&path, MANY);
        let reader = AuditReader::open(&path).unwrap();
        let all = records(&path);
        assert!(all.len() as u64 >= MANY + 2);
        for (i, (filter, is)) in rules().into_iter().enumerate() {
            let mut wanted: Vec<u64> = all.iter().filter(|r| is(r)).map(|r| r.seq.unwrap()).collect();
            for down in [false, true] {
                let filter = if down { filter.clone().newest_first() } else { filter.clone() };
                if down {
                    wanted.reverse();
                }
                let got: Vec<u64> = reader.query(filter.clone()).unwrap().map(|r| r.unwrap().seq.unwrap()).collect();
                assert_eq!(got, wanted, "{path:?}, filter {i}, down: {down}");
                let (mut got, mut next, size) = (Vec::new(), filter.clone().limit(997), 997);
                loop {
                    let page: Vec<u64> = reader.query(next.clone()).unwrap().map(|r| r.unwrap().seq.unwrap()).collect();
                    got.extend_from_slice(&page);
                    if page.len() < size {
                        break;
                    }
                    next = next.after(*page.last().unwrap());
                }
                assert_eq!(got, wanted, "{path:?}, filter {i}, down: {down}, by the cursor");
                if !down {
                    let mut tail = reader.tail(filter.after(0));
                    let mut got = Vec::new();
                    loop {
                        let batch = tail.poll().unwrap();
                        assert!(batch.len() <= 4096);
                        if batch.is_empty() {
                            break;
                        }
                        got.extend(batch.iter().map(|r| r.seq.unwrap()));
                    }
                    assert_eq!(got, wanted, "{path:?}, filter {i}, tail");
                    assert_eq!(tail.cursor(), all.last().unwrap().seq.unwrap(), "{path:?}, filter {i}");
                }
            }
        }
        for seq in [0, 1, 4500, all.len() as u64, all.len() as u64 + 1, u64::MAX] {
            assert_eq!(reader.by_seq(seq).unwrap(), all.iter().find(|r| r.seq == Some(seq)).cloned());
        }
        assert_eq!(reader.by_id(all[77].record_id).unwrap(), Some(all[77].clone()));
        assert_eq!(reader.by_id("01900000-0000-7000-8000-000000000000".parse().unwrap()).unwrap(), None);
        assert_eq!(reader.query(Filter::new().limit(0)).unwrap().count(), 0);
        assert_eq!(reader.query(Filter::new().after(u64::MAX)).unwrap().count(), 0);
        assert_eq!(reader.query(Filter::new().newest_first().after(u64::MAX)).unwrap().count(), all.len());
        assert_eq!(reader.query(Filter::new().newest_first().after(1)).unwrap().count(), 0);
        assert_eq!(reader.query(Filter::new().newest_first().after(0)).unwrap().count(), 0);
    }
}

#[test]
fn a_tail_goes_on_from_where_it_was_however_little_met_its_filter() {
    let dir = Dir::new();
    for path in dir.both() {
        fill(&path, 10);
        let reader = AuditReader::open(&path).unwrap();
        let mut rare = reader.tail(Filter::new().event("rare"));
        let mut all = reader.tail(Filter::new());
        assert_eq!(rare.poll().unwrap(), []);
        let before = all.poll().unwrap().len() as u64;
        assert_eq!((rare.cursor(), all.cursor()), (before, before));
        let logger = open(&path);
        logger.log_durable(AuditEvent::info("rare")).unwrap();
        assert_eq!(rare.poll().unwrap().len(), 1);
        assert_eq!(rare.poll().unwrap().len(), 0);
        assert_eq!(all.poll().unwrap().len(), 2);
        // Another reader goes on from the cursor.
        let again = AuditReader::open(&path).unwrap();
        let mut resumed = again.tail(Filter::new().after(rare.cursor()));
        assert_eq!(resumed.poll().unwrap(), []);
        close(&logger);
        assert_eq!(resumed.poll().unwrap().len(), 1);
        assert_eq!((rare.poll().unwrap().len(), all.poll().unwrap().len()), (0, 1));
        assert_eq!(rare.cursor(), before + 3);
    }
}

#[test]
fn writers_that_come_while_a_trail_is_read_are_neither_damage_nor_missed() {
    const WRITERS: usize = 40;
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path, 1);
    let (done, tailing) = (AtomicBool::new(false), &path);
    let (seen, verified) = std::thread::scope(|s| {
        let tail = s.spawn(|| {
            let reader = AuditReader::open(tailing).unwrap();
            let (mut tail, mut seen) = (reader.tail(Filter::new()), Vec::new());
            loop {
                let last = done.load(Ordering::SeqCst);
                let batch = tail.poll().unwrap();
                if batch.is_empty() && last {
                    return seen;
                }
                seen.extend(batch.iter().map(|r| r.seq.unwrap()));
            }
        });
        let verifier = s.spawn(|| {
            let reader = AuditReader::open(tailing).unwrap();
            let mut n = 0;
            while !done.load(Ordering::SeqCst) {
                let report = reader.verify().unwrap();
                assert!(report.is_ok(), "{report}");
                n += 1;
            }
            n
        });
        // (A panic here must end the others, too: else nobody sees it.)
        let wrote = std::panic::catch_unwind(|| {
            for _ in 0..WRITERS {
                let logger = open(&path);
                logger.log(AuditEvent::info("hello")).unwrap();
                close(&logger);
            }
        });
        done.store(true, Ordering::SeqCst);
        wrote.unwrap();
        (tail.join().unwrap(), verifier.join().unwrap())
    });
    assert!(verified > 0);
    assert_eq!(seen, (1..=3 * WRITERS as u64 + 3).collect::<Vec<_>>());
}

#[test]
fn a_reader_through_a_link_follows_the_file_behind_it() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path, 1);
    std::fs::create_dir(dir.path("links")).unwrap();
    let link = dir.path("links/audit.db");
    std::os::unix::fs::symlink("../trail.db", &link).unwrap();
    let reader = AuditReader::open(&link).unwrap();
    assert_eq!(reader.path(), link);
    let mut tail = reader.tail(Filter::new());
    assert_eq!(tail.poll().unwrap().len(), 3);
    let logger = open(&path);
    logger.log_durable(AuditEvent::info("more")).unwrap();
    assert_eq!(tail.poll().unwrap().len(), 2, "audit_open and more, still in the -wal");
    assert!(reader.verify().unwrap().is_ok());
    close(&logger);
    assert_eq!(tail.poll().unwrap().len(), 1);
    assert_ok(&link);
}

#[test]
fn a_copy_is_read_whatever_stands_beside_it_and_a_writer_that_comes_is_noticed() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path, 1);
    // An empty -wal, as a backup of a checkpointed database has it.
    std::fs::write(dir.path("trail.db-wal"), b"").unwrap();
    assert_eq!(records(&path).len(), 3);
    assert_ok(&path);
    let logger = open(&path);
    logger.log_durable(AuditEvent::info("in_the_wal")).unwrap();
    let copy = Dir::new();
    for s in ["", "-wal"] {
        std::fs::copy(dir.path(&format!("trail.db{s}")), copy.path(&format!("trail.db{s}"))).unwrap();
    }
    close(&logger);
    let reader = AuditReader::open(copy.path("trail.db")).unwrap();
    let mut tail = reader.tail(Filter::new());
    assert_eq!(tail.poll().unwrap().len(), 5);
    let writer = open(&copy.path("trail.db"));
    writer.log_durable(AuditEvent::info("later")).unwrap();
    let events: Vec<String> = tail.poll().unwrap().into_iter().map(|r| r.event).collect();
    // In the copy, the other writer is one that died.
    assert_eq!(events, ["audit_recovered", "audit_gap", "audit_open", "later"]);
    assert!(reader.verify().unwrap().is_ok());
    close(&writer);
    assert_eq!(tail.poll().unwrap().len(), 1);
    // Another file in its place is another trail.
    std::fs::rename(&path, copy.path("trail.db")).unwrap();
    let _ = std::fs::remove_file(copy.path("trail.db-wal"));
    let _ = std::fs::remove_file(copy.path("trail.db-shm"));
    assert_eq!(reader.stats().unwrap().records, 6);
}

#[test]
fn what_is_no_record_is_counted_and_does_not_end_a_query() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path, 20);
    tamper(
        &path,
        "PRAGMA foreign_keys=OFF; UPDATE audit_events SET context = x'00' WHERE id = 7; UPDATE audit_events SET writer = 99 WHERE id = 9",
    );
    let jsonl = dir.path("trail.jsonl");
    fill(&jsonl, 20);
    let text = std::fs::read(&jsonl).unwrap();
    let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
    std::fs::write(&jsonl, [&lines[..7].concat(), &b"\xff\xfe\n{}\n"[..], &lines[9..].concat()].concat()).unwrap();
    for (path, n) in [(path, 20), (jsonl, 21)] {
        let reader = AuditReader::open(&path).unwrap();
        for filter in [Filter::new(), Filter::new().newest_first()] {
            let mut query = reader.query(filter).unwrap();
            assert_eq!((query.by_ref().map(Result::unwrap).count(), query.damaged()), (n, 2), "{path:?}");
        }
        let mut tail = reader.tail(Filter::new());
        assert_eq!((tail.poll().unwrap().len(), tail.damaged()), (n, 2));
        let stats = reader.stats().unwrap();
        assert_eq!((stats.records, stats.damaged), (n as u64, 2));
    }
}

#[test]
fn stats_are_the_counts_of_sql() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path, 5_000);
    let stats = AuditReader::open(&path).unwrap().stats().unwrap();
    let c = sql(&path);
    let one = |q: &str| c.query_row(q, [], |r| r.get::<_, String>(0)).unwrap();
    let by = |column: &str| {
        let mut s = c.prepare(&format!("SELECT {column}, count(*) FROM audit_events GROUP BY 1")).unwrap();
        let rows = s.query_map([], |r| Ok((r.get(0)?, r.get::<_, i64>(1)?.unsigned_abs()))).unwrap();
        rows.map(Result::unwrap).collect::<std::collections::BTreeMap<String, u64>>()
    };
    assert_eq!(stats.records.to_string(), one("SELECT CAST(count(*) AS TEXT) FROM audit_events"));
    assert_eq!((&stats.by_level, &stats.by_event, &stats.by_component), (&by("level"), &by("event"), &by("component")));
    assert_eq!(stats.oldest.unwrap(), one("SELECT min(timestamp) FROM audit_events"));
    assert_eq!(stats.newest.unwrap(), one("SELECT max(timestamp) FROM audit_events"));
    assert_eq!((stats.writers, stats.damaged), (1, 0));
}

#[test]
fn a_pipe_is_no_trail_and_is_not_waited_for() {
    let dir = Dir::new();
    for path in dir.both() {
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(AuditReader::open(&path).unwrap_err().kind(), ErrorKind::NotATrail);
    }
}

#[test]
fn a_context_value_is_equal_if_its_canonical_text_is() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = open(&path);
        let member = serde_json::json!({"b": [1, 2.5], "a": null});
        logger
            .log(
                AuditEvent::info("e")
                    .with("one", 1.0)
                    .with("big", 1e21)
                    .with("no", false)
                    .with("o", &member)
                    .with("s", "1"),
            )
            .unwrap();
        close(&logger);
        let reader = AuditReader::open(&path).unwrap();
        let count = |key: &str, value: serde_json::Value| {
            reader.query(Filter::new().context(key, value)).unwrap().map(Result::unwrap).count()
        };
        for (key, value, n) in [
            ("one", 1.into(), 1),
            ("one", 1.0.into(), 1),
            ("one", "1".into(), 1),
            ("one", "1.0".into(), 0),
            ("big", 1e21.into(), 1),
            ("big", "1e+21".into(), 1),
            ("no", false.into(), 1),
            ("no", "false".into(), 1),
            ("no", serde_json::Value::Null, 0),
            ("o", member.clone(), 1),
            ("s", "1".into(), 1),
            ("s", 1.into(), 0),
            ("none", "1".into(), 0),
        ] {
            assert_eq!(count(key, value.clone()), n, "{key} {value}");
        }
    }
}
