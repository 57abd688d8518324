//! A JSONL line, parsed strictly: the members of a record, each once, of the right type, and nothing else. Pure.

use std::borrow::Cow;

use crate::canonical::Fields;
use crate::json::{object_members, unescape};

/// No line of a record is longer: its cap, the checksum, and some white space.
pub(crate) const MAX_LINE: usize = crate::accept::MAX_RECORD + 4096;

/// How the writer begins each line.
const BEGINNING: &[u8] = b"{\"timestamp\":\"";

/// Whether a file that holds these bytes and no line's end may be a trail that was just begun. Zeros are nobody's: a length that reached the disk before its bytes.
pub(crate) fn may_be_begun(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0) || bytes.iter().zip(BEGINNING).all(|(byte, begin)| byte == begin)
}

/// A parsed line.
#[derive(Debug, Default)]
pub(crate) struct Line<'a> {
    texts: [Option<Cow<'a, str>>; TEXTS.len()],
    json: [Option<&'a str>; JSON.len()],
    numbers: [u64; NUMBERS.len()],
}

const TEXTS: [&str; 20] = [
    "timestamp",
    "level",
    "event",
    "component",
    "original_output_file",
    "file_path",
    "user_agent",
    "process_name",
    "actor_id",
    "actor_type",
    "action",
    "outcome",
    "trace_id",
    "span_id",
    "stack",
    "record_id",
    "writer",
    "created_at",
    "prev_hash",
    "checksum",
];
/// Of `TEXTS`, those that every line has.
const REQUIRED: [usize; 10] = [0, 1, 2, 3, 4, 7, 15, 16, 17, 19];
/// Of `TEXTS`, those that only a commit gives.
const COMMITTED: [usize; 3] = [17, 18, 19];
const JSON: [&str; 3] = ["context", "old_value", "new_value"];
const NUMBERS: [&str; 3] = ["process_id", "writer_seq", "seq"];

impl<'a> Line<'a> {
    /// Parses one line, without its line end. The error says what is wrong.
    pub(crate) fn parse(text: &'a str) -> Result<Self, String> {
        let (line, _, numbers) = Self::members(text, None)?;
        if let Some(i) = REQUIRED.iter().find(|i| line.texts[**i].is_none()) {
            return Err(format!("`{}` is missing", TEXTS[*i]));
        }
        if line.json[0].is_none() || numbers < NUMBERS.len() {
            return Err("`context`, `process_id`, `writer_seq` or `seq` is missing".into());
        }
        Ok(line)
    }

    /// Parses the line of a record that is not committed: without the members that only a commit gives, and with one more, `extra`, as it stands.
    pub(crate) fn parse_pending(text: &'a str, extra: &str) -> Result<(Self, Option<&'a str>), String> {
        let (line, raw, numbers) = Self::members(text, Some(extra))?;
        if let Some(i) = COMMITTED.iter().find(|i| line.texts[**i].is_some()) {
            return Err(format!("`{}` stands in a pending record", TEXTS[*i]));
        }
        if let Some(i) = REQUIRED.iter().find(|i| line.texts[**i].is_none() && !COMMITTED.contains(i)) {
            return Err(format!("`{}` is missing", TEXTS[*i]));
        }
        if line.json[0].is_none() || numbers != NUMBERS.len() - 1 || line.numbers[2] != 0 {
            return Err("`context`, `process_id` or `writer_seq` is missing, or there is a `seq`".into());
        }
        Ok((line, raw))
    }

    /// The members, one named `extra` as it stands, and how many are numbers.
    fn members(text: &'a str, extra: Option<&str>) -> Result<(Self, Option<&'a str>, usize), String> {
        let mut line = Self::default();
        let (mut numbers, mut other) = (0, None);
        for (name, raw) in object_members(text).map_err(|e| e.to_string())? {
            if let Some(i) = TEXTS.iter().position(|t| *t == name) {
                let inside = raw
                    .strip_prefix('"')
                    .and_then(|r| r.strip_suffix('"'))
                    .ok_or_else(|| format!("`{name}` is not text"))?;
                let text = unescape(inside);
                // Absent is the only form of empty, except where the record always has the field.
                if text.is_empty() && !REQUIRED.contains(&i) {
                    return Err(format!("`{name}` is empty"));
                }
                line.texts[i] = Some(text);
            } else if let Some(i) = JSON.iter().position(|t| *t == name) {
                line.json[i] = Some(raw);
            } else if let Some(i) = NUMBERS.iter().position(|t| *t == name) {
                line.numbers[i] = raw
                    .parse()
                    .ok()
                    .filter(|n: &u64| n.to_string() == raw && i64::try_from(*n).is_ok())
                    .ok_or_else(|| format!("`{name}` is no whole number"))?;
                numbers += 1;
            } else if extra.is_some_and(|e| *e == *name) {
                other = Some(raw);
            } else {
                return Err(format!("`{name}` is no field of a record"));
            }
        }
        Ok((line, other, numbers))
    }

    fn text(&self, i: usize) -> &str {
        self.opt(i).unwrap_or_default()
    }

    fn opt(&self, i: usize) -> Option<&str> {
        self.texts[i].as_deref()
    }

    pub(crate) fn checksum(&self) -> &str {
        self.text(19)
    }

    pub(crate) fn fields(&self) -> Fields<'_> {
        Fields {
            timestamp: self.text(0),
            level: self.text(1),
            event: self.text(2),
            component: self.text(3),
            original_output_file: self.text(4),
            file_path: self.opt(5),
            user_agent: self.opt(6),
            process_name: self.text(7),
            actor_id: self.opt(8),
            actor_type: self.opt(9),
            action: self.opt(10),
            outcome: self.opt(11),
            trace_id: self.opt(12),
            span_id: self.opt(13),
            stack: self.opt(14),
            record_id: self.text(15),
            writer: self.text(16),
            created_at: self.text(17),
            prev_hash: self.opt(18),
            context: self.json[0].unwrap_or_default(),
            old_value: self.json[1],
            new_value: self.json[2],
            process_id: self.numbers[0],
            writer_seq: self.numbers[1],
            seq: self.numbers[2],
        }
    }
}
