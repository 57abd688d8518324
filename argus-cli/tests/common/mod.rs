//! Helpers that the tests of the command share: the real binary with a clean environment, a trail with known records, waiting with a deadline.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use argus_core::{
    ActorType, AuditConfig, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Filter, Outcome, Record,
    Trace, TraceContext,
};
pub use argus_testkit::TempTrail;
pub use rustix::process::Signal;
use serde_json::{Value, json};

pub const WAIT: Duration = Duration::from_secs(20);
pub const TRACE: &str = "abababababababababababababababab";

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The output of a run that went well.
    pub fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// Standard error of a run that ended with this code and printed nothing else.
    pub fn fails(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        assert!(!self.err.is_empty());
        self.err
    }
}

/// The command, in an environment that names no trail.
pub fn argus(args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_argus"));
    for name in
        ["ARGUS_AUDIT_DB", "XDG_DATA_HOME", "HOME", "STATE_DIRECTORY", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"]
    {
        c.env_remove(name);
    }
    c.args(args).stdin(Stdio::null());
    c
}

pub fn ran(mut c: Command) -> Ran {
    let o = c.output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).expect("the output is UTF-8");
    let ran = Ran { code: o.status.code().expect("ended by itself"), out: text(o.stdout), err: text(o.stderr) };
    assert!(ran.code != 101 && !ran.err.contains("panicked"), "{}", ran.err);
    ran
}

/// `argus ARGS --db DB`.
pub fn run(db: &Path, args: &[&str]) -> Ran {
    let mut c = argus(args);
    c.arg("--db").arg(db);
    ran(c)
}

/// Standard output of `argus ARGS --json --db DB`, each line parsed.
pub fn json(db: &Path, args: &[&str]) -> Vec<Value> {
    let mut args = args.to_vec();
    args.push("--json");
    run(db, &args).ok().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Polls until `f` gives something.
pub fn until<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + WAIT;
    loop {
        if let Some(v) = f() {
            return v;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The command as it runs; killed if a test ends early.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    err: Option<JoinHandle<String>>,
}

impl Running {
    pub fn start(mut c: Command) -> Running {
        let mut child = c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, lines) = channel();
        let (out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).try_for_each(|l| tell.send(l)));
        let err = std::thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).unwrap();
            text
        });
        Running { child, lines, err: Some(err) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(WAIT).expect("a line in time")
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; the output is what was not taken as lines.
    pub fn end(mut self) -> Ran {
        let status: ExitStatus = until("the end", || self.child.try_wait().unwrap());
        let err = self.err.take().unwrap().join().unwrap();
        let out = self.lines.iter().map(|l| l + "\n").collect();
        Ran { code: status.code().expect("ended by itself"), out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A temporary folder and a path in it for each store.
pub fn both() -> (TempTrail, [PathBuf; 2]) {
    let t = TempTrail::new();
    let paths = [t.db(), t.jsonl()];
    (t, paths)
}

pub fn logger(path: &Path, service: &str) -> AuditLogger {
    AuditLogger::open(AuditConfig::new(path).service(service, "1")).unwrap()
}

pub fn close(logger: &AuditLogger) {
    assert_eq!(logger.close(WAIT).error, None);
}

/// Two services' records, the oldest 3 hours old. By event: `cache_flushed` INFO, `disk_low` WARN, `config_change` CRITICAL twice, `login_denied` SECURITY, and
/// `invoice_sent` INFO of the service `billing`.
pub fn fill(path: &Path) {
    let ago = |minutes: u64| SystemTime::now() - Duration::from_secs(60 * minutes);
    let shop = logger(path, "shop");
    shop.log(AuditEvent::info("cache_flushed").component("cache").with("entries", 12).with("full", true).at(ago(180)))
        .unwrap();
    shop.log(AuditEvent::warn("disk_low").component("disk").file_path("/var/lib/shop").at(ago(90))).unwrap();
    for (file, minutes, old, new) in [("app", 30, 80, 443), ("db", 20, 1, 2)] {
        let path = format!("/etc/shop/{file}.yaml");
        let event = AuditEvent::critical("config_change").component("config").file_path(&path).at(ago(minutes));
        let (old, new) = (json!({ "port": old }), json!({ "port": new }));
        shop.log(event.old_value(&old).new_value(&new).actor("jane", ActorType::User)).unwrap();
    }
    let parent = TraceContext { trace_id: [0xab; 16], span_id: [0xcd; 8], flags: 1, remote: false, trace_state: "" };
    let denied = AuditEvent::security("login_denied").component("gateway").actor("mallory", ActorType::User);
    let denied = denied.with("ip", "192.0.2.7").with("attempts", 3).outcome(Outcome::Failure).at(ago(10));
    shop.log(denied.trace(Trace::Parent(parent))).unwrap();
    close(&shop);
    let billing = logger(path, "billing");
    billing.log(AuditEvent::info("invoice_sent").component("mail").with("attempts", "3").at(ago(5))).unwrap();
    close(&billing);
}

/// Every record, oldest first.
pub fn records(path: &Path) -> Vec<Record> {
    AuditReader::open(path).unwrap().query(Filter::new()).unwrap().map(Result::unwrap).collect()
}

/// Every file below a folder with its bytes. Never beside a live writer of this process: closing a file drops SQLite's locks on it.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| (p.clone(), std::fs::read(&p).unwrap()))
        .collect()
}

/// A plain connection for a tamperer: no trigger or check stops him.
pub fn tamper(path: &Path, statements: &str) {
    let c = rusqlite::Connection::open(path).unwrap();
    c.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    c.execute_batch(statements).unwrap();
    c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}
