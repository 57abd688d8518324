//! Each filter flag gives the records it names and no others, on both stores, for `query` and `tail` alike.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{TRACE, TempTrail, argus, both, fill, json, ran, run};
use serde_json::Value;

/// The events found, oldest first, without those that Argus makes of itself.
fn found(lines: &[Value]) -> Vec<&str> {
    let name = |v: &'_ Value| v["event"].as_str().map(str::to_owned);
    assert!(lines.iter().all(|v| name(v).is_some()));
    lines.iter().filter_map(|v| v["event"].as_str()).filter(|e| !e.starts_with("audit_")).collect()
}

#[test]
fn each_flag_narrows() {
    let (_t, paths) = both();
    let me = std::process::id().to_string();
    let hour = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1)).to_string();
    let upper = TRACE.to_uppercase();
    let all = ["cache_flushed", "disk_low", "config_change", "config_change", "login_denied", "invoice_sent"];
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &all),
        (&["--since", "1h"], &all[2..]),
        (&["--since", "2h"], &all[1..]),
        (&["--since", &hour], &all[2..]),
        (&["--since", "7d"], &all),
        (&["--until", "1h"], &all[..2]),
        (&["--until", &hour], &all[..2]),
        (&["--since", "2h", "--until", "1h"], &["disk_low"]),
        (&["--level", "warn"], &all[1..5]),
        (&["--level", "CRITICAL"], &all[2..5]),
        (&["--level", "security"], &["login_denied"]),
        (&["--event", "config_change"], &all[2..4]),
        (&["--event", "config"], &[]),
        (&["--component", "cache"], &["cache_flushed"]),
        (&["--app", "shop"], &all[..5]),
        (&["--app", "billing"], &["invoice_sent"]),
        (&["--file", "/etc/shop/app.yaml"], &["config_change"]),
        (&["--file", "/etc/shop/*"], &all[2..4]),
        (&["--file", "/etc/shop"], &[]),
        (&["--file", "/*"], &all[1..4]),
        (&["--actor", "jane"], &all[2..4]),
        (&["--trace", TRACE], &["login_denied"]),
        (&["--trace", &upper], &["login_denied"]),
        (&["--trace", "abababababababababababababababac"], &[]),
        (&["--pid", &me], &all),
        (&["--pid", "1"], &[]),
        (&["--context", "ip=192.0.2.7"], &["login_denied"]),
        (&["--context", "attempts=3"], &all[4..]),
        (&["--context", "attempts=3", "--context", "ip=192.0.2.7"], &["login_denied"]),
        (&["--context", "full=true"], &["cache_flushed"]),
        (&["--context", "ip="], &[]),
        (&["--level", "warn", "--actor", "jane", "--file", "/etc/shop/db*"], &["config_change"]),
    ];
    for path in &paths {
        fill(path);
        for (flags, events) in cases {
            let with = |command: &[&'static str]| json(path, &[command, *flags].concat());
            let lines = with(&["query", "--oldest-first"]);
            assert_eq!(found(&lines), *events, "{flags:?} of {}", path.display());
            assert_eq!(with(&["tail", "-n", "100"]), lines, "{flags:?}");
            let mut back = with(&["query"]);
            back.reverse();
            assert_eq!(back, lines, "{flags:?}");
        }
        let output_file = path.to_str().unwrap();
        assert_eq!(found(&json(path, &["query", "--oldest-first", "--app", output_file])), all);
    }
}

#[test]
fn a_bad_value_is_a_usage_error_that_says_what_is_right() {
    let t = TempTrail::new();
    fill(&t.db());
    let cases: &[(&[&str], &str)] = &[
        (&["--since", "yesterday"], "--since yesterday: neither an age such as 90s, 15m, 1h, 7d nor an RFC 3339 time"),
        (&["--until", "12"], "--until 12: neither"),
        (&["--since", "1h", "--until", "2h"], "--since is not before --until"),
        (&["--level", "debug"], "--level: `debug` is none of INFO, WARN, CRITICAL, SECURITY"),
        (&["--trace", "abc"], "--trace abc: a trace id is 32 hex digits"),
        (&["--trace", "ghababababababababababababababab"], "32 hex digits"),
        (&["--context", "port"], "--context port: write KEY=VALUE"),
        (&["--context", "=80"], "--context =80: write KEY=VALUE"),
        (&["--pid", "x"], "--pid"),
        (&["--pid", "9223372036854775808"], "0..=9223372036854775807"),
        (&["-n", "many"], "--limit"),
        (&["--nothing"], "--nothing"),
        (&["stray"], "stray"),
    ];
    for (flags, says) in cases {
        for command in ["query", "tail"] {
            let err = run(&t.db(), &[&[command], *flags].concat()).fails(2);
            assert!(err.contains(says), "{flags:?}: {err}");
        }
        // What was typed is wrong whatever the trail is.
        run(&t.path("missing.db"), &[&["query"], *flags].concat()).fails(2);
    }
    for flag in ["--cursor", "--pid", "-n"] {
        let err = run(&t.db(), &["query", flag, "-1"]).fails(2);
        assert!(err.contains("invalid value '-1'"), "{flag}: {err}");
    }
    assert!(run(&t.db(), &["frobnicate"]).fails(2).contains("frobnicate"));
    assert!(run(&t.db(), &["watch"]).fails(2).contains("<PATH>"));
    assert!(run(&t.db(), &[]).fails(2).contains("subcommand"));
    assert!(ran(argus(&[])).fails(2).contains("Commands:"), "the help, if nothing was typed");
}
