//! The watcher's rules on awkward files and directories, on the operating system's notifications. No test sleeps.
#![cfg(feature = "watch")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use argus_core::{AuditConfig, AuditLogger, AuditSink, ChangeEvent, ChangeKind, MemoryTrail, Watcher, WatcherConfig};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(30);

struct Rig {
    dir: PathBuf,
    trail: MemoryTrail,
    logger: AuditLogger,
    watcher: Arc<Watcher>,
    errors: Arc<Mutex<Vec<String>>>,
    _temp: tempfile::TempDir,
}

impl Rig {
    fn new() -> Rig {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        let trail = MemoryTrail::new();
        let logger = AuditLogger::open_in_memory(AuditConfig::default(), &trail).unwrap();
        let config = WatcherConfig::default().debounce(Duration::from_millis(2));
        let watcher = Arc::new(Watcher::with_sink(config, logger.clone()));
        let errors: Arc<Mutex<Vec<String>>> = Arc::default();
        let to = errors.clone();
        watcher.error_handler(move |e| to.lock().unwrap().push(e.to_string()));
        Rig { dir, trail, logger, watcher, errors, _temp: temp }
    }

    fn watch(&self, path: &PathBuf) -> Receiver<ChangeEvent> {
        let (tx, changes) = channel();
        self.watcher.watch(path, move |c| tx.send(c.clone()).unwrap_or(())).unwrap();
        changes
    }

    fn write(&self, path: &PathBuf, content: &str) {
        fs::write(path, content).unwrap();
        self.watcher.settle(WAIT).unwrap();
    }

    fn events(&self) -> Vec<Value> {
        self.logger.flush(WAIT).unwrap();
        let all = self.trail.lines().into_iter().map(|l| serde_json::from_str::<Value>(&l).unwrap());
        all.filter(|v| v["event"] != "audit_open").collect()
    }

    fn names(&self) -> Vec<String> {
        self.events().iter().map(|v| v["event"].as_str().unwrap().into()).collect()
    }

    /// Nothing was refused, and nobody had to be told.
    fn assert_honest(&self) {
        let health = self.logger.health();
        assert_eq!((health.rejected, health.lost), (0, 0));
        assert_eq!(*self.errors.lock().unwrap(), [""; 0]);
    }
}

