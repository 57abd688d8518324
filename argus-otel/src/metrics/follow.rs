//! Counting what a trail holds: a thread reads each record once, in order, so that restarts, other writers and slow moments make no difference. A trail that
//! stands in the place of another is counted from its beginning.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use argus_core::{AuditReader, Filter, ReadError, Record, RecordId, Tail};

use super::Shared;

/// How often the thread looks without being asked, so that a collection finds little left to read.
const IDLE: Duration = Duration::from_secs(5);

/// What tells a trail from another in its place: the file, and its first and last record, since a file can be written over, with an older state of itself, too,
/// and an inode be used again.
#[derive(Clone, Copy)]
struct Mark {
    file: Option<(u64, u64)>,
    /// None before there is one.
    first: Option<RecordId>,
    last: Option<(Option<u64>, RecordId)>,
}

impl Mark {
    fn of(reader: &AuditReader) -> Result<Mark, ReadError> {
        let file = std::fs::metadata(reader.path()).ok().map(|m| (m.dev(), m.ino()));
        let first = reader.query(Filter::new().limit(1))?.next().transpose()?;
        let last = last(reader)?;
        Ok(Mark { file, first: first.map(|r| r.record_id), last: last.map(|r| (r.seq, r.record_id)) })
    }

    fn is_replaced_by(&self, now: &Mark) -> bool {
        // The end of a trail only ever moves on.
        let last = match (self.last, now.last) {
            (Some((seq, id)), Some((now_seq, now_id))) => now_seq < seq || now_seq == seq && now_id != id,
            (before, _) => before.is_some(),
        };
        self.file != now.file || self.first.is_some() && self.first != now.first || last
    }
}

fn last(reader: &AuditReader) -> Result<Option<Record>, ReadError> {
    reader.query(Filter::new().newest_first().limit(1))?.next().transpose()
}

/// The position of the last record.
pub(super) fn end_of(reader: &AuditReader) -> Result<u64, ReadError> {
    Ok(last(reader)?.and_then(|r| r.seq).unwrap_or(0))
}

/// The body of the thread. It ends when `Shared::stop` is set. `after`: what stands up to there is no news, and neither is what a trail holds that comes in the
/// place of this one; counts only ever rise then.
pub(super) fn run(shared: &Arc<Shared>, mut reader: AuditReader, mut after: Option<u64>) {
    while follow(shared, &reader, after) {
        loop {
            let asked = shared.lock().asked;
            // Anew: the path may lead to elsewhere now.
            let opened = AuditReader::open(reader.path())
                .and_then(|other| Ok((after.map(|_| end_of(&other)).transpose()?, other)));
            match opened {
                Ok((end, other)) => {
                    if after.is_none() {
                        shared.lock().begin_anew();
                    }
                    (reader, after) = (other, end);
                    break;
                }
                Err(_) if told(shared, asked, false) => {}
                Err(_) => return,
            }
        }
    }
}

/// Counts one trail, and says whether there is another in its place; else it is time to stop.
fn follow(shared: &Arc<Shared>, reader: &AuditReader, after: Option<u64>) -> bool {
    let mut tail = reader.tail(after.map_or_else(Filter::new, |seq| Filter::new().after(seq)));
    let mut mark: Option<Mark> = None;
    let mut replaced = || {
        let now = Mark::of(reader)?;
        Ok(mark.replace(now).is_some_and(|before| before.is_replaced_by(&now)))
    };
    loop {
        // What was asked for before this reading is answered by it.
        let asked = shared.lock().asked;
        // Asked again after the reading, which may have counted what came in between.
        let ended = match replaced() {
            Ok(false) => count(shared, &mut tail).and_then(|()| replaced()),
            ended => ended,
        };
        if let Ok(true) = ended {
            return true;
        }
        if !told(shared, asked, ended.is_ok()) {
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
