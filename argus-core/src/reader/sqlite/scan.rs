//! A query over an SQLite trail, step by step: each page is one short read transaction over a bounded number of rows, in order of `id`, so that nothing is ever
//! sorted or held, and a writer's WAL can be checkpointed between two pages.

use std::cell::Cell;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::rows::{COLUMNS, PREV, PREVIOUS, fields};
use super::{STEP, SqliteSource, State, disordered, is_too_big, number};
use crate::error::TrailError;
use crate::filter::Filter;
use crate::form::record_of;
use crate::reader::source::{Page, Scan};
use crate::time::format_timestamp;

/// Entries of the index on `timestamp` that are looked at to find where a `since` begins.
const ENTRIES: i64 = 1_000_000;
const BEGINNING: &str = "SELECT count(*), min(id) FROM (SELECT id FROM audit_events WHERE timestamp >= ?1 LIMIT ?2)";

/// How a filter's rows are found.
struct Plan {
    sql: String,
    /// The positions of the rows that `sql` would look at.
    ids: String,
    /// The values of `?3` and on; `?1` and `?2` are the ends of a range of `id`.
    values: Vec<Value>,
    /// By a partial index, which has the rows of one file or trace in order of `id`; else by ranges of `id`.
    indexed: bool,
}

/// What of a filter SQLite decides. The rest, and all of it once more, is decided by `Filter::matches`.
///
/// A `+` before a column keeps SQLite from choosing its index: the rows would have to be sorted.
fn plan(filter: &Filter) -> Plan {
    let (mut conditions, mut values) = (String::from("e.id BETWEEN ?1 AND ?2"), Vec::new());
    let indexed = match (&filter.trace, &filter.file) {
        (Some(trace), _) => Some(("e.trace_id", trace)),
        (None, Some(file)) => Some(("e.file_path", file)),
        (None, None) => None,
    };
    if let Some((column, value)) = indexed {
        // Only the index decides, so that the rows looked at are bounded by those that come.
        values.push(Value::from(value.clone()));
        conditions.push_str(&format!(" AND {column} = ?3"));
    }
    let order = if filter.newest_first { "DESC" } else { "ASC" };
    let ids = format!("SELECT e.id FROM audit_events e WHERE {conditions} ORDER BY e.id {order} LIMIT {STEP}");
    if indexed.is_none() {
        let mut and = |condition: &str, value: String| {
            values.push(Value::from(value));
            conditions.push_str(&format!(" AND +e.{condition} ?{}", values.len() + 2));
        };
        // Beyond the years that a record can have, the text is empty.
        for (condition, time) in [("timestamp >=", filter.since), ("timestamp <", filter.until)] {
            if let Some(text) = time.map(format_timestamp).filter(|t| !t.is_empty()) {
                and(condition, text);
            }
        }
        for (condition, value) in
            [("event =", &filter.event), ("component =", &filter.component), ("actor_id =", &filter.actor)]
        {
            if let Some(v) = value {
                and(condition, v.clone());
            }
        }
        if let Some(level) = filter.min_level {
            let words: Vec<String> =
                crate::Level::ALL.iter().filter(|l| **l >= level).map(|l| format!("'{l}'")).collect();
            conditions.push_str(&format!(" AND +e.level IN ({})", words.join(",")));
        }
        if let Some(pid) = filter.pid {
            conditions.push_str(&format!(" AND +e.process_id = {pid}"));
        }
    }
    let sql = format!(
        "SELECT {COLUMNS}, {PREVIOUS} FROM audit_events e \
         WHERE {conditions} ORDER BY e.id {order} LIMIT {STEP}"
    );
    Plan { sql, ids, values, indexed: indexed.is_some() }
}

/// Positions that are still to be looked at, both ends included; none: all are.
type Range = Option<(i64, i64)>;

pub(super) struct SqliteScan<'s> {
    source: &'s SqliteSource,
    filter: Filter,
    plan: Plan,
    left: Range,
    /// Oldest first: the position up to which everything was looked at.
    position: i64,
    /// Whether the beginning of `since` was looked for.
    narrowed: bool,
}

impl<'s> SqliteScan<'s> {
    pub(super) fn new(source: &'s SqliteSource, filter: Filter) -> Self {
        let position = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
        let left = match filter.after {
            None => Some((1, i64::MAX)),
            Some(c) if filter.newest_first => (c > 1).then(|| (1, position(c - 1))),
            Some(c) => position(c).checked_add(1).map(|low| (low, i64::MAX)),
        };
        let (plan, narrowed) = (plan(&filter), filter.since.is_none());
        let position = filter.after.map_or(0, position);
        Self { source, filter, plan, left, position, narrowed }
    }
}

impl Scan for SqliteScan<'_> {
    fn page(&mut self, want: usize) -> Result<Page, TrailError> {
        let Some(range) = self.left else { return Ok(Page::default()) };
        let Self { source, filter, plan, narrowed, .. } = self;
        let (page, left) = source.read(|state| step(state, filter, plan, range, want))?;
        let left = match left {
            // Nothing met the filter here: the index tells where `since` begins, if that is not far too long ago.
            Some((low, high)) if page.records.is_empty() && page.more && !*narrowed && !plan.indexed => {
                *narrowed = true;
                let since = filter.since.map(format_timestamp).unwrap_or_default();
                let begin = source.read(|state| beginning(&state.conn, &since))?;
                let low = low.max(begin.unwrap_or(low));
                (low <= high).then_some((low, high))
            }
            left => left,
        };
        if !self.filter.newest_first {
            self.position = left.map_or(i64::MAX, |(low, _)| low - 1);
        }
        self.left = left;
        Ok(Page { more: page.more && left.is_some(), ..page })
    }

    fn position(&self) -> u64 {
        u64::try_from(self.position).unwrap_or(0)
    }
}

