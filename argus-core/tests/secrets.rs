//! A hundred made-up secrets through every way into a trail; then every byte of every file of its folder is searched, and all that observers and readers got.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/secrets.rs"]
mod secrets;

use std::path::Path;
use std::sync::{Arc, Mutex};

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Carrier, CommitObserver,
    ErrorKind, Faults, Filter, Interest, Receipt, Record, Redaction, State, StoreFault, Trace, TraceContext, Value,
};
use common::{Dir, WAIT, assert_ok, close};
use secrets::{Made, corpus, innocent};
use serde::Serialize;
use serde_json::json;

/// All that an observer was told.
#[derive(Default)]
struct Ear(Mutex<String>);

impl CommitObserver for Ear {
    fn interest(&self) -> Interest {
        Interest::All
    }
    fn committed(&self, record: &Record, receipt: &Receipt, carrier: &Carrier<'_>) {
        *self.0.lock().unwrap() += &format!("{record:?} {} {receipt:?} {:?}\n", record.to_jsonl(), carrier.trace);
    }
    fn failed(&self, record: &Record, error: &AuditError, _carrier: &Carrier<'_>) {
        *self.0.lock().unwrap() += &format!("{record:?} {error:?}\n");
    }
}

/// Every byte that left: the folder's files (subfolders aside), and what readers and observers say.
fn left(dir: &Path, trail: &Path, told: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![("observers".to_owned(), told.as_bytes().to_vec())];
    for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
        all.push((entry.display().to_string(), std::fs::read(&entry).unwrap()));
    }
    let reader = AuditReader::open(trail).unwrap();
    let read = reader.query(Filter::new()).unwrap();
    let lines: String = read.map(|r| r.unwrap()).map(|r| format!("{r:?}{}\n", r.to_jsonl())).collect();
    all.push(("reader".to_owned(), lines.into_bytes()));
    all
}

fn assert_nowhere(corpus: &[Made], left: &[(String, Vec<u8>)]) {
    let mut leaks = Vec::new();
    for made in corpus {
        leaks.extend(
            left.iter().filter(|(_, b)| made.is_in(b)).map(|(n, _)| format!("{} in {n}: {}", made.rule, made.text)),
        );
    }
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}

#[derive(Serialize)]
struct Nested<'a> {
    list: Vec<Option<Inner<'a>>>,
    pair: (&'a str, u8),
}

#[derive(Serialize)]
enum Inner<'a> {
    Note { text: &'a str },
}

/// Says a text in each place that a caller can fill.
fn say(sink: &dyn AuditSink, text: &str) {
    let nested = Nested { list: vec![None, Some(Inner::Note { text })], pair: (text, 1) };
    let named = json!({"m": {text: {"deep": [text]}}});
    let in_json = named.to_string();
    let trace =
        Trace::Parent(TraceContext { trace_id: [1; 16], span_id: [2; 8], trace_state: text, ..Default::default() });
    let short = if text.len() <= 256 { text } else { "long" };
    sink.log(AuditEvent::info("scalar").with("note", text).with("nested", &nested)).unwrap();
    sink.log(AuditEvent::info("values").old_value(text).new_value(&named)).unwrap();
    sink.log(AuditEvent::info("json").old_value(Value::json(&in_json)).new_value(Value::json_or_text(text))).unwrap();
    sink.log(AuditEvent::info("text in text").with("body", in_json.as_str())).unwrap();
    sink.log(AuditEvent::info("fields").file_path(text).user_agent(text).action(text).trace(trace)).unwrap();
    sink.log(AuditEvent::info(short).component(text).actor(text, None).with(text, 1)).unwrap();
}

fn through(path: &Path, redaction: Redaction, texts: &[&str]) -> String {
    let ear = Arc::new(Ear::default());
    let config =
        AuditConfig::new(path).service(texts[0], texts[1]).redaction(redaction).with("always", *texts.first().unwrap());
    let logger = AuditLogger::open(config).unwrap();
    logger.subscribe(ear.clone()).unwrap();
    texts.iter().for_each(|t| say(&logger, t));
    close(&logger);
    std::mem::take(&mut *ear.0.lock().unwrap())
}

