//! The real logger, as an application uses it: single durable records, groups, records that are only accepted, flushes, large records, closing and opening again;
//! and a store that fails now and then, so that records go to the pending file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Durability, ErrorKind, Faults, Level,
    StoreFault,
};

use crate::interpose::tune;
use crate::recorder::{Note, Recording, note, record};
use crate::rng::Rng;

const WAIT: Duration = Duration::from_secs(60);
/// The event of the caller's records; its context says the how manieth of its logger it is.
pub(crate) const EVENT: &str = "power";

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// `.db`
    Sqlite,
    /// `.jsonl`
    Jsonl,
}

impl Store {
    /// Where the trail is below the watched directory; the folders do not exist at first.
    pub fn trail(self, root: &Path) -> PathBuf {
        root.join(match self {
            Store::Sqlite => "var/log/trail.db",
            Store::Jsonl => "var/log/trail.jsonl",
        })
    }
}

/// What is written.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Where.
    pub store: Store,
    /// Chooses what comes after what.
    pub seed: u64,
    /// How often the trail is opened, written and closed.
    pub sessions: usize,
    /// Loggers at a time; more than one only for SQLite.
    pub loggers: usize,
    /// Calls in a session.
    pub calls: usize,
    /// Statements for the store's own connection, after it was opened.
    pub tune: &'static str,
    /// The store fails now and then, for some calls or until the end of the session.
    pub fails: bool,
}

struct Logger {
    logger: AuditLogger,
    n: u64,
    faults: Faults,
    failing: bool,
}

impl Logger {
    fn open(path: &Path) -> Self {
        note(Note::Opening);
        let faults = Faults::new();
        let config = AuditConfig::new(path).service("power", "1").faults(&faults);
        let mut config = config.durability_from(Level::Security, Durability::Committed);
        // Nothing happens but what is asked for.
        config.flush_interval = Duration::from_secs(3600);
        // A journal promises nothing across power loss, and its mapped pages are written by no call that could be recorded.
        config.journal = false;
        let logger = AuditLogger::open(config).unwrap();
        note(Note::Opened(logger.writer_id()));
        Self { logger, n: 0, faults, failing: false }
    }

    fn next(&mut self, level: Level, bytes: usize) -> (u64, String, Level) {
        self.n += 1;
        note(Note::Submitted(self.logger.writer_id(), self.n));
        (self.n, "x".repeat(bytes), level)
    }

    /// The store begins to fail, or works again.
    fn turn(&mut self) {
        self.failing = !self.failing;
        if self.failing {
            return self.faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
        }
        self.faults.heal();
        self.logger.flush(WAIT).unwrap();
        note(Note::Acknowledged(self.logger.writer_id(), self.n, None));
    }

    fn call(&mut self, rng: &mut Rng) {
        let id = self.logger.writer_id();
        let event = |(n, filler, level): &(u64, String, Level), f: &mut dyn FnMut(AuditEvent<'_>)| {
            let e = if *level == Level::Security { AuditEvent::security(EVENT) } else { AuditEvent::info(EVENT) };
            f(e.with("n", *n).with("filler", filler.as_str()));
        };
        match rng.below(10) {
            kind @ 0..=3 => {
                let size = if kind == 0 { 10_000 } else { 10 };
                let e = self.next(Level::Info, size);
                event(&e, &mut |e| {
                    let receipt = self.logger.log_durable(e).unwrap();
                    note(Note::Acknowledged(id, self.n, Some(receipt)));
                });
            }
            4..=5 => {
                let e = self.next(Level::Security, 300);
                event(&e, &mut |e| {
                    self.logger.log(e).unwrap();
                    note(Note::Acknowledged(id, self.n, None));
                });
            }
            6..=7 => {
                let mut waiting = Vec::new();
                for _ in 0..2 + rng.below(10) {
                    let e = self.next(Level::Info, 200);
                    event(&e, &mut |e| waiting.push((self.n, self.logger.log_pending(e).unwrap())));
                }
                for (n, pending) in waiting {
                    let receipt = pending.wait(WAIT).unwrap();
                    note(Note::Acknowledged(id, n, Some(receipt)));
                }
            }
            8 => {
                for _ in 0..1 + rng.below(6) {
                    let e = self.next(Level::Info, 50);
                    event(&e, &mut |e| {
                        self.logger.log(e).unwrap();
                    });
                }
            }
            // It would wait for the store.
            _ if self.failing => {}
            _ => {
                self.logger.flush(WAIT).unwrap();
                note(Note::Acknowledged(id, self.n, None));
            }
        }
    }

    fn close(self) {
        let id = self.logger.writer_id();
        note(Note::Closing(id));
        if self.failing {
            let report = self.logger.close(Duration::from_millis(1));
            let report = if report.error == Some(AuditError::Timeout) { self.logger.close(WAIT) } else { report };
            assert!(matches!(report.error, Some(AuditError::Store(_))), "{report:?}");
            assert_eq!(self.logger.health().lost, 0);
            // All that was accepted stands in the pending file, synced.
            return note(Note::Acknowledged(id, self.n, None));
        }
        let report = self.logger.close(WAIT);
        assert_eq!(report.error, None);
        note(Note::Acknowledged(id, self.n, None));
        note(Note::Closed(id));
    }
}

impl Workload {
    /// Writes the trail below `root` and records how.
    pub fn record(&self, root: &Path) -> Recording {
        record(root, || {
            let mut rng = Rng::new(self.seed);
            for _ in 0..self.sessions {
                let mut loggers = Vec::new();
                for _ in 0..self.loggers {
                    loggers.push(Logger::open(&self.store.trail(root)));
                    if self.store == Store::Sqlite {
                        tune(self.tune);
                    }
                }
                for _ in 0..self.calls {
                    let i = rng.below(loggers.len());
                    // Mostly it fails.
                    if self.fails && rng.below(if loggers[i].failing { 10 } else { 2 }) == 0 {
                        loggers[i].turn();
                    }
                    loggers[i].call(&mut rng);
                }
                loggers.into_iter().for_each(Logger::close);
            }
        })
    }
}
