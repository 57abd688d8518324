//! Recovery: what writers that died left in their journals and pending files becomes records, before the opener's own first one. The store's count of each writer's records decides what
//! is in already, so a recovery that is itself killed is simply done again, and two at once do it once. Runs on the writer's thread while a trail is opened.

mod left;
mod sources;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::core::Core;
use crate::entry::Entry;
use crate::error::{ErrorKind, TrailError};
use crate::id::{RecordId, WriterId};
use crate::level::Level;
use crate::queue::files::{self, Beside, Owner};
use crate::sink::LossReason;
use crate::spill::records::Numbered;
use crate::store::{Closed, Ends, Head, Insert, Store};
use crate::time;
use crate::value::Value;
use crate::writer::{Identity, LogWriter, Stamp, context_of, seal_entry, seal_log_record};
use left::{Files, Left};
use sources::Sources;

/// Bytes of entries in one transaction.
const BATCH: usize = 4 << 20;
/// Why numbers are in no file of a dead writer.
const LOST: &str = LossReason::StoreFailed.as_str();
/// Most files that one record names.
const NAMED: usize = 64;

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
        let result = one(store, beside, core, me.0, writer);
        store.act_as(core.writer, me.1);
        match result {
            Ok(more) => trouble.extend(more),
            // A newer version, a lock of another user: the trail works without it, and it stays.
            Err(e) if e.kind() != ErrorKind::Busy => trouble.push(e),
            Err(e) => return Err(e),
        }
    }
    Ok(trouble)
}

/// A transaction in which the log writer says something.
struct Group<'a> {
    store: &'a mut dyn Store,
    chain: Chain<'a>,
}

/// The end of the log in it.
struct Chain<'a> {
    core: &'a Core,
    me: &'a Identity,
    canonical: Vec<u8>,
    head: Head,
    log_writer: LogWriter,
    created_at: String,
}

impl<'a> Group<'a> {
    fn begin(store: &'a mut dyn Store, core: &'a Core, me: &'a Identity) -> Result<Self, TrailError> {
        let mut head = store.begin()?;
        let now = time::created_at(core.config.clock.now());
        let created_at = head.created_at.take().filter(|b| *b > now && time::is_created_at(b)).unwrap_or(now);
        let log_writer = LogWriter { id: head.log_id, last: head.log_writer_last };
        let chain = Chain { core, me, canonical: Vec::new(), head, log_writer, created_at };
        let mut group = Self { store, chain };
        // A new log begins with its own first record.
        for f in group.store.findings() {
            let Self { store, chain } = &mut group;
            chain.seal(&mut |f, sum| store.insert(f, sum), f.event, f.level, &f.context)?;
        }
        Ok(group)
    }

    fn say(&mut self, event: &str, members: &[(&str, Value<'_>)]) -> Result<(), TrailError> {
        let Self { store, chain } = self;
        chain.say(&mut |f, sum| store.insert(f, sum), event, members)
    }

    fn commit(self, writer_last: u64, closed: Closed) -> Result<(), TrailError> {
        self.store.commit(&Ends { writer_last, log_writer_last: self.chain.log_writer.last, closed })
    }
}

impl Chain<'_> {
    fn seal(&mut self, insert: &mut Insert<'_>, event: &str, level: Level, context: &str) -> Result<(), TrailError> {
        let Self { core, me, canonical, head, log_writer, created_at } = self;
        let stamp = Stamp::now(core);
        seal_log_record(&stamp, insert, canonical, head, log_writer, created_at, (event, level, context), me)
    }

    fn say(&mut self, insert: &mut Insert<'_>, event: &str, members: &[(&str, Value<'_>)]) -> Result<(), TrailError> {
        self.seal(insert, event, Level::Security, &context_of(members))
    }

    /// A dead writer's entry.
    fn entry(
        &mut self,
        insert: &mut Insert<'_>,
        entry: &Entry<'_>,
        identity: &Identity,
        writer: &str,
    ) -> Result<(), TrailError> {
        let Self { canonical, head, created_at, .. } = self;
        let whose = (identity, writer, entry.named_stack());
        seal_entry(insert, canonical, &mut Vec::new(), head, entry, created_at, whose)
    }
}

