//! The watcher on real files, with the operating system's notifications: what each way of writing a file leaves in the trail. No test sleeps: `settle` waits
//! for progress, or a callback is waited for.
#![cfg(feature = "watch")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditLogger, AuditReader, AuditSink, ChangeEvent, ChangeKind, Filter, Level, MemoryTrail, Record,
    Redaction, WatchErrorKind, Watcher, WatcherConfig, universal_config_watcher_with_config,
};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(30);

struct Rig {
    dir: PathBuf,
    trail: MemoryTrail,
    logger: AuditLogger,
    watcher: Arc<Watcher>,
    changes: Receiver<ChangeEvent>,
    _temp: tempfile::TempDir,
}

impl Rig {
    /// Watches `file` in a fresh directory.
    fn new(file: &str, content: Option<&str>) -> Rig {
        let rig = Rig::empty();
        if let Some(c) = content {
            rig.write(file, c);
        }
        let (tx, changes) = channel();
        rig.watcher.watch(rig.dir.join(file), move |c| tx.send(c.clone()).unwrap_or(())).unwrap();
        rig.watcher.start().unwrap();
        Rig { changes, ..rig }
    }

    fn empty() -> Rig {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        let trail = MemoryTrail::new();
        let logger = AuditLogger::open_in_memory(AuditConfig::default(), &trail).unwrap();
        let config = WatcherConfig::default().debounce(Duration::from_millis(5));
        let watcher = Arc::new(Watcher::with_sink(config, logger.clone()));
        Rig { dir, trail, logger, watcher, changes: channel().1, _temp: temp }
    }

    fn write(&self, file: &str, content: &str) {
        fs::write(self.dir.join(file), content).unwrap();
        self.settle();
    }

    fn settle(&self) {
        // Before the start there is nothing to wait for.
        if let Err(e) = self.watcher.settle(WAIT) {
            assert_eq!(e.kind(), WatchErrorKind::NotRunning);
        }
    }

    fn events(&self) -> Vec<Value> {
        self.logger.flush(WAIT).unwrap();
        let all = self.trail.lines().into_iter().map(|l| serde_json::from_str::<Value>(&l).unwrap());
        all.filter(|v| v["event"] != "audit_open").collect()
    }

    fn names(&self) -> Vec<String> {
        let name = |v: &Value| format!("{} {}", v["level"].as_str().unwrap(), v["event"].as_str().unwrap());
        self.events().iter().map(name).collect()
    }

    /// Kind, old and new of every change.
    fn told(&self) -> Vec<(ChangeKind, Option<Value>, Option<Value>)> {
        self.changes.try_iter().map(|c| (c.kind, c.old, c.new)).collect()
    }
}

const START: &str = "INFO file_watch_start";
const CHANGE: &str = "CRITICAL config_change";