#[test]
fn no_secret_leaves_by_the_direct_api() {
    let (dir, corpus) = (Dir::new(), corpus());
    assert!(corpus.len() >= 100);
    let texts: Vec<&str> = corpus.iter().map(|m| m.text.as_str()).collect();
    for path in dir.both() {
        let told = through(&path, Redaction::default(), &texts);
        assert_nowhere(&corpus, &left(dir.0.path(), &path, &told));
        assert_ok(&path);
        if let Some((code, text)) = argus_testkit::verify_with_python(&path) {
            assert_eq!(code, 0, "{text}");
        }
    }
}

#[test]
fn without_shapes_the_search_finds_each_secret() {
    let (dir, corpus) = (Dir::new(), corpus());
    let texts: Vec<&str> = corpus.iter().map(|m| m.text.as_str()).collect();
    let path = dir.path("trail.jsonl");
    let told = through(&path, Redaction::default().without_shapes(), &texts);
    let left = left(dir.0.path(), &path, &told);
    for made in &corpus {
        // Texts with a quotation mark or a line end stand escaped in a file; a needle never has one.
        assert!(left.iter().all(|(_, bytes)| made.is_in(bytes)), "{made:?}");
    }
}

/// Files of a folder.
type Files = Vec<(String, Vec<u8>)>;

/// As `through`, while the store fails: what stands in the pending file, byte by byte, what `on_error` was told, and every file of the living logger but the journal, which holds what
/// is queued in clear (without it, `journal(false)`, there is none). Then all is merged.
fn spilled(path: &Path, redaction: Redaction, texts: &[&str], journal: bool) -> (Vec<u8>, String, Files) {
    let (faults, told) = (Faults::new(), Arc::new(Mutex::new(String::new())));
    let hears = told.clone();
    let config = AuditConfig::new(path).service(texts[0], texts[1]).redaction(redaction).with("always", texts[0]);
    let config = config.on_error(move |e| *hears.lock().unwrap() += &format!("{e} {e:?}\n"));
    let logger = AuditLogger::open(config.faults(&faults).journal(journal)).unwrap();
    logger.flush(WAIT).unwrap();
    faults.store(StoreFault::Commit, ErrorKind::DiskFull, u32::MAX);
    texts.iter().for_each(|t| say(&logger, t));
    // It is durable, so all before it is, and it is in no other file.
    let receipt = logger.log_durable(AuditEvent::info("last")).unwrap();
    assert_eq!(receipt.state, State::Spilled);
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().path());
    let mut live: Files = files.map(|f| (f.display().to_string(), std::fs::read(f).unwrap())).collect();
    assert!(journal || !live.iter().any(|f| f.0.ends_with(".journal")));
    live.retain(|f| !f.0.ends_with(".journal"));
    assert!(live.iter().any(|f| f.0.ends_with(".lock")));
    let bytes = live.iter().find(|f| f.0.contains(".pending.")).unwrap().1.clone();
    faults.heal();
    logger.flush(WAIT).unwrap();
    close(&logger);
    let told = told.lock().unwrap().clone();
    assert!(told.contains(".pending."), "{told}");
    (bytes, told, live)
}

/// The lines of an event.
fn lines(bytes: &[u8], event: &str) -> usize {
    let name = format!("\"event\":\"{event}\"");
    std::str::from_utf8(bytes).unwrap().lines().filter(|l| l.contains(&name)).count()
}

#[test]
fn no_secret_leaves_by_the_pending_file() {
    let corpus = corpus();
    let texts: Vec<&str> = corpus.iter().map(|m| m.text.as_str()).collect();
    for (name, journal) in [("trail.db", true), ("trail.jsonl", false)] {
        let dir = Dir::new();
        let path = dir.path(name);
        let (bytes, told, live) = spilled(&path, Redaction::default(), &texts, journal);
        // It holds what is harmless of each record, and what stands for the secrets.
        for event in ["scalar", "values", "json", "text in text", "fields"] {
            assert_eq!(lines(&bytes, event), corpus.len(), "{event}");
        }
        assert!(String::from_utf8_lossy(&bytes).matches("$argus.redacted").count() >= corpus.len() / 2);
        let mut all = left(dir.0.path(), &path, &told);
        all.extend(live);
        assert_nowhere(&corpus, &all);
        assert_ok(&path);
    }
}

