//! What is accepted reads back equal and verifies, on both stores; reading changes nothing; each kind of tampering is named.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use argus_core::{
    ActorType, AuditConfig, AuditError, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Filter, Level,
    Outcome, Trace, TraceContext, audit,
};
use common::{Dir, WAIT, assert_ok, child, close, findings, open, part, records, snapshot, sql, tamper};
use serde_json::json;

fn fill(path: &std::path::Path) {
    let logger = open(path);
    logger.log_config_change("/etc/app.yaml", &json!({"port": 1}), &json!({"port": 2, "password": "hunter2"})).unwrap();
    logger.log(AuditEvent::security("login_denied").actor("jane", ActorType::User).with("ip", "192.0.2.7")).unwrap();
    audit!(logger, Info, "cache_flushed", entries = 12, "cache.name" = "sessions").unwrap();
    close(&logger);
}

#[test]
fn every_field_reads_back_equal_on_both_stores() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = open(&path);
        let at = UNIX_EPOCH + Duration::new(1_700_000_000, 123);
        let parent =
            TraceContext { trace_id: [0xab; 16], span_id: [0xcd; 8], flags: 1, remote: false, trace_state: "" };
        let id = logger
            .log(
                AuditEvent::critical("config_change")
                    .component("web")
                    .file_path("/etc/ünïcode \"q\".yaml")
                    .user_agent("curl/8")
                    .actor("jane", ActorType::Service)
                    .action("edit")
                    .outcome(Outcome::Success)
                    .old_value(&json!(null))
                    .new_value(&json!({"b": [1, 2.5, "x\n"], "a": u64::MAX}))
                    .trace(Trace::Parent(parent))
                    .at(at)
                    .with("n", 1)
                    .with("gone", &None::<u8>)
                    .with("null", &()),
            )
            .unwrap()
            .unwrap();
        close(&logger);
        let all = records(&path);
        let names: Vec<_> = all.iter().map(|r| r.event.as_str()).collect();
        let expected: &[&str] = if path.extension().unwrap() == "db" {
            &["audit_open", "config_change", "audit_close"]
        } else {
            &["audit_segment", "audit_open", "config_change", "audit_close"]
        };
        assert_eq!(names, expected);
        let r = all.iter().find(|r| r.event == "config_change").unwrap();
        assert_eq!((r.record_id, r.timestamp, r.level), (id, at, Level::Critical));
        assert_eq!(r.component, "web");
        assert_eq!(r.file_path.as_deref(), Some("/etc/ünïcode \"q\".yaml"));
        assert_eq!(
            (r.user_agent.as_deref(), r.actor_id.as_deref(), r.actor_type),
            (Some("curl/8"), Some("jane"), Some(ActorType::Service))
        );
        assert_eq!((r.action.as_deref(), r.outcome), (Some("edit"), Some(Outcome::Success)));
        assert_eq!(r.old_value.as_ref().unwrap().as_str(), "null");
        assert_eq!(r.new_value.as_ref().unwrap().as_str(), r#"{"a":18446744073709551615,"b":[1,2.5,"x\n"]}"#);
        assert_eq!(r.context.as_str(), r#"{"n":1,"null":null}"#);
        assert_eq!((r.trace_id, r.span_id), (Some([0xab; 16]), Some([0xcd; 8])));
        assert_eq!((r.process_id, r.writer, r.writer_seq), (std::process::id().into(), logger.writer_id(), 2));
        assert_eq!(r.original_output_file, path.to_string_lossy());
        assert_ok(&path);
    }
}

