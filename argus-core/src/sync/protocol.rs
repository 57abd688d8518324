//! The protocol between callers, writer, keeper, spill thread, observers, `flush` and `close`, in many orders of their steps: the real code over a store in memory.
//! Time stands still here: no wait ever times out, so whatever relies on a timeout instead of a signal is a deadlock, which `shuttle` reports with the
//! schedule that led there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::thread::{self, JoinHandle};

use crate::accept::Rules;
use crate::config::{AuditConfig, Overflow};
use crate::core::{Accepted, Core};
use crate::error::{AuditError, ErrorKind};
use crate::event::AuditEvent;
use crate::fault::Faults;
use crate::id::WriterId;
use crate::pending::Pending;
use crate::queue::files::{Beside, HEADER, Owner};
use crate::queue::keeper::Keeper;
use crate::redaction::Redaction;
use crate::sink::{Carrier, CommitObserver, Interest, Receipt, State};
use crate::spill::Spiller;
use crate::store::memory::{MemoryStore, MemoryTrail};
use crate::store::place::Access;
use crate::writer::{Identity, Writer};

/// The longest `commit_delay`.
const LONG: Duration = Duration::from_secs(3600);
const EVER: Duration = Duration::from_secs(86_400 * 300);

/// As many schedules as `ARGUS_SHUTTLE_RUNS` says, half of them random, half by the PCT algorithm, which finds bugs of few switches sooner.
fn check(f: impl Fn() + Send + Sync + Clone + 'static) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    let runs = std::env::var("ARGUS_SHUTTLE_RUNS").ok().and_then(|v| v.parse().ok()).unwrap_or(1000);
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    shuttle::Runner::new(RandomScheduler::new(runs / 2), config.clone()).run(f.clone());
    shuttle::Runner::new(PctScheduler::new(3, runs / 2), config).run(f);
}

struct Logger {
    core: Arc<Core>,
    trail: MemoryTrail,
    dir: Option<tempfile::TempDir>,
    threads: Vec<JoinHandle<()>>,
}

fn config(queue_bytes: usize) -> AuditConfig {
    let config = AuditConfig::default().redaction(Redaction::none()).queue_bytes(queue_bytes);
    config.overflow(Overflow::Block { timeout: EVER }).commit_delay(Duration::ZERO).flush_interval(EVER)
}

/// In memory where there is such a place: what is synced is not the question here.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

impl Logger {
    /// Starts the threads as `AuditLogger` does.
    fn start(config: AuditConfig, journal: bool) -> Self {
        let rules = Rules::empty();
        let writer = WriterId::random();
        let (queue_bytes, spills) = (config.queue_bytes, config.overflow == Overflow::Spill);
        let core = Arc::new(Core::new(config, rules, writer));
        let trail = MemoryTrail::new();
        let mut threads = Vec::new();
        let mut dir = None;
        if journal || spills {
            dir = Some(folder());
        }
        let beside = dir.as_ref().map(|d| Beside {
            trail: d.path().join("t"),
            access: Access { mode: 0o600, group: None },
            spill_dir: None,
        });
        let identity = Identity { original_output_file: String::new(), process_id: 1, process_name: "p".into() };
        if let Some(beside) = beside.clone().filter(|_| spills) {
            let spiller = Spiller::new(core.clone(), beside, None, &Owner::default(), identity.clone());
            core.lock().spill.on = true;
            threads.push(thread::spawn(move || spiller.run()));
        }
        if let Some(beside) = beside.filter(|_| journal) {
            let ids = (WriterId::random(), writer);
            // Room for a few records each, so that segments are filled, zeroed and used again all the time.
            let (keeper, queue) =
                Keeper::with_segments(beside, ids, Owner::default(), queue_bytes, HEADER + 4096).unwrap();
            core.use_journal(queue);
            let core = core.clone();
            threads.push(thread::spawn(move || keeper.run(&core)));
        }
        let store = Box::new(MemoryStore::new(trail.clone()));
        let w = Writer::new(core.clone(), store, identity);
        threads.push(thread::spawn(move || {
            crate::thread::mark_argus();
            w.run();
        }));
        let for_observers = core.clone();
        threads.push(thread::spawn(move || for_observers.observers.run()));
        Self { core, trail, dir, threads }
    }

