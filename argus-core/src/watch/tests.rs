//! Tests of the whole watcher with a source that the test drives, and a trail in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use super::source::{Manual, Signal};
use super::*;
use crate::config::AuditConfig;
use crate::store::memory::MemoryTrail;

const WAIT: Duration = Duration::from_secs(20);

struct Rig {
    dir: PathBuf,
    trail: MemoryTrail,
    logger: AuditLogger,
    watcher: Watcher,
    source: Manual,
    changes: Receiver<ChangeEvent>,
    errors: Receiver<WatchErrorKind>,
    _temp: tempfile::TempDir,
}

impl Rig {
    fn new(config: WatcherConfig, file: &str, content: &str) -> Rig {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        fs::write(dir.join(file), content).unwrap();
        let trail = MemoryTrail::new();
        let logger = AuditLogger::open_in_memory(AuditConfig::default(), &trail).unwrap();
        let watcher = Watcher::with_sink(config, logger.clone());
        let (tx, changes) = channel();
        watcher.watch(dir.join(file), move |c| tx.send(c.clone()).unwrap_or(())).unwrap();
        let (tx, errors) = channel();
        watcher.error_handler(move |e| tx.send(e.kind()).unwrap_or(()));
        Rig { dir, trail, logger, watcher, source: Manual::default(), changes, errors, _temp: temp }
    }

    fn start(&self) {
        let source = self.source.clone();
        self.watcher
            .start_with(move |tell, _| {
                source.0.lock().unwrap().tell = Some(tell);
                Box::new(source)
            })
            .unwrap();
    }

    fn events(&self, name: &str) -> Vec<Value> {
        self.logger.flush(WAIT).unwrap();
        let all = self.trail.lines().into_iter().map(|l| serde_json::from_str::<Value>(&l).unwrap());
        all.filter(|v| v["event"] == name).collect()
    }

    fn change(&self) -> ChangeEvent {
        self.changes.recv_timeout(WAIT).unwrap()
    }
}

fn config() -> WatcherConfig {
    WatcherConfig::default().debounce(Duration::from_millis(5))
}

#[test]
fn a_hint_leads_to_a_look_and_every_record_says_how_it_was_seen() {
    let rig = Rig::new(config(), "a.json", "1");
    rig.start();
    rig.watcher.settle(WAIT).unwrap();
    assert!(rig.source.0.lock().unwrap().dirs.contains(&rig.dir));
    let file = rig.dir.join("a.json");
    fs::write(&file, "2").unwrap();
    rig.source.tell(Signal::Touched(vec![file.clone()]));
    let change = rig.change();
    assert_eq!((change.kind, change.old, change.new), (ChangeKind::Modified, Some(1.into()), Some(2.into())));
    assert!(change.record_id.is_some());
    fs::write(&file, "3").unwrap();
    rig.source.tell(Signal::Rescan);
    rig.change();
    fs::write(&file, "4").unwrap();
    rig.source.tell(Signal::Trouble("overflow".into()));
    rig.change();
    assert_eq!(rig.errors.recv_timeout(WAIT).unwrap(), WatchErrorKind::Notifications);
    fs::write(&file, "5").unwrap();
    rig.watcher.settle(WAIT).unwrap();
    let seen: Vec<Value> = rig.events("config_change").iter().map(|r| r["context"]["seen_by"].clone()).collect();
    assert_eq!(seen, ["notify", "rescan", "rescan", "poll"]);
    // A sibling in the same directory is a reason to look as well.
    fs::write(&file, "6").unwrap();
    rig.source.tell(Signal::Touched(vec![rig.dir.join("other")]));
    assert_eq!(rig.changes.iter().find(|c| c.new == Some(6.into())).unwrap().kind, ChangeKind::Modified);
}

#[test]
fn a_source_that_refuses_is_told_once_and_the_poll_goes_on() {
    let rig = Rig::new(config().poll_interval(Duration::from_millis(10)), "a.json", "1");
    rig.source.0.lock().unwrap().refuse = true;
    rig.start();
    fs::write(rig.dir.join("a.json"), "2").unwrap();
    assert_eq!(rig.change().new, Some(2.into()));
    rig.watcher.settle(WAIT).unwrap();
    rig.watcher.stop().unwrap();
    assert_eq!(rig.errors.try_iter().collect::<Vec<_>>(), [WatchErrorKind::Notifications]);
}

