//! `argus watch`: says when it is ready, records changes of the real files, and closes the trail in order when it is told to stop.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::Path;

use argus_core::Record;
use common::{Running, Signal, TempTrail, argus, both, json, ran, records, run, until};
use serde_json::json;

fn start(args: &[&str], trail: &Path) -> Running {
    let mut c = argus(&["watch"]);
    c.args(args).arg("--db").arg(trail);
    Running::start(c)
}

/// The nth record of this event, as soon as the trail has it.
fn wait_for(trail: &Path, event: &str, nth: usize) -> Record {
    until(event, || records(trail).into_iter().filter(|r| r.event == event).nth(nth))
}

#[test]
fn ready_a_change_and_a_clean_close_on_either_signal() {
    let (t, paths) = both();
    for (trail, signal) in paths.iter().zip([Signal::TERM, Signal::INT]) {
        common::fill(trail);
        let config = t.path("app.yaml");
        fs::write(&config, "port: 80\npassword: hunter2\n").unwrap();
        let config = config.to_str().unwrap();
        let watch = start(&[config], trail);
        let pid = u64::from(watch.pid());
        assert_eq!(watch.line(), format!("ready: watching 1 files, trail {}", trail.display()));
        fs::write(config, "port: 443\npassword: hunter2\n").unwrap();
        let change = wait_for(trail, "config_change", 2);
        assert_eq!((change.file_path.as_deref(), change.process_id), (Some(config), pid));
        let value = |port: u16| json!({"password": {"$argus.redacted": "key"}, "port": port});
        assert_eq!(change.old_value.unwrap().to_value(), value(80));
        assert_eq!(change.new_value.unwrap().to_value(), value(443));
        assert_eq!(change.context.to_value()["diff"], json!({"/port": {"old": 80, "new": 443}}));
        watch.signal(signal);
        assert_eq!(watch.end().ok(), "");

        let mine = json(trail, &["query", "--pid", &pid.to_string(), "--oldest-first"]);
        let names: Vec<&str> = mine.iter().filter_map(|v| v["event"].as_str()).collect();
        assert_eq!(names, ["audit_open", "file_watch_start", "config_change", "audit_close"]);
        assert_eq!(mine[3]["seq"], records(trail).len(), "audit_close is the last record");
        assert_eq!(mine[3]["context"]["committed"], 2);
        let verdict = run(trail, &["verify"]).ok();
        assert!(verdict.starts_with("ok: ") && !verdict.contains("unclosed"), "{verdict}");
        assert!(!fs::read(trail).unwrap().windows(7).any(|w| w == b"hunter2"), "secrets are withheld");
    }
}

#[test]
fn a_signal_at_once_still_closes_in_order() {
    let (t, paths) = both();
    fs::write(t.path("a.json"), "1").unwrap();
    for trail in &paths {
        let watch = start(&[t.path("a.json").to_str().unwrap()], trail);
        // The trail is there before it is ready.
        until("the trail", || trail.exists().then_some(()));
        watch.signal(Signal::TERM);
        assert_eq!(watch.end().code, 0);
        assert_eq!(records(trail).last().unwrap().event, "audit_close");
        assert!(!run(trail, &["verify"]).ok().contains("unclosed"));
    }
}

#[test]
fn a_watch_recovers_what_a_killed_one_left() {
    let (t, paths) = both();
    let config = t.path("a.json");
    fs::write(&config, "1").unwrap();
    for trail in &paths {
        let name = trail.file_name().unwrap().to_str().unwrap();
        let beside = || {
            let all = fs::read_dir(trail.parent().unwrap()).unwrap();
            all.filter(|e| e.as_ref().unwrap().file_name().to_str().is_some_and(|n| n.starts_with(&format!("{name}."))))
                .count()
        };
        let killed = start(&[config.to_str().unwrap()], trail);
        killed.line();
        // `kill -9`.
        drop(killed);
        assert!(beside() > 0, "its lock, at least");
        let watch = start(&[config.to_str().unwrap()], trail);
        watch.line();
        assert_eq!(wait_for(trail, "audit_recovered", 0).context.to_value()["cause"], "dead");
        watch.signal(Signal::TERM);
        assert_eq!(watch.end().code, 0);
        assert_eq!(beside(), 0);
        assert!(!run(trail, &["verify"]).ok().contains("unclosed"));
    }
}

