//! Reading a JSONL trail line by line, in either direction, in constant memory. A last line without its end is being written, or torn: it is no record.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{About, Damage, Item, Links, Origin, PAGE, Source, Walked};
use crate::error::{ErrorKind, TrailError};
use crate::filter::Filter;
use crate::form::record_of;
use crate::line::{Line, MAX_LINE};
use crate::record::Record;
use crate::verify::Code;

pub(super) struct JsonlSource {
    path: PathBuf,
}

impl JsonlSource {
    pub(super) fn open(path: &Path) -> Result<Self, TrailError> {
        let source = Self { path: path.into() };
        let mut first = None;
        source.lines(&mut |text, _| {
            first = Some(text.map(str::to_owned).unwrap_or_default());
            false
        })?;
        match first {
            Some(line)
                if Line::parse(&line).is_err() && line.contains("\"timestamp\"") && !line.contains("\"record_id\"") =>
            {
                Err(TrailError::new(ErrorKind::GoTrail, "the file was written by the Go library")
                    .at(path)
                    .help("`argus import` will take Go files over in a later release"))
            }
            Some(line) if !line.trim_start().starts_with('{') => {
                Err(TrailError::new(ErrorKind::NotATrail, "the file is no JSONL trail of Argus")
                    .at(path)
                    .help("name the trail's file"))
            }
            _ => Ok(source),
        }
    }

    fn err(&self) -> impl Fn(std::io::Error) -> TrailError + '_ {
        |e| TrailError::io("cannot read the JSONL trail", &self.path, e)
    }

    /// Gives each whole line; `None` for one that is too long or not UTF-8. Returns the bytes of an unfinished last line.
    fn lines(&self, visit: &mut dyn FnMut(Option<&str>, u64) -> bool) -> Result<u64, TrailError> {
        let mut reader = BufReader::with_capacity(256 << 10, File::open(&self.path).map_err(self.err())?);
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            let n = reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line).map_err(self.err())?;
            if n == 0 {
                return Ok(0);
            }
            number += 1;
            let whole = line.last() == Some(&b'\n');
            if !whole && n == MAX_LINE {
                // Pass over the rest of a line that no record can have.
                loop {
                    let buf = reader.fill_buf().map_err(self.err())?;
                    let (used, end) = match buf.iter().position(|b| *b == b'\n') {
                        Some(i) => (i + 1, true),
                        None => (buf.len(), buf.is_empty()),
                    };
                    reader.consume(used);
                    if end {
                        break;
                    }
                }
                if !visit(None, number) {
                    return Ok(0);
                }
                continue;
            }
            if !whole {
                return Ok(n as u64);
            }
            line.pop();
            if !visit(std::str::from_utf8(&line).ok(), number) {
                return Ok(0);
            }
        }
    }

    /// Gives each whole line from the last to the first.
    fn lines_back(&self, visit: &mut dyn FnMut(&str) -> bool) -> Result<(), TrailError> {
        const BLOCK: u64 = 64 << 10;
        let mut file = File::open(&self.path).map_err(self.err())?;
        let mut at = file.seek(SeekFrom::End(0)).map_err(self.err())?;
        // Bytes from `at` on that belong to a line whose beginning is not read yet; the first such piece is an unfinished last line.
        let (mut tail, mut finished): (Vec<u8>, bool) = (Vec::new(), false);
        while at > 0 {
            let n = BLOCK.min(at);
            at -= n;
            file.seek(SeekFrom::Start(at)).map_err(self.err())?;
            let mut block = vec![0; usize::try_from(n).unwrap_or(0)];
            file.read_exact(&mut block).map_err(self.err())?;
            block.append(&mut tail);
            while let Some(i) = block.iter().rposition(|b| *b == b'\n') {
                let line = block.split_off(i + 1);
                block.pop();
                if finished && !std::str::from_utf8(&line).is_ok_and(&mut *visit) {
                    return Ok(());
                }
                finished = true;
            }
            tail = block;
        }
        if finished {
            let _ = std::str::from_utf8(&tail).is_ok_and(visit);
        }
        Ok(())
    }

    /// Service names by writer, from the `audit_open` records; only for filters that ask.
    fn services(&self) -> Result<BTreeMap<String, String>, TrailError> {
        let mut services = BTreeMap::new();
        self.walk(0, &mut |item| {
            if let Item::Row(f, _) = item
                && f.event == "audit_open"
            {
                services.insert(f.writer.to_owned(), service_of(f.context).unwrap_or_default());
            }
            true
        })?;
        Ok(services)
    }
}

/// The service name in an `audit_open` record's context.
pub(crate) fn service_of(context: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(context).ok()?;
    value.get("service_name").and_then(|s| s.as_str()).map(str::to_owned)
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
        let mut last = 0;
        let unfinished = self.lines(&mut |text, number| match text
            .ok_or_else(|| "the line is too long or not UTF-8".to_owned())
            .and_then(Line::parse)
        {
            Ok(line) => {
                let f = line.fields();
                last = f.seq;
                (after > 0 && f.seq <= after) || visit(Item::Row(&f, line.checksum()))
            }
            Err(e) => {
                let why = format!("line {number}: {e}");
                last < after || visit(Item::Damage(Damage { seq: None, why, checksum: None, writer: None }))
            }
        })?;
        Ok(Walked { changed: false, unfinished })
    }

    /// The walk saw the file to its end; what came since is of no concern.
    fn about(&self, last: u64) -> Result<Option<About>, TrailError> {
        Ok(Some(About { last_seq: last, ..About::default() }))
    }

    fn page(&self, filter: &Filter, cursor: Option<u64>) -> Result<(Vec<Record>, bool), TrailError> {
        let services = if filter.app.is_some() { self.services()? } else { BTreeMap::new() };
        let mut records = Vec::new();
        let want = filter.limit.unwrap_or(usize::MAX).min(PAGE);
        let mut take = |line: &Line<'_>| {
            let f = line.fields();
            let service = services.get(f.writer).map_or("", String::as_str);
            if let Ok(r) = record_of(&f, Some(line.checksum()))
                && filter.matches(&r, service)
            {
                records.push(r);
            }
            records.len() < want
        };
        if filter.newest_first {
            let beyond = cursor.unwrap_or(u64::MAX);
            self.lines_back(&mut |text| {
                Line::parse(text).is_ok_and(|l| l.fields().seq >= beyond || take(&l)) || Line::parse(text).is_err()
            })?;
        } else {
            let beyond = cursor.unwrap_or(0);
            self.lines(&mut |text, _| match text.and_then(|t| Line::parse(t).ok()) {
                Some(l) => l.fields().seq <= beyond || take(&l),
                None => true,
            })?;
        }
        let more = records.len() == want;
        Ok((records, more))
    }
}
