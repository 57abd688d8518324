//! The JSONL store: one process, one file, one write and one sync per group. After a failed write or sync the file is cut to the last acknowledged offset and the
//! same bytes are written again, so nothing is ever believed that was not synced. Format: `docs/record-format.md`, section 6.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::place::{self, Access};
use super::{Closed, Ends, Finding, Head, Store};
use crate::canonical::{Fields, write_line};
use crate::error::{ErrorKind, TrailError};
use crate::id::{Checksum, RecordId, WriterId};
use crate::level::Level;
use crate::line::Line;
use crate::value::Value;
use crate::writer::{context_of, sha256_hex};

/// The end of a JSONL log, found by reading it.
#[derive(Debug, Default, Clone)]
struct Tail {
    log_id: Option<WriterId>,
    seq: u64,
    prev: Option<Checksum>,
    created_at: Option<String>,
    log_writer_last: u64,
    /// Gap records that recoveries announced and that do not stand there.
    untold: Vec<(WriterId, u64, String)>,
    /// Contexts of the records that say of files that they are put aside.
    aside: Vec<String>,
}

pub(crate) struct JsonlStore {
    file: File,
    path: PathBuf,
    log_id: WriterId,
    tail: Tail,
    writer: WriterId,
    /// Last number of each writer, and whether its records are over.
    writers: HashMap<WriterId, (u64, Closed)>,
    /// Bytes that are written and synced.
    acknowledged: u64,
    group: Vec<u8>,
    /// The tail as it will be once the group is in.
    next: Tail,
    /// Something that does not count may stand behind them.
    dirty: bool,
    /// It is an unfinished line that was there at the opening, and is saved.
    torn: bool,
    findings: Vec<Finding>,
    /// What this writer committed last, for receipts after an unknown outcome.
    recent: Vec<(u64, u64, Checksum)>,
    writer_text: String,
    log_text: String,
}

impl JsonlStore {
    pub(crate) fn open(path: &Path, access: Access, writer: WriterId) -> Result<Self, TrailError> {
        let (path, _) = place::prepare(path, access)?;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .custom_flags(i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or(0))
            .open(&path)
            .map_err(|e| TrailError::io("cannot open the JSONL trail", &path, e))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match std::io::Error::from(e).kind() {
            std::io::ErrorKind::WouldBlock => {
                TrailError::new(ErrorKind::InUse, "another logger writes this JSONL trail").at(&path).help(
                    "a JSONL trail has one writer: give each program its own file, or use a .db trail; \
                         if that logger's process is dead, a child that it forked still holds the file: end it",
                )
            }
            _ => TrailError::io("cannot lock the JSONL trail", &path, e.into()),
        })?;
        let mut findings = Vec::new();
        let mut writers = HashMap::new();
        let (tail, acknowledged) = read_tail(&file, &path, &mut writers, &mut findings)?;
        // Cut with the first group, which says so.
        let torn = !findings.is_empty();
        let fresh = tail.log_id.is_none();
        let log_id = tail.log_id.unwrap_or_else(WriterId::random);
        let log_text = log_id.to_string();
        if fresh {
            let context = context_of(&[
                ("canonical", Value::from(1)),
                ("log_id", Value::from(log_text.as_str())),
                ("segment", Value::from(1)),
                ("writers", Value::json("{}")),
            ]);
            findings.insert(0, Finding { event: "audit_segment", level: Level::Info, context });
        }
        // The name of a new file must survive power loss as well as its bytes.
        if let Some(dir) = path.parent() {
            place::sync_directory(dir)?;
        }
        Ok(Self {
            file,
            path,
            log_id,
            tail: tail.clone(),
            writer,
            writers,
            acknowledged,
            group: Vec::new(),
            next: tail,
            dirty: torn,
            torn,
            findings,
            recent: Vec::new(),
            writer_text: writer.to_string(),
            log_text,
        })
    }

    fn write_group(&mut self) -> std::io::Result<()> {
        if std::mem::replace(&mut self.dirty, true) {
            // A write or sync failed before, or a line was torn: nothing behind the acknowledged offset counts.
            self.file.set_len(self.acknowledged)?;
            self.torn = false;
        }
        self.file.write_all(&self.group)?;
        self.file.sync_data()?;
        if self.file.metadata()?.len() != self.acknowledged + self.group.len() as u64 {
            return Err(std::io::Error::other("another program wrote to the file meanwhile"));
        }
        self.dirty = false;
        Ok(())
    }
}

