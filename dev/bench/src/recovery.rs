//! Recovery of what a killed process left in its journal, against sustained writing of as many records.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditLogger, AuditReader, AuditSink, Filter};
use rusqlite::Connection;

use crate::row::{LONG_RUNS, Row, interleaved};
use crate::store::{log_many, write_ours};

const CHILD: &str = "--journal-records-and-wait";

fn records() -> u64 {
    std::env::var("ARGUS_BENCH_RECOVERY").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000)
}

fn config(path: &Path) -> AuditConfig {
    AuditConfig::new(path).queue_bytes(1 << 30)
}

/// The part of the child: logs while somebody else holds the database, then waits for its end.
pub(crate) fn is_child(arguments: &[String]) -> bool {
    let [first, path] = arguments else { return false };
    if first != CHILD {
        return false;
    }
    let logger = AuditLogger::open(config(Path::new(path))).unwrap();
    println!("open");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    log_many(&logger, records());
    println!("logged");
    std::thread::sleep(Duration::from_secs(600));
    true
}

/// Makes a trail whose writer was killed with every record in its journal and none in the database.
fn killed(path: &Path) {
    let exe = std::env::current_exe().unwrap();
    let mut child =
        Command::new(exe).arg(CHILD).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "open");
    let lock = Connection::open(path).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Its end is the line the child waits for.
    drop(child.stdin.take());
    assert_eq!(said.next().unwrap().unwrap(), "logged");
    child.kill().unwrap();
    child.wait().unwrap();
    lock.execute_batch("ROLLBACK").unwrap();
}

pub(crate) fn recovery() -> Row {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trail.db");
    let n = records();
    let clean = || {
        for f in std::fs::read_dir(dir.path()).unwrap() {
            let _ = std::fs::remove_file(f.unwrap().path());
        }
    };
    let ours = || {
        killed(&path);
        let t = Instant::now();
        let logger = AuditLogger::open(config(&path)).unwrap();
        let rate = n as f64 / t.elapsed().as_secs_f64();
        logger.close(Duration::from_secs(60));
        let found = AuditReader::open(&path).unwrap().query(Filter::new().event("request")).unwrap().count();
        assert_eq!(found as u64, n);
        clean();
        rate
    };
    let sustained = || {
        let rate = write_ours(&path, n);
        clean();
        rate
    };
    let (ours, floor) = interleaved(LONG_RUNS, ours, sustained);
    Row {
        name: "",
        what: "opening a trail with 200,000 records (or ARGUS_BENCH_RECOVERY) in a dead writer's journal; floor: sustained",
        unit: "records/s",
        ours,
        floor,
        aim: ">= 0.80",
        runs: LONG_RUNS,
    }
}
