//! Power loss at any moment of a trail's life: nothing acknowledged is lost, and what is left opens, verifies and goes on. The same oracle must find the loss in
//! each negative control.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use argus_powerloss::{Crash, Op, Outcome, Recording, Store, Variant, Workload, images_wanted, run, sample};

/// Checkpoints often, so that a short trail meets many.
const CHECKPOINTS: &str = "PRAGMA wal_autocheckpoint=40";

fn workload(store: Store, loggers: usize, tune: &'static str, seed: u64) -> Workload {
    Workload { store, seed, sessions: 3, loggers, calls: 15, tune, fails: false }
}

fn recorded(workload: &Workload) -> Recording {
    let dir = tempfile::tempdir().unwrap();
    let recording = workload.record(dir.path());
    assert!(recording.ops.iter().any(|o| matches!(o, Op::Write { .. })), "the calls of the store were not seen");
    recording
}

fn tell(what: &str, outcome: &Outcome) {
    let Outcome { images, flagged, .. } = outcome;
    println!("{what}: {images} images, {} flagged, {:.0} images/s", flagged.len(), outcome.rate());
    for (crash, why) in flagged.iter().take(5) {
        println!("  {crash:?}: {why}");
    }
}

/// Images of as many recordings as it takes, each by another seed.
fn all_survive(what: &str, workload: &Workload, images: usize, record: impl Fn(&Workload) -> Recording) {
    let (wanted, mut outcome, mut seed) = (images_wanted(images), Outcome::default(), workload.seed);
    while outcome.images < wanted {
        let w = Workload { seed, ..workload.clone() };
        let some = run(&record(&w), w.store, (wanted - outcome.images).min(300), seed);
        assert!(some.images > 0);
        outcome.images += some.images;
        outcome.took += some.took;
        outcome.flagged.extend(some.flagged);
        seed += 100;
    }
    tell(what, &outcome);
    assert!(outcome.flagged.is_empty(), "{} images were flagged", outcome.flagged.len());
}

/// `least`: what share of the images must be flagged at the least.
fn is_caught(what: &str, recording: &Recording, workload: &Workload, least: f64) {
    let outcome = run(recording, workload.store, images_wanted(40).min(2000), workload.seed);
    tell(what, &outcome);
    let share = outcome.flagged.len() as f64 / outcome.images as f64;
    assert!(share > least, "the oracle must see that records are lost: {share}");
    // Lost outright, or so that the chain shows it: which comes first is a matter of the images drawn.
    let why = ["lost", "cannot be read", "does not verify"];
    let seen = outcome.flagged.iter().filter(|(_, text)| why.iter().any(|w| text.contains(w))).count();
    assert!(seen > 0, "{:?}", outcome.flagged.first());
}

fn without(recording: &Recording, drop: impl Fn(&Op) -> bool) -> Recording {
    let mut recording = recording.clone();
    recording.ops.retain(|o| !drop(o));
    recording
}

#[test]
fn sqlite_loses_nothing_acknowledged() {
    let w = workload(Store::Sqlite, 1, CHECKPOINTS, 1);
    all_survive("SQLite", &w, 60, recorded);
}

#[test]
fn sqlite_shared_by_two_loggers_loses_nothing_acknowledged() {
    let w = workload(Store::Sqlite, 2, CHECKPOINTS, 2);
    all_survive("SQLite, two loggers", &w, 60, recorded);
}

#[test]
fn jsonl_loses_nothing_acknowledged() {
    let w = workload(Store::Jsonl, 1, "", 3);
    all_survive("JSONL", &w, 60, recorded);
}

#[test]
fn a_trail_that_is_being_made_can_be_made_again() {
    for (what, store) in [("SQLite, new", Store::Sqlite), ("JSONL, new", Store::Jsonl)] {
        let w = Workload { sessions: 1, calls: 1, ..workload(store, 1, "", 7) };
        all_survive(what, &w, 40, recorded);
    }
}

#[test]
fn a_recovery_cut_short_is_recovered() {
    for (what, store) in [("SQLite, recovery", Store::Sqlite), ("JSONL, recovery", Store::Jsonl)] {
        all_survive(what, &workload(store, 1, CHECKPOINTS, 8), 40, |w| {
            let first = recorded(w);
            let crashes = sample(&first, 300, w.seed, false);
            let torn = |c: &&Crash| matches!(c.variant, Variant::Torn(_));
            let crash = crashes.iter().rfind(torn).unwrap();
            let dir = tempfile::tempdir().unwrap();
            first.image(*crash).write(dir.path());
            let mut second = Workload { sessions: 1, calls: 4, ..w.clone() }.record(dir.path());
            second.before = first.notes_before(*crash);
            second
        });
    }
}

/// With a store that fails now and then.
fn failing(store: Store, loggers: usize, seed: u64) -> Workload {
    Workload { fails: true, ..workload(store, loggers, CHECKPOINTS, seed) }
}

/// The files whose name has this in it.
fn files_of(recording: &Recording, part: &str) -> Vec<usize> {
    let made = recording.ops.iter().filter_map(|o| match o {
        Op::Create { name, file: Some(file) } if name.contains(part) => Some(*file),
        _ => None,
    });
    made.collect()
}

#[test]
fn what_was_acknowledged_of_a_pending_file_is_recovered() {
    let made = |w: &Workload| {
        let recording = recorded(w);
        let pending = files_of(&recording, ".pending.");
        let wrote = |o: &&Op| matches!(o, Op::Write { file, .. } if pending.contains(file));
        assert!(recording.ops.iter().filter(wrote).count() > 3, "no pending file was written");
        recording
    };
    all_survive("SQLite, a store that fails", &failing(Store::Sqlite, 1, 9), 60, made);
    all_survive("SQLite, two loggers, a store that fails", &failing(Store::Sqlite, 2, 10), 40, made);
    all_survive("JSONL, a store that fails", &failing(Store::Jsonl, 1, 11), 60, made);
}

#[test]
fn control_a_pending_file_without_its_sync_is_caught() {
    for (store, seed) in [(Store::Sqlite, 12), (Store::Jsonl, 13)] {
        let w = failing(store, 1, seed);
        let recording = recorded(&w);
        let pending = files_of(&recording, ".pending.");
        let recording = without(&recording, |o| matches!(o, Op::SyncFile { file } if pending.contains(file)));
        // (What was merged or recovered since then needs the file no more.)
        is_caught(&format!("control: {store:?}, a pending file without fdatasync"), &recording, &w, 0.02);
    }
}

#[test]
fn control_sqlite_with_synchronous_normal_is_caught() {
    let w = workload(Store::Sqlite, 1, "PRAGMA wal_autocheckpoint=40; PRAGMA synchronous=NORMAL", 4);
    is_caught("control: synchronous=NORMAL", &recorded(&w), &w, 0.1);
}

#[test]
fn control_jsonl_without_fdatasync_is_caught() {
    let w = workload(Store::Jsonl, 1, "", 5);
    let recording = without(&recorded(&w), |o| matches!(o, Op::SyncFile { .. }));
    is_caught("control: JSONL without fdatasync", &recording, &w, 0.1);
}

#[test]
fn control_without_directory_sync_is_caught() {
    for (what, store) in [("SQLite", Store::Sqlite), ("JSONL", Store::Jsonl)] {
        let w = workload(store, 1, CHECKPOINTS, 6);
        let recording = without(&recorded(&w), |o| matches!(o, Op::SyncDir { .. }));
        is_caught(&format!("control: {what} without directory sync"), &recording, &w, 0.1);
    }
}
