//! Paging by `-n` and `--cursor` covers every record exactly once, in both orders; a cut is never silent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use argus_core::{AuditEvent, AuditSinkExt};
use common::{both, close, fill, json, logger, records, run};

#[test]
fn pages_cover_everything_once() {
    let (_t, paths) = both();
    for path in &paths {
        // More than the reader's own page of 256.
        let log = logger(path, "pages");
        for i in 0..600 {
            log.log(if i % 3 == 0 { AuditEvent::warn("third") } else { AuditEvent::info("other") }.with("i", i))
                .unwrap();
        }
        close(&log);
        let all: Vec<u64> = records(path).iter().filter_map(|r| r.seq).collect();
        let thirds: Vec<u64> = records(path).iter().filter(|r| r.event == "third").filter_map(|r| r.seq).collect();
        for (n, flags, expected) in [("97", &[][..], &all), ("300", &[], &all), ("7", &["--event", "third"], &thirds)] {
            for order in [&["--oldest-first"][..], &[]] {
                let mut seen: Vec<u64> = Vec::new();
                loop {
                    let cursor = seen.last().map(u64::to_string);
                    let cursor: Vec<&str> = cursor.iter().flat_map(|c| ["--cursor", c]).collect();
                    let page = json(path, &[&["query", "-n", n], order, flags, &cursor[..]].concat());
                    assert!(page.len() <= n.parse().unwrap() && seen.len() <= expected.len(), "pages without end");
                    seen.extend(page.iter().map(|v| v["seq"].as_u64().unwrap()));
                    if page.is_empty() {
                        break;
                    }
                }
                if order.is_empty() {
                    seen.reverse();
                }
                assert_eq!(&seen, expected, "-n {n} {order:?} {flags:?} of {}", path.display());
            }
        }
        assert_eq!(json(path, &["query"]).len(), 50, "the default");
    }
}

#[test]
fn text_names_the_next_page_and_json_stays_json() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        let all = records(path);
        let text = run(path, &["query", "-n", "2"]).ok();
        let next = all.len() - 1;
        assert!(text.ends_with(&format!("... there may be more: --cursor {next}\n")), "{text}");
        assert_eq!(json(path, &["query", "-n", "2"]).len(), 2);
        let rest = run(path, &["query", "--cursor", &next.to_string()]).ok();
        assert_eq!(rest.lines().count(), all.len() - 2);
        assert!(!rest.contains("more"), "{rest}");
        for (order, cursor) in
            [(&[][..], "1"), (&["--oldest-first"], "999"), (&["--oldest-first"], "9223372036854775807")]
        {
            assert_eq!(run(path, &[&["query", "--cursor", cursor], order].concat()).ok(), "");
        }
    }
}
