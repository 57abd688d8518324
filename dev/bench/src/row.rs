//! A row of the table.

use std::fmt;
use std::path::PathBuf;

use serde_json::json;

/// Runs of each side; the median counts.
pub(crate) const RUNS: usize = 7;

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) floor: f64,
    pub(crate) aim: &'static str,
}

impl Row {
    pub(crate) fn ratio(&self) -> f64 {
        self.ours / self.floor
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<26} ours {:>12.1} {:<10} floor {:>12.1}  ratio {:>6.2}  aim {}",
            self.name,
            self.ours,
            self.unit,
            self.floor,
            self.ratio(),
            self.aim
        )
    }
}

pub(crate) fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

/// Runs both sides in turn, so that a machine that slows down slows both, and gives both medians.
pub(crate) fn interleaved(mut ours: impl FnMut() -> f64, mut floor: impl FnMut() -> f64) -> (f64, f64) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let (x, y) = (ours(), floor());
        // The first pair warms up.
        if run > 0 {
            a.push(x);
            b.push(y);
        }
    }
    (median(a), median(b))
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut t = String::from("| row | what | ours | floor | ratio | aim |\n|---|---|---|---|---|---|\n");
    for r in rows {
        t += &format!(
            "| `{}` | {} | {:.1} {} | {:.1} | {:.2} | {} |\n",
            r.name,
            r.what,
            r.ours,
            r.unit,
            r.floor,
            r.ratio(),
            r.aim
        );
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
        .map(|r| json!({"name": r.name, "unit": r.unit, "ours": r.ours, "floor": r.floor, "ratio": r.ratio(), "aim": r.aim, "runs": RUNS}))
        .collect();
    std::fs::write(&path, serde_json::to_string_pretty(&rows)?)?;
    Ok(path)
}
