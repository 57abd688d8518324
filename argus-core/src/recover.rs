//! Recovery: what writers that died left in their journals and pending files becomes records, before the opener's own first one. The store's count of each writer's records decides what
//! is in already, so a recovery that is itself killed is simply done again, and two at once do it once. Runs on the writer's thread while a trail is opened.

mod left;
mod sources;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::core::Core;
use crate::entry::Entry;
use crate::error::{ErrorKind, TrailError};
use crate::id::WriterId;
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
    // Looked for only now: while the writer lived it could add files, from here on nobody does.
    let found = &beside
        .of(writer, owner.as_ref())
        .map_err(|e| TrailError::io("cannot look for journals beside the trail", &beside.trail, e))?;
    let standing = store.standing(writer)?;
    let mut left = Left::read(found, beside, store.log_id(), writer)?;
    for (log_id, mut files) in std::mem::take(&mut left.orphans) {
        crate::fault::step("orphan_found");
        tell_replaced(store, core, me, writer, log_id, &mut files)?;
        crate::fault::step("orphan_told");
        for path in files.paths() {
            left.trouble.extend(put_aside(path, ORPHAN, &OF_ANOTHER_LOG)?);
        }
    }
    let mut torn = std::mem::take(&mut left.damaged);
    // A writer without any record never accepted one either, for its `audit_open` comes first: in the log, or in the pending file.
    if standing.is_some() || !left.own.pending.is_empty() {
        let owner = owner.or(left.owner.take()).unwrap_or_default();
        commit(store, core, me, writer, &owner, &mut left.own, &mut torn)?;
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
    let aside = files::aside(path, ending);
    match std::fs::rename(path, &aside) {
        Ok(()) => Ok(Some(TrailError::new(said.kind, said.what).at(&aside).help(said.help))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(TrailError::io("cannot put a file of a writer aside", path, e)),
    }
}

/// The names that files will have; of very many only the first.
fn names_aside<'p>(paths: impl Iterator<Item = &'p Path>, ending: &str) -> Vec<String> {
    let name = |p: &Path| files::aside(p, ending).file_name().map(|n| n.to_string_lossy().into_owned());
    let mut all: Vec<String> = paths.filter_map(name).collect();
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
    let names = names_aside(files.paths(), ORPHAN);
    let (mut sources, mut last, mut count) = (Sources::of(files, writer), 0, 0u64);
    while let Some((number, _)) = sources.next(last)? {
        (last, count) = (number, count + 1);
    }
    let (writer, log_id) = (writer.to_string(), log_id.to_string());
    let ours = store.log_id();
    store.act_as(ours, "");
    let mut group = Group::begin(store, core, me)?;
    let told = group.store.replaced()?.iter().any(|context| {
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

/// Commits what is not in yet, in order, and the record that says so in the last transaction. Adds to `torn` what of the files is to be kept.
fn commit(
    store: &mut dyn Store,
    core: &Core,
    me: &Identity,
    writer: WriterId,
    owner: &Owner,
    files: &mut Files,
    torn: &mut Vec<PathBuf>,
) -> Result<(), TrailError> {
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
            // Somebody was faster, or was killed before the files were gone. (With its `audit_close`, a writer has all in.)
            let recovered = group.chain.head.closed == Closed::Recovered;
            group.store.rollback();
            if recovered {
                sources.skip(last)?;
                torn.extend(sources.torn(last, owner.may_have_lost().is_none()));
            }
            return Ok(());
        }
        let (mut more, mut bytes) = (false, 0);
        let Group { store: open, chain } = &mut group;
        open.insert_all(&mut |insert| {
            while let Some((number, mut entry)) = waiting.take().map_or_else(|| sources.next(last), |e| Ok(Some(e)))? {
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
        // Where nothing could be lost by the death itself, a line without an end was cut off later.
        let cut = sources.cut(last).then_some(LOST);
        let lost = owner.may_have_lost().or(cut);
        torn.extend(sources.torn(last, owner.may_have_lost().is_none()));
        let mut recovered =
            vec![("cause", Value::from("dead")), ("count", count.into()), ("last", last.into()), ("writer", id)];
        let first = torn.first().map(|p| files::aside(p, TORN).to_string_lossy().into_owned());
        recovered.extend(first.as_ref().map(|t| ("journal_torn", Value::from(t.as_str()))));
        let others = names_aside(torn.iter().skip(1).map(PathBuf::as_path), TORN);
        recovered.extend((!others.is_empty()).then(|| ("more_torn", Value::from(&others))));
        // Announced, for a store that may keep a part of what is written together.
        recovered.extend(lost.map(|reason| ("gap", Value::from(reason))));
        group.say("audit_recovered", &recovered)?;
        if let Some(reason) = lost {
            group.say("audit_gap", &[("first", (last + 1).into()), ("reason", reason.into()), ("writer", id)])?;
        }
        return group.commit(last, Closed::Recovered);
    }
}