#[test]
fn without_shapes_the_pending_file_has_each_secret() {
    let (dir, corpus) = (Dir::new(), corpus());
    let texts: Vec<&str> = corpus.iter().map(|m| m.text.as_str()).collect();
    let (bytes, ..) = spilled(&dir.path("trail.jsonl"), Redaction::default().without_shapes(), &texts, true);
    assert!(corpus.iter().all(|made| made.is_in(&bytes)));
}

#[test]
fn innocent_values_come_through_unchanged() {
    let dir = Dir::new();
    let innocent = innocent();
    assert!(innocent.len() >= 60);
    for path in dir.both() {
        let logger = common::open(&path);
        for text in &innocent {
            let value = json!({"list": [text]});
            let event = AuditEvent::info("innocent").with("note", *text).new_value(&value);
            logger.log(event.file_path(text).user_agent(text).action(text)).unwrap();
        }
        close(&logger);
        let read: Vec<Record> = common::records(&path).into_iter().filter(|r| r.event == "innocent").collect();
        assert_eq!(read.len(), innocent.len());
        for (text, r) in innocent.iter().zip(read) {
            assert_eq!(r.context.to_value(), json!({"note": text}));
            assert_eq!(r.new_value.unwrap().to_value(), json!({"list": [text]}));
            for field in [r.file_path, r.user_agent, r.action] {
                assert_eq!(field.as_deref(), Some(*text));
            }
        }
    }
}

#[test]
fn no_secret_leaves_by_a_row_of_another_program() {
    let (dir, corpus) = (Dir::new(), corpus());
    let path = dir.path("trail.db");
    let logger = AuditLogger::open(AuditConfig::new(&path)).unwrap();
    let c = common::sql(&path);
    for made in &corpus {
        let json = json!({"note": made.text, "list": [{made.text.as_str(): 1}]}).to_string();
        c.execute(
            "INSERT INTO audit_events (timestamp, level, event, component, original_output_file, context, file_path, user_agent, old_value, new_value, process_id, process_name)
             VALUES ('2026-11-25T00:00:00Z', ?1, 'e', ?1, ?1, ?2, ?1, ?1, ?1, ?2, 7, ?1)",
            [&made.text, &json],
        )
        .unwrap();
        // Large: cut to pieces, after the search.
        c.execute(
            "INSERT INTO audit_events (timestamp, level, event, component, process_name, context, user_agent) VALUES ('', '', ?1, 'c', 'p', ?2, ?3)",
            [&made.text, &"x".repeat(30_000), &(("y".repeat(1010) + " ") + &made.text)],
        )
        .unwrap();
    }
    drop(c);
    logger.log(AuditEvent::info("wake")).unwrap();
    logger.flush(WAIT).unwrap();
    close(&logger);
    let adopted = common::records(&path).iter().filter(|r| r.context_value("argus.foreign").is_some()).count();
    assert_eq!(adopted, 2 * corpus.len());
    assert_nowhere(&corpus, &left(dir.0.path(), &path, ""));
    assert_ok(&path);
}

#[cfg(feature = "watch")]
mod watcher {
    use super::*;
    use argus_core::{Watcher, WatcherConfig};

    /// The corpus as a configuration file of each format; JSON strings are strings of YAML and TOML, too.
    fn file(extension: &str, texts: &[&str]) -> String {
        let quoted = |t: &str| serde_json::to_string(t).unwrap();
        let members = |separator: &str| -> Vec<String> {
            let all = texts.iter().enumerate();
            all.map(|(i, t)| {
                format!(
                    "{}{separator}{}",
                    if extension == "toml" { format!("v{i}") } else { format!("\"v{i}\"") },
                    quoted(t)
                )
            })
            .collect()
        };
        match extension {
            "json" => {
                let names: Vec<String> = texts.iter().map(|t| format!("{}:[{}]", quoted(t), texts.len())).collect();
                format!("{{{},\"names\":{{{}}}}}", members(":").join(","), names.join(","))
            }
            "toml" => members(" = ").join("\n"),
            "yaml" => format!("deep:\n  - {}\n", members(": ").join("\n    ")),
            _ => texts.iter().filter(|t| !t.contains("-----")).map(|t| format!("{t}\n")).collect(),
        }
    }

