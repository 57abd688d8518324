//! The fields of an event or a span, typed, in a buffer that is reused: `Visit` lends a text only for the length of its call. User code (`Debug`, `Display`) runs
//! here; nothing is locked meanwhile.

use std::error::Error;
use std::fmt::{Debug, Write as _};
use std::ops::Range;

use argus_core::Value;
use tracing_core::field::{Field, Visit};

use crate::keys;

/// A captured value; text stands in the buffer beside.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Slot {
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(Range<usize>),
}

/// The captured fields, in order.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    pub(crate) text: String,
    pub(crate) slots: Vec<(&'static str, Slot)>,
}

impl Fields {
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.slots.clear();
    }

    pub(crate) fn value<'a>(&'a self, slot: &Slot) -> Value<'a> {
        match slot {
            Slot::Bool(v) => (*v).into(),
            Slot::I64(v) => (*v).into(),
            Slot::U64(v) => (*v).into(),
            Slot::F64(v) => (*v).into(),
            Slot::Text(range) => self.text(range).into(),
        }
    }

    pub(crate) fn text(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// The text of a field that is text.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.slots.iter().find(|(n, _)| *n == name).and_then(|(_, s)| match s {
            Slot::Text(range) => Some(self.text(range)),
            _ => None,
        })
    }

    /// Takes over a captured value of `from`.
    pub(crate) fn copy(&mut self, name: &'static str, slot: &Slot, from: &Fields) {
        let slot = match slot {
            Slot::Text(range) => {
                let start = self.text.len();
                self.text.push_str(from.text(range));
                Slot::Text(start..self.text.len())
            }
            other => other.clone(),
        };
        self.slots.push((name, slot));
    }

    fn keep(&mut self, name: &'static str, slot: Slot) {
        match self.slots.iter_mut().find(|(n, _)| *n == name) {
            // A field recorded again: the last word counts.
            Some((_, old)) => *old = slot,
            None => self.slots.push((name, slot)),
        }
    }

    fn write(&mut self, name: &'static str, text: std::fmt::Arguments<'_>) {
        let start = self.text.len();
        // A `Display` that gives up leaves what it wrote.
        let _ = self.text.write_fmt(text);
        self.keep(name, Slot::Text(start..self.text.len()));
    }

    fn scalar(&mut self, field: &Field, slot: Slot, text: &dyn std::fmt::Display) {
        if keys::is_text(field.name()) {
            self.write(field.name(), format_args!("{text}"));
        } else {
            self.keep(field.name(), slot);
        }
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, v: bool) {
        self.scalar(field, Slot::Bool(v), &v);
    }
    fn record_i64(&mut self, field: &Field, v: i64) {
        self.scalar(field, Slot::I64(v), &v);
    }
    fn record_u64(&mut self, field: &Field, v: u64) {
        self.scalar(field, Slot::U64(v), &v);
    }
    fn record_f64(&mut self, field: &Field, v: f64) {
        // JSON has no NaN and no infinity: their text says what was there, and the record is not lost over it.
        let slot = if v.is_finite() { Some(Slot::F64(v)) } else { None };
        match slot {
            Some(slot) => self.scalar(field, slot, &v),
            None => self.write(field.name(), format_args!("{v}")),
        }
    }
    fn record_i128(&mut self, field: &Field, v: i128) {
        match i64::try_from(v) {
            Ok(v) => self.record_i64(field, v),
            Err(_) => self.write(field.name(), format_args!("{v}")),
        }
    }
    fn record_u128(&mut self, field: &Field, v: u128) {
        match u64::try_from(v) {
            Ok(v) => self.record_u64(field, v),
            Err(_) => self.write(field.name(), format_args!("{v}")),
        }
    }
    fn record_str(&mut self, field: &Field, v: &str) {
        self.write(field.name(), format_args!("{v}"));
    }
    fn record_bytes(&mut self, field: &Field, v: &[u8]) {
        let hex: String = v.iter().map(|b| format!("{b:02x}")).collect();
        self.write(field.name(), format_args!("{hex}"));
    }
    fn record_error(&mut self, field: &Field, v: &(dyn Error + 'static)) {
        self.write(field.name(), format_args!("{v}"));
    }
    fn record_debug(&mut self, field: &Field, v: &dyn Debug) {
        self.write(field.name(), format_args!("{v:?}"));
    }
}