    /// A caller that logs `count` records and gives the numbers of those that were accepted.
    fn caller(&self, name: u64, count: u64) -> JoinHandle<Vec<u64>> {
        let core = self.core.clone();
        thread::spawn(move || {
            let mut accepted = Vec::new();
            for n in 0..count {
                match log(&core, 100 * name + n, false) {
                    Ok(_) => accepted.push(100 * name + n),
                    Err(e) => assert!(matches!(e, AuditError::Closed), "{e}"),
                }
            }
            accepted
        })
    }

    /// After the close: no file is left, every thread ends, and the account is that of `accepted`.
    fn settle(self, mut accepted: Vec<u64>) {
        let left: Vec<PathBuf> =
            self.dir.iter().flat_map(|d| std::fs::read_dir(d.path()).unwrap().map(|e| e.unwrap().path())).collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "close waits for the keeper");
        self.threads.into_iter().for_each(|t| t.join().unwrap());
        let lines: Vec<serde_json::Value> =
            self.trail.lines().iter().map(|l| serde_json::from_str(l).unwrap()).collect();
        // (`audit_recovered` is the log's own.)
        let writer = self.core.writer.to_string();
        let own = lines.iter().filter(|l| l["writer"] == writer.as_str());
        let numbers: Vec<u64> = own.map(|l| l["writer_seq"].as_u64().unwrap()).collect();
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, expected, "in order, without holes");
        let mut stored: Vec<u64> = lines.iter().filter_map(|l| l["context"]["n"].as_u64()).collect();
        // Each caller's own order holds.
        for name in 0..10 {
            let of_one: Vec<_> = stored.iter().filter(|n| *n / 100 == name).collect();
            assert!(of_one.is_sorted());
        }
        stored.sort_unstable();
        accepted.sort_unstable();
        assert_eq!(stored, accepted, "each accepted record once");
        let state = self.core.lock();
        assert_eq!((state.queue.bytes(), state.queue.is_empty()), (0, true));
        assert_eq!(state.done_seq, state.last_seq);
        assert!(state.acks.is_empty() && state.hurry == 0);
        let h = &state.ledger.health;
        assert_eq!((h.queued, h.lost, h.committed), (0, 0, accepted.len() as u64));
        assert_eq!(h.submitted, h.committed + h.rejected);
        drop(state);
    }
}

fn log(core: &Core, n: u64, ack: bool) -> Result<Option<Pending>, AuditError> {
    let event = AuditEvent::info("e").with("n", n);
    let mut accepted = Accepted::default();
    core.submit(&event, &Carrier::default(), ack, &mut accepted).map_err(|e| *e)?;
    Ok(accepted.pending)
}

fn stored(trail: &MemoryTrail, n: u64) -> bool {
    trail.lines().iter().any(|l| l.contains(&format!("\"n\":{n}}}")) || l.contains(&format!("\"n\":{n},")))
}

/// Callers against a queue of `queue_bytes`, one that flushes, and a close that comes at any moment.
fn race(queue_bytes: usize, journal: bool) {
    race_of(config(queue_bytes), journal);
}

