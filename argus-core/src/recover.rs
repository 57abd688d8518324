//! Recovery: what writers that died left in their journals and pending files becomes records, before the opener's own first one. The store's count of each writer's records decides what
//! is in already, so a recovery that is itself killed is simply done again, and two at once do it once. Runs on the writer's thread while a trail is opened.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::core::Core;
use crate::entry::{Entry, Next, next_checked};
use crate::error::{ErrorKind, TrailError};
use crate::id::WriterId;
use crate::level::Level;
use crate::queue::files::{self, Beside, Found, HEADER, Owner};
use crate::spill::file::Lines;
use crate::spill::line::{self, Buffers};
use crate::store::{Closed, Ends, Store, place};
use crate::time;
use crate::value::Value;
use crate::writer::{Identity, LogWriter, context_of, seal_entry, seal_log_record};

/// Bytes of entries in one transaction.
const BATCH: usize = 4 << 20;
/// Larger files beside a trail are none of ours.
const LARGEST: u64 = 64 << 20;

/// What a dead writer left.
#[derive(Default)]
struct Left {
    /// Segments in the order of their numbers.
    segments: Vec<(u64, Vec<u8>, PathBuf)>,
    /// Files that hold nothing.
    empty: Vec<PathBuf>,
    /// Pending files.
    pending: Vec<PathBuf>,
    owner: Option<Owner>,
    /// Why something of it cannot be used.
    trouble: Option<TrailError>,
}

/// Recovers every writer that is neither closed nor alive, except `me`. What cannot be recovered stays as it is, and is returned to be told.
pub(crate) fn recover(
    store: &mut dyn Store,
    beside: &Beside,
    core: &Core,
    me: (&Identity, &str),
) -> Result<Vec<TrailError>, TrailError> {
    let found =
        beside.scan().map_err(|e| TrailError::io("cannot look for journals beside the trail", &beside.trail, e))?;
    let mut all: BTreeSet<WriterId> = found.into_keys().collect();
    all.extend(store.unclosed()?);
    all.remove(&core.writer);
    let mut trouble = Vec::new();
    tell_gaps(store, core, me)?;
    for writer in all {
        match one(store, beside, core, me, writer) {
            Ok(more) => trouble.extend(more),
            // A file of another user, a newer version: the trail works without it, and it stays.
            Err(e) if e.kind() != ErrorKind::Busy => trouble.push(e),
            Err(e) => return Err(e),
        }
    }
    Ok(trouble)
}

/// Gap records that a recovery announced and that a power loss took.
fn tell_gaps(store: &mut dyn Store, core: &Core, me: (&Identity, &str)) -> Result<(), TrailError> {
    let untold = store.untold_gaps();
    if untold.is_empty() {
        return Ok(());
    }
    store.act_as(core.writer, me.1);
    let mut head = store.begin()?;
    let now = time::created_at(core.config.clock.now());
    let created_at = head.created_at.take().filter(|b| *b > now && time::is_created_at(b)).unwrap_or(now);
    let mut log_writer = LogWriter { id: head.log_id, last: head.log_writer_last };
    for (writer, first, reason) in untold {
        let writer = writer.to_string();
        let context = context_of(&[
            ("first", first.into()),
            ("reason", Value::from(reason.as_str())),
            ("writer", Value::from(writer.as_str())),
        ]);
        let record = ("audit_gap", Level::Security, context.as_str());
        let (mut canonical, log_writer) = (Vec::new(), &mut log_writer);
        seal_log_record(core, store, &mut canonical, &mut head, log_writer, &created_at, record, me.0)?;
    }
    let (writer_last, closed) = (head.writer_last, head.closed);
    store.commit(&Ends { writer_last, log_writer_last: log_writer.last, closed })
}

