//! Reading a JSONL trail line by line, in either direction, in constant memory and in one pass: a query keeps the offset it has come to. A last line without its
//! end is being written, or torn: it is no record.

mod lines;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::source::{About, Damage, End, Ends, Item, Links, Origin, Page, Scan, Source, Walked, gather};
use crate::canonical::Fields;
use crate::error::{ErrorKind, TrailError};
use crate::filter::Filter;
use crate::form::{members, record_of};
use crate::id::{RecordId, WriterId};
use crate::line::{Line, may_be_begun};
use crate::record::Record;
use crate::verify::Code;
use lines::{Backward, Forward};

/// Lines after a first one that is no record, one of which tells a trail from another file.
const NEAR: usize = 16;
/// Lines of one step of a query.
const STEP: usize = 4096;

pub(super) struct JsonlSource {
    path: PathBuf,
}

impl JsonlSource {
    pub(super) fn open(path: &Path) -> Result<Self, TrailError> {
        let source = Self { path: path.into() };
        let mut lines = source.forward(0)?;
        let no_trail = || {
            Err(TrailError::new(ErrorKind::NotATrail, "the file is no JSONL trail of Argus")
                .at(path)
                .help("name the trail's file"))
        };
        match lines.next().map_err(source.err())?.map(|(text, _)| text.unwrap_or_default()) {
            Some(line) if parse(line).is_err() && line.contains("\"timestamp\"") && !line.contains("\"record_id\"") => {
                Err(TrailError::new(ErrorKind::GoTrail, "the file was written by the Go library")
                    .at(path)
                    .help("`argus import` will take Go files over in a later release"))
            }
            Some(line) if !line.trim_start().starts_with('{') => {
                // A trail whose first line was damaged is a trail; `verify` says what it is.
                for _ in 0..NEAR {
                    match lines.next().map_err(source.err())? {
                        Some((text, _)) if text.is_some_and(|t| parse(t).is_ok()) => return Ok(source),
                        Some(_) => {}
                        None => break,
                    }
                }
                no_trail()
            }
            None => {
                if may_be_begun(lines.rest()) {
                    Ok(source)
                } else {
                    no_trail()
                }
            }
            Some(_) => Ok(source),
        }
    }

    fn err(&self) -> impl Fn(std::io::Error) -> TrailError + '_ {
        |e| TrailError::io("cannot read the JSONL trail", &self.path, e)
    }

    fn file(&self) -> Result<File, TrailError> {
        File::open(&self.path).map_err(self.err())
    }

    fn forward(&self, at: u64) -> Result<Forward, TrailError> {
        Forward::new(self.file()?, at).map_err(self.err())
    }
}

/// Bytes of a line whose members are counted before they are parsed, and the most that a record has.
const LONG: usize = 4096;
const FIELDS: usize = 26;

/// `Line::parse`, which compares each name with each, for lines that an attacker may have written.
fn parse(text: &str) -> Result<Line<'_>, String> {
    if text.len() > LONG && members(text) > FIELDS {
        return Err("the line has more members than a record".into());
    }
    Line::parse(text)
}

/// The service name in an `audit_open` record's context.
pub(crate) fn service_of(context: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(context).ok()?;
    value.get("service_name").and_then(|s| s.as_str()).map(str::to_owned)
}

/// The dead writer that an `audit_recovered` record names.
fn recovered_writer(context: &str) -> Option<WriterId> {
    let value: serde_json::Value = serde_json::from_str(context).ok()?;
    // One that tells of the merge of a pending file names a writer that lives.
    if value.get("cause").and_then(|c| c.as_str()) == Some("spill") {
        return None;
    }
    value.get("writer").and_then(|w| WriterId::parse_exact(w.as_str()?))
}

/// Service names by writer, from the writers' own `audit_open` records, as the table `writers` of a database has them.
type Services = HashMap<String, String>;

fn note_service(services: &mut Services, f: &Fields<'_>) {
    if f.writer_seq == 1 && f.event == "audit_open" && f.component == "argus" && !services.contains_key(f.writer) {
        services.insert(f.writer.to_owned(), service_of(f.context).unwrap_or_default());
    }
}

