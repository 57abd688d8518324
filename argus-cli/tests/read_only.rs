//! Every command but `watch` leaves the trail's folder as it is, byte for byte, and makes no file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Running, Signal, TempTrail, argus, fill, records, run, snapshot, tamper, until};

fn read_everything(path: &std::path::Path, id: &str) {
    for args in [
        &["query"][..],
        &["query", "--json", "--oldest-first", "--since", "2h", "--file", "/etc/*"],
        &["query", "--app", "shop", "-n", "1"],
        &["tail"],
        &["show", "3"],
        &["show", id],
        &["verify"],
        &["verify", "--json"],
        &["stats"],
        &["where"],
    ] {
        let ran = run(path, args);
        assert!(ran.code <= 1 && !ran.out.is_empty(), "{args:?}: {}", ran.err);
    }
    // Those that fail leave no trace, either.
    run(path, &["show", "999"]).fails(1);
    run(path, &["query", "--level", "x"]).fails(2);
    run(&path.with_file_name("missing.db"), &["verify"]).fails(3);
}

#[test]
fn the_folder_is_the_same_before_and_after() {
    for jsonl in [false, true] {
        let t = TempTrail::new();
        let path = if jsonl { t.jsonl() } else { t.db() };
        fill(&path);
        let id = records(&path)[2].record_id.to_string();
        let meta = || {
            let m = std::fs::metadata(&path).unwrap();
            (m.modified().unwrap(), m.permissions())
        };
        let before = (snapshot(t.dir()), meta(), std::fs::metadata(t.dir()).unwrap().modified().unwrap());
        assert_eq!(before.0.len(), 1, "a closed trail is one file: {:?}", before.0.keys());
        read_everything(&path, &id);
        let after = (snapshot(t.dir()), meta(), std::fs::metadata(t.dir()).unwrap().modified().unwrap());
        assert!(after == before, "the folder was changed");
    }
}

#[test]
fn also_that_of_a_tampered_trail() {
    let t = TempTrail::new();
    fill(&t.db());
    let id = records(&t.db())[2].record_id.to_string();
    tamper(&t.db(), "UPDATE audit_events SET component = 'x' WHERE id = 5; DROP TRIGGER argus_no_delete");
    let before = snapshot(t.dir());
    read_everything(&t.db(), &id);
    assert!(snapshot(t.dir()) == before, "the folder was changed");
}

#[test]
fn also_with_the_log_of_a_writer_that_was_killed() {
    let t = TempTrail::new();
    fill(&t.db());
    std::fs::write(t.path("a.json"), "1").unwrap();
    let mut c = argus(&["watch"]);
    c.arg(t.path("a.json")).arg("--db").arg(t.db());
    let watch = Running::start(c);
    watch.line();
    until("the first look", || records(&t.db()).iter().any(|r| r.event == "file_watch_start").then_some(()));
    watch.signal(Signal::KILL);
    drop(watch);
    let id = records(&t.db())[2].record_id.to_string();
    assert!(t.path("audit.db-wal").exists() && t.path("audit.db-shm").exists());
    // As it lies there, and as a backup without the -shm has it.
    let copy = TempTrail::new();
    for suffix in ["", "-wal"] {
        std::fs::copy(t.path(&format!("audit.db{suffix}")), copy.path(&format!("audit.db{suffix}"))).unwrap();
    }
    for t in [t, copy] {
        let before = snapshot(t.dir());
        assert!(run(&t.db(), &["query"]).ok().contains("file_watch_start"));
        assert!(run(&t.db(), &["verify"]).ok().ends_with("unclosed writers: 1\n"));
        read_everything(&t.db(), &id);
        assert!(snapshot(t.dir()) == before, "the folder was changed");
    }
}
