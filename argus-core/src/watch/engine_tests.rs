//! Tests of the engine alone: a test gives the time and every message, and nothing else happens.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::emit::{Shared, lock};
use super::engine::{Engine, Msg};
use super::source::{Hints, Manual, Signal};
use super::{Watcher, WatcherConfig};
use crate::clock::ManualClock;
use crate::config::AuditConfig;
use crate::logger::AuditLogger;
use crate::sink::AuditSink;
use crate::store::memory::MemoryTrail;

const QUIET: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_secs(30);
const WAIT: Duration = Duration::from_secs(20);

struct Rig {
    dir: PathBuf,
    trail: MemoryTrail,
    logger: AuditLogger,
    watcher: Watcher,
    shared: Arc<Shared>,
    engine: Engine,
    source: Manual,
    clock: Arc<ManualClock>,
    now: Instant,
    hints: Arc<Hints>,
    _temp: tempfile::TempDir,
}

impl Rig {
    fn new(files: &[(&str, &str)]) -> Rig {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        for (name, content) in files {
            fs::write(dir.join(name), content).unwrap();
        }
        let trail = MemoryTrail::new();
        let logger = AuditLogger::open_in_memory(AuditConfig::default(), &trail).unwrap();
        // No file of a test is fresh by this clock, unless the test says so.
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
        let config = WatcherConfig::new(AuditConfig::default().clock(clock.clone()));
        let config = config.debounce(QUIET).max_wait(LONG).poll_interval(POLL);
        let watcher = Watcher::with_sink(config, logger.clone());
        let (shared, source, now) = (watcher.shared.clone(), Manual::default(), Instant::now());
        let (hints, halt) = (Arc::new(Hints::default()), Arc::new(AtomicBool::new(false)));
        let inbox = (mpsc::channel().1, hints.clone());
        let engine = Engine::new(shared.clone(), Box::new(source.clone()), inbox, halt, now);
        Rig { dir, trail, logger, watcher, shared, engine, source, clock, now, hints, _temp: temp }
    }

    /// Watches the files of the test and takes the first looks.
    fn watching(files: &[(&str, &str)]) -> Rig {
        let mut rig = Rig::new(files);
        for (name, _) in files {
            rig.watcher.watch(rig.dir.join(name), |_| {}).unwrap();
        }
        rig.after(Duration::ZERO);
        rig
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
        self.engine.step(self.now);
    }

    fn signal(&mut self, signal: Signal) {
        let signal = self.hints.send(signal).unwrap();
        self.engine.take(Msg::Signal(signal), self.now);
        self.engine.step(self.now);
    }

    fn touch(&mut self, name: &str) {
        self.signal(Signal::Touched(vec![self.dir.join(name)]));
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.dir.join(name), content).unwrap();
    }

    fn events(&self) -> Vec<Value> {
        self.logger.flush(WAIT).unwrap();
        let all = self.trail.lines().into_iter().map(|l| serde_json::from_str::<Value>(&l).unwrap());
        all.filter(|v| v["event"] != "audit_open").collect()
    }

    /// Event, old and new value of every record, and how it was seen.
    fn told(&self) -> Vec<(String, Value, Value, Value)> {
        let of = |v: &Value, k: &str| v.get(k).cloned().unwrap_or_default();
        let told = |v: Value| {
            (
                v["event"].as_str().unwrap().into(),
                of(&v, "old_value"),
                of(&v, "new_value"),
                v["context"]["seen_by"].clone(),
            )
        };
        self.events().into_iter().skip(1).map(told).collect()
    }
}

fn change(old: Value, new: Value, by: &str) -> (String, Value, Value, Value) {
    ("config_change".into(), old, new, by.into())
}

#[test]
fn the_poll_waits_for_a_file_that_is_being_written() {
    let mut rig = Rig::watching(&[("a.yaml", "port: 1")]);
    // Half of `port: 8080` is a good document as well.
    rig.write("a.yaml", "port: 80");
    rig.after(POLL);
    rig.write("a.yaml", "port: 8080");
    rig.after(QUIET);
    assert_eq!(rig.told(), []);
    rig.after(QUIET);
    assert_eq!(rig.told(), [change(json!({"port":1}), json!({"port":8080}), "poll")]);
}

#[test]
fn the_poll_and_a_rescan_leave_a_pending_debounce_alone() {
    for signal in [None, Some(Signal::Rescan)] {
        let mut rig = Rig::watching(&[("a.yaml", "port: 1")]);
        rig.after(POLL - QUIET / 2);
        rig.write("a.yaml", "port: 80");
        rig.touch("a.yaml");
        match signal {
            Some(s) => rig.signal(s),
            None => rig.after(QUIET / 2),
        }
        assert_eq!(rig.told(), []);
        rig.write("a.yaml", "port: 8080");
        rig.touch("a.yaml");
        rig.after(QUIET);
        assert_eq!(rig.told(), [change(json!({"port":1}), json!({"port":8080}), "notify")]);
    }
}

#[test]
fn a_file_that_is_never_quiet_is_read_after_max_wait() {
    let mut rig = Rig::watching(&[("a.json", "1")]);
    let mut content = String::from("12");
    rig.write("a.json", &content);
    rig.after(POLL);
    for _ in 0..=10 {
        content.push('0');
        rig.write("a.json", &content);
        rig.after(QUIET);
    }
    assert_eq!(rig.told().len(), 1);
}

