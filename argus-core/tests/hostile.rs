//! Files that an attacker made: every way of reading ends, in bounded memory, with a verdict or a typed error, and never in a panic.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;

use argus_core::{AuditEvent, AuditReader, AuditSinkExt, ErrorKind, Filter, Level};
use common::{Dir, close, findings, open, records, sql, tamper};

fn fill(path: &Path, n: usize) {
    let logger = open(path);
    for i in 0..n {
        logger
            .log(AuditEvent::security("grant").file_path("/etc/x").with("n", i).with("pad", &"x".repeat(40)))
            .unwrap();
    }
    close(&logger);
}

fn filters() -> Vec<Filter> {
    let one = Filter::new();
    let all = [
        one.clone(),
        one.clone().file("/etc/x"),
        one.clone().trace("ab".repeat(16)),
        one.clone().min_level(Level::Warn).event("grant"),
        one.clone().since(std::time::SystemTime::now() + std::time::Duration::from_secs(60)),
        one.app("tests"),
    ];
    all.iter().flat_map(|f| [f.clone(), f.clone().newest_first()]).collect()
}

/// Reads in every way; what `verify` says, if the trail can be opened. Each way must end.
fn read_all(path: &Path) -> Result<Vec<String>, ErrorKind> {
    let reader = AuditReader::open(path).map_err(|e| e.kind())?;
    let mut kinds = Vec::new();
    for filter in filters() {
        match reader.query(filter).unwrap().collect::<Result<Vec<_>, _>>() {
            Ok(records) => {
                let mut seqs: Vec<_> = records.iter().map(|r| r.seq.unwrap()).collect();
                seqs.sort_unstable();
                seqs.dedup();
                assert!(path.extension().unwrap() != "db" || seqs.len() == records.len(), "a record came twice");
                if let Some(r) = records.first() {
                    kinds.extend(reader.by_id(r.record_id).err());
                    kinds.extend(reader.by_seq(r.seq.unwrap()).err());
                }
            }
            Err(e) => kinds.push(e),
        }
    }
    let mut tail = reader.tail(Filter::new());
    while match tail.poll() {
        Ok(batch) => !batch.is_empty(),
        Err(e) => {
            kinds.push(e);
            false
        }
    } {}
    kinds.extend(reader.stats().err());
    assert!(kinds.iter().all(|e| !e.to_string().is_empty()));
    let report = reader.verify().map_err(|e| e.kind())?;
    Ok(report.findings.iter().map(ToString::to_string).collect())
}

