//! What `verify` prints and exits with: the verdict line of a sound trail, the place, code and record of a tampered one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use argus_testkit::verify_with_python;
use common::{TempTrail, both, fill, json, records, run, tamper};

#[test]
fn a_sound_trail_is_one_line_with_everything_in_it() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        let all = records(path);
        let times: Vec<String> = all.iter().map(|r| argus_core::format_timestamp(r.timestamp)).collect();
        let (n, head) = (all.len(), all[all.len() - 1].checksum.unwrap());
        let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert_eq!(
            run(path, &["verify"]).ok(),
            format!("ok: {n} records, seq 1..={n}, head {head}, {first} to {last}, assurance linked\n")
        );
        let v = &json(path, &["verify"])[0];
        assert_eq!((v["verdict"].as_str(), v["assurance"].as_str()), (Some("ok"), Some("linked")));
        assert_eq!((v["records"].as_u64(), v["head"].as_str()), (Some(n as u64), Some(head.to_string().as_str())));
        assert_eq!((&v["seq"], &v["time"]), (&serde_json::json!([1, n]), &serde_json::json!([first, last])));
        assert_eq!((&v["findings"], &v["unclosed_writers"]), (&serde_json::json!([]), &serde_json::json!([])));
    }
}

#[test]
fn a_changed_cell_is_named_by_position_code_and_record() {
    let t = TempTrail::new();
    fill(&t.db());
    let victim = records(&t.db()).into_iter().find(|r| r.event == "login_denied").unwrap();
    tamper(&t.db(), "UPDATE audit_events SET actor_id = 'nobody' WHERE event = 'login_denied'");
    let ran = run(&t.db(), &["verify"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, ""));
    let mut lines = ran.out.lines();
    assert_eq!(lines.next(), Some(format!("tampered: 1 finding in {} records", records(&t.db()).len()).as_str()));
    // The edited record, or the one that the chain says it was edited to fit.
    let seq = victim.seq.unwrap();
    let finding = lines.next().unwrap();
    let either = [
        format!("tampered: seq {seq}..={}, link, record ", seq + 1),
        format!("tampered: seq {}..={seq}, link, record ", seq - 1),
    ];
    assert!(either.iter().any(|e| finding.starts_with(e)), "{finding}");
    assert_eq!(lines.next(), None);
    let json = run(&t.db(), &["verify", "--json"]);
    let v: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (json.code, v["verdict"].as_str(), v["findings"][0]["code"].as_str()),
        (1, Some("tampered"), Some("link"))
    );
    assert!(
        v["findings"][0]["seq"].as_array().unwrap().contains(&seq.into()) && v["findings"][0]["record_id"].is_string()
    );
    if let Some((code, _)) = verify_with_python(t.db()) {
        assert_eq!(code, 1);
    }
}

#[test]
fn a_changed_line_is_named_by_position_code_and_record() {
    let t = TempTrail::new();
    fill(&t.jsonl());
    let victim = records(&t.jsonl()).into_iter().find(|r| r.event == "login_denied").unwrap();
    let text = std::fs::read_to_string(t.jsonl()).unwrap();
    std::fs::write(t.jsonl(), text.replace("mallory", "nobody!")).unwrap();
    let ran = run(&t.jsonl(), &["verify"]);
    assert_eq!(ran.code, 1);
    let place = format!("\ntampered: seq {}, content, record {}: ", victim.seq.unwrap(), victim.record_id);
    assert!(ran.out.contains(&place), "{}", ran.out);
}

#[test]
fn missing_and_doubled_records_and_a_torn_end_are_told_apart() {
    let (_t, [db, jsonl]) = both();
    fill(&db);
    tamper(&db, "DELETE FROM audit_events WHERE id = 4");
    let ran = run(&db, &["verify"]);
    assert!(ran.code == 1 && ran.out.contains("seq 4, gap"), "{}", ran.out);

    fill(&jsonl);
    let text = std::fs::read_to_string(&jsonl).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    std::fs::write(&jsonl, [&lines[..5], &lines[4..]].concat().join("\n") + "\n").unwrap();
    let ran = run(&jsonl, &["verify"]);
    assert!(ran.code == 1 && ran.out.contains("gap"), "{}", ran.out);

    // A last line without its end is no record, and no tampering.
    std::fs::write(&jsonl, format!("{text}{{\"timestamp\":")).unwrap();
    let ran = run(&jsonl, &["verify"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.ends_with("\nunfinished last line: 13 bytes\n"), "{}", ran.out);
}

#[test]
fn a_writer_that_did_not_close_is_mentioned() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        let live = common::logger(path, "live");
        let text = run(path, &["verify"]).ok();
        assert!(text.starts_with("ok: ") && text.ends_with("\nunclosed writers: 1\n"), "{text}");
        common::close(&live);
        assert!(!run(path, &["verify"]).ok().contains("unclosed"));
    }
}