/// A log has its first record before any file beside it names it: else, were that one never committed, nobody would know whose the files are. And what the opening mended is told at once.
pub(crate) fn begin_log(store: &mut dyn Store, core: &Core, me: (&Identity, &str)) -> Result<(), TrailError> {
    if store.findings().is_empty() {
        return Ok(());
    }
    let ours = store.log_id();
    store.act_as(ours, me.1);
    let begun = Group::begin(store, core, me.0).and_then(|group| {
        let last = group.chain.log_writer.last;
        group.commit(last, Closed::No)
    });
    store.act_as(core.writer, me.1);
    begun
}

/// Gap records that a recovery announced and that a power loss took.
fn tell_gaps(store: &mut dyn Store, core: &Core, me: (&Identity, &str)) -> Result<(), TrailError> {
    let untold = store.untold_gaps();
    if untold.is_empty() {
        return Ok(());
    }
    store.act_as(core.writer, me.1);
    let mut group = Group::begin(store, core, me.0)?;
    for (writer, first, reason) in untold {
        let writer = writer.to_string();
        let gap =
            [("first", first.into()), ("reason", Value::from(&*reason)), ("writer", Value::from(writer.as_str()))];
        group.say("audit_gap", &gap)?;
    }
    let (writer_last, closed) = (group.chain.head.writer_last, group.chain.head.closed);
    group.commit(writer_last, closed)
}

fn one(
    store: &mut dyn Store,
    beside: &Beside,
    core: &Core,
    me: &Identity,
    writer: WriterId,
) -> Result<Vec<TrailError>, TrailError> {
    let Some((lock, owner)) = beside.take_over(writer)? else { return Ok(Vec::new()) };
    let standing = store.standing(writer)?;
    let over = matches!(standing, Some(Closed::Yes | Closed::Recovered));
    // Looked for only now: while the writer lived it could add files, from here on nobody does.
    let folder = |owner: Option<&Owner>| owner.map(|o| PathBuf::from(&o.spill_dir)).filter(|d| d.is_absolute());
    let spilled = owner.as_ref().is_some_and(|o| o.last_in(store.log_id()).is_some());
    let read = |store: &dyn Store, owner: Option<&Owner>| {
        let found = beside.of(writer, owner, over).map_err(|e| {
            TrailError::new(ErrorKind::Io, "cannot look for what a writer that is gone left; it is not recovered yet")
                .at(folder(owner).unwrap_or(beside.trail.clone()))
                .help("let this program read the folder, and open the trail again; where it is gone for good, make an empty one")
                .because(e)
        })?;
        Left::read(&found, beside, store.log_id(), (writer, spilled))
    };
    let mut left = read(store, owner.as_ref())?;
    // Where its lock does not say it, the journal tells where its pending file is.
    if folder(owner.as_ref()).is_none() && folder(left.owner.as_ref()).is_some() {
        left = read(store, left.owner.take().as_ref())?;
    }
    if lock.is_none() && left.lives && standing != Some(Closed::Yes) {
        let what = "the lock file of a writer is gone, and its process lives; what it has is left to it";
        let help = "end that process, and open the trail again; nobody but Argus should remove files beside a trail";
        return Ok(vec![TrailError::new(ErrorKind::Unsafe, what).at(beside.lock(writer)).help(help)]);
    }
    for (log_id, mut files) in std::mem::take(&mut left.orphans) {
        crate::fault::step("orphan_found");
        tell_replaced(store, core, me, writer, log_id, &mut files)?;
        crate::fault::step("orphan_told");
        for path in files.paths() {
            left.trouble.extend(put_aside(path, ORPHAN, &OF_ANOTHER_LOG)?);
        }
    }
    let end_unknown = left.end_unknown();
    let mut torn = std::mem::take(&mut left.damaged);
    if standing == Some(Closed::Yes) {
        // All is in: what a power cut brought back is no evidence.
        left.empty.append(&mut torn);
    }
    // (One without any record that left no files never accepted one either, for its `audit_open` comes first.)
    let mut told = false;
    if standing.is_some() || spilled || !left.emptied.is_empty() || left.own.paths().next().is_some() {
        let owner = owner.or(left.owner.take()).unwrap_or_default();
        // The first segment is there before the first record.
        let lost = owner.may_have_lost().or((owner.has_journal() && !left.has_journal).then_some(LOST));
        let dead = Dead { writer, known: standing.is_some(), owner, lost, end_unknown };
        told = commit(store, core, me, &dead, &mut left.own, &left.emptied, &mut torn)?;
    }
    if !told && !over && !torn.is_empty() {
        tell_torn(store, core, me, &torn)?;
    }
    crate::fault::step("recovered");
    for path in &torn {
        left.trouble.extend(put_aside(path, TORN, &NOT_WHOLE)?);
    }
    // Committed: the files have served.
    for path in left.own.paths().chain(left.empty.iter().map(PathBuf::as_path)) {
        if !torn.iter().any(|t| t == path) {
            let _ = std::fs::remove_file(path);
        }
    }
    if let Some(lock) = lock {
        lock.remove();
    }
    Ok(left.trouble)
}