/// Reads the log to its end; a torn last line is moved aside and becomes a finding.
fn read_tail(
    file: &File,
    path: &Path,
    writers: &mut HashMap<WriterId, (u64, Closed)>,
    findings: &mut Vec<Finding>,
) -> Result<(Tail, u64), TrailError> {
    let err = |e| TrailError::io("cannot read the JSONL trail", path, e);
    let mut reader = BufReader::with_capacity(1 << 20, file);
    reader.seek(SeekFrom::Start(0)).map_err(err)?;
    let (mut tail, mut offset, mut line, mut last) = (Tail::default(), 0u64, Vec::new(), Vec::new());
    // The number in the last line of each writer.
    let (mut log_text, mut lines) = (String::new(), HashMap::new());
    loop {
        line.clear();
        let n = reader.by_ref().take(crate::line::MAX_LINE as u64 + 1).read_until(b'\n', &mut line).map_err(err)?;
        if n == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            if n > crate::line::MAX_LINE {
                return Err(match offset {
                    0 => not_ours(path, "a line is longer than any record"),
                    _ => damaged(path, offset, "a line is longer than any record"),
                });
            }
            // All there is: it may be the file of some other program, which ends without a line end.
            if offset == 0 && !crate::line::may_be_begun(&line) {
                return Err(not_ours(path, "it does not begin with an audit_segment record"));
            }
            heal(file, path, &line, findings)?;
            break;
        }
        offset += n as u64;
        if offset == n as u64 {
            // The first line says whose file this is.
            let first = parse(&line, path)?;
            if first.fields().event != "audit_segment" {
                return Err(not_ours(path, "it does not begin with an audit_segment record"));
            }
            log_text = first.fields().writer.to_owned();
            let context: serde_json::Value = serde_json::from_str(first.fields().context).unwrap_or_default();
            let again = context.get("log_id").and_then(|id| id.as_str()) == Some(&log_text);
            let id = WriterId::parse_exact(&log_text).filter(|_| again);
            tail.log_id = Some(id.ok_or_else(|| damaged(path, 0, "the first record names no log, or two"))?);
        }
        // Most lines are only asked whose they are.
        match writer_of(&line).filter(|(w, _)| *w != log_text && !ends_a_writer(&line)) {
            Some(of) => has(writers, &mut lines, of, Closed::No),
            None => {
                note_parsed(writers, &mut lines, &mut tail, &parse_later(&line, path, offset - n as u64)?, &log_text)
            }
        }
        std::mem::swap(&mut line, &mut last);
    }
    if !last.is_empty() {
        let at = offset - last.len() as u64;
        let l = parse_later(&last, path, at)?;
        tail.seq = l.fields().seq;
        let sum = crate::chain::checksum(&l.fields(), &mut Vec::new());
        if !sum.is(l.checksum()) {
            return Err(damaged(path, at, "the last record does not match its checksum"));
        }
        tail.prev = Some(sum);
        if l.fields().writer != log_text
            && let Some(known) = WriterId::parse_exact(l.fields().writer).and_then(|id| writers.get_mut(&id))
        {
            // Of all lines this one is known to be right.
            known.0 = l.fields().writer_seq;
        }
        tail.created_at = Some(l.fields().created_at.to_owned());
    }
    Ok((tail, offset))
}

/// A record of a writer: its numbers rise, so one that is too high counts only until two lines go on from each other again.
fn has(
    writers: &mut HashMap<WriterId, (u64, Closed)>,
    lines: &mut HashMap<WriterId, u64>,
    (writer, number): (&str, u64),
    closed: Closed,
) {
    note(writers, writer, number, closed);
    let Some(id) = WriterId::parse_exact(writer) else { return };
    if lines.insert(id, number).is_some_and(|before| number.checked_sub(1) == Some(before))
        && let Some(known) = writers.get_mut(&id)
    {
        known.0 = number;
    }
}

