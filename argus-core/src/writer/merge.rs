//! The merge: what stands in the pending file is committed, in order and once, while the spill thread goes on appending; then the queue is the writer's again.
//! The store's count of this writer's records decides what is in, so a merge that was broken off is simply begun again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Also, BATCH, Trouble, Writer, context_of};
use crate::config::Overflow;
use crate::core::Core;
use crate::error::{AuditError, ErrorKind, TrailError};
use crate::queue::Chunk;
use crate::queue::files::free_aside;
use crate::spill::Cause;
use crate::spill::file::{Lines, damaged};
use crate::spill::line::{self, Buffers};
use crate::store::place;
use crate::value::Value;

/// So few records are left that the queue can be taken back for the time that they need.
const NEAR: u64 = 2_000;

/// More than the spill thread writes before it syncs: a batch and a part of the queue.
const UNSYNCED: u64 = 16 << 20;

/// How long a merge may fall back behind the callers.
const PACE: Duration = Duration::from_secs(5);

/// How often the wait for the spill thread looks whether the trail closes.
const ANSWER: Duration = Duration::from_millis(500);

/// Device and number of a file.
type FileId = Option<(u64, u64)>;

/// How far the merge of one pending file has come.
#[derive(Default)]
struct Progress {
    /// Where in the file to go on, and which file that is.
    at: Option<(u64, FileId)>,
    /// The last number that is in the store, or will never be.
    done: u64,
    /// Records that this merge brought in, and the last number of them.
    count: u64,
    last_in: u64,
    /// How many numbers the file should have held and did not.
    missing: u64,
    spoilt: Spoilt,
}

/// What of the file is no record.
#[derive(Default)]
struct Spoilt {
    lines: u64,
    first: Option<TrailError>,
}

impl Spoilt {
    fn note(&mut self, e: TrailError) {
        self.lines += 1;
        self.first.get_or_insert(e);
    }
}

/// Whether the merge gains on the callers. Where it does not, the queue is taken back with the file still long: then callers wait, or are refused, as their policy
/// says, instead of filling the disk for as long as they are faster than the store. Under `Spill` that is what they asked for.
#[derive(Default)]
struct Pace {
    looked: Option<(Instant, u64)>,
}

impl Pace {
    fn falls_back(&mut self, behind: u64, overflow: Overflow, now: Instant) -> bool {
        let (since, before) = *self.looked.get_or_insert((now, behind));
        if overflow == Overflow::Spill || now.saturating_duration_since(since) < PACE {
            return false;
        }
        self.looked = Some((now, behind));
        behind >= before
    }
}

/// A part of the file. It ends at a hole, so that what is said of the hole stands before what is behind it.
#[derive(Default)]
struct Part {
    entries: Vec<u8>,
    count: u64,
    last_in: u64,
    /// The last number, there or missing, and where to go on behind it.
    last: u64,
    at: Option<(u64, FileId)>,
    /// The first and last of the numbers before it that are in no file.
    missing: Option<(u64, u64)>,
    spoilt: Spoilt,
}

/// A transaction of the merge.
struct Attempt {
    part: Part,
    /// Those of the part.
    entries: Chunk,
    /// What it says of the whole merge, as its last one.
    recovered: Option<String>,
    over: bool,
}