#[test]
fn reading_changes_no_byte_even_beside_a_live_writer_or_after_a_crash() {
    let dir = Dir::new();
    for path in dir.both() {
        fill(&path);
    }
    let look = || {
        for path in dir.both() {
            let reader = AuditReader::open(&path).unwrap();
            assert!(reader.verify().unwrap().is_ok());
            assert_eq!(
                reader.query(Filter::new().newest_first().limit(1)).unwrap().next().unwrap().unwrap().event,
                "audit_close"
            );
            assert_eq!(reader.stats().unwrap().by_event["login_denied"], 1);
            assert!(reader.tail(Filter::new()).poll().unwrap().len() >= 5);
        }
    };
    let before = snapshot(dir.0.path());
    assert_eq!(before.len(), 2, "a closed trail is one file: {:?}", before.keys());
    look();
    assert_eq!(snapshot(dir.0.path()), before);

    // A copy of the database with the -wal of a live writer, as a crash or a backup leaves it; with and without the -shm.
    // Without a journal: its files are made while the child looks.
    let logger =
        argus_core::AuditLogger::open(argus_core::AuditConfig::new(dir.path("trail.db")).journal(false)).unwrap();
    logger.log_durable(AuditEvent::info("still_in_the_wal")).unwrap();
    for suffixes in [&["", "-wal"][..], &["", "-wal", "-shm"]] {
        let copy = Dir::new();
        for s in suffixes {
            std::fs::copy(dir.path(&format!("trail.db{s}")), copy.path(&format!("trail.db{s}"))).unwrap();
        }
        let before = snapshot(copy.0.path());
        let seen = records(&copy.path("trail.db"));
        assert_eq!(seen.last().unwrap().event, "still_in_the_wal");
        assert_ok(&copy.path("trail.db"));
        assert_eq!(snapshot(copy.0.path()), before, "{suffixes:?}");
    }
    // Beside the live writer, from another process: its records are seen, and nothing of the folder changes.
    let seen = child("a_reader_beside_a_live_writer", dir.path("trail.db").to_str().unwrap()).output().unwrap();
    assert!(seen.status.success(), "{}", String::from_utf8_lossy(&seen.stdout));
    close(&logger);
}

/// The child of the test above; alone it does nothing.
#[test]
fn a_reader_beside_a_live_writer() {
    let Some(path) = part().map(std::path::PathBuf::from) else { return };
    let before = snapshot(path.parent().unwrap());
    assert_eq!(before.len(), 5, "the two trails, -wal, -shm and the lock of the writer: {:?}", before.keys());
    assert_eq!(records(&path).last().unwrap().event, "still_in_the_wal");
    assert_ok(&path);
    assert_eq!(snapshot(path.parent().unwrap()), before);
}

#[test]
fn a_reader_goes_on_while_a_writer_opens_writes_and_closes() {
    let dir = Dir::new();
    for path in dir.both() {
        fill(&path);
        let reader = AuditReader::open(&path).unwrap();
        let mut tail = reader.tail(Filter::new());
        let first = tail.poll().unwrap().len();
        for round in 0..3 {
            let logger = open(&path);
            logger.log_durable(AuditEvent::info("more").with("round", round)).unwrap();
            assert_eq!(tail.poll().unwrap().len(), 2, "audit_open and more");
            close(&logger);
            assert_eq!(tail.poll().unwrap().len(), 1, "audit_close");
        }
        assert!(first >= 5);
        assert!(reader.verify().unwrap().is_ok());
    }
}

