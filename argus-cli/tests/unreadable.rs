//! Exit code 3: what cannot be read is an error that says what, where and what to do, from every command.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::{TempTrail, argus, both, fill, ran, run, snapshot, tamper};

/// Every reading command refuses `path` so; what they say.
fn refused(path: &Path, says: &[&str]) {
    for args in
        [&["query"][..], &["query", "--json"], &["tail"], &["tail", "-f"], &["show", "1"], &["verify"], &["stats"]]
    {
        let err = run(path, args).fails(3);
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(err.starts_with("argus: ") && err.contains(path.to_str().unwrap()), "{args:?}: {err}");
        assert!(says.iter().all(|s| err.contains(s)), "{args:?}: {err}");
    }
}

#[test]
fn missing_files_and_directories() {
    let t = TempTrail::new();
    refused(&t.db(), &["cannot open the audit trail", "check the path"]);
    refused(&t.jsonl(), &["cannot open the audit trail", "check the path"]);
    refused(&t.path("no/such/audit.db"), &["check the path"]);
    refused(t.dir(), &["is a directory", "name the trail's file"]);
    fs::create_dir(t.path("dir.db")).unwrap();
    refused(&t.path("dir.db"), &["is a directory", "name the trail's file"]);
    let mut c = argus(&["verify"]);
    c.env("ARGUS_AUDIT_DB", t.dir());
    assert!(ran(c).fails(3).contains("is a directory"));
    assert_eq!(fs::read_dir(t.dir()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn files_that_are_something_else() {
    let t = TempTrail::new();
    let write = |name: &str, text: &str| {
        fs::write(t.path(name), text).unwrap();
        t.path(name)
    };
    refused(&write("text.db", &"not a database at all\n".repeat(100)), &["database"]);
    refused(&write("empty.db", ""), &["empty"]);
    refused(&write("text.jsonl", "hello\n"), &["no JSONL trail", "name the trail's file"]);
    refused(
        &write("go.jsonl", "{\"timestamp\":\"2026-11-23T05:55:06Z\",\"level\":2,\"event\":\"x\"}\n"),
        &["Go library"],
    );
    let other = t.path("other.db");
    tamper(&other, "CREATE TABLE t (x)");
    refused(&other, &["another program"]);
}

#[test]
fn a_newer_schema() {
    let t = TempTrail::new();
    fill(&t.db());
    tamper(&t.db(), "INSERT INTO schema_info (version) VALUES (4)");
    refused(&t.db(), &["schema version 4", "newer Argus"]);
}

/// The command as a user who owns nothing: root may read everything.
fn stranger(args: &[&str]) -> Option<Command> {
    let with = |args: &[&str]| {
        let mut c = argus(args);
        c.uid(65534).gid(65534);
        c
    };
    let root = rustix::process::geteuid().is_root();
    if root && with(&["--version"]).output().is_ok_and(|o| o.status.success()) {
        return Some(with(args));
    }
    println!("SKIPPED: only root can run the command as another user, and only where that user reaches it");
    None
}

#[test]
fn a_file_of_another_user() {
    let (t, paths) = both();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(t.dir(), 0o755);
    for path in &paths {
        fill(path);
        for args in [&["query"][..], &["tail"], &["show", "1"], &["verify"], &["stats"]] {
            let db = ["--db", path.to_str().unwrap()];
            mode(path, 0o600);
            let Some(c) = stranger(&[args, &db].concat()) else { return };
            let err = ran(c).fails(3);
            assert!(err.contains(db[1]) && err.contains("check owner and mode"), "{err}");
            // An auditor needs to read the file, and nothing more.
            mode(path, 0o644);
            let Some(c) = stranger(&[args, &db].concat()) else { return };
            assert!(!ran(c).ok().is_empty());
        }
    }
}

#[test]
fn a_file_without_read_permission() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read(path).is_ok() {
            println!("SKIPPED: this user (root) reads files without permission");
            return;
        }
        refused(path, &["check owner and mode"]);
    }
}

#[test]
fn watch_says_why_it_cannot_write() {
    let t = TempTrail::new();
    let config = t.path("app.yaml");
    fs::write(&config, "a: 1\n").unwrap();
    let config = config.to_str().unwrap();
    let watch = |trail: &str| run(&t.path(trail), &["watch", config]);
    fs::write(t.path("text.db"), "not a database at all\n".repeat(100)).unwrap();
    assert!(watch("text.db").fails(3).contains("text.db"));
    fs::create_dir(t.path("open")).unwrap();
    fs::set_permissions(t.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(watch("open/audit.db").fails(3).contains("chmod o-w"));
    assert!(run(t.dir(), &["watch", config]).fails(3).contains("is a directory"));
    assert!(watch("audit.log").fails(2).contains(".jsonl"));
    assert!(snapshot(&t.path("open")).is_empty());
    // What cannot be watched is no reason to leave a trail unclosed.
    let err = run(&t.db(), &["watch", &format!("{config}.d/x.yaml")]).fails(3);
    assert!(err.contains("does not exist") && err.contains("app.yaml.d"), "{err}");
    assert!(!run(&t.db(), &["verify"]).ok().contains("unclosed"));
}
