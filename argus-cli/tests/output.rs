//! What the output may do to the reader, and the reader to the output: no control character reaches a terminal, a closed pipe is no failure, a full disk is one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs::OpenOptions;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use argus_core::{AuditEvent, AuditSinkExt};
use common::{TempTrail, argus, both, close, fill, json, logger, ran, run, tamper};
use serde_json::json;

/// Screen clearing, title setting, C1, DEL, carriage return, right-to-left override, zero width.
const EVIL: &str = "x\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{7f}\r\n\u{202e}\u{200b}\u{2028}y";

fn assert_clean(text: &str) {
    let bad = |c: &char| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert_eq!(text.chars().find(bad), None, "{text:?}");
}

#[test]
fn no_control_character_is_printed_raw() {
    let (_t, paths) = both();
    for path in &paths {
        let log = logger(path, "evil");
        let value = json!({ EVIL: [EVIL] });
        let event = AuditEvent::security(EVIL).component(EVIL).file_path(EVIL).user_agent(EVIL).action(EVIL);
        log.log(event.actor(EVIL, None).old_value(&value).new_value(EVIL).with(EVIL, EVIL)).unwrap();
        close(&log);
        let seq = json(path, &["query", "--level", "security"])[0]["seq"].to_string();
        for (args, lines) in [
            (&["query", "--level", "security"][..], Some(1)),
            (&["tail", "--level", "security"], Some(1)),
            (&["show", &seq], None),
            (&["stats"], None),
        ] {
            let text = run(path, args).ok();
            assert_clean(&text);
            assert!(text.contains(r"\u{1b}[2J") && lines.is_none_or(|n| text.lines().count() == n), "{text}");
        }
        // JSON stays exact, a record a line.
        let lines = json(path, &["query", "--level", "security"]);
        assert_eq!((lines.len(), lines[0]["event"].as_str()), (1, Some(EVIL)));
    }
}

#[test]
fn nor_what_a_tamperer_wrote_or_a_path_holds() {
    let t = TempTrail::new();
    fill(&t.db());
    tamper(
        &t.db(),
        &format!(
            "CREATE TABLE \"{EVIL}\" (x); UPDATE audit_events SET timestamp = '{EVIL}' WHERE id = 3;
             UPDATE audit_events SET level = '{EVIL}', component = '{EVIL}', record_id = '{EVIL}\nok: 9 records' WHERE id = 4;"
        ),
    );
    for args in [&["verify"][..], &["stats"], &["query"], &["tail"], &["show", "3"]] {
        let ran = run(&t.db(), args);
        assert_clean(&ran.out);
        assert_clean(&ran.err);
        assert!(!ran.out.lines().any(|l| l.starts_with("ok")), "no verdict but ours: {}", ran.out);
    }
    assert!(run(&t.db(), &["verify"]).out.contains(r"\u{1b}[2J"));
    for args in [&["verify"][..], &["where"], &["show", EVIL], &["query", "--since", EVIL]] {
        let ran = run(&t.path(&format!("{EVIL}.db")), args);
        assert_clean(&ran.out);
        assert_clean(&ran.err);
    }
}

/// Runs with a standard output whose other end is closed: from the beginning, or after `take` bytes.
fn closed_pipe(args: &[&str], db: &Path, take: usize) -> (Option<i32>, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut c = argus(args);
    c.arg("--db").arg(db).stdout(writer).stderr(Stdio::piped());
    let child = if take == 0 {
        drop(reader);
        c.spawn().unwrap()
    } else {
        let child = c.spawn().unwrap();
        reader.read_exact(&mut vec![0; take]).unwrap();
        drop(reader);
        child
    };
    let ended = child.wait_with_output().unwrap();
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let (_t, paths) = both();
    for path in &paths {
        let log = logger(path, "much");
        for i in 0..2000 {
            log.log(AuditEvent::info("much").with("i", i)).unwrap();
        }
        close(&log);
        // More than a pipe holds, so that the command meets the closed end while it writes.
        for flags in [&["query", "-n", "5000"][..], &["query", "-n", "5000", "--json"], &["tail", "-n", "5000"]] {
            assert_eq!(closed_pipe(flags, path, 10), (Some(0), String::new()), "{flags:?}");
        }
        for flags in [&["show", "1"][..], &["stats"], &["where"], &["verify"], &["query"], &["--help"]] {
            assert_eq!(closed_pipe(flags, path, 0), (Some(0), String::new()), "{flags:?}");
        }
    }
}

#[test]
fn the_verdict_stays_where_nobody_reads_it() {
    let t = TempTrail::new();
    fill(&t.db());
    // More findings than one write takes.
    tamper(&t.db(), "UPDATE audit_events SET component = component || '!'");
    for flags in [&["verify"][..], &["verify", "--json"]] {
        assert_eq!(closed_pipe(flags, &t.db(), 0), (Some(1), String::new()), "{flags:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let t = TempTrail::new();
    fill(&t.db());
    for args in [&["query"][..], &["verify"], &["stats"], &["show", "1"], &["where"]] {
        let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else {
            println!("SKIPPED: there is no /dev/full");
            return;
        };
        let mut c = argus(args);
        c.arg("--db").arg(t.db()).stdout(full).stderr(Stdio::piped());
        let ended = c.spawn().unwrap().wait_with_output().unwrap();
        let err = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(3), "{args:?}: {err}");
        assert!(err.starts_with("argus: cannot write the output: "), "{err}");
    }
}

#[test]
fn help_needs_no_manual() {
    let help = |args: &[&str]| ran(argus(args)).ok();
    let main = help(&["--help"]);
    for word in [
        "watch",
        "query",
        "tail",
        "show",
        "verify",
        "stats",
        "where",
        "--db",
        "--json",
        "ARGUS_AUDIT_DB",
        "Exit codes:",
        "Examples:",
    ] {
        assert!(main.contains(word), "{word} in {main}");
    }
    let query = help(&["query", "--help"]);
    for flag in "--since --until --level --event --component --app --file --actor --trace --pid --context -n --oldest-first --cursor --db --json".split(' ') {
        assert!(query.contains(flag), "{flag} in {query}");
    }
    for (command, says) in
        [("tail", "--follow"), ("show", "<SEQ|RECORD_ID>"), ("watch", "ready:"), ("verify", "linked")]
    {
        assert!(help(&[command, "--help"]).contains(says), "{command}");
    }
    assert!(help(&["--version"]).starts_with("argus "));
}
