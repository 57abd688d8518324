//! Counting what a trail holds: a thread reads each record once, in order, so that restarts, other writers and slow moments make no difference. A trail that
//! stands in the place of another is counted from its beginning.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use argus_core::{AuditReader, Filter, ReadError, RecordId, Tail};

use super::Shared;

/// How often the thread looks without being asked, so that a collection finds little left to read.
const IDLE: Duration = Duration::from_secs(5);

/// What tells a trail from another in its place: the file, and its first record, since a file can be written over and an inode be used again.
#[derive(Clone, Copy)]
struct Mark {
    file: Option<(u64, u64)>,
    /// None before there is one.
    first: Option<RecordId>,
}

impl Mark {
    fn of(reader: &AuditReader) -> Result<Mark, ReadError> {
        let file = std::fs::metadata(reader.path()).ok().map(|m| (m.dev(), m.ino()));
        let first = reader.query(Filter::new().limit(1))?.next().transpose()?;
        Ok(Mark { file, first: first.map(|r| r.record_id) })
    }

    fn is_replaced_by(&self, now: &Mark) -> bool {
        self.file != now.file || self.first.is_some() && self.first != now.first
    }
}

/// The body of the thread. It ends when `Shared::stop` is set.
pub(super) fn run(shared: &Arc<Shared>, mut reader: AuditReader) {
    while follow(shared, &reader) {
        loop {
            let asked = shared.lock().asked;
            // Anew: the path may lead to elsewhere now.
            match AuditReader::open(reader.path()) {
                Ok(other) => {
                    shared.lock().begin_anew();
                    reader = other;
                    break;
                }
                Err(_) if told(shared, asked, false) => {}
                Err(_) => return,
            }
        }
    }
}

/// Counts one trail, and says whether there is another in its place; else it is time to stop.
fn follow(shared: &Arc<Shared>, reader: &AuditReader) -> bool {
    let mut tail = reader.tail(Filter::new());
    let mut mark: Option<Mark> = None;
    loop {
        // What was asked for before this reading is answered by it.
        let asked = shared.lock().asked;
        mark = mark.or_else(|| Mark::of(reader).ok());
        // Looked at after the reading: what it may have counted of another trail is counted again.
        let now = count(shared, &mut tail).and_then(|()| Mark::of(reader)).ok();
        if let (Some(before), Some(now)) = (&mark, &now)
            && before.is_replaced_by(now)
        {
            return true;
        }
        mark = now.or(mark);
        if !told(shared, asked, now.is_some()) {
            return false;
        }
    }
}

/// Counts what came since the last time.
fn count(shared: &Shared, tail: &mut Tail<'_>) -> Result<(), ReadError> {
    loop {
        // After an error the tail stands where it stood: nothing is passed over.
        let records = tail.poll()?;
        let mut state = shared.lock();
        if records.is_empty() || state.stop {
            return Ok(());
        }
        records.iter().for_each(|r| state.counts.add(r.level, &r.component));
    }
}

/// Says how a reading ended, and waits for the next one to be asked for or due. Whether to go on.
fn told(shared: &Shared, asked: u64, ok: bool) -> bool {
    if !ok {
        shared.read_errors.fetch_add(1, Ordering::Relaxed);
    }
    let mut state = shared.lock();
    state.complete |= ok;
    (state.answered, state.current) = (asked, ok);
    shared.answer.notify_all();
    let until = Instant::now() + IDLE;
    while !state.stop && state.asked == asked {
        let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else { break };
        state = shared.work.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
    }
    !state.stop
}
