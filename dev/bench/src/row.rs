//! A row of the table, and how its runs are taken.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

/// Runs of each side; the median counts.
pub(crate) const RUNS: usize = 7;
/// Runs of those that take seconds.
pub(crate) const LONG_RUNS: usize = 5;

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) floor: f64,
    pub(crate) aim: &'static str,
    pub(crate) runs: usize,
}

impl Row {
    pub(crate) fn ratio(&self) -> f64 {
        if self.floor == 0.0 { 0.0 } else { self.ours / self.floor }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { name, unit, ours, floor, aim, .. } = self;
        write!(f, "{name:<34} ours {ours:>12.1} {unit:<10} floor {floor:>12.1}  ratio {:>6.2}  aim {aim}", self.ratio())
    }
}

pub(crate) fn median(v: Vec<f64>) -> f64 {
    quantile(v, 0.5)
}

pub(crate) fn quantile(mut v: Vec<f64>, q: f64) -> f64 {
    v.sort_by(f64::total_cmp);
    v[((v.len() as f64 * q) as usize).min(v.len() - 1)]
}

/// Runs both sides in turn, so that a machine that slows down slows both, and gives both medians.
pub(crate) fn interleaved(runs: usize, mut ours: impl FnMut() -> f64, mut floor: impl FnMut() -> f64) -> (f64, f64) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for run in 0..=runs {
        let (x, y) = (ours(), floor());
        // The first pair warms up.
        if run > 0 {
            a.push(x);
            b.push(y);
        }
    }
    (median(a), median(b))
}

/// Calls in one run of `p50`.
pub(crate) const CALLS: usize = 100_000;
/// Calls timed together: one reading of the clock costs about as much as a call.
pub(crate) const GROUP: usize = 16;

/// Median cost of a call, in nanoseconds, from groups of calls.
pub(crate) fn p50(mut call: impl FnMut()) -> f64 {
    let mut groups = Vec::with_capacity(CALLS / GROUP);
    for _ in 0..CALLS / GROUP {
        let t = Instant::now();
        for _ in 0..GROUP {
            call();
        }
        groups.push(t.elapsed().as_nanos() as f64 / GROUP as f64);
    }
    median(groups)
}

/// What two readings of the clock take, in nanoseconds: what is in the time of a single call and is not the call's.
pub(crate) fn clock_cost() -> f64 {
    median((0..1000).map(|_| Instant::now().elapsed().as_nanos() as f64).collect())
}

/// The time of one call in nanoseconds, without the clock's own.
pub(crate) fn timed(clock: f64, call: impl FnOnce()) -> f64 {
    let t = Instant::now();
    call();
    (t.elapsed().as_nanos() as f64 - clock).max(0.0)
}

/// Calls it for about so long, and gives what was done a second.
pub(crate) fn rate(at_least: Duration, mut step: impl FnMut() -> usize) -> f64 {
    let (t, mut n) = (Instant::now(), 0);
    while t.elapsed() < at_least {
        n += step();
    }
    n as f64 / t.elapsed().as_secs_f64()
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut t = String::from("| row | what | ours | floor | ratio | aim |\n|---|---|---|---|---|---|\n");
    for r in rows {
        let Row { name, what, unit, ours, floor, aim, .. } = r;
        t += &format!("| `{name}` | {what} | {ours:.1} {unit} | {floor:.1} | {:.2} | {aim} |\n", r.ratio());
    }
    t
}

/// Writes `argus-bench.json` beside the binaries' profile folder.
pub(crate) fn write(rows: &[Row]) -> std::io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(2).map(PathBuf::from).unwrap_or_default();
    let path = target.join("argus-bench.json");
    let rows: Vec<_> = rows
        .iter()
        .map(|r| json!({"name": r.name, "unit": r.unit, "ours": r.ours, "floor": r.floor, "ratio": r.ratio(), "aim": r.aim, "runs": r.runs}))
        .collect();
    std::fs::write(&path, serde_json::to_string_pretty(&rows)?)?;
    Ok(path)
}
