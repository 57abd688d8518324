//! What must hold, whatever failed.

use std::fs;
use std::path::Path;

use argus_core::{AuditLogger, AuditSink, Health};

use crate::cases::{Case, Failure, Then};
use crate::common::{assert_ok, records};

/// From this number on records are logged after the store was healed.
pub(crate) const HEALED: u64 = 400;

/// Nothing is uncounted.
pub(crate) fn account(logger: &AuditLogger) -> Health {
    let h = logger.health();
    assert_eq!(h.submitted, h.committed + h.rejected + h.lost + h.queued + h.pending, "{h:?}");
    h
}

/// No pending file stays behind.
pub(crate) fn nothing_left(dir: &Path) {
    for folder in ["disk", "spill", "."] {
        let files = fs::read_dir(dir.join(folder)).into_iter().flatten().map(|f| f.unwrap().file_name());
        let left: Vec<_> = files.filter(|f| f.to_string_lossy().contains(".pending.")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The trail of a case that is over, against the calls that returned.
pub(crate) fn look(case: Case, dir: &Path, returned: &[u64]) {
    let kept = dir.join(format!("kept.{}", case.ending));
    let path = if kept.exists() { kept } else { dir.join(format!("disk/trail.{}", case.ending)) };
    assert_ok(&path);
    if case.failure == Failure::Deleted {
        return look_aside(case, dir, returned);
    }
    nothing_left(dir);
    let all = records(&path);
    let numbers: Vec<u64> =
        all.iter().filter(|r| r.event == "n").map(|r| r.context_value("i").unwrap().as_u64().unwrap()).collect();
    let said =
        |reason: &str| all.iter().any(|r| r.event == "audit_gap" && r.context_value("reason").unwrap() == reason);
    // A trail that could not be opened has no journal.
    let memory = !case.journal || case.at_open();
    match case.then {
        Then::Killed(step) => {
            // What the last call accepted was perhaps not printed any more. What a killed memory queue held is gone, from the end; and somebody says so. But what was synced to the
            // pending file is there, and at these steps all was that came before the store was healed.
            let kept = numbers.starts_with(returned);
            let synced = match step {
                "merge_committed" | "merge_end" => returned.iter().filter(|i| **i < HEALED).count(),
                _ => 0,
            };
            let told = memory && numbers.len() >= synced && returned.starts_with(&numbers) && said("process_died");
            assert!(kept || told, "{} of {} returned", numbers.len(), returned.len());
        }
        // As with a kill: nothing took what the queue held.
        Then::Closes if case.nowhere() && memory => {
            assert!(returned.starts_with(&numbers) && said("process_died"), "{} of {}", numbers.len(), returned.len());
        }
        _ => assert!(numbers == returned, "{} in the trail, {} returned", numbers.len(), returned.len()),
    }
    let fallback = all.iter().any(|r| r.event == "audit_fallback");
    assert!(fallback || !case.spills() || case.killed(), "no audit_fallback");
    if case.killed() || (case.then == Then::Closes && case.nowhere() && memory) {
        return;
    }
    // A full queue has no room for a gap record: then health() and `on_error` alone told.
    if case.then == Then::Closes && case.fills_queue() {
        return;
    }
    assert!(said("invalid"), "a reported loss is not recorded");
    assert!(said("queue_full") || !case.fills_queue(), "a relay's loss is not recorded");
}

/// Of a log that is gone for ever: what it did not commit is in the files that the next open put aside.
fn look_aside(case: Case, dir: &Path, returned: &[u64]) {
    let mut aside = String::new();
    // Each byte a character: so that bytes are looked for as text is.
    let bytes = |b: &[u8]| b.iter().copied().map(char::from).collect::<String>();
    for file in fs::read_dir(dir.join("disk")).unwrap().map(|f| f.unwrap().path()) {
        let name = file.to_string_lossy().into_owned();
        assert!(!name.contains(".pending.") || name.ends_with(".orphan"), "{name}");
        if name.ends_with(".orphan") {
            aside += bytes(&fs::read(&file).unwrap()).trim_end_matches('\0');
            // (A number ends with zeros.)
            aside += "\0\0\0\0\0\0\0\0";
        }
    }
    // In a pending file as JSON, in a journal as members (docs/record-format.md, section 8).
    let member = |i: u64| bytes(&[&[3, 1, 0, 0, 8, 0, 0, 0, b'i'], i.to_le_bytes().as_slice()].concat());
    let has = |i: u64| aside.contains(&format!("{{\"i\":{i}}}")) || aside.contains(&member(i));
    let missing: Vec<_> = returned.iter().filter(|i| **i >= 20 && !has(**i)).collect();
    // (Printed and accepted in a memory queue that was killed: gone, from the end.)
    let gone = case.killed() && !case.journal && returned.iter().rev().zip(missing.iter().rev()).all(|(a, b)| a == *b);
    assert!(missing.is_empty() || gone, "{} of {}: {missing:?}", missing.len(), returned.len());
}
