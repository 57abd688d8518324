//! Argus's cost as ratios over the floor for the same work, both measured in this run, interleaved. Prints a table and writes `argus-bench.json` into the target
//! directory. Never a test: machines are noisy.
//!
//! Layout: [`row`] what a row is and how runs are interleaved; [`accept`] the caller's side; [`store`] sustained writing and verification.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accept;
mod row;
mod store;

fn main() {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| name.contains(o.as_str()));
    let mut rows = Vec::new();
    for bench in [accept::filtered, accept::log, accept::config_change, store::sustained, store::verify] {
        if let Some(r) = bench(&wanted) {
            println!("{r}");
            rows.push(r);
        }
    }
    println!("\n{}", row::table(&rows));
    match row::write(&rows) {
        Ok(path) => println!("written to {}", path.display()),
        Err(e) => eprintln!("cannot write the JSON: {e}"),
    }
}