impl Writer {
    /// Brings the pending file in. Only a trail that closes gets an error, when its deadline is over (`None`: that of the closing).
    pub(super) fn merge(&mut self, deadline: Option<Instant>) -> Result<(), Arc<TrailError>> {
        let core = self.core.clone();
        let mut trouble = Trouble::default();
        let mut progress = Progress { done: core.lock().done_seq, ..Progress::default() };
        let mut buffers = Buffers::default();
        // The queue is taken back only after the store has shown that it works.
        let mut works = false;
        let (mut pace, mut kept) = (Pace::default(), None::<Attempt>);
        crate::fault::step("merge_begin");
        loop {
            let (path, synced, active) = self.merge_state(&core, progress.done, works, &mut pace);
            let next = match kept.take() {
                Some(attempt) => Ok(attempt),
                None => self.attempt(path.as_ref(), &progress, (synced, active), &mut buffers),
            };
            let attempt = match next {
                Ok(attempt) => attempt,
                Err(e) => {
                    works = false;
                    self.retry_later(&mut trouble, e, deadline)?;
                    continue;
                }
            };
            if active && core.lock().closing.is_some_and(|d| Instant::now() >= d) {
                let e = TrailError::new(ErrorKind::Io, "the pending file is still being written");
                return Err(Arc::new(e));
            }
            let Attempt { part, entries, recovered, .. } = &attempt;
            let also = Also { gap: part.missing, recovered: recovered.as_deref(), closed: false };
            let result = if part.count > 0 || part.missing.is_some() || recovered.is_some() || !works {
                crate::fault::step("merge_transact");
                self.transact(&[entries.bytes()], also)
            } else {
                Ok(())
            };
            self.again = result.is_err() && !self.created_at.is_empty();
            works = result.is_ok();
            if let Err(e) = result {
                // What may be in, or in a reader's hands, is tried again as it was.
                kept = self.again.then_some(attempt);
                self.retry_later(&mut trouble, e, deadline)?;
                continue;
            }
            crate::fault::step("merge_committed");
            let Attempt { part, entries, over, .. } = attempt;
            trouble = Trouble::default();
            if part.count > 0 {
                self.acknowledge(Arc::new(vec![entries]));
            }
            progress.done = part.last;
            progress.at = part.at;
            progress.count += part.count;
            progress.last_in = progress.last_in.max(part.last_in);
            progress.spoilt.lines += part.spoilt.lines;
            if progress.spoilt.first.is_none() {
                progress.spoilt.first = part.spoilt.first;
            }
            progress.missing += part.missing.map_or(0, |(first, last)| last - first + 1);
            if over {
                {
                    let mut state = core.lock();
                    if state.spill.active || state.spill.synced > progress.done {
                        // A spill began again meanwhile, in the same file: it goes on.
                        progress.count = 0;
                        continue;
                    }
                    state.spill.file = None;
                    state.spill.merged = true;
                    state.spill.ending = true;
                }
                self.end_merge(path, progress);
                return Ok(());
            }
        }
    }

    /// What is to be committed next, of a file that holds numbers up to `synced` and is still written while `active`.
    fn attempt(
        &self,
        path: Option<&PathBuf>,
        progress: &Progress,
        (synced, active): (u64, bool),
        buffers: &mut Buffers,
    ) -> Result<Attempt, TrailError> {
        let mut part = if progress.done < synced {
            self.read_part(path, progress, synced, buffers)?
        } else {
            Part { last: progress.done, at: progress.at, ..Part::default() }
        };
        let over = !active && part.last >= synced;
        let count = progress.count + part.count;
        let recovered = (over && count > 0).then(|| {
            context_of(&[
                ("cause", Value::from("spill")),
                ("count", count.into()),
                ("last", progress.last_in.max(part.last_in).into()),
                ("writer", Value::from(self.writer.as_str())),
            ])
        });
        let entries = Chunk::Own(std::mem::take(&mut part.entries));
        Ok(Attempt { part, entries, recovered, over })
    }

    /// Waits after a failure. The error comes back when the deadline of a close is over.
    fn retry_later(
        &mut self,
        trouble: &mut Trouble,
        e: TrailError,
        deadline: Option<Instant>,
    ) -> Result<(), Arc<TrailError>> {
        let e = self.trouble(trouble, e);
        let mut state = self.core.lock();
        // If the queue was taken back already: it goes on in the same file.
        self.core.request_spill(&mut state, || Cause::StoreFailed(e.to_string()));
        let until = deadline.or(state.closing);
        let state = self.wait_for_retry(state, trouble.pause(), until, None);
        let until = deadline.or(state.closing);
        drop(state);
        if until.is_some_and(|d| Instant::now() >= d) { Err(e) } else { Ok(()) }
    }