#[test]
fn what_is_too_large_is_cut_and_never_silent() {
    let text = |c: &str, n: usize| format!("{{\"k\":\"{}\"}}", c.repeat(n));
    let rig = Rig::new(config(), "a.json", &text("a", 80_000));
    rig.start();
    for content in [
        text("b", 80_000),
        text("c", 300_000),
        format!("{}1{}", "[".repeat(50), "]".repeat(50)),
        r#"{"$argus.x":1}"#.into(),
    ] {
        fs::write(rig.dir.join("a.json"), content).unwrap();
        rig.watcher.settle(WAIT).unwrap();
    }
    let records = rig.events("config_change");
    let member = |i: usize, k: &str| records[i]["context"][k].clone();
    assert_eq!(records.len(), 4);
    assert_eq!(member(0, "diff_omitted"), true);
    assert!(records[0].get("new_value").is_some());
    for (i, record) in records.iter().enumerate().skip(1) {
        assert_eq!(member(i, "value_omitted"), true, "{i}");
        assert!(record.get("new_value").is_none_or(Value::is_null));
        assert!(member(i, "new_sha256").is_string());
    }
    assert_eq!(rig.errors.try_iter().count(), 0);
    // What was cut was not offered whole before.
    assert_eq!(rig.logger.health().rejected, 0);
    assert_eq!(rig.changes.try_iter().filter(|c| c.record_id.is_some()).count(), 4);
}