#[test]
fn directories_files_that_come_later_and_several_at_once() {
    let t = TempTrail::new();
    let conf = t.path("conf");
    fs::create_dir(&conf).unwrap();
    for name in ["a.json", "b.toml", "note.txt"] {
        fs::write(conf.join(name), "").unwrap();
    }
    fs::write(conf.join("a.json"), "1").unwrap();
    let later = t.path("later.yaml");
    let watch = start(&[conf.to_str().unwrap(), later.to_str().unwrap(), "--json"], &t.db());
    let ready: serde_json::Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(ready, json!({"ready": true, "files": 3, "trail": t.db()}));
    fs::write(&later, "x: 1\n").unwrap();
    assert_eq!(wait_for(&t.db(), "config_change", 0).context.to_value()["kind"], "created");
    fs::write(conf.join("new.yml"), "y: 1\n").unwrap();
    let change = wait_for(&t.db(), "config_change", 1);
    assert_eq!(change.file_path.unwrap(), conf.join("new.yml").to_str().unwrap());
    // A second watcher shares the database.
    let other = start(&[conf.join("a.json").to_str().unwrap()], &t.db());
    assert!(other.line().starts_with("ready: watching 1 files"));
    for w in [other, watch] {
        w.signal(Signal::INT);
        let ran = w.end();
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.err.is_empty() || ran.err.contains("later.yaml is not there yet"), "{}", ran.err);
    }
    assert!(!run(&t.db(), &["verify"]).ok().contains("unclosed"));
}

#[test]
fn the_unified_database_is_made_where_the_environment_says() {
    let t = TempTrail::new();
    fs::write(t.path("a.json"), "1").unwrap();
    let (file, trail) = (t.path("a.json"), t.path("data/argus/audit.db"));
    let with = |args: &[&str]| {
        let mut c = argus(args);
        c.env("XDG_DATA_HOME", t.path("data"));
        c
    };
    let watch = Running::start(with(&["watch", file.to_str().unwrap()]));
    assert_eq!(watch.line(), format!("ready: watching 1 files, trail {}", trail.display()));
    watch.signal(Signal::TERM);
    assert_eq!(watch.end().ok(), "");
    assert!(ran(with(&["verify"])).ok().starts_with("ok: 3 records"));
}

#[test]
fn a_jsonl_trail_has_one_watcher() {
    let t = TempTrail::new();
    fs::write(t.path("a.json"), "1").unwrap();
    let file = t.path("a.json");
    let watch = start(&[file.to_str().unwrap()], &t.jsonl());
    watch.line();
    let err = run(&t.jsonl(), &["watch", file.to_str().unwrap()]).fails(3);
    assert!(err.contains("audit.jsonl"), "{err}");
    watch.signal(Signal::TERM);
    assert_eq!(watch.end().ok(), "");
    assert!(run(&t.jsonl(), &["verify"]).ok().starts_with("ok: 4 records"));
}

#[test]
fn a_reader_that_goes_away_ends_no_audit() {
    let t = TempTrail::new();
    fs::write(t.path("a.json"), "1").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut c = argus(&["watch", t.path("a.json").to_str().unwrap(), "--db", t.db().to_str().unwrap()]);
    let mut child = c.stdout(writer).spawn().unwrap();
    drop(c);
    until("the first look", || t.db().exists().then(|| argus_core::AuditReader::open(t.db()).ok()).flatten());
    wait_for(&t.db(), "file_watch_start", 0);
    fs::write(t.path("a.json"), "2").unwrap();
    wait_for(&t.db(), "config_change", 0);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!run(&t.db(), &["verify"]).ok().contains("unclosed"));
}