    /// What the file holds; near its end the queue is taken back first.
    fn merge_state(
        &mut self,
        core: &Arc<Core>,
        done: u64,
        works: bool,
        pace: &mut Pace,
    ) -> (Option<PathBuf>, u64, bool) {
        let now = core.config.clock.now();
        let mut state = core.lock();
        if state.ledger.has_gaps() {
            self.queue_gaps(core, &mut state, now);
            if state.spill.active && std::mem::take(&mut state.sleeping) {
                core.spill.notify_one();
            }
        }
        let behind = state.spill.synced.saturating_sub(done);
        if works
            && state.spill.active
            && (behind <= NEAR || pace.falls_back(behind, core.config.overflow, Instant::now()))
        {
            state.spill.give_back = true;
            core.spill.notify_one();
            // It writes and syncs at most once more, or says that it cannot.
            while state.spill.active && state.spill.give_back && state.closing.is_none_or(|d| Instant::now() < d) {
                state = core.work.wait_timeout(state, ANSWER).unwrap_or_else(|e| e.into_inner()).0;
            }
            state.spill.give_back = false;
        }
        (state.spill.file.clone(), state.spill.synced, state.spill.active)
    }

    /// The next part of the file, up to the number `synced`. What is not there is missing.
    fn read_part(
        &self,
        path: Option<&PathBuf>,
        progress: &Progress,
        synced: u64,
        buffers: &mut Buffers,
    ) -> Result<Part, TrailError> {
        let mut at = progress.at;
        loop {
            let mut part = Part { last: progress.done, at, ..Part::default() };
            match path.map_or(Ok(()), |p| self.read_lines(p, at, synced, buffers, &mut part)) {
                Ok(()) => {}
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Damaged | ErrorKind::Unsafe) => {
                    part.spoilt.note(e);
                    part.at = None;
                }
                // It may be readable later.
                Err(e) => return Err(e),
            }
            // The end of the file before its time: somebody cut or removed it.
            if part.count == 0 && part.last < synced {
                part.missing = Some((part.last + 1, synced));
                part.last = synced;
            }
            if part.missing.is_none() || at.is_none() {
                return Ok(part);
            }
            // Where a file was cut, what was appended since stands further up.
            at = None;
        }
    }

    fn read_lines(
        &self,
        path: &Path,
        at: Option<(u64, FileId)>,
        synced: u64,
        buffers: &mut Buffers,
        part: &mut Part,
    ) -> Result<(), TrailError> {
        let Some(mut lines) = Lines::open_own(path, self.core.writer)? else { return Ok(()) };
        let file = place::identity_of(lines.file());
        // Another one is read from its beginning: somebody removed the first.
        if let Some((at, _)) = at.filter(|(_, of)| *of == file) {
            lines.seek(at)?;
        }
        // The first line that is not synced yet, or that only says so: what stands behind it must be read again.
        let mut beyond: Option<u64> = None;
        while part.last < synced && part.entries.len() < BATCH {
            // A batch whose outcome is unknown is tried again as it was.
            if self.again && part.count > 0 && self.again_to == Some(part.last) {
                break;
            }
            let (before, began) = (part.entries.len(), lines.at());
            if beyond.is_some_and(|b| began - b > UNSYNCED) {
                break;
            }
            let parsed = match lines.next() {
                Ok(None) => break,
                Ok(Some(text)) => {
                    let number = line::parse(text, self.core.writer, buffers, &mut part.entries);
                    number.map_err(|why| damaged(&why, path))
                }
                Err(e) if e.kind() == ErrorKind::Damaged => Err(e),
                Err(e) => return Err(e),
            };
            // As recovery: where one jumps and the next one does not go on from there, the jump is the damage.
            let parsed = match parsed {
                Ok(n)
                    if n > part.last + 1 && n <= synced && self.ahead(&mut lines, buffers)?.is_some_and(|a| a <= n) =>
                {
                    Err(damaged("its numbers do not rise", path))
                }
                parsed => parsed,
            };
            match parsed {
                Ok(number) if number > part.last && number <= synced => {
                    if number > part.last + 1 {
                        if part.count > 0 {
                            // It begins the next part.
                            part.entries.truncate(before);
                            part.at = Some((began, file));
                            break;
                        }
                        part.missing = Some((part.last + 1, number - 1));
                    }
                    (part.last, part.last_in) = (number, number);
                    part.count += 1;
                    beyond = None;
                }
                Ok(number) => {
                    part.entries.truncate(before);
                    if number > synced {
                        beyond.get_or_insert(began);
                    }
                }
                Err(e) => {
                    part.entries.truncate(before);
                    part.spoilt.note(e);
                }
            }
            part.at = Some((beyond.unwrap_or(lines.at()), file));
        }
        Ok(())
    }

    /// The number of the next line that is a record; the same line is next again.
    fn ahead(&self, lines: &mut Lines, buffers: &mut Buffers) -> Result<Option<u64>, TrailError> {
        let (here, mut aside) = (lines.at(), Vec::new());
        let number = loop {
            match lines.next() {
                Ok(None) => break None,
                Ok(Some(text)) => {
                    if let Ok(number) = line::parse(text, self.core.writer, buffers, &mut aside) {
                        break Some(number);
                    }
                }
                Err(e) if e.kind() == ErrorKind::Damaged => {}
                Err(e) => return Err(e),
            }
        };
        lines.seek(here)?;
        Ok(number)
    }

    /// Everything is in: the file goes, or stays as evidence, and the queue is the writer's again.
    fn end_merge(&mut self, path: Option<PathBuf>, progress: Progress) {
        let core = self.core.clone();
        self.again_to = None;
        crate::fault::step("merge_end");
        let lost = progress.missing;
        let whole = lost == 0 && progress.spoilt.lines == 0;
        let torn = path.as_ref().filter(|_| !whole).map(|p| free_aside(p, ".torn"));
        let gone = path.as_ref().map_or(Ok(()), |path| match &torn {
            None => std::fs::remove_file(path),
            Some(torn) => std::fs::rename(path, torn),
        });
        if let (Err(e), Some(path)) = (gone, &path)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            let e = TrailError::io("cannot take the merged pending file away, so that no other can be made", path, e);
            core.observers.error(AuditError::Store(Arc::new(e)));
        }
        let mut state = core.lock();
        state.spill.ending = false;
        state.ledger.merged(lost);
        state.spill.unwanted();
        state.done_seq = state.done_seq.max(progress.done);
        let done = state.done_seq;
        core.spill.notify_all();
        drop(state);
        core.progress.notify_all();
        core.observers.done(done);
        if whole {
            return;
        }
        let mut e = TrailError::new(
            ErrorKind::Damaged,
            format!(
                "{lost} records that stood in the pending file are lost, {} of its lines are no records; audit_gap records name what is lost",
                progress.spoilt.lines
            ),
        )
        .help("the file, if it is still there, is kept as evidence");
        if let Some(torn) = torn {
            e = e.at(torn);
        }
        if let Some(first) = progress.spoilt.first {
            e = e.because(first);
        }
        core.observers.error(AuditError::Store(Arc::new(e)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_that_gains_nothing_for_a_while_falls_back_but_not_where_callers_asked_to_spill() {
        let block = Overflow::Block { timeout: Duration::ZERO };
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let mut at = |looks: u32, part: u32, behind, overflow| {
            pace.falls_back(behind, overflow, begin + PACE * looks + PACE * part / 10)
        };
        assert!(!at(0, 0, 1000, block), "the first look");
        assert!(!at(0, 9, 5000, block), "not for long yet");
        assert!(!at(1, 0, 999, block), "it gains");
        assert!(!at(1, 9, 5000, block), "counted from the last look");
        assert!(at(2, 0, 999, block), "as far behind as then");
        assert!(at(3, 0, 2000, Overflow::Reject), "further");
        assert!(!at(9, 0, 9000, Overflow::Spill));
    }
}