fn note(writers: &mut HashMap<WriterId, (u64, Closed)>, writer: &str, number: u64, closed: Closed) {
    if let Some(id) = WriterId::parse_exact(writer) {
        let known = writers.entry(id).or_default();
        known.0 = known.0.max(number);
        if closed != Closed::No {
            known.1 = closed;
        }
    }
}

fn note_parsed(
    writers: &mut HashMap<WriterId, (u64, Closed)>,
    lines: &mut HashMap<WriterId, u64>,
    tail: &mut Tail,
    line: &Line<'_>,
    log: &str,
) {
    let f = line.fields();
    let own = f.component == crate::accept::OWN_COMPONENT;
    if f.writer != log {
        let closed = if own && f.event == "audit_close" { Closed::Yes } else { Closed::No };
        has(writers, lines, (f.writer, f.writer_seq), closed);
        return;
    }
    tail.log_writer_last = f.writer_seq;
    if own && f.event == "audit_recovered" {
        let context: serde_json::Value = serde_json::from_str(f.context).unwrap_or_default();
        // A merge of a pending file (`spill`) ends no writer.
        let dead = context.get("cause").and_then(|c| c.as_str()) != Some("spill");
        if let Some(dead) = context.get("writer").filter(|_| dead).and_then(|w| w.as_str()) {
            note(writers, dead, 0, Closed::Recovered);
            // The lines of one recovery may be there in part, after a power loss.
            let gap = context.get("gap").and_then(|g| g.as_str());
            let last = context.get("last").and_then(|l| l.as_u64());
            if let (Some(id), Some(gap), Some(last)) = (WriterId::parse_exact(dead), gap, last) {
                tail.untold.push((id, last.saturating_add(1), gap.into()));
            }
        }
    }
    if own && f.event == "audit_gap" {
        let context: serde_json::Value = serde_json::from_str(f.context).unwrap_or_default();
        let of = context.get("writer").and_then(|w| w.as_str());
        match (of, context.get("last").and_then(|l| l.as_u64())) {
            // What a recovery found missing counts as passed.
            (Some(of), Some(last)) => note(writers, of, last, Closed::No),
            _ => tail.untold.retain(|(id, ..)| of.is_none_or(|of| id.to_string() != of)),
        }
    }
    if own && says_aside(f.event, f.context) {
        tail.aside.push(f.context.into());
    }
}

fn says_aside(event: &str, context: &str) -> bool {
    event == "log_replaced" || (event == "audit_recovered" && context.contains("\"journal_torn\""))
}

/// Whose line it is, if it is written as we write lines: the members behind these two hold no text that a caller chose.
fn writer_of(line: &[u8]) -> Option<(&str, u64)> {
    const NAME: &[u8] = b",\"writer\":\"";
    // Numbers, a time and two checksums follow.
    let from = line.len().saturating_sub(400);
    let at = from + line.get(from..)?.windows(NAME.len()).rposition(|w| w == NAME)? + NAME.len();
    let (writer, rest) = line.get(at..)?.split_at_checked(36)?;
    let rest = rest.strip_prefix(b"\",\"writer_seq\":")?;
    let digits = rest.iter().position(|b| !b.is_ascii_digit())?;
    Some((std::str::from_utf8(writer).ok()?, std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()?))
}

/// The id of the record, which stands in front of `writer_of`.
fn id_of(line: &[u8]) -> Option<&str> {
    const NAME: &[u8] = b",\"record_id\":\"";
    let from = line.len().saturating_sub(460);
    let at = from + line.get(from..)?.windows(NAME.len()).rposition(|w| w == NAME)? + NAME.len();
    std::str::from_utf8(line.get(at..at + 36)?).ok()
}

/// Whether a line may be an `audit_close`. Its beginning is of fixed width.
fn ends_a_writer(line: &[u8]) -> bool {
    line.get(..160.min(line.len())).is_some_and(|l| l.windows(11).any(|w| w == b"audit_close"))
}

