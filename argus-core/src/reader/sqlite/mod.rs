//! Reading an SQLite trail: `open` opens it without touching its folder, `rows` turns rows into fields; here is the walk over a file that others write to.

mod open;
mod rows;
mod scan;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rusqlite::{Connection, OptionalExtension, Params};

use super::source::{About, Damage, End, Ends, Item, Links, Origin, Scan, Source, Walked, WriterRow};
use crate::error::{ErrorKind, TrailError};
use crate::filter::Filter;
use crate::form::record_of;
use crate::id::{RecordId, WriterId};
use crate::record::Record;
use crate::store::sqlite::{error, schema};
use crate::verify::Code;
use open::{Mode, State, beside, connect};
use rows::{CHECKSUM, COLUMNS, PREV, PREVIOUS, damage, fields};
use scan::SqliteScan;

/// Rows of one step of a walk: no read transaction lasts longer.
const STEP: i64 = 4096;
/// Times a read is tried while writers come and go.
const ATTEMPTS: usize = 20;

pub(super) struct SqliteSource {
    path: PathBuf,
    state: Mutex<State>,
}

impl SqliteSource {
    pub(super) fn open(path: &Path) -> Result<Self, TrailError> {
        // Once: `-wal` and `-shm` stand beside the file itself, not beside a link to it.
        let full = path.canonicalize().map_err(|e| TrailError::io("cannot resolve the trail's path", path, e))?;
        let state = connect(&full)?;
        let source = Self { path: full, state: Mutex::new(state) };
        match source.read(|state| schema::kind(&state.conn)) {
            // `verify` can say more.
            Err(e) if e.kind() == ErrorKind::Damaged => Ok(source),
            kind => schema::check_kind(&kind?, path).map(|()| source),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Runs `f` on a connection that saw one state of the file; again if a writer came while it was open as immutable. `f` may run more than once.
    fn read<T>(&self, mut f: impl FnMut(&mut State) -> rusqlite::Result<T>) -> Result<T, TrailError> {
        for _ in 0..ATTEMPTS {
            if let (Some(value), false) = self.read_once(&mut f)? {
                return Ok(value);
            }
        }
        Err(self.restless())
    }

    /// Runs `f` once; no value if it is worth another try. The flag says that the file was changed under `f`, so that nothing it saw is worth anything.
    fn read_once<T>(
        &self,
        f: &mut impl FnMut(&mut State) -> rusqlite::Result<T>,
    ) -> Result<(Option<T>, bool), TrailError> {
        let mut state = self.lock();
        if state.is_stale(&self.path) {
            *state = connect(&self.path)?;
        }
        let result = f(&mut state);
        if state.is_worthless(&self.path) {
            *state = connect(&self.path)?;
            return Ok((None, true));
        }
        match result {
            Ok(v) => Ok((Some(v), false)),
            Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                std::thread::yield_now();
                Ok((None, false))
            }
            // The `-shm` went away under us: the last writer closed.
            Err(_) if matches!(state.mode, Mode::Shared(_)) && !beside(&self.path, "-shm").exists() => {
                *state = connect(&self.path)?;
                Ok((None, false))
            }
            Err(e) if is_too_big(&e) || is_wrong_type(&e) => {
                Err(TrailError::new(ErrorKind::Damaged, "the audit database holds a cell that Argus did not write")
                    .at(&self.path)
                    .help("run `argus verify`")
                    .because(e))
            }
            Err(e) => Err(error("cannot read the audit database", &self.path, e)),
        }
    }

    fn restless(&self) -> TrailError {
        TrailError::new(ErrorKind::Busy, "the audit database kept changing while it was read")
            .at(&self.path)
            .help("try again")
    }
}

/// The first cell of the first row, if it is a number.
fn number<P: Params>(conn: &Connection, sql: &str, params: P) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(sql)?.query_row(params, |r| Ok(r.get_ref(0)?.as_i64().ok())).optional().map(Option::flatten)
}

/// Whether a cell was longer than `open` lets through.
fn is_too_big(e: &rusqlite::Error) -> bool {
    e.sqlite_error_code() == Some(rusqlite::ErrorCode::TooBig)
}

fn is_wrong_type(e: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    matches!(
        e,
        E::InvalidColumnType(..) | E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) | E::Utf8Error(..)
    )
}

/// A table whose rows do not stand in order of their keys, which no honest table does: a page that is its own descendant never ends.
fn disordered() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some("rows do not stand in order of their keys".into()),
    )
}

