//! What `query` and `show` print: a line of text, or the JSONL form, from both stores.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{both, fill, json, records, run};

#[test]
fn json_is_the_jsonl_form_one_record_a_line() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        let mut all: Vec<String> = records(path).iter().map(|r| r.to_jsonl()).collect();
        let print = |args: &[&str]| run(path, args).ok();
        let lines = |of: &[String]| of.iter().map(|l| format!("{l}\n")).collect::<String>();
        assert_eq!(print(&["query", "--oldest-first", "--json"]), lines(&all));
        assert_eq!(print(&["tail", "-n", "3", "--json"]), lines(&all[all.len() - 3..]));
        assert_eq!(print(&["show", "3", "--json"]), lines(&all[2..3]));
        if path.extension().unwrap() == "jsonl" {
            assert_eq!(lines(&all), std::fs::read_to_string(path).unwrap(), "they are the file's own lines");
        }
        all.reverse();
        assert_eq!(print(&["--json", "query"]), lines(&all));
    }
}

#[test]
fn text_has_a_line_a_record_with_what_matters() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        let text = run(path, &["query", "--event", "config_change"]).ok();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 2, "{text}");
        let record = records(path).into_iter().rfind(|r| r.event == "config_change").unwrap();
        let (time, seq) = (argus_core::format_timestamp(record.timestamp), record.seq.unwrap());
        assert_eq!(
            rows[0],
            format!(
                "{seq:>6}  {}Z  CRITICAL  config_change           config  /etc/shop/db.yaml  by jane  {{\"port\":1}} -> {{\"port\":2}}",
                &time[..23]
            )
        );
        let text = run(path, &["query", "--event", "login_denied"]).ok();
        assert!(text.contains(r#"gateway  by mallory  {"attempts":3,"ip":"192.0.2.7"}"#), "{text}");
    }
}

#[test]
fn show_finds_by_position_and_by_identity() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        let record = records(path).into_iter().find(|r| r.event == "login_denied").unwrap();
        let (seq, id) = (record.seq.unwrap().to_string(), record.record_id.to_string());
        let text = run(path, &["show", &seq]).ok();
        assert_eq!(run(path, &["show", &id]).ok(), text);
        for (name, value) in [
            ("seq", seq.as_str()),
            ("level", "SECURITY"),
            ("event", "login_denied"),
            ("actor_id", "mallory"),
            ("actor_type", "user"),
            ("outcome", "failure"),
            ("trace_id", common::TRACE),
            ("record_id", &id),
            ("checksum", &record.checksum.unwrap().to_string()),
            ("prev_hash", &record.prev_hash.unwrap().to_string()),
        ] {
            assert!(text.lines().any(|l| l == format!("{name:<21} {value}")), "{name} in {text}");
        }
        // Every field of the JSONL form is there.
        let line = &json(path, &["show", &id])[0];
        let shown = |name: &String| text.lines().any(|l| l.starts_with(&format!("{name} ")));
        assert!(line.as_object().unwrap().keys().all(shown), "{text}");
    }
}

#[test]
fn show_says_what_it_did_not_find() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        for none in ["0", "99", "18446744073709551615", "0190c2f0-0000-7000-8000-000000000000"] {
            let err = run(path, &["show", none]).fails(1);
            assert!(err.contains(none) && err.ends_with(&format!("{}\n", path.display())), "{err}");
        }
        if path.extension().unwrap() == "db" {
            common::tamper(path, "UPDATE audit_events SET level = 'LOW' WHERE id = 2");
            let err = run(path, &["show", "2"]).fails(1);
            assert!(err.contains("there should be one, so run `argus verify`"), "{err}");
        }
        for bad in ["abc", "1.5", "0190c2f0"] {
            let err = run(path, &["show", bad]).fails(2);
            assert!(err.contains("neither a position") && err.contains(bad), "{err}");
        }
    }
}

#[test]
fn stats_count_by_level_event_and_component() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        let all = records(path);
        let v = &json(path, &["stats"])[0];
        assert_eq!(v["records"], all.len());
        assert_eq!((&v["by_event"]["config_change"], &v["by_event"]["audit_open"]), (&2.into(), &2.into()));
        assert_eq!((&v["by_level"]["CRITICAL"], &v["by_level"]["SECURITY"]), (&2.into(), &1.into()));
        assert_eq!((&v["by_component"]["config"], &v["damaged"]), (&2.into(), &0.into()));
        let time = |r: &argus_core::Record| argus_core::format_timestamp(r.timestamp);
        assert_eq!(v["oldest"].as_str().unwrap(), all.iter().map(time).min().unwrap());
        assert_eq!(v["newest"].as_str().unwrap(), all.iter().map(time).max().unwrap());
        let text = run(path, &["stats"]).ok();
        assert!(text.starts_with(&format!("{} records of {} writers\n", all.len(), v["writers"])), "{text}");
        assert!(text.contains("\nby event\n         2  audit_close\n         2  audit_open\n"), "{text}");
        assert!(text.contains("\nby level\n") && text.contains("\n         2  CRITICAL\n"), "{text}");
    }
}

#[test]
fn rows_that_are_no_records_are_never_passed_over_in_silence() {
    let (t, _) = both();
    let path = t.db();
    fill(&path);
    common::tamper(&path, "UPDATE audit_events SET level = 'LOW' WHERE id = 3");
    for command in ["query", "tail"] {
        let ran = run(&path, &[command, "-n", "100"]);
        assert!(ran.err.contains("1 row passed over that is no record: run `argus verify`"), "{}", ran.err);
        assert_eq!((ran.code, ran.out.lines().count()), (0, records(&path).len()));
    }
}