/// The lowest position of a record of this time or later, or the position after the last record; none if there are too many such records to look.
fn beginning(conn: &Connection, since: &str) -> rusqlite::Result<Option<i64>> {
    let tx = conn.unchecked_transaction()?;
    let (count, lowest): (i64, Option<i64>) =
        tx.query_row(BEGINNING, (since, ENTRIES), |r| Ok((r.get(0)?, r.get(1)?)))?;
    let end = number(&tx, "SELECT max(id) FROM audit_events", [])?;
    Ok((count < ENTRIES).then(|| lowest.unwrap_or_else(|| end.unwrap_or(0).saturating_add(1))))
}

/// One page, and what is left after it.
fn step(
    state: &mut State,
    filter: &Filter,
    plan: &Plan,
    (low, high): (i64, i64),
    want: usize,
) -> rusqlite::Result<(Page, Range)> {
    let State { conn, writers, .. } = state;
    let tx = conn.unchecked_transaction()?;
    let down = filter.newest_first;
    let seek = |sql, params: (i64, i64)| number(&tx, sql, params);
    // Gaps are jumped over: the range begins at a record.
    let first = if down {
        seek("SELECT max(id) FROM audit_events WHERE id BETWEEN ?1 AND ?2", (low, high))?
    } else {
        seek("SELECT min(id) FROM audit_events WHERE id BETWEEN ?1 AND ?2", (low, high))?
    };
    let Some(first) = first else { return Ok((Page::default(), Some((low, high)))) };
    let (from, to) = match (plan.indexed, down) {
        (true, true) => (low, first),
        (true, false) => (first, high),
        (false, true) => (first.saturating_sub(STEP - 1).max(low), first),
        (false, false) => (first, first.saturating_add(STEP - 1).min(high)),
    };
    let mut page = Page { more: true, ..Page::default() };
    // Rows that were looked at, and the last of them.
    let (looked, last) = (Cell::new(0), Cell::new(None));
    // Whether the page is full.
    let mut look = |page: &mut Page, row: &Row<'_>| -> rusqlite::Result<bool> {
        let id: i64 = row.get(0)?;
        if last.get().is_some_and(|l| if down { id >= l } else { id <= l }) {
            return Err(disordered());
        }
        looked.set(looked.get() + 1);
        last.set(Some(id));
        let writer = writers.of(&tx, row)?;
        let prev = row.get_ref(PREV)?.as_str_or_null().ok().flatten();
        match fields(row, writer, prev).and_then(|(f, sum)| record_of(&f, Some(sum))) {
            Ok(r) if filter.matches(&r, writer.map_or("", |w| w.1.as_str())) => page.records.push(r),
            Ok(_) => {}
            Err(_) => page.damaged += 1,
        }
        Ok(page.records.len() >= want)
    };
    let ends: Vec<Value> = [from.into(), to.into()].into_iter().chain(plan.values.iter().cloned()).collect();
    let read = |page: &mut Page, look: &mut dyn FnMut(&mut Page, &Row<'_>) -> rusqlite::Result<bool>| {
        let mut statement = tx.prepare_cached(&plan.sql)?;
        let mut rows = statement.query(params_from_iter(&ends))?;
        while let Some(row) = rows.next()? {
            if look(page, row)? {
                break;
            }
        }
        Ok(())
    };
    match read(&mut page, &mut look) {
        Err(e) if is_too_big(&e) => {
            // From the beginning: SQLite may have been on any row after the last.
            page = Page { more: true, ..Page::default() };
            looked.set(0);
            last.set(None);
            let mut skip = |page: &mut Page, id| {
                page.damaged += 1;
                looked.set(looked.get() + 1);
                last.set(Some(id));
            };
            one_by_one(&tx, plan, &ends, &mut page, &mut look, &mut skip)?;
        }
        done => done?,
    }
    // Positions that no record has yet are looked at when one has.
    let end = if page.records.len() >= want || looked.get() >= STEP {
        last.get().unwrap_or(first)
    } else if down {
        from
    } else {
        seek("SELECT max(id) FROM audit_events WHERE id BETWEEN ?1 AND ?2", (from, to))?.unwrap_or(first)
    };
    Ok((page, rest(down, end, (low, high))))
}

/// What of a range is left once `end` was looked at.
fn rest(down: bool, end: i64, (low, high): (i64, i64)) -> Range {
    if down { (end > low).then(|| (low, end - 1)) } else { (end < high).then(|| (end + 1, high)) }
}

/// A page with a row that is too long to be read: that row alone is passed over.
fn one_by_one(
    conn: &Connection,
    plan: &Plan,
    ends: &[Value],
    page: &mut Page,
    look: &mut dyn FnMut(&mut Page, &Row<'_>) -> rusqlite::Result<bool>,
    skip: &mut dyn FnMut(&mut Page, i64),
) -> rusqlite::Result<()> {
    let mut ids = conn.prepare(&plan.ids)?;
    // Of a plan that goes by ranges, the other values decide nothing here.
    let used = ends.get(..ids.parameter_count()).unwrap_or(ends);
    let mut ids = ids.query(params_from_iter(used))?;
    let mut row = conn.prepare(&format!("SELECT {COLUMNS}, {PREVIOUS} FROM audit_events e WHERE e.id = ?1"))?;
    while let Some(id) = ids.next()? {
        let id: i64 = id.get(0)?;
        match row.query_row([id], |row| look(page, row)) {
            Ok(true) => break,
            Err(e) if is_too_big(&e) => skip(page, id),
            done => drop(done?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
