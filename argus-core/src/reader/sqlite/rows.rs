//! Rows of `audit_events` as a record's fields, and filters as SQL.

use std::collections::HashMap;

use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::canonical::Fields;
use crate::filter::Filter;
use crate::reader::Damage;
use crate::time::format_timestamp;

/// The columns that `fields` takes, in its order.
pub(super) const COLUMNS: &str = "e.id, e.timestamp, e.level, e.event, e.component, e.original_output_file, e.file_path, e.old_value, e.new_value, e.user_agent, \
    e.process_id, e.process_name, e.context, e.checksum, e.created_at, e.actor_id, e.actor_type, e.action, e.outcome, e.trace_id, e.span_id, e.stack, \
    e.record_id, e.writer, e.writer_seq";

/// Key in `writers`: UUID and service name.
pub(super) type WriterNames = HashMap<i64, (String, String)>;

/// A row's fields, or why it is no record.
pub(super) fn fields<'r>(
    row: &'r Row<'_>,
    writers: &'r WriterNames,
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
    let key = i64::try_from(number(23, "writer")?).unwrap_or(-1);
    let writer = writers.get(&key).map(|w| w.0.as_str()).ok_or("`writer` names no row of `writers`")?;
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
    Ok((f, must(13, "checksum")?))
}

/// What can be known of a row that has no fields.
pub(super) fn damage(row: &Row<'_>, writers: &WriterNames, why: String) -> Damage {
    let text = |i: usize| row.get_ref(i).ok().and_then(|v| v.as_str().ok()).map(str::to_owned);
    let number = |i: usize| row.get_ref(i).ok().and_then(|v| v.as_i64().ok());
    let writer = number(23).and_then(|key| writers.get(&key)).map(|w| w.0.clone());
    Damage {
        seq: number(0).and_then(|n| u64::try_from(n).ok()),
        why,
        checksum: text(13),
        writer: writer.zip(number(24).and_then(|n| u64::try_from(n).ok())),
    }
}

/// What of a filter SQLite can decide. The rest, and all of it once more, is decided by `Filter::matches`.
pub(super) fn conditions(filter: &Filter) -> (String, Vec<String>) {
    let (mut sql, mut values) = (String::new(), Vec::new());
    let mut and = |condition: &str, value: String| {
        values.push(value);
        sql.push_str(&format!(" AND {condition} ?{}", values.len()));
    };
    if let Some(t) = filter.since {
        and("e.timestamp >=", format_timestamp(t));
    }
    if let Some(t) = filter.until {
        and("e.timestamp <", format_timestamp(t));
    }
    for (column, value) in [
        ("e.event =", &filter.event),
        ("e.component =", &filter.component),
        ("e.file_path =", &filter.file),
        ("e.actor_id =", &filter.actor),
        ("e.trace_id =", &filter.trace),
    ] {
        if let Some(v) = value {
            and(column, v.clone());
        }
    }
    if let Some(level) = filter.min_level {
        let words: Vec<String> = crate::Level::ALL.iter().filter(|l| **l >= level).map(|l| format!("'{l}'")).collect();
        sql.push_str(&format!(" AND e.level IN ({})", words.join(",")));
    }
    if let Some(pid) = filter.pid {
        sql.push_str(&format!(" AND e.process_id = {pid}"));
    }
    (sql, values)
}