impl Source for SqliteSource {
    fn check_structure(&self) -> Result<Vec<(Code, String)>, TrailError> {
        self.read(|state| {
            let tx = state.conn.unchecked_transaction()?;
            let c = &*tx;
            let mut found: Vec<(Code, String)> =
                schema::differences(c)?.into_iter().chain(misnamed(c)?).map(|d| (Code::Schema, d)).collect();
            let mut expect = |sql: &str, wanted: i64, code: Code, what: &str| {
                // A table that is missing is among the differences already.
                if !number(c, sql, []).is_ok_and(|n| n == Some(wanted)) {
                    found.push((code, what.into()));
                }
            };
            expect(
                "SELECT count(*) = 1 AND min(version) = 3 FROM (SELECT version FROM schema_info LIMIT 2)",
                1,
                Code::Schema,
                "schema_info has not the one row of version 3",
            );
            expect(
                "SELECT count(*) = 1 AND min(typeof(canonical) = 'integer' AND canonical = 1) AND min(typeof(first_seq) = 'integer' AND first_seq >= 1) \
                 AND min(typeof(log_id) = 'text') FROM (SELECT * FROM log_info LIMIT 2)",
                1,
                Code::Schema,
                "log_info has not one row with log_id, canonical 1 and first_seq",
            );
            expect("SELECT EXISTS (SELECT 1 FROM audit_events WHERE id < 1)", 0, Code::Gap, "records stand before position 1");
            let mut s = c.prepare("PRAGMA integrity_check(20)")?;
            let rows = s.query_map([], |r| r.get::<_, String>(0))?;
            for row in rows {
                match row {
                    Ok(t) if t == "ok" => {}
                    Ok(t) => found.push((Code::Integrity, t)),
                    Err(e) => found.push((Code::Integrity, e.to_string())),
                }
            }
            Ok(found)
        })
    }

    fn origin(&self) -> Result<Origin, TrailError> {
        self.read(|state| {
            let read = state.conn.query_row("SELECT log_id, first_seq FROM log_info", [], |r| {
                Ok((r.get_ref(0)?.as_str().ok().map(str::to_owned), r.get_ref(1)?.as_i64().ok()))
            });
            // Whatever is wrong with it, `check_structure` has told.
            let (log_id, first) = read.unwrap_or_default();
            let first_seq = first.and_then(|n| u64::try_from(n).ok()).unwrap_or(1).max(1);
            Ok(Origin { links: Links::Above, log_id, first_seq: Some(first_seq) })
        })
    }

    fn walk(&self, after: u64, visit: &mut dyn FnMut(Item<'_>) -> bool) -> Result<Walked, TrailError> {
        let mut at = At {
            sql: format!("SELECT {COLUMNS} FROM audit_events e WHERE e.id > ?1 ORDER BY e.id LIMIT ?2"),
            after: i64::try_from(after).unwrap_or(i64::MAX),
            prev: None,
            begun: false,
        };
        // Reset by each step that gets anywhere.
        let mut attempts = 0;
        while attempts < ATTEMPTS {
            let mut shown = 0;
            // A step that fails on its way goes on behind the last row that was shown.
            let (done, changed) = self.read_once(&mut |state| at.step(state, visit, &mut shown))?;
            if changed && shown > 0 {
                return Ok(Walked { changed: true, unfinished: 0 });
            }
            if done == Some(true) {
                return Ok(Walked::default());
            }
            attempts = if shown > 0 { 0 } else { attempts + 1 };
        }
        Err(self.restless())
    }

    fn about(&self, last: u64) -> Result<Option<About>, TrailError> {
        self.read(|state| {
            // One transaction, so that the records and the table are of one moment.
            let tx = state.conn.unchecked_transaction()?;
            about(&tx, last)
        })
    }

    fn ends(&self, writers: &[WriterId]) -> Result<Ends, TrailError> {
        self.read(|state| {
            let tx = state.conn.unchecked_transaction()?;
            ends(&tx, writers)
        })
    }

    fn scan(&self, filter: Filter) -> Box<dyn Scan + '_> {
        Box::new(SqliteScan::new(self, filter))
    }

    fn by_id(&self, id: RecordId) -> Result<Option<Record>, TrailError> {
        let (wanted, sql) = (id.to_string(), by_id_sql());
        self.read(|state| {
            let State { conn, writers, .. } = state;
            let tx = conn.unchecked_transaction()?;
            let mut statement = tx.prepare_cached(&sql)?;
            let mut rows = statement.query([&wanted])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let writer = writers.of(&tx, row)?;
            let prev = row.get_ref(PREV)?.as_str_or_null().ok().flatten();
            Ok(fields(row, writer, prev).and_then(|(f, sum)| record_of(&f, Some(sum))).ok())
        })
    }
}

/// Objects that stand in the schema by another type or name than in their own text, or that hide behind a name of SQLite's own.
fn misnamed(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut s = conn.prepare("SELECT type, name, sql FROM sqlite_schema")?;
    let mut rows = s.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (kind, name, sql): (String, String, Option<String>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let of_sqlite = name.to_ascii_lowercase().starts_with("sqlite_");
        let mut words = sql.as_deref().unwrap_or_default().split_ascii_whitespace().filter(|w| *w != "UNIQUE").skip(1);
        let named = words.next().is_some_and(|k| k.eq_ignore_ascii_case(&kind)) && words.next() == Some(&name);
        if of_sqlite && (kind == "trigger" || kind == "view") || !of_sqlite && !named {
            found.push(format!("{kind} `{name}` is not what its text says"));
        }
    }
    Ok(found)
}

fn by_id_sql() -> String {
    format!("SELECT {COLUMNS}, {PREVIOUS} FROM audit_events e WHERE e.record_id = ?1")
}