    #[test]
    fn no_secret_leaves_by_a_configuration_file() {
        let corpus = corpus();
        for extension in ["json", "yaml", "toml", "conf"] {
            let (dir, conf) = (Dir::new(), tempfile::tempdir().unwrap());
            let (path, config) = (dir.path("trail.jsonl"), conf.path().join("app").with_extension(extension));
            let (first, second): (Vec<_>, Vec<_>) =
                corpus.iter().map(|m| m.text.as_str()).enumerate().partition(|(i, _)| i % 2 == 0);
            let texts = |half: &[(usize, &str)]| file(extension, &half.iter().map(|(_, t)| *t).collect::<Vec<_>>());
            let logger = common::open(&path);
            let watcher = Watcher::with_sink(WatcherConfig::default(), logger.clone());
            std::fs::write(&config, texts(&first)).unwrap();
            watcher.watch(&config, |_| {}).unwrap();
            watcher.start().unwrap();
            // One after the other as old and new value and in the difference; then a file that cannot be read, with its text in the error.
            for content in [texts(&second), texts(&first), String::new() + "\"a\": [" + &texts(&second)] {
                std::fs::write(&config, content).unwrap();
                watcher.settle(WAIT).unwrap();
            }
            watcher.stop().unwrap();
            close(&logger);
            let changes: Vec<Record> =
                common::records(&path).into_iter().filter(|r| r.event == "config_change").collect();
            assert!(changes.len() >= 2, "{extension}");
            for change in changes {
                assert_eq!(
                    (change.context_value("value_omitted"), change.context_value("diff_omitted")),
                    (None, None),
                    "{extension}"
                );
            }
            assert_nowhere(&corpus, &left(dir.0.path(), &path, ""));
            assert_ok(&path);
        }
    }
}

#[test]
fn rules_are_the_callers() {
    let read = |redaction: Redaction, text: &str| {
        let dir = Dir::new();
        let path = dir.path("t.jsonl");
        let logger = AuditLogger::open(AuditConfig::new(&path).redaction(redaction)).unwrap();
        logger.log(AuditEvent::info("e").with("v", text)).unwrap();
        close(&logger);
        assert_ok(&path);
        common::records(&path).into_iter().find_map(|r| r.context_value("v")).unwrap()
    };
    let badge = "shown BADGE-123456 at the gate";
    let of = |pattern: &str| read(Redaction::default().shape("badge", pattern), badge);
    for pattern in ["BADGE-[0-9]+", "(?i)badge-[0-9]+", "[A-Z]+-[0-9]+", "(?:shown) (BADGE-[0-9]+)"] {
        assert_eq!(of(pattern), "shown [redacted] at the gate", "{pattern}");
    }
    let token = "ghp_0123456789abcdefghijABCDEFGHIJ";
    assert_eq!(read(Redaction::default(), token), json!({"$argus.redacted": "github_token"}));
    assert_eq!(read(Redaction::default().shape("github_token", "never"), token), token);
    for off in
        [Redaction::none(), Redaction::default().without_shapes(), Redaction::default().without_shape("github_token")]
    {
        assert_eq!(read(off, token), token);
    }
    assert_eq!(read(Redaction::none().shape("all", ".{9,}"), token), json!({"$argus.redacted": "all"}));
    for (name, pattern) in [("bad", "("), ("", "a"), ("a b", "a"), ("\"", "a")] {
        let config = AuditConfig::new(Dir::new().path("t.jsonl")).redaction(Redaction::none().shape(name, pattern));
        let error = AuditLogger::open(config).unwrap_err();
        assert_eq!(error.kind(), argus_core::ErrorKind::Config, "{error}");
    }
}
