//! Which trail a command takes: `--db`, else `ARGUS_AUDIT_DB`, else the unified database; the ending tells the store; `where` says it and why.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{TempTrail, argus, both, fill, ran, records, run, snapshot};
use serde_json::Value;

fn with(args: &[&str], vars: &[(&str, &Path)]) -> Command {
    let mut c = argus(args);
    c.envs(vars.iter().copied());
    c
}

/// Path and reason, as `where --json` tells them.
fn place(args: &[&str], vars: &[(&str, &Path)]) -> (String, String) {
    let v: Value = serde_json::from_str(&ran(with(&[args, &["where", "--json"]].concat(), vars)).ok()).unwrap();
    (v["path"].as_str().unwrap().into(), v["reason"].as_str().unwrap().into())
}

#[test]
fn the_flag_goes_before_the_variable_and_that_before_the_unified_database() {
    let t = TempTrail::new();
    let (flag, var, xdg, home) = (t.path("flag.db"), t.path("var.jsonl"), t.path("data"), t.path("home"));
    let text = |p: &Path| p.to_str().unwrap().to_owned();
    let vars: [(&str, &Path); 4] =
        [("ARGUS_AUDIT_DB", &var), ("XDG_DATA_HOME", &xdg), ("HOME", &home), ("STATE_DIRECTORY", t.dir())];
    assert_eq!(place(&["--db", &text(&flag)], &vars), (text(&flag), "--db names it".into()));
    assert_eq!(place(&[], &vars), (text(&var), "ARGUS_AUDIT_DB is set".into()));
    assert_eq!(place(&[], &vars[1..]), (text(&xdg.join("argus/audit.db")), "XDG_DATA_HOME is set".into()));
    assert_eq!(place(&[], &vars[2..]), (text(&home.join(".local/share/argus/audit.db")), "HOME is set".into()));
    assert_eq!(place(&[], &vars[3..]), (text(&t.path("audit.db")), "STATE_DIRECTORY is set".into()));
    assert!(snapshot(t.dir()).is_empty(), "to look makes nothing");
}

#[test]
fn every_command_reads_the_trail_that_the_environment_names() {
    let t = TempTrail::new();
    let unified = t.path("data/argus/audit.db");
    let jsonl = t.jsonl();
    fill(&unified);
    fill(&jsonl);
    let data = t.path("data");
    for (var, value, trail) in
        [("XDG_DATA_HOME", &data, &unified), ("ARGUS_AUDIT_DB", &unified, &unified), ("ARGUS_AUDIT_DB", &jsonl, &jsonl)]
    {
        for args in [
            &["query", "--json"][..],
            &["tail", "--json"],
            &["show", "2", "--json"],
            &["verify"],
            &["stats"],
            &["where", "--json"],
        ] {
            let by_variable = ran(with(args, &[(var, value)])).ok();
            let by_flag = run(trail, args).ok();
            if args[0] == "where" {
                assert_eq!(by_variable.replace(&format!("{var} is set"), "--db names it"), by_flag);
            } else {
                assert_eq!(by_variable, by_flag, "{args:?}");
            }
        }
    }
}

#[test]
fn without_any_place_there_is_an_error_that_names_the_variable() {
    for args in [&["query"][..], &["tail"], &["tail", "-f"], &["show", "1"], &["verify"], &["stats"], &["where"]] {
        let err = ran(argus(args)).fails(3);
        assert!(err.starts_with("argus: there is no place for the audit database"), "{err}");
        assert!(err.contains("set ARGUS_AUDIT_DB"), "{err}");
    }
    let err = ran(argus(&["watch", "/tmp"])).fails(3);
    assert!(err.contains("set ARGUS_AUDIT_DB"), "{err}");
}

#[test]
fn the_ending_tells_the_store() {
    let (t, paths) = both();
    for (path, store) in paths.iter().zip(["sqlite", "jsonl"]) {
        fill(path);
        let v: Value = serde_json::from_str(&run(path, &["where", "--json"]).ok()).unwrap();
        assert_eq!((v["backend"].as_str(), v["state"].as_str()), (Some(store), Some("readable")));
        let first = &records(path)[0].event;
        assert_eq!(first == "audit_segment", store == "jsonl", "{first}");
    }
    // Never the unified database instead of what was asked for, whether there is a place for it or not.
    for name in ["audit.log", "audit"] {
        for vars in [&[][..], &[("HOME", t.dir())], &[("ARGUS_AUDIT_DB", &paths[0])]] {
            for command in [&["verify"][..], &["where"], &["watch", "/tmp"]] {
                let err = ran(with(&[command, &["--db", t.path(name).to_str().unwrap()]].concat(), vars)).fails(2);
                assert!(err.contains(".jsonl") && err.contains(name), "{err}");
            }
        }
    }
    assert!(ran(argus(&["verify", "--db", ""])).fails(2).contains("--db"));
}

#[test]
fn where_says_path_reason_and_state() {
    let t = TempTrail::new();
    let text = run(&t.db(), &["where"]).ok();
    let path = t.db();
    assert_eq!(
        text,
        format!("{}\n  why:   --db names it\n  state: does not exist yet; the first writer makes it\n", path.display())
    );
    fill(&path);
    assert!(run(&path, &["where"]).ok().ends_with("state: readable\n"));
    std::fs::write(t.jsonl(), "no trail\n").unwrap();
    assert!(run(&t.jsonl(), &["where"]).ok().contains("state: the file is no JSONL trail of Argus"));
}