/// How far a walk has come.
struct At {
    sql: String,
    after: i64,
    /// Checksum of the row `after`.
    prev: Option<String>,
    begun: bool,
}

impl At {
    /// One read transaction of a walk; whether the walk is over.
    fn step(
        &mut self,
        state: &mut State,
        visit: &mut dyn FnMut(Item<'_>) -> bool,
        shown: &mut i64,
    ) -> rusqlite::Result<bool> {
        let State { conn, writers, .. } = state;
        let tx = conn.unchecked_transaction()?;
        if !self.begun && self.after > 0 {
            self.prev = tx
                .prepare_cached("SELECT checksum FROM audit_events WHERE id = ?1")?
                .query_row([self.after], |r| Ok(r.get_ref(0)?.as_str().ok().map(str::to_owned)))
                .optional()?
                .flatten();
        }
        self.begun = true;
        let mut statement = tx.prepare_cached(&self.sql)?;
        let mut rows = statement.query((self.after, STEP))?;
        loop {
            let row = match rows.next() {
                Err(e) if is_too_big(&e) => break,
                row => row?,
            };
            let Some(row) = row else { return Ok(*shown < STEP) };
            let id: i64 = row.get(0)?;
            if id <= self.after {
                return Err(disordered());
            }
            let adjacent = self.prev.as_deref().filter(|_| id == self.after + 1);
            let writer = writers.of(&tx, row)?;
            let go_on = match fields(row, writer, adjacent) {
                Ok((f, sum)) => visit(Item::Row(&f, sum)),
                Err(why) => visit(Item::Damage(damage(row, writer, why))),
            };
            (self.after, *shown) = (id, *shown + 1);
            match row.get_ref(CHECKSUM)?.as_str() {
                Ok(sum) => {
                    let prev = self.prev.get_or_insert_default();
                    prev.clear();
                    prev.push_str(sum);
                }
                Err(_) => self.prev = None,
            }
            if !go_on {
                return Ok(true);
            }
        }
        // The next row has a cell that is too long to be read.
        let next = number(&tx, "SELECT min(id) FROM audit_events WHERE id > ?1", [self.after])?;
        let Some(id) = next else { return Err(disordered()) };
        let why = "a cell is longer than any record".into();
        let damage = Damage { seq: u64::try_from(id).ok(), why, checksum: None, writer: None };
        (self.after, self.prev, *shown) = (id, None, *shown + 1);
        Ok(!visit(Item::Damage(damage)))
    }
}

fn ends(conn: &Connection, writers: &[WriterId]) -> rusqlite::Result<Ends> {
    let newest = number(conn, "SELECT max(id) FROM audit_events", [])?.unwrap_or(0);
    let mut ends = Ends { last_seq: u64::try_from(newest).unwrap_or(0), ..Ends::default() };
    if writers.is_empty() {
        return Ok(ends);
    }
    ends.log_id = conn
        .prepare_cached("SELECT log_id FROM log_info")?
        .query_row([], |r| Ok(r.get_ref(0)?.as_str().ok().and_then(WriterId::parse_exact)))
        .optional()?
        .flatten();
    let mut s = conn.prepare_cached("SELECT last_seq, closed FROM writers WHERE writer = ?1")?;
    for writer in writers {
        let number =
            |r: &rusqlite::Row<'_>, i| r.get_ref(i).map(|v| v.as_i64().ok().and_then(|n| u64::try_from(n).ok()));
        let found = s.query_row([writer.to_string()], |r| Ok((number(r, 0)?, number(r, 1)?))).optional()?;
        if let Some((last, closed)) = found {
            ends.writers.insert(*writer, End { last: last.unwrap_or(0), over: closed != Some(0) });
        }
    }
    Ok(ends)
}

fn about(conn: &Connection, last: u64) -> rusqlite::Result<Option<About>> {
    let newest = number(conn, "SELECT max(id) FROM audit_events", [])?.unwrap_or(0);
    let last_seq = u64::try_from(newest).unwrap_or(0);
    if last_seq > last {
        return Ok(None);
    }
    let mut s = conn.prepare_cached("SELECT id, writer, service_name, last_seq, closed FROM writers ORDER BY id")?;
    let mut rows = s.query([])?;
    let mut writers: Vec<WriterRow> = Vec::new();
    while let Some(row) = rows.next()? {
        let text = |i| row.get_ref(i).ok().and_then(|v| v.as_str().ok()).map(str::to_owned);
        let number = |i| row.get_ref(i).ok().and_then(|v| v.as_i64().ok());
        let id = row.get(0)?;
        if writers.last().is_some_and(|w| id <= w.id) {
            return Err(disordered());
        }
        let writer = text(1).unwrap_or_default();
        writers.push(WriterRow { id, writer, service_name: text(2), last_seq: number(3), closed: number(4) });
    }
    let foreign = number(conn, "SELECT count(*) FROM (SELECT 1 FROM foreign_events LIMIT 1000000)", [])?.unwrap_or(0);
    Ok(Some(About { last_seq, writers: Some(writers), foreign_waiting: u64::try_from(foreign).unwrap_or(0) }))
}