#[test]
fn filters_agree_on_both_stores() {
    let dir = Dir::new();
    for path in dir.both() {
        fill(&path);
        let reader = AuditReader::open(&path).unwrap();
        let count = |f: Filter| reader.query(f).unwrap().map(Result::unwrap).count();
        assert_eq!(count(Filter::new().event("login_denied")), 1);
        assert_eq!(count(Filter::new().min_level(Level::Critical)), 2);
        assert_eq!(count(Filter::new().actor("jane").context("ip", "192.0.2.7")), 1);
        assert_eq!(count(Filter::new().context("entries", "12")), 1);
        assert_eq!(count(Filter::new().context("entries", 12)), 1);
        assert_eq!(count(Filter::new().context("entries", 13)), 0);
        assert_eq!(count(Filter::new().file("/etc/app.yaml")), 1);
        assert_eq!(count(Filter::new().file_prefix("/etc/")), 1);
        assert_eq!(count(Filter::new().file_prefix("/var/")), 0);
        assert!(count(Filter::new().app("tests")) >= 5);
        assert_eq!(count(Filter::new().app("other")), 0);
        assert_eq!(count(Filter::new().pid(1 << 40)), 0);
        assert_eq!(count(Filter::new().since(std::time::SystemTime::now() + Duration::from_secs(60))), 0);
        let up: Vec<_> = reader.query(Filter::new()).unwrap().map(|r| r.unwrap().seq).collect();
        let mut down: Vec<_> = reader.query(Filter::new().newest_first()).unwrap().map(|r| r.unwrap().seq).collect();
        down.reverse();
        assert_eq!(up, down);
        let third: Vec<_> = reader.query(Filter::new().after(2).limit(1)).unwrap().map(|r| r.unwrap().seq).collect();
        assert_eq!(third, [Some(3)]);
        let by_seq = reader.by_seq(3).unwrap().unwrap();
        assert_eq!(reader.by_id(by_seq.record_id).unwrap(), Some(by_seq));
    }
}

#[test]
fn secrets_are_withheld_by_key_and_nothing_else_is() {
    let dir = Dir::new();
    for path in dir.both() {
        fill(&path);
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "{path:?}");
        let change = records(&path).into_iter().find(|r| r.event == "config_change").unwrap();
        assert_eq!(change.new_value.unwrap().as_str(), r#"{"password":{"$argus.redacted":"key"},"port":2}"#);
    }
}

#[test]
fn every_edit_of_a_cell_is_named() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path);
    let original = std::fs::read(&path).unwrap();
    let columns: Vec<String> = sql(&path)
        .prepare("SELECT name FROM pragma_table_info('audit_events')")
        .unwrap()
        .query_map([], |r| r.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(columns.len(), 25);
    for column in columns.iter().filter(|c| *c != "id") {
        std::fs::write(&path, &original).unwrap();
        let value = match column.as_str() {
            "process_id" | "writer_seq" => "99",
            "writer" => "0",
            "level" => "'WARN'",
            "actor_type" => "'system'",
            "outcome" => "'unknown'",
            "timestamp" => "'2020-01-01T00:00:00.000000000Z'",
            "created_at" => "'2099-01-01 00:00:00'",
            "trace_id" => "'00000000000000000000000000000001'",
            "span_id" => "'0000000000000001'",
            "record_id" => "'01900000-0000-7000-8000-000000000000'",
            "old_value" | "new_value" | "context" => "'{\"x\":1}'",
            _ => "'changed'",
        };
        tamper(&path, &format!("UPDATE audit_events SET {column} = {value} WHERE id = 3"));
        let found = findings(&path);
        let named = match column.as_str() {
            "checksum" => {
                found.iter().any(|f| f.contains("seq 2..=3, link")) || found.iter().any(|f| f.contains("seq 3"))
            }
            _ => found.iter().any(|f| f.starts_with("seq 2..=3, link")),
        };
        assert!(named, "{column}: {found:?}");
    }
}