fn race_of(config: AuditConfig, journal: bool) {
    let logger = Logger::start(config, journal);
    let callers = [logger.caller(1, 4), logger.caller(2, 4)];
    let (core, trail) = (logger.core.clone(), logger.trail.clone());
    let flusher = thread::spawn(move || match log(&core, 300, false) {
        Ok(_) => {
            core.flush(EVER).unwrap();
            assert!(stored(&trail, 300), "flushed");
            vec![300]
        }
        Err(_) => Vec::new(),
    });
    let (core, trail) = (logger.core.clone(), logger.trail.clone());
    let durable = thread::spawn(move || match log(&core, 400, true) {
        Ok(pending) => {
            let receipt = pending.unwrap().wait(Duration::MAX).unwrap();
            let spilled = receipt.state == State::Spilled;
            assert!(spilled || (receipt.seq.is_some() && stored(&trail, 400)), "acknowledged");
            vec![400]
        }
        Err(_) => Vec::new(),
    });
    let core = logger.core.clone();
    let closer = thread::spawn(move || core.close(EVER));
    let own = logger.core.close(EVER);
    let other = closer.join().unwrap();
    assert!(own.already_closed != other.already_closed, "one of the two has closed it");
    for report in [own, other] {
        assert_eq!((report.error, report.left), (None, 0));
    }
    let mut accepted = flusher.join().unwrap();
    accepted.extend(durable.join().unwrap());
    accepted.extend(callers.into_iter().flat_map(|c| c.join().unwrap()));
    logger.settle(accepted);
}

#[test]
fn memory_queue_with_room() {
    check(|| race(1 << 20, false));
}

#[test]
fn memory_queue_that_is_full_all_the_time() {
    check(|| race(600, false));
}

#[test]
fn journal_with_room() {
    check(|| race(1 << 20, true));
}

#[test]
fn journal_that_is_full_all_the_time() {
    check(|| race(600, true));
}

fn spills(queue_bytes: usize) -> AuditConfig {
    config(queue_bytes).overflow(Overflow::Spill)
}

/// A spill begins and ends all the time: the queue goes back and forth between the writer and the spill thread.
#[test]
fn memory_queue_that_spills() {
    check(|| race_of(spills(600), false));
}

#[test]
fn journal_that_spills() {
    check(|| race_of(spills(600), true));
}

#[test]
fn callers_that_spill_again_and_again() {
    check(|| {
        let logger = Logger::start(spills(1500), false);
        let callers = [logger.caller(1, 20), logger.caller(2, 20), logger.caller(3, 20)];
        let accepted: Vec<u64> = callers.into_iter().flat_map(|c| c.join().unwrap()).collect();
        assert_eq!(accepted.len(), 60);
        logger.core.flush(EVER).unwrap();
        assert_eq!(logger.core.close(EVER).error, None);
        logger.settle(accepted);
    });
}

/// Records enough for several segments, none refused: the keeper must keep up by signals alone.
#[test]
fn journal_that_rolls_on() {
    check(|| {
        let logger = Logger::start(config(6000), true);
        let callers = [logger.caller(1, 60), logger.caller(2, 60)];
        let accepted: Vec<u64> = callers.into_iter().flat_map(|c| c.join().unwrap()).collect();
        assert_eq!(accepted.len(), 120);
        logger.core.flush(EVER).unwrap();
        logger.core.close(EVER);
        logger.settle(accepted);
    });
}

/// No second segment can be made: the first is filled, zeroed and used again, by signals alone.
#[test]
fn journal_of_one_segment() {
    check(|| {
        let faults = Faults::new();
        faults.segments(ErrorKind::DiskFull);
        let logger = Logger::start(config(6_000).faults(&faults), true);
        let callers = [logger.caller(1, 30), logger.caller(2, 30)];
        let accepted: Vec<u64> = callers.into_iter().flat_map(|c| c.join().unwrap()).collect();
        assert_eq!(accepted.len(), 60);
        logger.core.flush(EVER).unwrap();
        logger.core.close(EVER);
        logger.settle(accepted);
    });
}

/// What was flushed takes no room any more: of records that each fill the queue, none is refused where it is flushed before the next one.
#[test]
fn a_flush_leaves_room() {
    for journal in [false, true] {
        check(move || {
            let logger = Logger::start(config(300).overflow(Overflow::Reject), journal);
            let mut accepted = Vec::new();
            for n in 100..120 {
                // (One that somebody waits for: he is told meanwhile.)
                let pending = log(&logger.core, n, n % 2 == 0).unwrap();
                logger.core.flush(EVER).unwrap();
                drop(pending);
                accepted.push(n);
            }
            logger.core.close(EVER);
            logger.settle(accepted);
        });
    }
}