#[test]
fn hostile_databases_get_a_verdict() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path, 8);
    let original = std::fs::read(&path).unwrap();
    let cases = [
        ("UPDATE audit_events SET context = CAST(zeroblob(90000000) AS TEXT) WHERE id = 3", "seq 3, column"),
        ("UPDATE audit_events SET event = CAST(zeroblob(90000000) AS TEXT) WHERE id = 3", "seq 3, column"),
        ("UPDATE audit_events SET checksum = zeroblob(90000000) WHERE id = 10", "seq 10, column"),
        ("UPDATE writers SET service_name = CAST(zeroblob(90000000) AS TEXT)", "integrity"),
        ("UPDATE log_info SET log_id = CAST(zeroblob(90000000) AS TEXT)", "row 0"),
        ("INSERT INTO foreign_events (context) VALUES (zeroblob(90000000))", ""),
        ("UPDATE audit_events SET timestamp = 7 WHERE id = 3", "seq 3, column"),
        ("UPDATE audit_events SET timestamp = x'32' WHERE id = 3", "seq 3, column"),
        ("UPDATE audit_events SET level = 'LOUD' WHERE id = 3", "seq 3, column"),
        ("UPDATE audit_events SET writer_seq = 1.5 WHERE id = 3", "seq 3, column"),
        ("UPDATE audit_events SET process_id = -1 WHERE id = 3", "seq 3, column"),
        ("UPDATE audit_events SET trace_id = 'x' WHERE id = 3", "seq 3, column"),
        ("UPDATE audit_events SET component = CAST(x'ff' AS TEXT) WHERE id = 3", "seq 3, column"),
        ("UPDATE audit_events SET id = 9223372036854775807 WHERE id = 10", "gap"),
        ("UPDATE audit_events SET id = 4611686018427387904 WHERE id = 5", "gap"),
        ("UPDATE audit_events SET id = 0 WHERE id = 1", "before position 1"),
        ("UPDATE audit_events SET id = -9223372036854775808 WHERE id = 1", "before position 1"),
        ("UPDATE audit_events SET writer = NULL WHERE id = 3; DELETE FROM writers", "writers"),
        ("UPDATE writers SET writer = 7 WHERE id = 1", "writer"),
        ("UPDATE writers SET last_seq = 'x' WHERE id = 1", "not of its type"),
        ("INSERT INTO log_info VALUES (2, 'x', 1, 1)", "log_info"),
        ("DELETE FROM log_info", "log_info"),
        ("DROP TABLE writers", "schema"),
        ("DROP TABLE foreign_events", "schema"),
        ("DROP TABLE log_info", "schema"),
        (
            "DROP INDEX idx_audit_trace; DROP INDEX idx_audit_file; DROP INDEX idx_audit_record_id; DROP INDEX idx_audit_timestamp",
            "schema",
        ),
        ("ALTER TABLE audit_events DROP COLUMN stack", "schema"),
        ("ALTER TABLE audit_events ADD COLUMN more TEXT", "schema"),
        ("CREATE TABLE other (x); CREATE VIEW v AS SELECT * FROM other", "schema"),
        ("ALTER TABLE writers RENAME TO w; CREATE VIEW writers AS SELECT * FROM w", "schema"),
        ("CREATE VIRTUAL TABLE ft USING fts5(x)", "schema"),
        ("ANALYZE", ""),
        (
            "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET name = 'idx_audit_TRACE' WHERE name = 'idx_audit_trace'",
            "idx_audit_TRACE",
        ),
        (
            "PRAGMA writable_schema=ON; INSERT INTO sqlite_schema VALUES ('trigger', 'sqlite_x', 'audit_events', 0, \
             'CREATE TRIGGER sqlite_x AFTER INSERT ON audit_events BEGIN SELECT 1; END')",
            "sqlite_x",
        ),
    ];
    for (attack, expected) in cases {
        std::fs::write(&path, &original).unwrap();
        tamper(&path, &format!("PRAGMA foreign_keys=OFF; PRAGMA ignore_check_constraints=ON; {attack}"));
        let found = read_all(&path).unwrap_or_else(|e| panic!("{attack}: {e:?}"));
        let named = found.iter().any(|f| f.contains(expected)) || expected.is_empty();
        assert!(named, "{attack}: {found:?}");
    }
    for (attack, expected) in [
        ("DROP TABLE audit_events", ErrorKind::NotATrail),
        (
            "DROP TABLE schema_info; CREATE TABLE schema_info (version); INSERT INTO schema_info VALUES (99)",
            ErrorKind::NewerVersion,
        ),
    ] {
        std::fs::write(&path, &original).unwrap();
        tamper(&path, attack);
        assert_eq!(read_all(&path), Err(expected), "{attack}");
    }
    // A version that is no number is damage.
    std::fs::write(&path, &original).unwrap();
    tamper(&path, "DROP TABLE schema_info; CREATE TABLE schema_info (version); INSERT INTO schema_info VALUES ('x')");
    assert!(findings(&path).iter().any(|f| f.contains("schema")));
}

#[test]
fn a_row_that_is_too_long_hides_no_other() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path, 20);
    let all = records(&path);
    tamper(
        &path,
        "UPDATE audit_events SET context = CAST(zeroblob(90000000) AS TEXT) WHERE id IN (5, 6); \
         UPDATE audit_events SET level = zeroblob(90000000) WHERE id = 9",
    );
    let reader = AuditReader::open(&path).unwrap();
    for filter in [Filter::new(), Filter::new().min_level(Level::Security), Filter::new().file("/etc/x")] {
        for filter in [filter.clone(), filter.newest_first()] {
            let mut query = reader.query(filter.clone()).unwrap();
            let mut got: Vec<_> = query.by_ref().map(|r| r.unwrap().seq.unwrap()).collect();
            got.sort_unstable();
            let plain = got.first() == Some(&1);
            let wanted = all.iter().map(|r| r.seq.unwrap()).filter(|s| ![5, 6, 9].contains(s));
            let wanted: Vec<u64> = wanted.filter(|s| plain || (2..=21).contains(s)).collect();
            assert_eq!((got, query.damaged()), (wanted, 3), "{filter:?}");
        }
    }
    assert_eq!(reader.stats().unwrap().damaged, 3);
}