fn one(
    store: &mut dyn Store,
    beside: &Beside,
    core: &Core,
    me: (&Identity, &str),
    writer: WriterId,
) -> Result<Option<TrailError>, TrailError> {
    let Some((lock, owner)) = beside.take_over(writer)? else { return Ok(None) };
    // Looked for only now: while the writer lived it could add files, from here on nobody does.
    let found = &beside
        .of(writer, owner.as_ref())
        .map_err(|e| TrailError::io("cannot look for journals beside the trail", &beside.trail, e))?;
    let standing = store.standing(writer)?;
    let mut left = read(found, beside, store.log_id(), writer)?;
    let over = matches!(standing, Some(Closed::Yes | Closed::Recovered));
    // A writer without any record never accepted one either, for its `audit_open` comes first: in the log, or in the pending file.
    if (standing.is_some() || !left.pending.is_empty()) && !over {
        let owner = owner.or(left.owner.take()).unwrap_or_default();
        let result = commit(store, core, me.0, writer, &owner, &mut left);
        store.act_as(core.writer, me.1);
        result?;
    }
    // Committed: the files have served.
    for path in left.segments.iter().map(|s| &s.2).chain(&left.empty).chain(&left.pending) {
        let _ = std::fs::remove_file(path);
    }
    if let Some(lock) = lock {
        lock.remove();
    }
    Ok(left.trouble)
}

/// Reads the segments of a writer. Those of another log are put aside.
fn read(found: &Found, beside: &Beside, log_id: WriterId, writer: WriterId) -> Result<Left, TrailError> {
    let mut left = Left::default();
    for path in &found.segments {
        place::check(path, beside.access)?;
        let bytes = read_file(path)?;
        let Some(header) = files::read_header(&bytes, path)? else {
            left.empty.push(path.clone());
            continue;
        };
        if header.log_id != log_id || header.writer != writer {
            left.trouble = Some(put_aside(path, ".orphan", &OF_ANOTHER_LOG)?);
            continue;
        }
        left.owner.get_or_insert(header.owner);
        left.segments.push((header.number, bytes, path.clone()));
    }
    left.segments.sort_by_key(|s| s.0);
    for path in &found.pending {
        place::check(path, beside.access)?;
        let Some(lines) = Lines::open(path)? else {
            left.empty.push(path.clone());
            continue;
        };
        let head = lines.head();
        if head.belongs_to(log_id, &beside.trail) && head.writer() == Some(writer) {
            left.owner.get_or_insert(head.owner.clone());
            left.pending.push(path.clone());
        } else if path.parent() == beside.trail.parent() {
            left.trouble = Some(put_aside(path, ".orphan", &PENDING_OF_ANOTHER_LOG)?);
        }
        // (In a folder for the pending files of several trails, it is simply another one's.)
    }
    Ok(left)
}

/// What is said of a file that is put aside.
struct Said {
    kind: ErrorKind,
    what: &'static str,
    help: &'static str,
}

const OF_ANOTHER_LOG: Said = Said {
    kind: ErrorKind::Replaced,
    what: "a journal belongs to a log that was replaced; its records are not in this one",
    help: "put the trail that it belongs to back and open it, or keep the file as evidence",
};
const PENDING_OF_ANOTHER_LOG: Said = Said {
    what: "a pending file belongs to a log that was replaced; its records are not in this one",
    ..OF_ANOTHER_LOG
};
const TORN: Said = Said {
    kind: ErrorKind::Damaged,
    what: "a journal or pending file does not check from some entry on; what stands behind it is not in the trail",
    help: "the file is kept as evidence",
};

/// Renames a file, and returns what is to be told of it.
fn put_aside(path: &Path, ending: &str, said: &Said) -> Result<TrailError, TrailError> {
    let aside = files::aside(path, ending);
    std::fs::rename(path, &aside).map_err(|e| TrailError::io("cannot put a file of a writer aside", path, e))?;
    Ok(TrailError::new(said.kind, said.what).at(&aside).help(said.help))
}

fn read_file(path: &Path) -> Result<Vec<u8>, TrailError> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = i32::try_from((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC).bits()).unwrap_or(0);
    let mut bytes = Vec::new();
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .and_then(|f| f.take(LARGEST).read_to_end(&mut bytes))
        .map_err(|e| TrailError::io("cannot read a journal", path, e))?;
    Ok(bytes)
}