/// What is said of a file that is put aside.
struct Said {
    kind: ErrorKind,
    what: &'static str,
    help: &'static str,
}

const ORPHAN: &str = ".orphan";
const OF_ANOTHER_LOG: Said = Said {
    kind: ErrorKind::Replaced,
    what: "a journal or pending file belongs to a log that was replaced; its records are not in this one",
    help: "put the trail that it belongs to back and open it, or keep the file as evidence",
};
const TORN: &str = ".torn";
const NOT_WHOLE: Said = Said {
    kind: ErrorKind::Damaged,
    what: "a journal or pending file does not check; what it lost is not in the trail",
    help: "the file is kept as evidence",
};

/// Renames a file, and returns what is to be told of it. Nothing where somebody was faster.
fn put_aside(path: &Path, ending: &str, said: &Said) -> Result<Option<TrailError>, TrailError> {
    let aside = files::free_aside(path, ending);
    match std::fs::rename(path, &aside) {
        Ok(()) => Ok(Some(TrailError::new(said.kind, said.what).at(&aside).help(said.help))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(TrailError::io("cannot put a file of a writer aside", path, e)),
    }
}

/// The names of files; of very many only the first.
fn file_names(paths: impl Iterator<Item = PathBuf>) -> Vec<String> {
    let mut all: Vec<String> = paths.filter_map(|p| p.file_name().map(|n| n.to_string_lossy().into_owned())).collect();
    all.sort();
    all.truncate(NAMED);
    all
}

/// Says what was left for a log that this one replaced. Before the files are renamed: whoever is killed in between leaves them under their names, and the next finds them there and
/// this record in the log, which is looked for in the transaction that would make another. So none is renamed in silence, and none is told twice.
fn tell_replaced(
    store: &mut dyn Store,
    core: &Core,
    me: &Identity,
    writer: WriterId,
    log_id: WriterId,
    files: &mut Files,
) -> Result<(), TrailError> {
    let names = file_names(files.paths().map(|p| files::free_aside(p, ORPHAN)));
    let (mut sources, mut last, mut count) = (Sources::of(files, writer), 0, 0u64);
    while let Some((number, _)) = sources.next(last)? {
        (last, count) = (number, count + 1);
    }
    let (writer, log_id) = (writer.to_string(), log_id.to_string());
    let ours = store.log_id();
    store.act_as(ours, "");
    let mut group = Group::begin(store, core, me)?;
    let told = group.store.aside()?.iter().any(|context| {
        let context: serde_json::Value = serde_json::from_str(context).unwrap_or_default();
        // A row of another program may call itself so.
        let is = |key: &str, text: &str| context.get(key).and_then(|v| v.as_str()) == Some(text);
        context.get("argus.foreign").is_none() && is("log_id", &log_id) && is("writer", &writer)
    });
    if told {
        group.store.rollback();
        return Ok(());
    }
    let record = [
        ("count", count.into()),
        ("files", Value::from(&names)),
        ("log_id", Value::from(log_id.as_str())),
        ("writer", Value::from(writer.as_str())),
    ];
    group.say("log_replaced", &record)?;
    let last = group.chain.log_writer.last;
    group.commit(last, Closed::No)
}

/// A dead writer.
struct Dead {
    writer: WriterId,
    /// The log has records of it.
    known: bool,
    owner: Owner,
    /// Why what it had accepted may not all be in its files.
    lost: Option<&'static str>,
    /// A segment that cannot be read may have been its last.
    end_unknown: bool,
}

/// Commits what is not in yet, in order, and the record that says so in the last transaction. Adds to `torn` what of the files is to be kept.
/// False: there was nothing to say.
fn commit(
    store: &mut dyn Store,
    core: &Core,
    me: &Identity,
    dead: &Dead,
    files: &mut Files,
    emptied: &[(PathBuf, Vec<RecordId>)],
    torn: &mut Vec<PathBuf>,
) -> Result<bool, TrailError> {
    let Dead { writer, known, owner, lost, end_unknown } = dead;
    let (writer, whole) = (*writer, lost.is_none());
    let text = writer.to_string();
    let id = Value::from(text.as_str());
    let theirs = owner.identity();
    let mut sources = Sources::of(files, writer);
    let (mut count, mut waiting) = (0u64, None::<Numbered>);
    loop {
        store.act_as(writer, &owner.service_name);
        let mut group = Group::begin(store, core, me)?;
        let mut last = group.chain.head.writer_last;
        if group.chain.head.closed != Closed::No {
            // Somebody was faster, or was killed before the files were gone; or they have come back.
            let recovered = group.chain.head.closed == Closed::Recovered;
            group.store.rollback();
            if recovered {
                sources.skip(last)?;
                torn.extend(sources.torn(last, whole));
            } else {
                // With its `audit_close`, a writer has all in.
                sources.skip(u64::MAX)?;
            }
            let unknown = [sources.unknown(store)?, not_in(store, emptied)?].concat();
            torn.extend(unknown);
            torn.sort();
            torn.dedup();
            tell_torn(store, core, me, torn)?;
            return Ok(true);
        }
        let (mut more, mut bytes) = (false, 0);
        let Group { store: open, chain } = &mut group;
        open.insert_all(&mut |insert| {
            // (Another recovery may have been faster with the one that waits.)
            let mut next = |last| match waiting.take().filter(|e| e.0 > last) {
                Some(next) => Ok(Some(next)),
                None => sources.next(last),
            };
            while let Some((number, mut entry)) = next(last)? {
                if bytes > BATCH {
                    waiting = Some((number, entry));
                    more = true;
                    break;
                }
                if number > last + 1 {
                    // Before what follows, of which a part may be all that a power loss leaves.
                    let gap = [("first", (last + 1).into()), ("last", (number - 1).into()), ("reason", LOST.into())];
                    chain.say(insert, "audit_gap", &gap.into_iter().chain([("writer", id)]).collect::<Vec<_>>())?;
                }
                // What the dead writer would have withheld before anybody saw it.
                if let Ok(shapes) = core.rules.redaction.compiled() {
                    shapes.chunk(&mut entry);
                }
                let Some(entry) = Entry::of(&entry) else { break };
                chain.entry(insert, &entry, &theirs, &text)?;
                bytes += entry.bytes().len();
                last = number;
                count += 1;
            }
            Ok(())
        })?;
        if more {
            group.commit(last, Closed::No)?;
            continue;
        }
        torn.extend(sources.torn(last, whole));
        for unknown in sources.unknown(group.store)? {
            if !torn.contains(&unknown) {
                torn.push(unknown);
            }
        }
        let unknown = not_in(group.store, emptied)?;
        // Where nothing could be lost by the death itself, a line without an end was cut off later, and nobody knows what a damaged segment held.
        let mut gone = *end_unknown || sources.cut(last) || sources.breaks_off(last) || !unknown.is_empty();
        torn.extend(unknown);
        if let Some(end) = owner.last_in(group.chain.head.log_id) {
            if end > last {
                let gap = [("first", (last + 1).into()), ("last", end.into()), ("reason", LOST.into()), ("writer", id)];
                group.say("audit_gap", &gap)?;
                last = end;
            }
            gone = false;
        }
        if !known && last == 0 {
            // Nothing of it is in the log, and nothing was found: there is nothing to end.
            group.store.rollback();
            return Ok(false);
        }
        let lost = lost.or(gone.then_some(LOST));
        let mut recovered =
            vec![("cause", Value::from("dead")), ("count", count.into()), ("last", last.into()), ("writer", id)];
        let names = torn_names(torn.iter().map(|t| files::free_aside(t, TORN)));
        recovered.extend(torn_members(&names));
        // Announced, for a store that may keep a part of what is written together.
        recovered.extend(lost.map(|reason| ("gap", Value::from(reason))));
        group.say("audit_recovered", &recovered)?;
        if let Some(reason) = lost {
            group.say("audit_gap", &[("first", (last + 1).into()), ("reason", reason.into()), ("writer", id)])?;
        }
        group.commit(last, Closed::Recovered)?;
        return Ok(true);
    }
}

/// Which of the segments that should hold nothing hold something that the log does not have.
fn not_in(store: &mut dyn Store, emptied: &[(PathBuf, Vec<RecordId>)]) -> Result<Vec<PathBuf>, TrailError> {
    let mut paths = Vec::new();
    for (path, ids) in emptied {
        let mut ids = ids.iter().copied().collect();
        store.take_known(&mut ids)?;
        paths.extend((!ids.is_empty()).then(|| path.clone()));
    }
    Ok(paths)
}

/// The first of torn files, by the names that they will have, with its folder, and the names of the others.
fn torn_names(aside: impl Iterator<Item = PathBuf>) -> (Option<String>, Vec<String>) {
    let mut aside = aside;
    let first = aside.next().map(|p| p.to_string_lossy().into_owned());
    (first, file_names(aside))
}

fn torn_members((first, others): &(Option<String>, Vec<String>)) -> impl Iterator<Item = (&'static str, Value<'_>)> {
    let first = first.as_ref().map(|t| ("journal_torn", Value::from(t.as_str())));
    first.into_iter().chain((!others.is_empty()).then(|| ("more_torn", Value::from(others))))
}

/// Says that files are put aside of a writer of which the log has nothing, and so cannot say where it ends, or that was over before. Once of each, as `tell_replaced`.
fn tell_torn(store: &mut dyn Store, core: &Core, me: &Identity, torn: &[PathBuf]) -> Result<(), TrailError> {
    if torn.is_empty() {
        return Ok(());
    }
    let ours = store.log_id();
    store.act_as(ours, "");
    let mut group = Group::begin(store, core, me)?;
    let told: Vec<serde_json::Value> =
        group.store.aside()?.iter().filter_map(|context| serde_json::from_str(context).ok()).collect();
    let told = |aside: &Path| {
        let (path, name) = (aside.to_str(), aside.file_name().and_then(|n| n.to_str()));
        // A row of another program may call itself so.
        told.iter().filter(|c| c.get("argus.foreign").is_none()).any(|c| {
            let more = c.get("more_torn").and_then(|m| m.as_array()).into_iter().flatten();
            c.get("journal_torn").is_some_and(|t| t.as_str() == path) || more.into_iter().any(|m| m.as_str() == name)
        })
    };
    // Whoever was faster has told of it, and then renamed it: a file that still has its name was given this one by him, too.
    let aside = |t: &PathBuf| Some(files::free_aside(t, TORN)).filter(|_| std::fs::symlink_metadata(t).is_ok());
    let untold: Vec<PathBuf> = torn.iter().filter_map(aside).filter(|a| !told(a)).collect();
    if untold.is_empty() {
        group.store.rollback();
        return Ok(());
    }
    let names = torn_names(untold.into_iter());
    let members: Vec<_> = [("cause", Value::from("torn_file"))].into_iter().chain(torn_members(&names)).collect();
    group.say("audit_recovered", &members)?;
    let last = group.chain.log_writer.last;
    group.commit(last, Closed::No)
}