/// A long `commit_delay` is cut short by whoever waits: time stands still, so otherwise nothing would ever be committed.
#[test]
fn nobody_waits_for_a_commit_delay() {
    check(|| {
        let logger = Logger::start(config(1 << 20).commit_delay(LONG).buffer_size(10), false);
        // The writer may be at its delay already.
        let mut accepted = logger.caller(1, 1).join().unwrap();
        let core = logger.core.clone();
        let durable = thread::spawn(move || log(&core, 500, true).unwrap().unwrap().wait(Duration::MAX).unwrap());
        durable.join().unwrap();
        accepted.extend(logger.caller(2, 1).join().unwrap());
        let core = logger.core.clone();
        let flusher = thread::spawn(move || {
            log(&core, 600, false).unwrap();
            core.flush(EVER).unwrap();
        });
        flusher.join().unwrap();
        // As many as `buffer_size` says end it, too.
        let callers = [logger.caller(3, 5), logger.caller(4, 5)];
        accepted.extend(callers.into_iter().flat_map(|c| c.join().unwrap()));
        while logger.core.lock().done_seq < 14 {
            thread::yield_now();
        }
        accepted.extend([500, 600]);
        logger.core.close(EVER);
        logger.settle(accepted);
    });
}

#[test]
fn a_full_queue_ends_a_commit_delay() {
    check(|| {
        let logger = Logger::start(config(600).commit_delay(LONG), true);
        let callers = [logger.caller(1, 4), logger.caller(2, 4)];
        let accepted = callers.into_iter().flat_map(|c| c.join().unwrap()).collect();
        logger.core.close(EVER);
        logger.settle(accepted);
    });
}

/// A store that fails and comes back. Retries are a matter of time, which somebody plays here.
#[test]
fn a_store_that_fails_for_a_while() {
    check(|| {
        let logger = Logger::start(config(600), false);
        logger.trail.fail(2);
        let callers = [logger.caller(1, 3), logger.caller(2, 3)];
        let (core, deadline) = (logger.core.clone(), Instant::now() + EVER);
        let time = thread::spawn(move || {
            while !core.lock().closed && Instant::now() < deadline {
                core.work.notify_all();
                thread::yield_now();
            }
        });
        let core = logger.core.clone();
        let flusher = thread::spawn(move || core.flush(EVER).unwrap());
        let accepted = callers.into_iter().flat_map(|c| c.join().unwrap()).collect();
        flusher.join().unwrap();
        assert_eq!(logger.core.close(EVER).error, None);
        time.join().unwrap();
        logger.settle(accepted);
    });
}

struct Closes(Arc<Core>, std::sync::atomic::AtomicU64);

impl CommitObserver for Closes {
    fn interest(&self) -> Interest {
        Interest::All
    }
    fn committed(&self, _: &crate::Record, _: &Receipt, _: &Carrier<'_>) {
        // Both return at once on Argus's own thread.
        let _ = self.0.flush(EVER);
        self.0.close(EVER);
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// An observer that flushes and closes, while callers log and somebody else closes.
#[test]
fn an_observer_that_closes() {
    check(|| {
        let logger = Logger::start(config(600), false);
        let observer = Arc::new(Closes(logger.core.clone(), Default::default()));
        logger.core.observers.subscribe(observer.clone()).unwrap();
        let callers = [logger.caller(1, 3), logger.caller(2, 3)];
        let accepted: Vec<u64> = callers.into_iter().flat_map(|c| c.join().unwrap()).collect();
        logger.core.close(EVER);
        let told = observer.1.load(std::sync::atomic::Ordering::Relaxed);
        assert!(told >= accepted.len() as u64, "close waits until all is told: {told}");
        logger.settle(accepted);
    });
}