/// All entries of the segments, as long as they check and follow each other; then what stands behind them.
struct Entries<'a> {
    segments: std::slice::Iter<'a, (u64, Vec<u8>, PathBuf)>,
    rest: &'a [u8],
    path: Option<&'a Path>,
    /// The number that must come next; 0 before the first.
    next: u64,
    /// A segment was just begun: the spill may have let whole segments before it go.
    fresh: bool,
    torn: Option<&'a Path>,
}

impl<'a> Entries<'a> {
    fn of(left: &'a Left) -> Self {
        Self { segments: left.segments.iter(), rest: &[], path: None, next: 0, fresh: false, torn: None }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            if self.torn.is_some() {
                return None;
            }
            match next_checked(self.rest) {
                Next::Entry(e, rest)
                    if self.next == 0 || e.writer_seq() == self.next || (self.fresh && e.writer_seq() > self.next) =>
                {
                    self.fresh = false;
                    self.rest = rest;
                    self.next = e.writer_seq() + 1;
                    return Some(e);
                }
                Next::End => {
                    let (_, bytes, path) = self.segments.next()?;
                    self.rest = bytes.get(HEADER..).unwrap_or_default();
                    self.path = Some(path);
                    self.fresh = true;
                }
                Next::Entry(..) | Next::Torn => self.torn = self.path,
            }
        }
    }
}

/// The entries of a pending file, as long as its lines are records; numbers only rise.
struct PendingEntries {
    lines: Lines,
    writer: WriterId,
    buffers: Buffers,
    torn: bool,
}

impl PendingEntries {
    fn next(&mut self) -> Option<Numbered> {
        if self.torn {
            return None;
        }
        let text = match self.lines.next() {
            Ok(text) => text?,
            Err(_) => {
                self.torn = true;
                return None;
            }
        };
        let mut entry = Vec::new();
        match line::parse(text, self.writer, &mut self.buffers, &mut entry) {
            Ok(number) => Some((number, entry)),
            Err(_) => {
                self.torn = true;
                None
            }
        }
    }
}

/// An entry and its number.
type Numbered = (u64, Vec<u8>);

/// Everything that a dead writer left, in order: each number from whichever file has it.
struct Sources<'a> {
    journal: Entries<'a>,
    in_journal: Option<Numbered>,
    pending: Vec<(PendingEntries, Option<Numbered>)>,
}

impl<'a> Sources<'a> {
    fn of(left: &'a Left, writer: WriterId) -> Result<Self, TrailError> {
        let mut pending = Vec::new();
        for path in &left.pending {
            if let Some(lines) = Lines::open(path)? {
                pending.push((PendingEntries { lines, writer, buffers: Buffers::default(), torn: false }, None));
            }
        }
        Ok(Self { journal: Entries::of(left), in_journal: None, pending })
    }

    /// The entry behind the number `last`; none where no file has it.
    fn after(&mut self, last: u64) -> Option<Vec<u8>> {
        while self.in_journal.as_ref().is_none_or(|e| e.0 <= last) {
            match self.journal.next() {
                Some(e) => self.in_journal = Some((e.writer_seq(), e.bytes().to_vec())),
                None => break,
            }
        }
        for (entries, next) in &mut self.pending {
            while next.as_ref().is_none_or(|e| e.0 <= last) {
                match entries.next() {
                    Some(e) => *next = Some(e),
                    None => break,
                }
            }
        }
        let all = self.pending.iter_mut().map(|p| &mut p.1).chain([&mut self.in_journal]);
        let mut wanted = all.filter(|e| e.as_ref().is_some_and(|e| e.0 == last + 1));
        wanted.next()?.take().map(|e| e.1)
    }

    /// Files with entries behind `last`, the last that was found, or with something that does not check.
    fn torn(&self, last: u64) -> Vec<PathBuf> {
        let beyond = |e: &Option<Numbered>| e.as_ref().is_some_and(|e| e.0 > last);
        let journal = self.journal.torn.or(self.journal.path.filter(|_| beyond(&self.in_journal)));
        let pending = self.pending.iter().filter(|(p, next)| p.torn || beyond(next));
        journal.into_iter().map(Path::to_owned).chain(pending.map(|p| p.0.lines.path().to_owned())).collect()
    }
}