fn parse<'a>(line: &'a [u8], path: &Path) -> Result<Line<'a>, TrailError> {
    let text = std::str::from_utf8(line).map_err(|_| not_ours(path, "a line is not UTF-8"))?;
    Line::parse(text.trim_end_matches('\n')).map_err(|e| {
        if text.starts_with("{\"timestamp\":") && text.contains("\"level\":") && !text.contains("\"record_id\":") {
            return TrailError::new(ErrorKind::GoTrail, "the file was written by the Go library")
                .at(path)
                .help("name another file; `argus import` will take Go files over in a later release");
        }
        not_ours(path, &e)
    })
}

/// A line of a file whose first one is ours.
fn parse_later<'a>(line: &'a [u8], path: &Path, offset: u64) -> Result<Line<'a>, TrailError> {
    let text = std::str::from_utf8(line).map_err(|_| damaged(path, offset, "a line is not UTF-8"))?;
    Line::parse(text.trim_end_matches('\n')).map_err(|e| damaged(path, offset, &e))
}

fn damaged(path: &Path, offset: u64, why: &str) -> TrailError {
    TrailError::new(ErrorKind::Damaged, format!("the JSONL trail is damaged at byte {offset}: {why}"))
        .at(path)
        .help("keep a copy of the file, and run `argus verify` on it; nothing is written to it as it is")
}

fn not_ours(path: &Path, why: &str) -> TrailError {
    TrailError::new(ErrorKind::NotATrail, format!("the file is no JSONL trail of Argus: {why}"))
        .at(path)
        .help("name another file, or run `argus verify` on it")
}

/// Saves a torn last line in `<file>.torn`. It is cut off with the first group, whose finding says so.
fn heal(file: &File, path: &Path, fragment: &[u8], findings: &mut Vec<Finding>) -> Result<(), TrailError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".torn");
    let torn = PathBuf::from(name);
    let mode = place_mode(file);
    let save = || -> std::io::Result<()> {
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let nofollow = i32::try_from(flags.bits()).unwrap_or(0);
        let mut t =
            OpenOptions::new().create(true).read(true).append(true).mode(mode).custom_flags(nofollow).open(&torn)?;
        let line = [fragment, b"\n"].concat();
        let mut there = vec![0; line.len()];
        // An opening before this one may have saved it and have failed then.
        let at = t.metadata()?.len().checked_sub(line.len() as u64);
        if at.is_none_or(|at| t.read_exact_at(&mut there, at).is_err() || there != line) {
            t.write_all(&line)?;
        }
        t.sync_all()
    };
    save().map_err(|e| TrailError::io("cannot save a torn last line", &torn, e))?;
    let context = context_of(&[
        ("bytes", Value::from(fragment.len())),
        ("cause", Value::from("torn_line")),
        ("sha256", Value::from(sha256_hex(fragment).as_str())),
    ]);
    findings.push(Finding { event: "audit_recovered", level: Level::Security, context });
    Ok(())
}

fn place_mode(file: &File) -> u32 {
    file.metadata().map_or(0o600, |m| m.mode() & 0o777)
}

impl Store for JsonlStore {
    fn act_as(&mut self, writer: WriterId, _: &str) {
        self.rollback();
        self.writer = writer;
        self.writer_text = writer.to_string();
    }

    fn log_id(&self) -> WriterId {
        self.log_id
    }

    fn unclosed(&mut self) -> Result<Vec<WriterId>, TrailError> {
        let open = self.writers.iter().filter(|(w, (_, closed))| *closed == Closed::No && **w != self.log_id);
        let mut all: Vec<WriterId> = open.map(|(w, _)| *w).collect();
        all.sort();
        Ok(all)
    }

    fn standing(&mut self, writer: WriterId) -> Result<Option<Closed>, TrailError> {
        Ok(self.writers.get(&writer).map(|w| w.1))
    }

    fn untold_gaps(&mut self) -> Vec<(WriterId, u64, String)> {
        self.tail.untold.clone()
    }

    fn aside(&mut self) -> Result<Vec<String>, TrailError> {
        Ok(self.tail.aside.clone())
    }