#[test]
fn a_change_is_seen_by_the_notifications_alone() {
    let rig = Rig::new("a.json", Some(r#"{"port":1}"#));
    rig.settle();
    fs::write(rig.dir.join("a.json"), r#"{"port":2}"#).unwrap();
    let change = rig.changes.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((change.path.as_path(), change.size), (rig.dir.join("a.json").as_path(), 10));
    assert!(change.modified.is_some());
    assert_eq!(change.diff, json!({"/port":{"old":1,"new":2}}));
    let record = &rig.events()[1];
    assert_eq!(record["record_id"], change.record_id.unwrap().to_string());
    assert_eq!(record["file_path"], rig.dir.join("a.json").to_str().unwrap());
    let context = &record["context"];
    assert_eq!(
        (&context["seen_by"], &context["kind"], &context["diff"]),
        (&json!("notify"), &json!("modified"), &change.diff)
    );
    assert_eq!((&record["old_value"], &record["new_value"]), (&json!({"port":1}), &json!({"port":2})));
    assert_eq!(context["old_sha256"], rig.events()[0]["context"]["sha256"]);
}

#[test]
fn create_change_delete_and_create_again() {
    let rig = Rig::new("a.yaml", None);
    rig.write("a.yaml", "a: 1\n");
    rig.write("a.yaml", "a: 2\n");
    fs::remove_file(rig.dir.join("a.yaml")).unwrap();
    rig.settle();
    rig.write("a.yaml", "a: 2\n");
    rig.write("a.yaml", "a: 2\n");
    let (one, two) = (Some(json!({"a":1})), Some(json!({"a":2})));
    use ChangeKind::{Created, Deleted, Modified};
    let expected = [
        (Created, None, one.clone()),
        (Modified, one, two.clone()),
        (Deleted, two.clone(), None),
        (Created, None, two),
    ];
    assert_eq!(rig.told(), expected);
    assert_eq!(rig.names(), [START, CHANGE, CHANGE, CHANGE, CHANGE]);
    let deleted = &rig.events()[3];
    assert!(deleted.get("new_value").is_none_or(Value::is_null));
    assert_eq!(deleted["context"]["kind"], "deleted");
}

#[test]
fn white_space_comments_and_key_order_are_no_change() {
    let rig = Rig::new("a.toml", Some("a = 1\nb = 2\n"));
    rig.write("a.toml", "# comment\nb=2\na   =   1\n");
    rig.write("a.toml", "a = 1\nb = 2\n");
    assert_eq!(rig.told(), []);
    assert_eq!(rig.names(), [START]);
}

#[test]
fn a_rename_save_goes_on_being_watched() {
    let rig = Rig::new("a.json", Some("0"));
    for i in 1..6 {
        fs::write(rig.dir.join(".a.json.swp"), i.to_string()).unwrap();
        fs::rename(rig.dir.join(".a.json.swp"), rig.dir.join("a.json")).unwrap();
        let change = rig.changes.recv_timeout(WAIT).unwrap();
        assert_eq!((change.old, change.new), (Some(json!(i - 1)), Some(json!(i))));
    }
    assert_eq!(rig.names().len(), 6);
}

#[test]
fn the_directory_is_replaced() {
    let rig = Rig::empty();
    let (here, away) = (rig.dir.join("conf"), rig.dir.join("away"));
    fs::create_dir(&here).unwrap();
    fs::write(here.join("a.json"), "1").unwrap();
    let (tx, changes) = channel();
    rig.watcher.watch(here.join("a.json"), move |c| tx.send(c.clone()).unwrap_or(())).unwrap();
    rig.watcher.start().unwrap();
    rig.settle();
    fs::rename(&here, &away).unwrap();
    rig.settle();
    fs::create_dir(&here).unwrap();
    fs::write(here.join("a.json"), "2").unwrap();
    let kinds: Vec<_> = (0..2).map(|_| changes.recv_timeout(WAIT).unwrap()).map(|c| (c.kind, c.new)).collect();
    assert_eq!(kinds, [(ChangeKind::Deleted, None), (ChangeKind::Created, Some(json!(2)))]);
    rig.settle();
    fs::write(here.join("a.json"), "3").unwrap();
    assert_eq!(changes.recv_timeout(WAIT).unwrap().new, Some(json!(3)));
}

#[test]
fn a_config_map_swap_is_one_change() {
    let rig = Rig::empty();
    let version = |n: i32| {
        let dir = rig.dir.join(format!("..2026_{n}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("app.yaml"), format!("version: {n}\n")).unwrap();
        symlink(format!("..2026_{n}"), rig.dir.join("..data_tmp")).unwrap();
        fs::rename(rig.dir.join("..data_tmp"), rig.dir.join("..data")).unwrap();
    };
    version(0);
    symlink("..data/app.yaml", rig.dir.join("app.yaml")).unwrap();
    let (tx, changes) = channel();
    rig.watcher.watch(rig.dir.join("app.yaml"), move |c| tx.send(c.clone()).unwrap_or(())).unwrap();
    rig.watcher.start().unwrap();
    rig.settle();
    for n in 1..5 {
        version(n);
        fs::remove_dir_all(rig.dir.join(format!("..2026_{}", n - 1))).unwrap();
        let change = changes.recv_timeout(WAIT).unwrap();
        assert_eq!((change.kind, change.diff), (ChangeKind::Modified, json!({"/version":{"old":n - 1,"new":n}})));
    }
    rig.settle();
    assert_eq!(changes.try_iter().count(), 0);
    assert_eq!(rig.names(), [START, CHANGE, CHANGE, CHANGE, CHANGE]);
}

#[test]
fn an_unparsable_file_keeps_the_last_good_value() {
    let rig = Rig::new("a.json", Some("{\"a\":1}"));
    rig.write("a.json", "{\n\"a\":");
    rig.write("a.json", "{\n\"a\":");
    rig.write("a.json", "{\"a\":1,\"a\":2}");
    rig.write("a.json", "{\"a\":1}");
    rig.write("a.json", "{");
    rig.write("a.json", "{\"a\":2}");
    let (warn, recovered) = ("WARN parse_warning", "INFO config_recovered");
    assert_eq!(rig.names(), [START, warn, warn, recovered, warn, recovered, CHANGE]);
    assert_eq!(rig.told(), [(ChangeKind::Modified, Some(json!({"a":1})), Some(json!({"a":2})))]);
    let warning = &rig.events()[1]["context"];
    assert_eq!(warning["line"], 2);
    assert!(warning["error"].is_string() && warning["sha256"].is_string());
}

#[test]
fn an_empty_file_is_half_written_for_a_second() {
    let rig = Rig::new("a.json", Some("1"));
    fs::write(rig.dir.join("a.json"), "").unwrap();
    fs::write(rig.dir.join("a.json"), "2").unwrap();
    rig.settle();
    assert_eq!(rig.names(), [START, CHANGE]);
    rig.write("a.json", "");
    assert_eq!(rig.names(), [START, CHANGE, "WARN parse_warning"]);
}

#[test]
fn a_refusal_is_a_security_record_and_other_trouble_is_none() {
    let rig = Rig::new("a.json", Some("1"));
    fs::remove_file(rig.dir.join("a.json")).unwrap();
    fs::create_dir(rig.dir.join("a.json")).unwrap();
    rig.settle();
    rig.settle();
    assert_eq!(rig.names(), [START, "WARN file_unreadable"]);
    assert_eq!(rig.events()[1]["context"]["error_kind"], "not_a_regular_file");
    fs::remove_dir(rig.dir.join("a.json")).unwrap();
    rig.write("a.json", "1");
    let recovered = &rig.events()[2];
    assert_eq!(
        (&recovered["event"], &recovered["context"]["after"]),
        (&json!("config_recovered"), &json!("file_unreadable"))
    );
    symlink("loop.json", rig.dir.join("loop.json")).unwrap();
    rig.watcher.watch(rig.dir.join("loop.json"), |_| {}).unwrap();
    assert_eq!(rig.events()[4]["context"]["error_kind"], "link_loop");
    let file = rig.dir.join("b.json");
    fs::write(&file, "1").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&file).is_ok() {
        println!("SKIPPED: this user (root) reads files without permission, so mode 0 cannot be tried");
        return;
    }
    rig.watcher.watch(&file, |_| {}).unwrap();
    rig.settle();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    rig.settle();
    assert_eq!(rig.names()[5..], [START, "SECURITY permission_denied", "INFO config_recovered", CHANGE]);
}

#[test]
fn a_callback_that_panics_is_reported_and_the_next_ones_run() {
    let rig = Rig::empty();
    rig.write("a.json", "0");
    let errors = Arc::new(Mutex::new(Vec::new()));
    let (to, calls) = (errors.clone(), Arc::new(Mutex::new(0)));
    rig.watcher.error_handler(move |e| to.lock().unwrap().push((e.kind(), e.to_string())));
    let count = calls.clone();
    let callback = move |c: &ChangeEvent| {
        *count.lock().unwrap() += 1;
        assert_ne!(c.new, Some(json!(1)), "one is too small");
    };
    rig.watcher.watch(rig.dir.join("a.json"), callback).unwrap();
    rig.watcher.start().unwrap();
    rig.write("a.json", "1");
    rig.write("a.json", "2");
    assert_eq!(*calls.lock().unwrap(), 2);
    let errors = errors.lock().unwrap();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].0 == WatchErrorKind::CallbackPanicked && errors[0].1.contains("one is too small"), "{errors:?}");
    assert_eq!(rig.names(), [START, CHANGE, CHANGE]);
}

#[test]
fn unwatch_watch_settle_and_stop_from_inside_a_callback() {
    let rig = Rig::empty();
    for (name, content) in [("a.json", "0"), ("b.json", "0"), ("c.json", "0")] {
        rig.write(name, content);
    }
    let (a, b, c) = (rig.dir.join("a.json"), rig.dir.join("b.json"), rig.dir.join("c.json"));
    let (tx, told) = channel();
    let (w, path) = (Arc::downgrade(&rig.watcher), b.clone());
    let tell = tx.clone();
    let on_a = move |change: &ChangeEvent| {
        let w = w.upgrade().unwrap();
        assert!(w.unwatch(&change.path));
        assert!(!w.unwatch(&change.path));
        let tell = tell.clone();
        w.watch(&path, move |c| tell.send(c.path.clone()).unwrap()).unwrap();
        assert_eq!(w.settle(WAIT).unwrap_err().kind(), WatchErrorKind::InCallback);
    };
    rig.watcher.watch(&a, on_a).unwrap();
    let w = Arc::downgrade(&rig.watcher);
    let on_c = move |_: &ChangeEvent| {
        w.upgrade().unwrap().stop().unwrap();
        tx.send("stopped".into()).unwrap();
    };
    rig.watcher.watch(&c, on_c).unwrap();
    rig.watcher.start().unwrap();
    rig.write("a.json", "1");
    assert_eq!(rig.watcher.watched(), [b.clone(), c.clone()]);
    rig.write("a.json", "2");
    rig.write("b.json", "1");
    assert_eq!(told.recv_timeout(WAIT).unwrap(), b);
    fs::write(&c, "1").unwrap();
    assert_eq!(told.recv_timeout(WAIT).unwrap(), Path::new("stopped"));
    assert_eq!(rig.watcher.settle(WAIT).unwrap_err().kind(), WatchErrorKind::NotRunning);
    rig.watcher.stop().unwrap();
    assert_eq!(rig.names().iter().filter(|n| **n == CHANGE).count(), 3);
}

#[test]
fn a_directory_with_files_now_and_later() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("conf");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.json"), "1").unwrap();
    fs::write(dir.join("note.txt"), "1").unwrap();
    let trail = temp.path().join("trail.jsonl");
    let (tx, changes) = channel();
    let config = WatcherConfig::new(AuditConfig::new(&trail)).debounce(Duration::from_millis(5));
    let watcher =
        universal_config_watcher_with_config(&dir, config, move |c| tx.send(c.clone()).unwrap_or(())).unwrap();
    assert_eq!(watcher.watched(), [dir.join("a.json")]);
    watcher.settle(WAIT).unwrap();
    let next = || changes.recv_timeout(WAIT).map(|c| (c.kind, c.path)).unwrap();
    fs::write(dir.join("b.yml"), "x: 1").unwrap();
    assert_eq!(next(), (ChangeKind::Created, dir.join("b.yml")));
    fs::remove_file(dir.join("b.yml")).unwrap();
    assert_eq!(next(), (ChangeKind::Deleted, dir.join("b.yml")));
    assert!(watcher.unwatch(dir.join("a.json")));
    fs::write(dir.join("a.json"), "2").unwrap();
    watcher.settle(WAIT).unwrap();
    assert!(watcher.unwatch(&dir));
    fs::write(dir.join("c.json"), "2").unwrap();
    watcher.settle(WAIT).unwrap();
    assert!(changes.try_recv().is_err() && watcher.watched().is_empty());
    drop(watcher);
    let reader = AuditReader::open(&trail).unwrap();
    assert_eq!(reader.query(Filter::new().event("config_change")).unwrap().count(), 2);
    assert!(reader.verify().unwrap().is_ok());
}

// ---- Real histories ------------------------------------------------------------------------------------------------------------------------------------

fn shared() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    std::env::var_os("ARGUS_SHARED").map_or(beside, PathBuf::from).join("realconfigs")
}