/// Commits what is not in yet, in order, and the record that says so in the last transaction.
fn commit(
    store: &mut dyn Store,
    core: &Core,
    me: &Identity,
    writer: WriterId,
    owner: &Owner,
    left: &mut Left,
) -> Result<(), TrailError> {
    let text = writer.to_string();
    let theirs = Identity {
        original_output_file: owner.original_output_file.clone(),
        process_id: owner.process_id,
        process_name: owner.process_name.clone(),
    };
    let mut canonical = Vec::new();
    let mut sources = Sources::of(left, writer)?;
    let mut count = 0u64;
    let mut waiting: Option<Vec<u8>> = None;
    let mut torn;
    loop {
        store.act_as(writer, &owner.service_name);
        let mut head = store.begin()?;
        if head.closed != Closed::No {
            // Somebody was faster.
            store.rollback();
            return Ok(());
        }
        let now = time::created_at(core.config.clock.now());
        let created_at = head.created_at.take().filter(|b| *b > now && time::is_created_at(b)).unwrap_or(now);
        let mut log_writer = LogWriter { id: head.log_id, last: head.log_writer_last };
        // A new log begins with its own first record.
        for f in store.findings() {
            let record = (f.event, f.level, f.context.as_str());
            seal_log_record(core, store, &mut canonical, &mut head, &mut log_writer, &created_at, record, me)?;
        }
        let (mut last, mut bytes) = (head.writer_last, 0);
        let more = loop {
            let Some(mut entry) = waiting.take().or_else(|| sources.after(last)) else { break false };
            if bytes > BATCH {
                waiting = Some(entry);
                break true;
            }
            // What the dead writer would have withheld before anybody saw it.
            if let Ok(shapes) = core.rules.redaction.compiled() {
                shapes.chunk(&mut entry);
            }
            let Some(entry) = Entry::of(&entry) else { break false };
            seal_entry(
                &mut |f, sum| store.insert(f, sum),
                &mut canonical,
                &mut Vec::new(),
                &mut head,
                &entry,
                &created_at,
                (&theirs, &text, entry.named_stack()),
            )?;
            bytes += entry.bytes().len();
            last = entry.writer_seq();
            count += 1;
        };
        torn = if more { Vec::new() } else { sources.torn(last) };
        if !more {
            let mut tell = |event: &str, members: &[(&str, Value<'_>)]| {
                let context = context_of(members);
                let record = (event, Level::Security, context.as_str());
                seal_log_record(core, store, &mut canonical, &mut head, &mut log_writer, &created_at, record, me)
            };
            let id = Value::from(text.as_str());
            let recovered =
                [("cause", Value::from("dead")), ("count", count.into()), ("last", last.into()), ("writer", id)];
            let aside = torn.first().map(|p| files::aside(p, ".torn").to_string_lossy().into_owned());
            let aside = aside.as_ref().map(|t| ("journal_torn", Value::from(t.as_str())));
            // Announced, for a store that may keep a part of what is written together.
            let lost = owner.may_have_lost();
            let gap = lost.map(|reason| ("gap", Value::from(reason)));
            tell("audit_recovered", &recovered.into_iter().chain(aside).chain(gap).collect::<Vec<_>>())?;
            if let Some(reason) = lost {
                tell("audit_gap", &[("first", (last + 1).into()), ("reason", Value::from(reason)), ("writer", id)])?;
            }
        }
        let closed = if more { Closed::No } else { Closed::Recovered };
        store.commit(&Ends { writer_last: last, log_writer_last: log_writer.last, closed })?;
        if !more {
            break;
        }
    }
    for path in torn {
        let trouble = put_aside(&path, ".torn", &TORN)?;
        left.segments.retain(|s| s.2 != path);
        left.pending.retain(|p| *p != path);
        left.trouble = Some(trouble);
    }
    Ok(())
}