#[test]
fn the_first_look_waits_for_a_file_that_is_being_written() {
    let mut rig = Rig::new(&[("a.json", "1")]);
    rig.watcher.watch(rig.dir.join("a.json"), |_| {}).unwrap();
    let written = SystemTime::UNIX_EPOCH + POLL;
    File::options().write(true).open(rig.dir.join("a.json")).unwrap().set_modified(written).unwrap();
    rig.clock.set(written + QUIET / 2);
    let (answer, answered) = mpsc::sync_channel(1);
    rig.engine.take(Msg::Sync(Some(answer)), rig.now);
    rig.after(Duration::ZERO);
    assert!(rig.events().is_empty() && answered.try_recv().is_err());
    rig.write("a.json", "12");
    rig.after(QUIET);
    rig.after(QUIET);
    assert_eq!((rig.events().len(), answered.try_recv()), (1, Ok(())));
    assert_eq!(rig.events()[0]["event"], "file_watch_start");
    rig.after(POLL);
    assert_eq!(rig.told(), []);
}

#[test]
fn stop_waits_for_a_quiet_time_and_no_longer() {
    let mut rig = Rig::watching(&[("a.json", "1"), ("b.json", "1")]);
    rig.write("a.json", "12");
    rig.engine.take(Msg::Stop, rig.now);
    rig.after(Duration::ZERO);
    assert_eq!(rig.events().len(), 2);
    rig.write("a.json", "123");
    rig.after(QUIET);
    assert_eq!(rig.events().len(), 2);
    // The last moment: half of what `stop` waits, or `max_wait`.
    rig.after(LONG);
    assert_eq!(rig.events()[2]["new_value"], json!(123));
}

#[test]
fn a_file_that_vanished_from_a_directory_is_forgotten_until_it_comes_again() {
    let mut rig = Rig::new(&[("a.json", "0")]);
    rig.watcher.watch_dir(&rig.dir, |_| {}).unwrap();
    rig.after(Duration::ZERO);
    let mut expected = Vec::new();
    for name in ["a.json", "b.json", "b.json"] {
        if !rig.dir.join(name).exists() {
            rig.write(name, "0");
            rig.touch(name);
            rig.after(QUIET);
            rig.after(QUIET);
            expected.push(change(Value::Null, json!(0), "notify"));
        }
        assert_eq!(rig.watcher.watched(), [rig.dir.join(name)]);
        fs::remove_file(rig.dir.join(name)).unwrap();
        rig.touch(name);
        rig.after(QUIET);
        expected.push(change(json!(0), Value::Null, "notify"));
        assert!(rig.watcher.watched().is_empty());
    }
    assert_eq!(rig.told(), expected);
}

#[test]
fn a_new_file_in_a_directory_is_read_when_it_is_quiet() {
    let mut rig = Rig::new(&[]);
    rig.watcher.watch_dir(&rig.dir, |_| {}).unwrap();
    rig.after(Duration::ZERO);
    rig.write("a.yaml", "port: 80");
    rig.touch("a.yaml");
    rig.after(QUIET);
    rig.write("a.yaml", "port: 8080");
    rig.after(QUIET);
    rig.after(QUIET);
    let created = rig.events();
    assert_eq!((created.len(), &created[0]["new_value"]), (1, &json!({"port":8080})));
}

#[test]
fn a_link_that_is_swapped_before_its_directory_is_armed_is_followed() {
    let mut rig = Rig::new(&[]);
    for v in ["..v1", "..v2"] {
        fs::create_dir(rig.dir.join(v)).unwrap();
        rig.write(&format!("{v}/app.json"), "1");
    }
    symlink("..v1", rig.dir.join("..data")).unwrap();
    symlink("..data/app.json", rig.dir.join("app.json")).unwrap();
    rig.watcher.watch(rig.dir.join("app.json"), |_| {}).unwrap();
    let dir = rig.dir.clone();
    let swap = move |_: &Path| {
        let _ = fs::remove_file(dir.join("..data"));
        symlink("..v2", dir.join("..data")).unwrap();
    };
    rig.source.0.lock().unwrap().before = Some(Box::new(swap));
    rig.after(Duration::ZERO);
    let dirs = rig.source.0.lock().unwrap().dirs.clone();
    assert!(dirs.contains(&rig.dir.join("..v2")), "{dirs:?}");
    assert!(!dirs.contains(&rig.dir.join("..v1")), "{dirs:?}");
}

#[test]
fn a_directory_that_was_itself_hinted_at_is_armed_anew() {
    // It may have been removed and made again with the same number.
    let mut rig = Rig::watching(&[("a.json", "1")]);
    assert!(rig.source.0.lock().unwrap().dirs.remove(&rig.dir));
    rig.signal(Signal::Touched(vec![rig.dir.clone()]));
    assert!(rig.source.0.lock().unwrap().dirs.contains(&rig.dir));
}

#[test]
fn a_hint_beside_a_file_leads_to_a_look_only_if_its_stamp_is_another() {
    let mut rig = Rig::watching(&[("a.json", "1")]);
    let target = lock(&rig.shared.registry).files.values().next().cloned().unwrap();
    let seen = target.seen();
    rig.touch("other");
    rig.after(QUIET);
    rig.after(QUIET);
    assert_eq!(target.seen(), seen);
    rig.write("a.json", "22");
    rig.touch("other");
    rig.after(QUIET);
    rig.after(QUIET);
    assert_eq!(rig.told(), [change(json!(1), json!(22), "notify")]);
}