    fn begin(&mut self) -> Result<Head, TrailError> {
        self.rollback();
        let here = self.file.metadata().map_err(|e| TrailError::io("cannot look at the JSONL trail", &self.path, e))?;
        if place::identity(&self.path).ok() != Some((here.dev(), here.ino())) || here.len() < self.acknowledged {
            return Err(place::replaced(&self.path));
        }
        if here.len() > self.acknowledged && !self.dirty {
            let what = format!("another program wrote to the JSONL trail, from byte {} on", self.acknowledged);
            return Err(TrailError::new(ErrorKind::Damaged, what).at(&self.path).help(
                "nothing is written behind that; keep a copy, and cut the file to that length: then Argus goes on by itself",
            ));
        }
        Ok(Head {
            log_id: self.log_id,
            next_seq: self.tail.seq + 1,
            prev: self.tail.prev,
            created_at: self.tail.created_at.clone(),
            writer_last: self.writers.get(&self.writer).map_or(0, |w| w.0),
            closed: self.writers.get(&self.writer).map_or(Closed::No, |w| w.1),
            log_writer_last: self.tail.log_writer_last,
        })
    }

    fn findings(&mut self) -> Vec<Finding> {
        self.findings.clone()
    }

    fn insert(&mut self, f: &Fields<'_>, checksum: &str) -> Result<(), TrailError> {
        write_line(f, checksum, &mut self.group);
        self.group.push(b'\n');
        self.next.seq = f.seq;
        self.next.prev = Checksum::parse_exact(checksum);
        if self.next.created_at.as_deref() != Some(f.created_at) {
            self.next.created_at = Some(f.created_at.into());
        }
        if f.writer == self.log_text {
            self.next.log_writer_last = f.writer_seq;
            if says_aside(f.event, f.context) {
                self.next.aside.push(f.context.into());
            }
        } else if f.writer == self.writer_text
            && let Some(sum) = self.next.prev
        {
            self.recent.push((f.writer_seq, f.seq, sum));
        }
        Ok(())
    }

    fn commit(&mut self, ends: &Ends) -> Result<(), TrailError> {
        self.write_group().map_err(|e| TrailError::io("cannot write to the JSONL trail", &self.path, e))?;
        self.acknowledged += self.group.len() as u64;
        self.group.clear();
        self.next.untold.clear();
        self.tail = self.next.clone();
        self.writers.insert(self.writer, (ends.writer_last, ends.closed));
        self.findings.clear();
        Ok(())
    }

    fn rollback(&mut self) {
        self.group.clear();
        self.recent.clear();
        self.next = self.tail.clone();
    }

    fn find(&mut self, first: u64, last: u64) -> Result<Vec<(u64, u64, Checksum)>, TrailError> {
        // A failed group is always written again, so nothing of it is ever in already.
        Ok(self.recent.iter().filter(|r| (first..=last).contains(&r.0)).copied().collect())
    }

    fn take_known(&mut self, ids: &mut BTreeSet<RecordId>) -> Result<(), TrailError> {
        // (Asked seldom: after a death, of what the files beside the trail have in common with it.)
        let mut all: HashMap<String, RecordId> = ids.iter().map(|id| (id.to_string(), *id)).collect();
        let mut look = |line: &[u8]| {
            if id_of(line).is_some_and(|id| !all.contains_key(id)) {
                return;
            }
            let line = std::str::from_utf8(line).unwrap_or_default();
            if let Ok(line) = Line::parse(line.trim_end_matches('\n'))
                && let Some(id) = all.remove(line.fields().record_id)
            {
                ids.remove(&id);
            }
        };
        self.group.split_inclusive(|b| *b == b'\n').for_each(&mut look);
        let err = |e| TrailError::io("cannot read the JSONL trail", &self.path, e);
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        reader.seek(SeekFrom::Start(0)).map_err(err)?;
        let (mut reader, mut line) = (reader.take(self.acknowledged), Vec::new());
        while reader.read_until(b'\n', &mut line).map_err(err)? > 0 {
            look(&line);
            line.clear();
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), TrailError> {
        if self.dirty && !self.torn {
            self.file
                .set_len(self.acknowledged)
                .map_err(|e| TrailError::io("cannot cut the JSONL trail to what is synced", &self.path, e))?;
        }
        // Not left to the drop of the file, which comes after callers were told that the trail is closed.
        flock(&self.file, FlockOperation::Unlock)
            .map_err(|e| TrailError::io("cannot unlock the JSONL trail", &self.path, e.into()))
    }
}
