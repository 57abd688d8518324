//! Reading an SQLite trail: `open` opens it without touching its folder, `rows` turns rows into fields; here is the walk over a file that others write to.

mod open;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rusqlite::{OptionalExtension, Params, params_from_iter};

use super::{About, Item, Links, Origin, PAGE, Source, Walked, WriterRow};
use crate::error::{ErrorKind, TrailError};
use crate::filter::Filter;
use crate::form::record_of;
use crate::record::Record;
use crate::store::sqlite::{error, schema};
use crate::verify::Code;
use open::{State, beside, connect};
use rows::{COLUMNS, conditions, damage, fields};

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
        let state = connect(path)?;
        let err = |e| error("cannot read the audit database", path, e);
        schema::check_kind(&schema::kind(&state.conn).map_err(err)?, path)?;
        Ok(Self { path: path.into(), state: Mutex::new(state) })
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
        if state.is_stale(&self.path) {
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
            Err(_) if state.stamp.is_none() && state.copy.is_none() && !beside(&self.path, "-shm").exists() => {
                *state = connect(&self.path)?;
                Ok((None, false))
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

impl State {
    /// Loads the writers again: a row may name one that came since.
    fn load_writers(&mut self) -> rusqlite::Result<()> {
        let mut s = self.conn.prepare_cached("SELECT id, writer, service_name FROM writers")?;
        let text =
            |r: &rusqlite::Row<'_>, i| Ok::<_, rusqlite::Error>(r.get_ref(i)?.as_str().unwrap_or_default().to_owned());
        let rows = s.query_map([], |r| Ok((r.get(0)?, (text(r, 1)?, text(r, 2)?))))?;
        self.writers = rows.collect::<rusqlite::Result<_>>()?;
        Ok(())
    }

    fn number<P: Params>(&self, sql: &str, params: P) -> rusqlite::Result<Option<i64>> {
        self.conn.query_row(sql, params, |r| Ok(r.get_ref(0)?.as_i64().ok())).optional().map(Option::flatten)
    }
}

impl Source for SqliteSource {
    fn check_structure(&self) -> Result<Vec<(Code, String)>, TrailError> {
        self.read(|state| {
            let c = &state.conn;
            let mut found: Vec<(Code, String)> =
                schema::differences(c)?.into_iter().map(|d| (Code::Schema, d)).collect();
            let mut expect = |sql: &str, wanted: i64, code: Code, what: &str| {
                // A table that is missing is among the differences already.
                if !state.number(sql, []).is_ok_and(|n| n == Some(wanted)) {
                    found.push((code, what.into()));
                }
            };
            expect(
                "SELECT count(*) = 1 AND min(version) = 3 FROM schema_info",
                1,
                Code::Schema,
                "schema_info has not the one row of version 3",
            );
            expect(
                "SELECT count(*) = 1 AND min(typeof(canonical) = 'integer' AND canonical = 1) AND min(typeof(first_seq) = 'integer' AND first_seq >= 1) \
                 AND min(typeof(log_id) = 'text') FROM log_info",
                1,
                Code::Schema,
                "log_info has not one row with log_id, canonical 1 and first_seq",
            );
            expect("SELECT count(*) FROM audit_events WHERE id < 1", 0, Code::Gap, "records stand before position 1");
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
        let sql = format!("SELECT {COLUMNS} FROM audit_events e WHERE e.id > ?1 ORDER BY e.id LIMIT ?2");
        let mut after = i64::try_from(after).unwrap_or(i64::MAX);
        let mut prev: Option<String> = None;
        let mut first_step = true;
        // Reset by each step that gets anywhere.
        let mut attempts = 0;
        while attempts < ATTEMPTS {
            let mut shown = 0;
            // A step that fails on its way goes on behind the last row that was shown.
            let (done, changed) = self.read_once(&mut |state| {
                state.load_writers()?;
                if std::mem::take(&mut first_step) && after > 0 {
                    let mut s = state.conn.prepare_cached("SELECT checksum FROM audit_events WHERE id = ?1")?;
                    prev = s
                        .query_row([after], |r| Ok(r.get_ref(0)?.as_str().ok().map(str::to_owned)))
                        .optional()?
                        .flatten();
                }
                let mut s = state.conn.prepare_cached(&sql)?;
                let mut rows = s.query((after, STEP))?;
                while let Some(row) = rows.next()? {
                    let id: i64 = row.get(0)?;
                    let adjacent = prev.as_deref().filter(|_| id == after + 1);
                    let go_on = match fields(row, &state.writers, adjacent) {
                        Ok((f, sum)) => visit(Item::Row(&f, sum)),
                        Err(why) => visit(Item::Damage(damage(row, &state.writers, why))),
                    };
                    (after, shown) = (id, shown + 1);
                    match row.get_ref(13)?.as_str() {
                        Ok(sum) => {
                            let prev = prev.get_or_insert_default();
                            prev.clear();
                            prev.push_str(sum);
                        }
                        Err(_) => prev = None,
                    }
                    if !go_on {
                        return Ok(true);
                    }
                }
                Ok(shown < STEP)
            })?;
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
            state.conn.execute_batch("BEGIN")?;
            let about = state.about(last);
            state.conn.execute_batch("COMMIT")?;
            about
        })
    }

    fn page(&self, filter: &Filter, cursor: Option<u64>) -> Result<(Vec<Record>, bool), TrailError> {
        let want = filter.limit.unwrap_or(usize::MAX).min(PAGE);
        let (conditions, values) = conditions(filter);
        let (compare, order, start) = match (filter.newest_first, cursor) {
            (true, c) => ("<", "DESC", c.and_then(|c| i64::try_from(c).ok()).unwrap_or(i64::MAX)),
            (false, c) => (">", "ASC", c.and_then(|c| i64::try_from(c).ok()).unwrap_or(0)),
        };
        let sql = format!(
            "SELECT {COLUMNS}, (SELECT p.checksum FROM audit_events p WHERE p.id = e.id - 1) FROM audit_events e \
             WHERE e.id {compare} {start}{conditions} ORDER BY e.id {order}"
        );
        self.read(|state| {
            state.load_writers()?;
            let mut s = state.conn.prepare(&sql)?;
            let mut rows = s.query(params_from_iter(values.iter()))?;
            let mut records = Vec::new();
            while records.len() < want {
                let Some(row) = rows.next()? else { break };
                let prev = row.get_ref(25)?.as_str_or_null().ok().flatten();
                let Ok((f, sum)) = fields(row, &state.writers, prev) else { continue };
                let service = state.writers.values().find(|w| w.0 == f.writer).map_or("", |w| w.1.as_str());
                if let Ok(r) = record_of(&f, Some(sum))
                    && filter.matches(&r, service)
                {
                    records.push(r);
                }
            }
            let more = records.len() == want;
            Ok((records, more))
        })
    }
}

impl State {
    fn about(&self, last: u64) -> rusqlite::Result<Option<About>> {
        let newest = self.number("SELECT max(id) FROM audit_events", [])?.unwrap_or(0);
        let last_seq = u64::try_from(newest).unwrap_or(0);
        if last_seq > last {
            return Ok(None);
        }
        let mut s = self.conn.prepare_cached("SELECT id, writer, service_name, last_seq, closed FROM writers")?;
        let rows = s.query_map([], |r| {
            let text = |i| r.get_ref(i).ok().and_then(|v| v.as_str().ok()).map(str::to_owned);
            let number = |i| r.get_ref(i).ok().and_then(|v| v.as_i64().ok());
            Ok(WriterRow {
                id: r.get(0)?,
                writer: text(1).unwrap_or_default(),
                service_name: text(2),
                last_seq: number(3),
                closed: number(4),
            })
        })?;
        let writers = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        let foreign = self.number("SELECT count(*) FROM foreign_events", [])?.unwrap_or(0);
        Ok(Some(About { last_seq, writers: Some(writers), foreign_waiting: u64::try_from(foreign).unwrap_or(0) }))
    }
}
