//! Rewrites what a record holds: JSON fields at any depth, names of members included, and whole chunks of the queue in place. Pure. On the writer thread, so that
//! no caller pays. A record without a secret is looked at once and left alone.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::shapes::{Found, Shapes};
use super::{RESERVED, Redaction};
use crate::entry::{self, Entry, Part};
use crate::json::{JsonWriter, MAX_DEPTH, Scratch, Source, unescape};

impl Shapes {
    /// Withholds what the entries of a chunk hold. Each keeps its length in the chunk; what is over at its end is zero.
    pub(crate) fn chunk(&self, chunk: &mut [u8]) {
        let (mut at, mut suspects) = (0, self.suspects());
        while let Some(hit) = suspects.from(chunk, at) {
            // The entry that the hit is in.
            let end = loop {
                let Some(end) = chunk.get(at..).and_then(entry::length).map(|n| at + n) else { return };
                if end > hit {
                    break end;
                }
                at = end;
            };
            let Some(bytes) = chunk.get_mut(at..end) else { return };
            // What Argus says of itself stays as it must be; only `audit_open` repeats in its context what it was told.
            let (own, open) =
                Entry::of(bytes).map_or((true, false), |e| (e.is_own(), e.text(Part::Event) == Some("audit_open")));
            entry::rewrite(bytes, |json, text| match json {
                true if !own || open => self.json(text),
                false if !own => self.text(text),
                _ => None,
            });
            at = end;
        }
    }

    /// Canonical JSON without secrets; `None` if it has none.
    pub(crate) fn json(&self, text: &str) -> Option<String> {
        let mut suspects = self.suspects();
        let mut hit = suspects.from(text.as_bytes(), 0)?;
        for (end, inside) in strings(text) {
            if hit < end {
                if !self.find(&unescape(inside)).is_empty() {
                    return Some(self.clean(text));
                }
                hit = suspects.from(text.as_bytes(), end)?;
            }
        }
        None
    }

    fn clean(&self, text: &str) -> String {
        // Canonical numbers survive: integers of 64 bits exactly, doubles by their bits.
        let clean = serde_json::from_str(text).ok().map(|v| self.value(v, 0)).and_then(|v| {
            let (mut out, mut scratch, none) = (Vec::new(), Scratch::default(), Redaction::none());
            JsonWriter::new(&mut out, &mut scratch, &none, Source::Stored).serialize_top(&v).ok()?;
            String::from_utf8(out).ok()
        });
        // Canonical text always parses; if not, better nothing than a secret.
        clean.unwrap_or_else(|| "{}".into())
    }

    fn value(&self, value: Value, depth: usize) -> Value {
        match value {
            Value::String(s) => match self.find(&s).as_slice() {
                [] => Value::String(s),
                found => self.string(&s, found, depth),
            },
            Value::Array(a) => a.into_iter().map(|v| self.value(v, depth + 1)).collect(),
            Value::Object(members) => Value::Object(self.object(members, depth + 1)),
            other => other,
        }
    }

    /// A marker object where the whole is the secret and an object has room; else the text with markers in it.
    fn string(&self, text: &str, found: &[Found], depth: usize) -> Value {
        if let [f] = found
            && f.end - f.start == text.len()
            && depth < MAX_DEPTH
            && marker_len(self.name(f)) <= text.len() + 2
        {
            let mut marker = Map::new();
            marker.insert(format!("{RESERVED}redacted"), self.name(f).into());
            return Value::Object(marker);
        }
        Value::String(self.replace(text, found, 0))
    }

    fn object(&self, members: Map<String, Value>, depth: usize) -> Map<String, Value> {
        let (mut out, mut secret) = (Map::new(), Vec::new());
        for (name, value) in members {
            if name.starts_with(RESERVED) {
                out.insert(name, value);
                continue;
            }
            let value = self.value(value, depth);
            match self.find(&name) {
                found if found.is_empty() => drop(out.insert(name, value)),
                found => secret.push((name, found, value)),
            }
        }
        let mut used: HashSet<String> = HashSet::new();
        for (name, found, value) in secret {
            // Two secrets may leave the same name; a number then tells them apart. Where not even a digit has room, one of them must do.
            let free = |n: &String| !used.contains(n) && !out.contains_key(n);
            let numbers = std::iter::once(0).chain(used.len() + 1..used.len() + 12);
            if let Some(name) = numbers.map(|k| self.replace(&name, &found, k)).find(free) {
                used.insert(name.clone());
                out.insert(name, value);
            }
        }
        out
    }
}

/// Length of `{"$argus.redacted":"name"}`.
fn marker_len(name: &str) -> usize {
    RESERVED.len() + r#"{"redacted":""}"#.len() + name.len()
}

/// The insides of the strings of JSON text that is known to be well-formed, names included, and where each ends.
fn strings(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text.get(at..)?.find('"')? + 1;
        let bytes = text.as_bytes();
        let mut end = start;
        while *bytes.get(end)? != b'"' {
            end += if bytes.get(end) == Some(&b'\\') { 2 } else { 1 };
        }
        at = end + 1;
        Some((end, text.get(start..end)?))
    })
}