fn versions(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|p| p.extension().is_some_and(|e| e == extension));
    all.sort();
    all
}

/// The values of TOML files as Python reads them; `None` without Python.
fn python_toml(files: &[PathBuf]) -> Option<Vec<Value>> {
    const CODE: &str =
        "import sys,json,tomllib\nprint(json.dumps([tomllib.load(open(p,'rb')) for p in sys.argv[1:]], default=str))";
    let output = std::process::Command::new("python3").arg("-c").arg(CODE).args(files).output().ok()?;
    serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
}

/// An independent parse of every version.
fn values(files: &[PathBuf], extension: &str) -> Option<Vec<Value>> {
    let text = |p: &PathBuf| fs::read_to_string(p).unwrap();
    match extension {
        "json" => Some(files.iter().map(|p| serde_json::from_str(&text(p)).unwrap()).collect()),
        "yaml" => Some(files.iter().map(|p| yaml_serde::from_str(&text(p)).unwrap()).collect()),
        _ => python_toml(files),
    }
}

/// Equal but for the form of numbers: canonical JSON has no `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, x)| y.get(k).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

fn put(file: &Path, content: &[u8], rename: bool) {
    if rename {
        let new = file.with_extension("new");
        fs::write(&new, content).unwrap();
        fs::rename(&new, file).unwrap();
    } else {
        fs::write(file, content).unwrap();
    }
}