#[test]
fn structural_attacks_on_the_database_are_named() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path);
    let original = std::fs::read(&path).unwrap();
    let cases = [
        ("DELETE FROM audit_events WHERE id = 3", "seq 3, gap"),
        ("DELETE FROM audit_events WHERE id = 5", "the records end at"),
        ("DELETE FROM audit_events WHERE id = 1", "gap"),
        ("UPDATE audit_events SET id = 99 WHERE id = 3", "gap"),
        ("UPDATE audit_events SET context = '{ }' WHERE id = 3", "column"),
        ("UPDATE audit_events SET context = x'7b7d' WHERE id = 3", "seq 3, column"),
        ("UPDATE audit_events SET new_value = '1.0' WHERE id = 2", "canonical form"),
        ("CREATE TRIGGER evil AFTER INSERT ON audit_events BEGIN DELETE FROM audit_events; END", "schema"),
        ("DROP TRIGGER argus_no_delete", "schema"),
        ("CREATE VIEW v AS SELECT 1", "schema"),
        ("UPDATE writers SET service_name = 'other' WHERE id = 1", "service_name"),
        ("UPDATE writers SET closed = 0 WHERE id = 1", "closed"),
        ("UPDATE writers SET last_seq = 2 WHERE id = 1", "last_seq"),
        ("UPDATE log_info SET first_seq = 0", "log_info"),
        ("UPDATE log_info SET first_seq = 2", "seq 1, gap"),
        ("UPDATE log_info SET canonical = 2", "log_info"),
        ("DROP TABLE log_info", "schema"),
        ("UPDATE writers SET closed = 7 WHERE id = 1", "not of its type"),
        ("INSERT INTO writers VALUES (9, '00000000-0000-4000-8000-000000000000', 'x', 0, 0)", "no records"),
        ("UPDATE audit_events SET id = -1 WHERE id = 3", "before position 1"),
        ("UPDATE audit_events SET new_value = new_value || ' ' WHERE id = 2", "canonical form"),
    ];
    for (attack, expected) in cases {
        std::fs::write(&path, &original).unwrap();
        assert_ok(&path);
        tamper(&path, attack);
        let found = findings(&path);
        assert!(found.iter().any(|f| f.contains(expected)), "{attack}: {found:?}");
    }
}

#[test]
fn every_changed_byte_of_a_jsonl_trail_is_found() {
    let dir = Dir::new();
    let path = dir.path("trail.jsonl");
    fill(&path);
    let original = std::fs::read(&path).unwrap();
    let mut missed = Vec::new();
    for i in (0..original.len()).step_by(7) {
        let mut bytes = original.clone();
        bytes[i] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let clean = AuditReader::open(&path).is_ok_and(|r| {
            let report = r.verify().unwrap();
            // The last line's own end is the one byte whose loss reads as "being written".
            report.is_ok() && report.unfinished_tail == 0
        });
        if clean {
            missed.push((i, String::from_utf8_lossy(&original[i.saturating_sub(10)..i + 5]).into_owned()));
        }
    }
    assert_eq!(missed, []);
    for (lines, expected) in [
        (vec![0, 1, 3, 4, 5], "gap"),
        (vec![1, 0, 2, 3, 4, 5], "format"),
        (vec![0, 1, 2, 2, 3, 4, 5], "twice"),
        (vec![1, 2, 3, 4, 5], "format"),
    ] {
        let text = String::from_utf8(original.clone()).unwrap();
        let all: Vec<_> = text.lines().collect();
        std::fs::write(&path, lines.iter().map(|i| format!("{}\n", all[*i])).collect::<String>()).unwrap();
        let found = findings(&path);
        assert!(found.iter().any(|f| f.contains(expected)), "{lines:?}: {found:?}");
    }
}

#[test]
fn the_database_defends_itself_against_plain_sql() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path);
    let c = sql(&path);
    for attack in [
        "DELETE FROM audit_events WHERE id = 2",
        "UPDATE audit_events SET event = 'x' WHERE id = 2",
        "INSERT OR REPLACE INTO audit_events SELECT * FROM audit_events WHERE id = 2",
    ] {
        assert!(c.execute_batch(attack).unwrap_err().to_string().contains("argus:"), "{attack}");
    }
    drop(c);
    assert_ok(&path);
}

/// As the Go library does.
fn insert_foreign(path: &Path, event: &str, new: &str, context: &str) {
    let n = sql(path)
        .execute(
            "INSERT INTO audit_events (timestamp, level, event, component, original_output_file, file_path, old_value, new_value, process_id, process_name, context, checksum)
             VALUES (?1, 'CRITICAL', ?2, 'argus', '/tmp/a.jsonl', '/etc/x', '', ?3, 42, 'argus', ?4, 'abc')",
            ("2026-11-23T05:55:06.5+01:00", event, new, context),
        )
        .unwrap();
    assert_eq!(n, 0, "the trigger took it aside, and the statement succeeded");
}