impl Source for JsonlSource {
    fn check_structure(&self) -> Result<Vec<(Code, String)>, TrailError> {
        Ok(Vec::new())
    }

    /// Where a segment begins, and what log it belongs to, its first record says.
    fn origin(&self) -> Result<Origin, TrailError> {
        Ok(Origin { links: Links::InRecord, log_id: None, first_seq: None })
    }

    fn walk(&self, after: u64, visit: &mut dyn FnMut(Item<'_>) -> bool) -> Result<Walked, TrailError> {
        let mut lines = self.forward(0)?;
        let (mut last, mut number) = (0, 0u64);
        while let Some((text, _)) = lines.next().map_err(self.err())? {
            number += 1;
            let parsed = text.ok_or_else(|| "the line is too long or not UTF-8".to_owned()).and_then(parse);
            let go_on = match &parsed {
                Ok(line) => {
                    let f = line.fields();
                    last = f.seq;
                    (after > 0 && f.seq <= after) || visit(Item::Row(&f, line.checksum()))
                }
                Err(e) => {
                    let why = format!("line {number}: {e}");
                    last < after || visit(Item::Damage(Damage { seq: None, why, checksum: None, writer: None }))
                }
            };
            if !go_on {
                return Ok(Walked::default());
            }
        }
        Ok(Walked { changed: false, unfinished: lines.unfinished })
    }

    /// The walk saw the file to its end; what came since is of no concern.
    fn about(&self, last: u64) -> Result<Option<About>, TrailError> {
        Ok(Some(About { last_seq: last, ..About::default() }))
    }

    /// Read from the end, for what is asked for stands there: a writer's last record, and behind it what closes or recovers it.
    fn ends(&self, writers: &[WriterId]) -> Result<Ends, TrailError> {
        let mut ends = Ends::default();
        let mut first = self.forward(0)?;
        let head = first.next().map_err(self.err())?.and_then(|(text, _)| parse(text?).ok());
        let mut earlier = serde_json::Value::Null;
        if let Some(f) = head.as_ref().map(Line::fields).filter(|f| f.event == "audit_segment") {
            ends.log_id = WriterId::parse_exact(f.writer);
            earlier = serde_json::from_str(f.context).unwrap_or_default();
        }
        let mut missing: HashSet<WriterId> = writers.iter().copied().collect();
        let mut recovered = HashSet::new();
        let mut lines = Backward::new(self.file()?, None).map_err(self.err())?;
        let mut text = Vec::new();
        while let Some((line, _)) = lines.next(&mut text).map_err(self.err())? {
            let Some(line) = line.and_then(|t| parse(t).ok()) else { continue };
            let f = line.fields();
            ends.last_seq = ends.last_seq.max(f.seq);
            let own = f.component == "argus";
            let Some(writer) = WriterId::parse_exact(f.writer) else { continue };
            if own && f.event == "audit_recovered" && Some(writer) == ends.log_id {
                recovered.extend(recovered_writer(f.context));
            }
            if missing.remove(&writer) {
                let over = recovered.contains(&writer) || own && f.event == "audit_close";
                ends.writers.insert(writer, End { last: f.writer_seq, over });
            }
            if missing.is_empty() {
                break;
            }
        }
        for writer in missing {
            // Its records stand in segments before this one.
            if let Some(last) = earlier.get("writers").and_then(|w| w.get(writer.to_string())?.as_u64()) {
                ends.writers.insert(writer, End { last, over: recovered.contains(&writer) });
            } else if recovered.contains(&writer) {
                // All of it was lost.
                ends.writers.insert(writer, End { last: 0, over: true });
            }
        }
        Ok(ends)
    }

    fn scan(&self, filter: Filter) -> Box<dyn Scan + '_> {
        Box::new(JsonlScan { source: self, filter, place: None, position: None, services: None })
    }

    fn by_id(&self, id: RecordId) -> Result<Option<Record>, TrailError> {
        let wanted = id.to_string();
        gather(self, |found: &mut Option<Record>, item| match item {
            Item::Row(f, sum) if f.record_id == wanted => {
                *found = record_of(f, Some(sum)).ok();
                false
            }
            _ => true,
        })
    }
}

