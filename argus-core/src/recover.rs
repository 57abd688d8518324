//! Recovery: what writers that died left in their journals becomes records, before the opener's own first one. The store's count of each writer's records decides what
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
        .of(writer)
        .map_err(|e| TrailError::io("cannot look for journals beside the trail", &beside.trail, e))?;
    let standing = store.standing(writer)?;
    let mut left = read(found, beside, store.log_id(), writer)?;
    let over = matches!(standing, Some(Closed::Yes | Closed::Recovered));
    // A writer without any record never accepted one either: its `audit_open` comes first.
    if standing.is_some() && !over {
        let owner = owner.or(left.owner.take()).unwrap_or_default();
        let result = commit(store, core, me.0, writer, &owner, &mut left);
        store.act_as(core.writer, me.1);
        result?;
    }
    // Committed: the files have served.
    for path in left.segments.iter().map(|s| &s.2).chain(&left.empty) {
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
            let aside = files::aside(path, ".orphan");
            std::fs::rename(path, &aside)
                .map_err(|e| TrailError::io("cannot put a journal of another log aside", path, e))?;
            left.trouble = Some(
                TrailError::new(
                    ErrorKind::Replaced,
                    "a journal belongs to a log that was replaced; its records are not in this one",
                )
                .at(&aside)
                .help("put the trail that it belongs to back and open it, or keep the file as evidence"),
            );
            continue;
        }
        left.owner.get_or_insert(header.owner);
        left.segments.push((header.number, bytes, path.clone()));
    }
    left.segments.sort_by_key(|s| s.0);
    Ok(left)
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
    torn: Option<&'a Path>,
}

impl<'a> Entries<'a> {
    fn of(left: &'a Left) -> Self {
        Self { segments: left.segments.iter(), rest: &[], path: None, next: 0, torn: None }
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
                Next::Entry(e, rest) if self.next == 0 || e.writer_seq() == self.next => {
                    self.rest = rest;
                    self.next = e.writer_seq() + 1;
                    return Some(e);
                }
                Next::End => {
                    let (_, bytes, path) = self.segments.next()?;
                    self.rest = bytes.get(HEADER..).unwrap_or_default();
                    self.path = Some(path);
                }
                Next::Entry(..) | Next::Torn => self.torn = self.path,
            }
        }
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
    let mut entries = Entries::of(left);
    let (mut count, mut waiting) = (0u64, None);
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
        let (mut last, mut bytes) = (head.writer_last, 0);
        let more = loop {
            let Some(entry) = waiting.take().or_else(|| entries.next()) else { break false };
            if entry.writer_seq() <= last {
                continue;
            }
            if entry.writer_seq() != last + 1 {
                // The first that counts does not follow what is in: what lies between is gone.
                entries.torn = entries.path;
                break false;
            }
            if bytes > BATCH {
                waiting = Some(entry);
                break true;
            }
            // What the dead writer would have withheld before anybody saw it.
            let mut clean = entry.bytes().to_vec();
            if let Ok(shapes) = core.rules.redaction.compiled() {
                shapes.chunk(&mut clean);
            }
            let entry = Entry::of(&clean).unwrap_or(entry);
            seal_entry(
                &mut |f, sum| store.insert(f, sum),
                &mut canonical,
                &mut Vec::new(),
                &mut head,
                &entry,
                &created_at,
                (&theirs, &text, None),
            )?;
            bytes += entry.bytes().len();
            last = entry.writer_seq();
            count += 1;
        };
        if !more {
            let mut tell = |event: &str, members: &[(&str, Value<'_>)]| {
                let context = context_of(members);
                let record = (event, Level::Security, context.as_str());
                seal_log_record(core, store, &mut canonical, &mut head, &mut log_writer, &created_at, record, me)
            };
            let id = Value::from(text.as_str());
            let recovered =
                [("cause", Value::from("dead")), ("count", count.into()), ("last", last.into()), ("writer", id)];
            let torn = entries.torn.map(|p| files::aside(p, ".torn").to_string_lossy().into_owned());
            let torn = torn.as_ref().map(|t| ("journal_torn", Value::from(t.as_str())));
            tell("audit_recovered", &recovered.into_iter().chain(torn).collect::<Vec<_>>())?;
            if let Some(reason) = owner.may_have_lost() {
                tell("audit_gap", &[("first", (last + 1).into()), ("reason", Value::from(reason)), ("writer", id)])?;
            }
        }
        let closed = if more { Closed::No } else { Closed::Recovered };
        store.commit(&Ends { writer_last: last, log_writer_last: log_writer.last, closed })?;
        if !more {
            break;
        }
    }
    let torn = entries.torn.map(Path::to_owned);
    if let Some(torn) = torn {
        let aside = files::aside(&torn, ".torn");
        std::fs::rename(&torn, &aside).map_err(|e| TrailError::io("cannot put a torn journal aside", &torn, e))?;
        left.segments.retain(|s| s.2 != torn);
        left.trouble = Some(
            TrailError::new(
                ErrorKind::Damaged,
                "a journal does not check from some entry on; what stands behind it is not in the trail",
            )
            .at(&aside)
            .help("the file is kept as evidence"),
        );
    }
    Ok(())
}