#[test]
fn secrets_are_in_no_record() {
    let rig = Rig::new(config(), "a.json", r#"{"token":{"value":"s3cret1"},"passwords":["s3cret2"]}"#);
    rig.start();
    fs::write(rig.dir.join("a.json"), r#"{"token":{"value":"s3cret3"},"passwords":["s3cret4"]}"#).unwrap();
    rig.watcher.settle(WAIT).unwrap();
    assert_eq!(rig.events("config_change").len(), 1);
    assert!(!rig.trail.lines().concat().contains("s3cret"));
}

#[test]
fn secrets_of_a_text_are_in_no_record_and_their_change_is_told() {
    let rig = Rig::new(config(), "app.env", "DB_PASSWORD=s3cret1\nPORT=1\n");
    rig.start();
    for content in ["DB_PASSWORD=s3cret2\nPORT=1\n", "DB_PASSWORD=s3cret2\nPORT=22\n"] {
        fs::write(rig.dir.join("app.env"), content).unwrap();
        rig.watcher.settle(WAIT).unwrap();
    }
    let records = rig.events("config_change");
    assert_eq!(records[0]["context"]["diff"], serde_json::json!({"":{"changed":true}}));
    assert_ne!(records[0]["context"]["old_sha256"], records[0]["context"]["new_sha256"]);
    assert_eq!(records[1]["new_value"], "DB_PASSWORD=[redacted]\nPORT=22\n");
    assert!(!rig.trail.lines().concat().contains("s3cret"));
    assert_eq!(rig.changes.iter().next().unwrap().new.unwrap(), "DB_PASSWORD=s3cret2\nPORT=1\n");
}

#[test]
fn a_closed_sink_is_reported_and_callbacks_still_run() {
    let rig = Rig::new(config(), "a.json", "1");
    rig.start();
    rig.logger.close(WAIT);
    fs::write(rig.dir.join("a.json"), "2").unwrap();
    rig.watcher.settle(WAIT).unwrap();
    assert_eq!(rig.change().record_id, None);
    assert_eq!(rig.errors.recv_timeout(WAIT).unwrap(), WatchErrorKind::Audit);
}

#[test]
fn stop_takes_a_last_look_and_is_idempotent_and_start_goes_on_from_there() {
    let rig = Rig::new(config(), "a.json", "1");
    assert_eq!(rig.watcher.settle(WAIT).unwrap_err().kind(), WatchErrorKind::NotRunning);
    rig.watcher.stop().unwrap();
    rig.start();
    rig.start();
    fs::write(rig.dir.join("a.json"), "2").unwrap();
    rig.watcher.stop().unwrap();
    rig.watcher.stop().unwrap();
    assert_eq!(rig.change().new, Some(2.into()));
    fs::write(rig.dir.join("a.json"), "3").unwrap();
    rig.start();
    assert_eq!(rig.change().new, Some(3.into()));
    assert_eq!(rig.events("file_watch_start").len(), 1);
}

#[test]
fn a_wrong_path_says_what_to_do() {
    let rig = Rig::new(config(), "a.json", "1");
    let e = rig.watcher.watch(rig.dir.join("none/a.json"), |_| {}).unwrap_err();
    assert_eq!((e.kind(), e.path()), (WatchErrorKind::NoDirectory, Some(Path::new(&rig.dir.join("none")))));
    assert!(e.to_string().contains("make it first"));
    assert_eq!(rig.watcher.watch(&rig.dir, |_| {}).unwrap_err().kind(), WatchErrorKind::BadPath);
    assert_eq!(rig.watcher.watch_dir(rig.dir.join("a.json"), |_| {}).unwrap_err().kind(), WatchErrorKind::NoDirectory);
}

#[test]
fn the_directories_of_a_new_chain_are_armed_and_those_of_the_old_are_not() {
    let rig = Rig::new(config(), "x.json", "1");
    for v in ["..v1", "..v2"] {
        fs::create_dir(rig.dir.join(v)).unwrap();
        fs::write(rig.dir.join(v).join("app.json"), format!("\"{v}\"")).unwrap();
    }
    std::os::unix::fs::symlink("..v1", rig.dir.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/app.json", rig.dir.join("app.json")).unwrap();
    rig.watcher.watch(rig.dir.join("app.json"), |_| {}).unwrap();
    rig.start();
    rig.watcher.settle(WAIT).unwrap();
    assert!(rig.source.0.lock().unwrap().dirs.contains(&rig.dir.join("..v1")));
    std::os::unix::fs::symlink("..v2", rig.dir.join("..tmp")).unwrap();
    fs::rename(rig.dir.join("..tmp"), rig.dir.join("..data")).unwrap();
    rig.watcher.settle(WAIT).unwrap();
    let dirs = rig.source.0.lock().unwrap().dirs.clone();
    assert!(dirs.contains(&rig.dir.join("..v2")) && !dirs.contains(&rig.dir.join("..v1")), "{dirs:?}");
    assert_eq!(rig.events("config_change").len(), 1);
}

#[test]
fn a_file_that_is_watched_while_the_watcher_runs_is_looked_at_by_its_thread() {
    let rig = Rig::new(config(), "a.json", "1");
    rig.start();
    let (tx, threads) = channel();
    rig.watcher.error_handler(move |_| tx.send(std::thread::current().name().map(String::from)).unwrap_or(()));
    rig.logger.close(WAIT);
    fs::write(rig.dir.join("b.json"), "1").unwrap();
    rig.watcher.watch(rig.dir.join("b.json"), |_| {}).unwrap();
    // The refused record of the first look: it was taken before the call returned, and not here.
    assert_eq!(threads.try_recv().unwrap().as_deref(), Some("argus-watcher"));
}

#[test]
fn to_watch_waits_for_a_callback_no_longer_than_stop_would() {
    // Long enough for the first look of a busy machine; the test waits it out three times.
    let rig = Rig::new(config().stop_timeout(Duration::from_millis(500)), "a.json", "1");
    let (inside, entered) = channel();
    let (release, released) = channel::<()>();
    let released = std::sync::Mutex::new(released);
    let hangs = move |_: &ChangeEvent| {
        inside.send(()).unwrap();
        released.lock().unwrap().recv().unwrap_or(());
    };
    rig.watcher.watch(rig.dir.join("a.json"), hangs).unwrap();
    rig.start();
    fs::write(rig.dir.join("a.json"), "2").unwrap();
    rig.source.tell(Signal::Touched(vec![rig.dir.join("a.json")]));
    entered.recv_timeout(WAIT).unwrap();
    fs::write(rig.dir.join("b.json"), "1").unwrap();
    rig.watcher.watch(rig.dir.join("b.json"), |_| {}).unwrap();
    assert_eq!(rig.events("file_watch_start").len(), 1);
    assert_eq!(rig.watcher.stop().unwrap_err().kind(), WatchErrorKind::Timeout);
    let again = rig.watcher.start_with(|_, _| Box::new(Silent)).unwrap_err();
    assert_eq!(again.kind(), WatchErrorKind::Timeout);
    release.send(()).unwrap();
    rig.watcher.settle(WAIT).unwrap();
    assert_eq!(rig.events("file_watch_start").len(), 2);
}

#[test]
fn a_handler_that_panics_ends_nothing() {
    let rig = Rig::new(config(), "a.json", "1");
    rig.watcher.error_handler(|_| panic!("the handler"));
    rig.start();
    rig.source.tell(Signal::Trouble("lost".into()));
    fs::write(rig.dir.join("a.json"), "2").unwrap();
    rig.watcher.settle(WAIT).unwrap();
    assert_eq!(rig.change().new, Some(2.into()));
}