#[test]
fn rows_of_others_wait_for_no_commit_delay() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let hour = Duration::from_secs(3600);
    let config = AuditConfig::new(&path).commit_delay(hour).flush_interval(Duration::from_millis(20));
    let logger = AuditLogger::open(config).unwrap();
    for n in 1..=2 {
        insert_foreign(&path, "late", "1", "{}");
        let began = Instant::now();
        while logger.health().adopted < n {
            assert!(began.elapsed() < Duration::from_secs(20), "it is not adopted");
            std::thread::yield_now();
        }
    }
    close(&logger);
}

#[test]
fn rows_of_the_go_library_succeed_and_are_adopted_once() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path);
    let insert = |event: &str, new: &str, context: &str| insert_foreign(&path, event, new, context);
    insert("config_change", r#"{"b":1,"a":"é"}"#, r#"{"user":"jo"}"#);
    insert("odd", "{not json", "");
    let waiting = AuditReader::open(&path).unwrap().verify().unwrap();
    assert!(waiting.is_ok() && waiting.foreign_waiting == 2);
    let logger = open(&path);
    assert_eq!(logger.health().adopted, 2);
    // One that comes while the writer lives is adopted with its next transaction.
    insert("late", "1", "{}");
    logger.log_durable(AuditEvent::info("mine")).unwrap();
    close(&logger);
    let by_event: BTreeMap<String, argus_core::Record> =
        records(&path).into_iter().map(|r| (r.event.clone(), r)).collect();
    let r = &by_event["config_change"];
    let adopted: Vec<_> = records(&path).into_iter().filter(|r| r.context_value("argus.foreign").is_some()).collect();
    assert_eq!(adopted.iter().map(|r| r.event.as_str()).collect::<Vec<_>>(), ["config_change", "odd", "late"]);
    assert_eq!(adopted.iter().map(|r| r.writer_seq).collect::<Vec<_>>(), [1, 2, 3]);
    let first = &adopted[0];
    assert_eq!(argus_core::format_timestamp(first.timestamp), "2026-11-23T04:55:06.500000000Z");
    assert_eq!(first.new_value.as_ref().unwrap().as_str(), r#"{"a":"é","b":1}"#);
    assert_eq!(
        (first.old_value.as_ref(), first.process_id, first.context_value("user")),
        (None, 42, Some(json!("jo")))
    );
    let foreign = first.context_value("argus.foreign").unwrap();
    assert_eq!((&foreign["id"], &foreign["checksum"]), (&json!(1), &json!("abc")));
    assert_eq!(foreign["created_at"].as_str().map(str::len), Some(19), "when the row says it was made");
    assert_eq!(adopted[1].context_value("argus.foreign").unwrap()["new_value"], "{not json");
    assert_eq!(r.level, Level::Critical);
    assert_ok(&path);
}

#[test]
fn a_torn_last_line_is_moved_aside_and_told() {
    let dir = Dir::new();
    let path = dir.path("trail.jsonl");
    fill(&path);
    let whole = std::fs::read(&path).unwrap();
    let fragment = b"{\"timestamp\":\"2026";
    std::fs::write(&path, [whole.as_slice(), fragment].concat()).unwrap();
    let report = AuditReader::open(&path).unwrap().verify().unwrap();
    assert!(report.is_ok());
    assert_eq!(report.unfinished_tail, fragment.len() as u64);
    let logger = open(&path);
    close(&logger);
    let healed = records(&path).into_iter().find(|r| r.event == "audit_recovered").unwrap();
    assert_eq!(healed.context_value("bytes"), Some(json!(fragment.len())));
    assert_eq!(std::fs::read(dir.path("trail.jsonl.torn")).unwrap(), [fragment.as_slice(), b"\n"].concat());
    assert_ok(&path);
    // Cut at every place of the last two lines: the next writer always goes on, and nothing before is lost.
    let start = whole.len() - whole.split_inclusive(|b| *b == b'\n').rev().take(2).map(<[u8]>::len).sum::<usize>();
    for cut in (start..whole.len()).step_by(41) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let logger = open(&path);
        logger.log(AuditEvent::info("after")).unwrap();
        close(&logger);
        assert_ok(&path);
    }
}

