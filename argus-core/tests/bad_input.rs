//! Bad input gets a typed error that says what, where and what to do; nothing accepted is lost, no other thread is disturbed.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::fs::PermissionsExt;

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, ErrorKind, Faults, Level,
    MemoryTrail, QueueKind, StoreFault, Value,
};
use common::{Dir, close, open, sql};
use serde::{Serialize, Serializer};

fn memory() -> (AuditLogger, MemoryTrail) {
    let trail = MemoryTrail::new();
    (AuditLogger::open_in_memory(AuditConfig::default(), &trail).unwrap(), trail)
}

#[test]
fn bad_events_are_refused_one_by_one() {
    struct Panics;
    impl Serialize for Panics {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("on purpose")
        }
    }
    let (logger, trail) = memory();
    let big = "x".repeat(300 << 10);
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let name = "e".repeat(257);
    let many: Vec<(String, usize)> = (0..129).map(|i| (format!("k{i}"), i)).collect();
    let many: Vec<(&str, Value<'_>)> = many.iter().map(|(k, v)| (k.as_str(), Value::from(*v))).collect();
    let info = || AuditEvent::info("e");
    let invalid = |e: AuditEvent<'_>, field: &str, says: &str| match logger.log(e) {
        Err(AuditError::Invalid { field: f, reason }) => {
            assert_eq!(f, field);
            assert!(reason.contains(says), "{reason}");
        }
        other => panic!("{field}: {other:?}"),
    };
    invalid(info().with("n", f64::NAN), "context.n", "NaN");
    invalid(info().new_value(f64::INFINITY), "new_value", "infinit");
    invalid(info().old_value(Value::json(r#"{"a":1,"a":2}"#)), "old_value", "twice");
    invalid(info().with("a", 1).with("a", 2), "context", "twice");
    invalid(info().with("$argus.redacted", "x"), "context.$argus.redacted", "reserved");
    invalid(info().new_value(Value::json(r#"[{"$argus.x":1}]"#)), "new_value", "reserved");
    invalid(info().new_value(Value::json("18446744073709551616")), "new_value", "2^64-1");
    invalid(info().new_value(&(i128::from(i64::MIN) - 1)), "new_value", "2^63");
    invalid(info().new_value(Value::json(r#""\ud800""#)), "new_value", "surrogate");
    invalid(info().new_value(Value::json("{")), "new_value", "not JSON");
    invalid(AuditEvent::info(""), "event", "name");
    invalid(AuditEvent::info("a\0b"), "event", "NUL");
    let far = std::time::UNIX_EPOCH + std::time::Duration::from_secs(400_000_000_000);
    invalid(info().at(far), "timestamp", "9999");
    let large = |e: AuditEvent<'_>, field: &str| {
        assert!(matches!(logger.log(e), Err(AuditError::TooLarge { field: f, .. }) if f == field), "{field}")
    };
    large(info().new_value(big.as_str()), "record");
    large(info().new_value(Value::json(&deep)), "new_value");
    large(AuditEvent::info(&name), "event");
    large(info().context(&many), "context");
    assert_eq!(logger.log(info().new_value(&Panics)), Err(AuditError::Panicked { field: "new_value".into() }));
    // The thread's buffers and every other record are unharmed.
    logger.log(AuditEvent::info("fine").with("json", Value::json_or_text("{not json"))).unwrap();
    assert_eq!(logger.health().rejected, 18);
    close(&logger);
    assert_eq!(logger.log(info()), Err(AuditError::Closed));
    assert!(logger.close(common::WAIT).already_closed);
    let lines = trail.lines();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].contains(r#""context":{"json":"{not json"}"#), "{}", lines[1]);
}

#[test]
fn a_record_just_under_the_cap_is_taken_whatever_needs_escaping() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = open(&path);
        for text in ["\u{1}".repeat(40_000), "é".repeat(120_000), "\"".repeat(120_000)] {
            logger.log(AuditEvent::info("big").new_value(text.as_str()).user_agent(&"\\".repeat(5_000))).unwrap();
        }
        close(&logger);
        common::assert_ok(&path);
    }
}

#[test]
fn a_serialize_that_logs_gets_its_own_buffers() {
    struct Logs(AuditLogger);
    impl Serialize for Logs {
        fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            self.0.log(AuditEvent::info("inner").with("x", 1)).unwrap();
            s.serialize_str("outer value")
        }
    }
    let (logger, trail) = memory();
    logger.log(AuditEvent::info("outer").new_value(&Logs(logger.clone()))).unwrap();
    close(&logger);
    let text = trail.lines().join("\n");
    assert!(text.contains(r#""event":"inner""#) && text.contains(r#""new_value":"outer value""#));
}

#[test]
fn files_that_are_no_trail_are_refused_by_name() {
    let dir = Dir::new();
    let kind = |name: &str| {
        let e = AuditLogger::open(AuditConfig::new(dir.path(name))).unwrap_err();
        assert!(e.to_string().contains(name), "names the file: {e}");
        e.kind()
    };
    std::fs::write(dir.path("text.db"), "not a database at all\n".repeat(100)).unwrap();
    assert_eq!(kind("text.db"), ErrorKind::NotATrail);
    std::fs::write(dir.path("short.db"), "hello").unwrap();
    assert_eq!(kind("short.db"), ErrorKind::NotATrail);
    sql(&dir.path("other.db")).execute_batch("CREATE TABLE t (x)").unwrap();
    assert_eq!(kind("other.db"), ErrorKind::NotATrail);
    std::fs::write(dir.path("unended.jsonl"), "{\"a\":1}").unwrap();
    assert_eq!(kind("unended.jsonl"), ErrorKind::NotATrail);
    assert!(!dir.path("unended.jsonl.torn").exists());
    assert_eq!(AuditReader::open(dir.path("unended.jsonl")).unwrap_err().kind(), ErrorKind::NotATrail);
    std::fs::write(dir.path("other.jsonl"), "{\"a\":1}\n").unwrap();
    assert_eq!(kind("other.jsonl"), ErrorKind::NotATrail);
    std::fs::write(dir.path("go.jsonl"), "{\"timestamp\":\"2026-11-23T05:55:06Z\",\"level\":2,\"event\":\"x\"}\n")
        .unwrap();
    assert_eq!(kind("go.jsonl"), ErrorKind::GoTrail);
    close(&open(&dir.path("newer.db")));
    common::tamper(&dir.path("newer.db"), "UPDATE schema_info SET version = 4");
    assert_eq!(kind("newer.db"), ErrorKind::NewerVersion);
    assert_eq!(AuditReader::open(dir.path("newer.db")).unwrap_err().kind(), ErrorKind::NewerVersion);
    close(&open(&dir.path("planted.db")));
    common::tamper(
        &dir.path("planted.db"),
        "CREATE TRIGGER evil AFTER INSERT ON audit_events BEGIN DELETE FROM audit_events; END",
    );
    assert_eq!(kind("planted.db"), ErrorKind::SchemaMismatch);
    std::fs::create_dir(dir.path("folder.db")).unwrap();
    assert_eq!(kind("folder.db"), ErrorKind::NotATrail);
    std::os::unix::fs::symlink(dir.path("short.db"), dir.path("link.db")).unwrap();
    assert_eq!(kind("link.db"), ErrorKind::Unsafe);
    std::fs::hard_link(dir.path("text.db"), dir.path("hard.db")).unwrap();
    assert_eq!(kind("hard.db"), ErrorKind::Unsafe);
    assert_eq!(AuditReader::open(dir.path("missing.db")).unwrap_err().kind(), ErrorKind::NotFound);
    let bad = AuditConfig::new(dir.path("c.db")).with("$argus.x", 1);
    assert_eq!(AuditLogger::open(bad).unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn the_go_librarys_own_databases_are_refused_and_left_as_they_are() {
    let dir = Dir::new();
    let path = dir.path("go.db");
    sql(&path)
        .execute_batch(
            "CREATE TABLE schema_info (version INTEGER PRIMARY KEY); INSERT INTO schema_info VALUES (2);
             CREATE TABLE audit_events (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL)",
        )
        .unwrap();
    let rows = |p| sql(p).query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get::<_, i64>(0)).unwrap();
    let before = rows(&path);
    let bytes = std::fs::read(&path).unwrap();
    let e = AuditLogger::open(AuditConfig::new(&path)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::GoTrail);
    assert!(e.to_string().contains("Go library"));
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "not even its journal mode");
    assert_eq!(rows(&path), before);
}

#[test]
fn modes_are_private_and_world_writable_folders_are_refused() {
    let dir = Dir::new();
    let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o7777;
    for name in ["new/deep/trail.db", "new/deep/trail.jsonl"] {
        let logger = open(&dir.path(name));
        logger.log_durable(AuditEvent::info("x")).unwrap();
        for entry in std::fs::read_dir(dir.path("new/deep")).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
        close(&logger);
    }
    assert_eq!(mode(&dir.path("new/deep")), 0o700);
    for name in ["trail.db", "trail.jsonl"] {
        // The files of a living logger, too: lock, journal, pending file.
        let faults = Faults::new();
        let shared = AuditConfig::new(dir.path("shared").join(name)).file_mode(0o660).faults(&faults);
        let logger = AuditLogger::open(shared).unwrap();
        faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
        logger.log_durable(AuditEvent::info("x")).unwrap();
        let all = std::fs::read_dir(dir.path("shared")).unwrap().map(|e| e.unwrap().path());
        let all: Vec<_> = all.filter(|p| p.to_string_lossy().contains(name)).collect();
        let has = |part: &str| all.iter().any(|p| p.to_string_lossy().contains(part));
        assert!(has(".lock") && has(".pending.") && (has(".journal") || logger.health().queue == QueueKind::Memory));
        assert!(all.iter().all(|p| mode(p) == 0o660), "{all:?}");
        faults.heal();
        close(&logger);
    }
    assert_eq!(mode(&dir.path("shared")), 0o770);
    std::fs::create_dir(dir.path("open")).unwrap();
    std::fs::set_permissions(dir.path("open"), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(AuditLogger::open(AuditConfig::new(dir.path("open/t.db"))).unwrap_err().kind(), ErrorKind::Unsafe);
}

#[test]
fn levels_gate_and_a_disabled_logger_touches_nothing() {
    let trail = MemoryTrail::new();
    let logger = AuditLogger::open_in_memory(AuditConfig::default().min_level(Level::Critical), &trail).unwrap();
    assert!(!logger.enabled(Level::Warn) && logger.enabled(Level::Security));
    assert_eq!(logger.log(AuditEvent::warn("w")), Ok(None));
    assert_eq!(logger.log_durable(AuditEvent::info("i")), Err(AuditError::Filtered));
    assert_eq!(logger.health().filtered, 2);
    close(&logger);
    let dir = Dir::new();
    let off = AuditLogger::open(AuditConfig::new(dir.path("off.db")).enabled(false)).unwrap();
    assert_eq!(off.log(AuditEvent::security("s")), Ok(None));
    assert!(!dir.path("off.db").exists());
}

#[test]
fn observers_hear_of_commits_and_may_call_back_without_deadlock() {
    use argus_core::{Carrier, CommitObserver, Interest, Receipt, Record};
    use std::sync::{Arc, Mutex, mpsc};
    struct Watch(Mutex<Vec<(String, Option<u64>)>>, Mutex<Option<AuditLogger>>, mpsc::Sender<()>);
    impl CommitObserver for Watch {
        fn interest(&self) -> Interest {
            Interest::All
        }
        fn committed(&self, record: &Record, receipt: &Receipt, _: &Carrier<'_>) {
            self.0.lock().unwrap().push((record.event.clone(), receipt.seq));
            let logger = self.1.lock().unwrap().clone();
            if let (Some(l), "panics") = (&logger, record.event.as_str()) {
                assert_eq!(l.flush(common::WAIT).and(Ok(())), Ok(()));
                // Whichever is faster: the commit, or the look whether it is there. There is no wait.
                let result = l.log_durable(AuditEvent::info("from_observer"));
                assert!(matches!(result, Ok(_) | Err(AuditError::OnArgusThread)), "{result:?}");
                self.2.send(()).unwrap();
                panic!("an observer's panic is its own");
            }
        }
    }
    let (logger, _trail) = memory();
    let (called_back, wait_for_call) = mpsc::channel();
    let watch = Arc::new(Watch(Mutex::default(), Mutex::new(Some(logger.clone())), called_back));
    let id = logger.subscribe(watch.clone()).unwrap();
    logger.log(AuditEvent::info("one")).unwrap();
    logger.log_durable(AuditEvent::info("panics")).unwrap();
    wait_for_call.recv_timeout(common::WAIT).unwrap();
    close(&logger);
    *watch.1.lock().unwrap() = None;
    logger.unsubscribe(id);
    let seen = watch.0.lock().unwrap().clone();
    let names: Vec<_> = seen.iter().map(|s| s.0.as_str()).collect();
    assert_eq!(names, ["one", "panics", "from_observer", "audit_close"]);
    assert_eq!(seen[0].1, Some(2));
    assert_eq!(logger.health().observer_missed, 1);
}
