//! All images of a recording, on all cores.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::image::{Crash, Cursor, sample};
use crate::oracle::Expectation;
use crate::recorder::{Op, Recording};
use crate::workload::Store;

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Images opened.
    pub images: usize,
    /// What was wrong, and with which.
    pub flagged: Vec<(Crash, String)>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Images a second.
    pub fn rate(&self) -> f64 {
        self.images as f64 / self.took.as_secs_f64()
    }
}

/// How many images a recording gets: `ARGUS_POWERLOSS_IMAGES`, else `default`.
///
/// # Panics
/// The variable is no number.
pub fn images_wanted(default: usize) -> usize {
    std::env::var("ARGUS_POWERLOSS_IMAGES").map_or(default, |v| v.parse().expect("ARGUS_POWERLOSS_IMAGES is a number"))
}

/// Builds and opens `n` images.
pub fn run(recording: &Recording, store: Store, n: usize, seed: u64) -> Outcome {
    let begun = Instant::now();
    // SQLite finds a hole by its checksums. A JSONL line with a hole reads as tampered; but file systems give a file its new length only after the bytes.
    let crashes = sample(recording, n, seed, store == Store::Sqlite);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let flagged = std::thread::scope(|s| {
        let parts: Vec<_> = crashes.chunks(crashes.len().div_ceil(threads).max(1)).collect();
        let running: Vec<_> = parts.into_iter().map(|p| s.spawn(move || walk(recording, store, p))).collect();
        running.into_iter().flat_map(|r| r.join().unwrap()).collect()
    });
    Outcome { images: crashes.len(), flagged, took: begun.elapsed() }
}

/// Crashes in the order of the recording.
fn walk(recording: &Recording, store: Store, crashes: &[Crash]) -> Vec<(Crash, String)> {
    let (mut cursor, mut expectation, mut flagged) = (Cursor::new(recording), Expectation::default(), Vec::new());
    recording.before.iter().for_each(|note| expectation.add(note));
    for crash in crashes {
        while cursor.at < crash.at {
            if let Some(Op::Note(note)) = cursor.step() {
                expectation.add(note);
            }
        }
        let dir = tempfile::Builder::new().prefix("argus-power-").tempdir().unwrap();
        cursor.image(crash.variant).write(dir.path());
        let checked = catch_unwind(AssertUnwindSafe(|| expectation.check(&store.trail(dir.path()))));
        if let Err(why) = checked.unwrap_or_else(|_| Err("opening it panicked".into())) {
            flagged.push((*crash, why));
        }
    }
    flagged
}