fn replay(name: &str) {
    let folder = shared().join(name);
    if !folder.is_dir() {
        println!("SKIPPED: {} is missing; set ARGUS_SHARED to the folder that has realconfigs", folder.display());
        return;
    }
    let extension = name.rsplit('.').next().unwrap();
    let files = versions(&folder, extension);
    assert!(files.len() > 5, "{} has {} versions", folder.display(), files.len());
    let expected = values(&files, extension);
    if expected.is_none() {
        println!("SKIPPED: python3 with tomllib is missing, so the values of {name} are compared with no other parser");
    }
    for rename in [false, true] {
        for trail in ["trail.db", "trail.jsonl"] {
            replay_once(name, &files, expected.as_deref(), rename, trail);
        }
    }
}

fn replay_once(name: &str, files: &[PathBuf], expected: Option<&[Value]>, rename: bool, trail: &str) {
    let temp = tempfile::tempdir().unwrap();
    let (trail, dir) = (temp.path().join(trail), temp.path().join("conf"));
    fs::create_dir(&dir).unwrap();
    let file = dir.join(name);
    let audit = AuditConfig::new(&trail).redaction(Redaction::none());
    let logger = AuditLogger::open(audit.clone()).unwrap();
    // A file that is written in place is empty for a moment, which is longer where this thread has to wait for a processor.
    let debounce = Duration::from_millis(if rename { 1 } else { 10 });
    let config = WatcherConfig::new(audit).debounce(debounce);
    let watcher = Watcher::with_sink(config, logger.clone());
    let changes: Arc<Mutex<Vec<ChangeEvent>>> = Arc::default();
    let to = changes.clone();
    let errors: Arc<Mutex<Vec<String>>> = Arc::default();
    let report = errors.clone();
    watcher.error_handler(move |e| report.lock().unwrap().push(e.to_string()));
    watcher.watch(&file, move |c| to.lock().unwrap().push(c.clone())).unwrap();
    put(&file, &fs::read(&files[0]).unwrap(), rename);
    watcher.start().unwrap();
    let mut per_version = vec![0];
    for version in &files[1..] {
        let before = changes.lock().unwrap().len();
        put(&file, &fs::read(version).unwrap(), rename);
        watcher.settle(WAIT).unwrap();
        per_version.push(changes.lock().unwrap().len() - before);
        // The same content once more is nothing.
        put(&file, &fs::read(version).unwrap(), rename);
        watcher.settle(WAIT).unwrap();
        assert_eq!(changes.lock().unwrap().len() - before, per_version[per_version.len() - 1]);
    }
    watcher.stop().unwrap();
    assert_eq!(logger.close(WAIT).error, None);
    assert_eq!(*errors.lock().unwrap(), [""; 0]);
    let changes = changes.lock().unwrap();

    let reader = AuditReader::open(&trail).unwrap();
    let records: Vec<Record> = reader.query(Filter::new().file(&file)).unwrap().map(Result::unwrap).collect();
    assert_eq!(records[0].event, "file_watch_start");
    let records = &records[1..];
    assert!(
        records.iter().all(|r| r.event == "config_change" && r.level == Level::Critical),
        "{name}: something else than changes"
    );
    assert_eq!(records.len(), changes.len());
    for (record, change) in records.iter().zip(changes.iter()) {
        assert_eq!(Some(record.record_id), change.record_id);
        for (json, value) in [(&record.old_value, &change.old), (&record.new_value, &change.new)] {
            assert!(
                same(&json.as_ref().unwrap().to_value(), value.as_ref().unwrap()),
                "{name}: the record says something else"
            );
        }
        assert_eq!(record.context_value("value_omitted"), None);
    }
    if let Some(expected) = expected {
        let mut next = changes.iter();
        for i in 1..files.len() {
            let differs = expected[i] != expected[i - 1];
            assert_eq!(per_version[i], usize::from(differs), "{}", files[i].display());
            if differs {
                let change = next.next().unwrap();
                assert_eq!(change.old.as_ref(), Some(&expected[i - 1]), "old of {}", files[i].display());
                assert_eq!(change.new.as_ref(), Some(&expected[i]), "new of {}", files[i].display());
            }
        }
        assert!(next.next().is_none() && !changes.is_empty());
    }
    let report = reader.verify().unwrap();
    assert!(report.is_ok(), "{report}");
}

#[test]
fn real_json() {
    replay("flagd.json");
}

#[cfg(feature = "yaml")]
#[test]
fn real_yaml() {
    for name in ["otelcol-config.yaml", "prometheus-config.yaml", "vault-values.yaml"] {
        replay(name);
    }
}

#[cfg(feature = "toml")]
#[test]
fn real_toml() {
    replay("ripgrep.toml");
}