#[test]
fn durable_calls_return_after_the_commit() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = open(&path);
        let receipt = logger.log_durable(AuditEvent::security("grant")).unwrap();
        let seen = records(&path).into_iter().find(|r| r.record_id == receipt.record_id).unwrap();
        assert_eq!((seen.seq, seen.checksum), (receipt.seq, receipt.checksum));
        let pending = logger.log_pending(AuditEvent::info("async")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(pending).unwrap().seq > receipt.seq);
        logger.flush(WAIT).unwrap();
        close(&logger);
    }
}

#[test]
fn scopes_record_how_it_ended() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let logger = open(&path);
    logger.begin(AuditEvent::critical("rotate")).unwrap().success().unwrap();
    logger.begin(AuditEvent::critical("rotate")).unwrap().failure(&"disk full").unwrap();
    drop(logger.begin(AuditEvent::critical("rotate")).unwrap());
    close(&logger);
    let all: Vec<_> = records(&path).into_iter().filter(|r| r.event == "rotate").collect();
    let outcomes: Vec<_> = all.iter().map(|r| r.outcome).collect();
    assert_eq!(outcomes, [None, Some(Outcome::Success), None, Some(Outcome::Failure), None, Some(Outcome::Abandoned)]);
    assert_eq!(all[3].context_value("error"), Some(json!("disk full")));
    assert_eq!(all[5].context_value("argus.intent"), Some(json!(all[4].record_id.to_string())));
}

#[test]
fn a_scope_that_a_panic_unwinds_is_abandoned() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = open(&path);
        let clone = logger.clone();
        let panicked = std::thread::spawn(move || {
            let _scope = clone.begin(AuditEvent::critical("rotate").component("keys")).unwrap();
            panic!("the rotation fails");
        });
        assert!(panicked.join().is_err());
        close(&logger);
        let all: Vec<_> = records(&path).into_iter().filter(|r| r.event == "rotate").collect();
        assert_eq!(all.iter().map(|r| r.outcome).collect::<Vec<_>>(), [None, Some(Outcome::Abandoned)]);
        assert_eq!(all[1].context_value("argus.intent"), Some(json!(all[0].record_id.to_string())));
        assert_eq!((all[1].level, &*all[1].component), (Level::Critical, "keys"));
        assert_ok(&path);
    }
}

#[test]
fn the_details_of_a_security_event_are_a_member_of_its_context() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = open(&path);
        let context = [("port", 22.into()), ("user", "jane".into())];
        logger.log_security_event("login_denied", "three wrong passwords", &context).unwrap();
        logger.log_security_event("alone", "no others", &[]).unwrap();
        // Neither wins in silence.
        let error = logger.log_security_event("twice", "ours", &[("details", "theirs".into())]).unwrap_err();
        assert!(matches!(&error, AuditError::Invalid { reason, .. } if reason.contains("details")), "{error:?}");
        assert_eq!(logger.health().rejected, 1);
        close(&logger);
        let all: Vec<_> = records(&path).into_iter().filter(|r| !r.event.starts_with("audit_")).collect();
        let said: Vec<_> = all.iter().map(|r| (&*r.event, r.level, r.context.to_value())).collect();
        let denied = json!({"details": "three wrong passwords", "port": 22, "user": "jane"});
        let alone = json!({"details": "no others"});
        assert_eq!(said, [("login_denied", Level::Security, denied), ("alone", Level::Security, alone)]);
        assert_ok(&path);
    }
}