/// Where a scan has come to: between two lines of this file, which its device and inode name.
#[derive(Clone, Copy)]
struct Place {
    file: (u64, u64),
    /// None before the first line.
    offset: Option<u64>,
}

struct JsonlScan<'s> {
    source: &'s JsonlSource,
    filter: Filter,
    place: Option<Place>,
    /// The furthest position that was looked at.
    position: Option<u64>,
    services: Option<Services>,
}

impl JsonlScan<'_> {
    /// The file, and where in it to go on; none where the scan must begin, for the first time or because the file is another or was cut.
    fn resume(&mut self) -> Result<(File, Place), TrailError> {
        let file = self.source.file()?;
        let meta = file.metadata().map_err(self.source.err())?;
        let begin = Place { file: (meta.dev(), meta.ino()), offset: None };
        let ends_a_line = |offset: u64| {
            let mut byte = [0];
            offset == 0 || (file.read_exact_at(&mut byte, offset - 1).is_ok() && byte == *b"\n")
        };
        let place = self.place.filter(|p| p.file == begin.file && p.offset.is_none_or(ends_a_line));
        if place.is_none() && self.place.take().is_some() {
            // What was given already is not given again.
            self.services = None;
            self.filter.after = self.position.or(self.filter.after);
        }
        Ok((file, place.unwrap_or(begin)))
    }

    fn services(&self) -> Result<Services, TrailError> {
        if self.filter.app.is_none() || !self.filter.newest_first {
            // Oldest first, each writer's `audit_open` comes before its other records.
            return Ok(Services::new());
        }
        gather(self.source, |services: &mut Services, item| {
            if let Item::Row(f, _) = item {
                note_service(services, f);
            }
            true
        })
    }
}

impl Scan for JsonlScan<'_> {
    fn page(&mut self, want: usize) -> Result<Page, TrailError> {
        let (file, mut place) = self.resume()?;
        if self.services.is_none() {
            self.services = Some(self.services()?);
        }
        let Self { source, filter, services, .. } = self;
        let services = services.get_or_insert_default();
        let (down, mut position) = (filter.newest_first, self.position);
        let beyond = filter.after.unwrap_or(if down { u64::MAX } else { 0 });
        let mut page = Page::default();
        // Whether the page is full.
        let mut look = |text: Option<&str>| {
            let Some(line) = text.and_then(|t| parse(t).ok()) else {
                page.damaged += 1;
                return false;
            };
            let f = line.fields();
            if filter.app.is_some() {
                note_service(services, &f);
            }
            if filter.after.is_some() && (if down { f.seq >= beyond } else { f.seq <= beyond }) {
                return false;
            }
            position = Some(position.map_or(f.seq, |p| if down { p.min(f.seq) } else { p.max(f.seq) }));
            let service = services.get(f.writer).map_or("", String::as_str);
            match record_of(&f, Some(line.checksum())) {
                Ok(r) if filter.matches(&r, service) => page.records.push(r),
                Ok(_) => {}
                Err(_) => page.damaged += 1,
            }
            page.records.len() >= want
        };
        let err = source.err();
        let mut more = true;
        if down {
            let mut lines = Backward::new(file, place.offset).map_err(&err)?;
            let mut line = Vec::new();
            for _ in 0..STEP {
                let Some((text, begins)) = lines.next(&mut line).map_err(&err)? else {
                    more = false;
                    break;
                };
                place.offset = Some(begins);
                if look(text) {
                    break;
                }
            }
        } else {
            let mut lines = Forward::new(file, place.offset.unwrap_or(0)).map_err(&err)?;
            for _ in 0..STEP {
                let Some((text, ends)) = lines.next().map_err(&err)? else {
                    more = false;
                    break;
                };
                place.offset = Some(ends);
                if look(text) {
                    break;
                }
            }
        }
        page.more = more;
        (self.place, self.position) = (Some(place), position);
        Ok(page)
    }

    fn position(&self) -> u64 {
        self.position.or(self.filter.after).unwrap_or(0)
    }
}