#[test]
fn another_way_to_write_a_number_is_no_change() {
    let rig = Rig::new();
    let file = rig.dir.join("a.json");
    fs::write(&file, r#"{"a":1,"b":2}"#).unwrap();
    let changes = rig.watch(&file);
    rig.watcher.start().unwrap();
    rig.write(&file, r#"{"a":1.0,"b":2e0}"#);
    assert_eq!(rig.names(), ["file_watch_start"]);
    rig.write(&file, r#"{"a":1,"b":2.5}"#);
    assert_eq!(changes.recv_timeout(WAIT).unwrap().diff, json!({"/b":{"old":2.0,"new":2.5}}));
}

#[test]
fn a_key_that_is_too_long_for_a_record_is_cut_in_the_warning() {
    let rig = Rig::new();
    let file = rig.dir.join("a.json");
    fs::write(&file, "1").unwrap();
    let _changes = rig.watch(&file);
    rig.watcher.start().unwrap();
    let key = "é".repeat(150_000);
    rig.write(&file, &format!(r#"{{"{key}":1,"{key}":2}}"#));
    assert_eq!(rig.names(), ["file_watch_start", "parse_warning"]);
    rig.assert_honest();
}

#[test]
fn a_change_too_large_for_a_record_is_not_offered_in_vain() {
    let rig = Rig::new();
    let file = rig.dir.join("a.json");
    fs::write(&file, format!("\"{}\"", "a".repeat(100_000))).unwrap();
    let _changes = rig.watch(&file);
    rig.watcher.start().unwrap();
    for (c, n) in [("b", 100_000), ("c", 300_000)] {
        rig.write(&file, &format!("\"{}\"", c.repeat(n)));
    }
    assert_eq!(rig.names(), ["file_watch_start", "config_change", "config_change"]);
    rig.assert_honest();
}

#[test]
fn a_file_that_is_too_large_is_told_at_every_write_and_never_read() {
    let rig = Rig::new();
    let file = rig.dir.join("a.json");
    fs::write(&file, "1").unwrap();
    let _changes = rig.watch(&file);
    rig.watcher.start().unwrap();
    // Sparse: it claims what no memory holds.
    for size in [1_u64 << 40, 1 << 41] {
        fs::File::options().write(true).open(&file).unwrap().set_len(size).unwrap();
        rig.watcher.settle(WAIT).unwrap();
    }
    rig.watcher.settle(WAIT).unwrap();
    rig.write(&file, "1");
    let expected = ["file_watch_start", "parse_warning", "parse_warning", "config_recovered"];
    assert_eq!(rig.names(), expected);
}

#[test]
fn a_path_that_is_no_utf8() {
    let rig = Rig::new();
    let file = rig.dir.join(OsStr::from_bytes(b"a\xff.json"));
    fs::write(&file, "1").unwrap();
    let changes = rig.watch(&file);
    rig.watcher.start().unwrap();
    fs::write(&file, "2").unwrap();
    assert_eq!(changes.recv_timeout(WAIT).unwrap().path, file);
    assert!(rig.events()[1]["context"]["argus.path_bytes"].as_str().unwrap().ends_with("61ff2e6a736f6e"));
}

#[test]
fn a_directory_watched_again_has_the_new_callback_for_all_its_files() {
    let rig = Rig::new();
    let file = rig.dir.join("a.json");
    fs::write(&file, "1").unwrap();
    let (tx, old) = channel();
    rig.watcher.watch_dir(&rig.dir, move |c| tx.send(c.clone()).unwrap_or(())).unwrap();
    rig.watcher.start().unwrap();
    let (tx, new) = channel();
    rig.watcher.watch_dir(&rig.dir, move |c| tx.send(c.clone()).unwrap_or(())).unwrap();
    rig.write(&file, "2");
    assert_eq!((old.try_iter().count(), new.try_iter().count()), (0, 1));
    assert_eq!(rig.names(), ["file_watch_start", "file_watch_start", "config_change"]);
}

#[test]
fn ever_new_names_leave_nothing_behind() {
    let rig = Rig::new();
    let (tx, changes) = channel();
    rig.watcher.watch_dir(&rig.dir, move |c| tx.send(c.kind).unwrap_or(())).unwrap();
    rig.watcher.start().unwrap();
    for i in 0..20 {
        let file = rig.dir.join(format!("{i}.json"));
        rig.write(&file, "1");
        fs::remove_file(&file).unwrap();
        rig.watcher.settle(WAIT).unwrap();
        assert!(rig.watcher.watched().is_empty());
    }
    let kinds: Vec<ChangeKind> = changes.try_iter().collect();
    assert_eq!(kinds, [ChangeKind::Created, ChangeKind::Deleted].repeat(20));
}

#[test]
fn a_directory_is_put_in_the_place_of_another_and_removed_and_made_again() {
    let rig = Rig::new();
    let (here, next, away) = (rig.dir.join("conf"), rig.dir.join("next"), rig.dir.join("away"));
    let file = here.join("a.json");
    for (dir, value) in [(&here, "1"), (&next, "2")] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("a.json"), value).unwrap();
    }
    let changes = rig.watch(&file);
    rig.watcher.start().unwrap();
    fs::rename(&here, &away).unwrap();
    fs::rename(&next, &here).unwrap();
    let mut last = None;
    while last != Some(json!(2)) {
        last = changes.recv_timeout(WAIT).unwrap().new;
    }
    for value in 3..10 {
        // A file system likes to give the same number again.
        fs::remove_dir_all(&here).unwrap();
        fs::create_dir(&here).unwrap();
        fs::write(&file, value.to_string()).unwrap();
        while last != Some(json!(value)) {
            last = changes.recv_timeout(WAIT).unwrap().new;
        }
        rig.watcher.settle(WAIT).unwrap();
        fs::write(&file, (value * 100).to_string()).unwrap();
        while last != Some(json!(value * 100)) {
            last = changes.recv_timeout(Duration::from_secs(10)).unwrap().new;
        }
    }
}

#[test]
fn stopped_and_started_from_inside_a_callback_it_goes_on_one_call_at_a_time() {
    let rig = Rig::new();
    let file = rig.dir.join("a.json");
    fs::write(&file, "0").unwrap();
    let (tx, changes) = channel();
    let (w, inside) = (Arc::downgrade(&rig.watcher), Mutex::new(()));
    let again = move |c: &ChangeEvent| {
        let _alone = inside.try_lock().expect("two callbacks at once");
        let w = w.upgrade().unwrap();
        w.stop().unwrap();
        w.start().unwrap();
        tx.send(c.new.clone()).unwrap();
    };
    rig.watcher.watch(&file, again).unwrap();
    rig.watcher.start().unwrap();
    for i in 1..5 {
        fs::write(&file, i.to_string()).unwrap();
        assert_eq!(changes.recv_timeout(WAIT).unwrap(), Some(json!(i)));
    }
    rig.watcher.stop().unwrap();
    rig.assert_honest();
}