#[test]
fn no_byte_changed_in_a_database_makes_a_reader_panic_or_hang() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path, 60);
    let original = std::fs::read(&path).unwrap();
    let (mut opened, mut seed) = (0, 7u64);
    for _ in 0..150 {
        let mut bytes = original.clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(seed >> 33).unwrap();
            // Half of them in the first bytes of a page, where its structure is.
            let at = if seed & 1 == 0 { at % bytes.len() } else { at % (bytes.len() / 4096) * 4096 + at / 4096 % 120 };
            bytes[at] ^= 1 << (seed >> 20 & 7);
        }
        std::fs::write(&path, &bytes).unwrap();
        opened += u32::from(read_all(&path).is_ok());
    }
    assert!(opened > 50, "{opened}");
}

#[test]
fn a_truncated_database_is_a_verdict_or_a_typed_error() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    fill(&path, 60);
    let original = std::fs::read(&path).unwrap();
    for len in (0..original.len()).step_by(4096).chain([1, 50, 100, 511, 5000]) {
        std::fs::write(&path, &original[..len]).unwrap();
        match read_all(&path) {
            Ok(found) => assert!(!found.is_empty(), "{len} of {}", original.len()),
            Err(kind) => assert!(matches!(kind, ErrorKind::NotATrail | ErrorKind::Damaged), "{len}: {kind:?}"),
        }
    }
}

#[test]
fn hostile_lines_get_a_verdict() {
    let dir = Dir::new();
    let path = dir.path("trail.jsonl");
    fill(&path, 8);
    let original = std::fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = original.split_inclusive(|b| *b == b'\n').collect();
    let long = vec![b'['; 3 << 20];
    let cases: [&[u8]; 7] = [b"", b"{}", b"\xff", b"null", &long, b"{\"seq\":1}", lines[3].trim_ascii_end()];
    for (i, case) in cases.iter().enumerate() {
        for end in [&b"\n"[..], b""] {
            let at = if end.is_empty() { lines.len() } else { 5 };
            let bytes = [&lines[..at].concat(), *case, end, &lines[at..].concat()].concat();
            std::fs::write(&path, &bytes).unwrap();
            let found = read_all(&path).unwrap();
            // Without an end, the last line is only being written.
            assert_eq!(found.is_empty(), end.is_empty(), "{i}: {found:?}");
        }
    }
    // Lines of very many members: comparing each name with each would take minutes.
    let names: Vec<String> = (0..24_000).map(|i| format!("\"{i:06x}\":1")).collect();
    let many = format!("{{{}}}\n", names.join(",")).repeat(40);
    std::fs::write(&path, [&lines[..5].concat(), many.as_bytes(), &lines[5..].concat()].concat()).unwrap();
    assert!(read_all(&path).unwrap()[0].contains("more members"));
    // A damaged first line is a verdict as any other is; a file without one line of ours is no trail.
    std::fs::write(&path, [b"\xff", &original[1..]].concat()).unwrap();
    assert!(findings(&path).iter().any(|f| f.contains("line 1")));
    std::fs::write(&path, "a\nb\n".repeat(40)).unwrap();
    assert_eq!(read_all(&path), Err(ErrorKind::NotATrail));
    // One line without its end: a trail that was just begun, wherever it was cut and if only its length reached the disk; else no trail.
    for cut in 0..lines[0].len() {
        std::fs::write(&path, &original[..cut]).unwrap();
        assert_eq!(AuditReader::open(&path).unwrap().stats().unwrap().records, 0, "{cut}");
    }
    std::fs::write(&path, [0; 4096]).unwrap();
    assert_eq!(AuditReader::open(&path).unwrap().stats().unwrap().records, 0);
    for no_trail in [&b"a"[..], b"\0a", b"{\"a\":1}", b" {\"timestamp\":\"", &long] {
        std::fs::write(&path, no_trail).unwrap();
        assert_eq!(read_all(&path), Err(ErrorKind::NotATrail));
    }
    let c = sql(&dir.path("other.db"));
    c.execute_batch("CREATE TABLE t (x)").unwrap();
    assert_eq!(AuditReader::open(dir.path("other.db")).unwrap_err().kind(), ErrorKind::NotATrail);
}
