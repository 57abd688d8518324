//! Rows of `audit_events` as a record's fields.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::canonical::Fields;
use crate::reader::Damage;

/// The columns that `fields` takes, in its order.
pub(super) const COLUMNS: &str = "e.id, e.timestamp, e.level, e.event, e.component, e.original_output_file, e.file_path, e.old_value, e.new_value, e.user_agent, \
    e.process_id, e.process_name, e.context, e.checksum, e.created_at, e.actor_id, e.actor_type, e.action, e.outcome, e.trace_id, e.span_id, e.stack, \
    e.record_id, e.writer, e.writer_seq";
/// Of them, `checksum` and `writer`.
pub(super) const CHECKSUM: usize = 13;
const WRITER: usize = 23;

/// After them, where a query stands for itself: the checksum of the row above.
pub(super) const PREVIOUS: &str = "(SELECT p.checksum FROM audit_events p WHERE p.id = e.id - 1)";
pub(super) const PREV: usize = 25;

/// A row of `writers`: UUID and service name.
pub(super) type Names = (String, String);

/// The rows of `writers` that rows of `audit_events` named so far, by key. Each is read in the transaction that reads the first row that names it.
#[derive(Default)]
pub(super) struct Writers(HashMap<i64, Names>);

impl Writers {
    /// The writer that `row` names.
    pub(super) fn of(&mut self, conn: &Connection, row: &Row<'_>) -> rusqlite::Result<Option<&Names>> {
        let Ok(key) = row.get_ref(WRITER)?.as_i64() else { return Ok(None) };
        let names = match self.0.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let text = |r: &Row<'_>, i| r.get_ref(i).map(|v| v.as_str().unwrap_or_default().to_owned());
                let found = conn
                    .prepare_cached("SELECT writer, service_name FROM writers WHERE id = ?1")?
                    .query_row([key], |r| Ok((text(r, 0)?, text(r, 1)?)))
                    .optional()?;
                match found {
                    Some(names) => new.insert(names),
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(names))
    }
}

/// A row's fields, or why it is no record.
pub(super) fn fields<'r>(
    row: &'r Row<'_>,
    writer: Option<&'r Names>,
    prev_hash: Option<&'r str>,
) -> Result<(Fields<'r>, &'r str), String> {
    let text = |i: usize, name: &str| -> Result<Option<&'r str>, String> {
        match row.get_ref(i).map_err(|e| e.to_string())? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(b) => std::str::from_utf8(b).map(Some).map_err(|_| format!("`{name}` is not UTF-8")),
            _ => Err(format!("`{name}` is not text")),
        }
    };
    let must = |i, name: &str| text(i, name)?.ok_or_else(|| format!("`{name}` is missing"));
    let number = |i: usize, name: &str| match row.get_ref(i).map_err(|e| e.to_string())? {
        ValueRef::Integer(n) => u64::try_from(n).map_err(|_| format!("`{name}` is negative")),
        _ => Err(format!("`{name}` is no integer")),
    };
    number(WRITER, "writer")?;
    let writer = writer.map(|w| w.0.as_str()).ok_or("`writer` names no row of `writers`")?;
    let f = Fields {
        seq: number(0, "id")?,
        timestamp: must(1, "timestamp")?,
        level: must(2, "level")?,
        event: must(3, "event")?,
        component: must(4, "component")?,
        original_output_file: must(5, "original_output_file")?,
        file_path: text(6, "file_path")?,
        old_value: text(7, "old_value")?,
        new_value: text(8, "new_value")?,
        user_agent: text(9, "user_agent")?,
        process_id: number(10, "process_id")?,
        process_name: must(11, "process_name")?,
        context: must(12, "context")?,
        created_at: must(14, "created_at")?,
        actor_id: text(15, "actor_id")?,
        actor_type: text(16, "actor_type")?,
        action: text(17, "action")?,
        outcome: text(18, "outcome")?,
        trace_id: text(19, "trace_id")?,
        span_id: text(20, "span_id")?,
        stack: text(21, "stack")?,
        record_id: must(22, "record_id")?,
        writer,
        writer_seq: number(24, "writer_seq")?,
        prev_hash,
    };
    Ok((f, must(CHECKSUM, "checksum")?))
}

/// What can be known of a row that has no fields.
pub(super) fn damage(row: &Row<'_>, writer: Option<&Names>, why: String) -> Damage {
    let text = |i: usize| row.get_ref(i).ok().and_then(|v| v.as_str().ok()).map(str::to_owned);
    let number = |i: usize| row.get_ref(i).ok().and_then(|v| v.as_i64().ok());
    let writer = writer.map(|w| w.0.clone());
    Damage {
        seq: number(0).and_then(|n| u64::try_from(n).ok()),
        why,
        checksum: text(CHECKSUM),
        writer: writer.zip(number(24).and_then(|n| u64::try_from(n).ok())),
    }
}
