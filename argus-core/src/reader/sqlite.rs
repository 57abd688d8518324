//! Reading an SQLite trail without touching its folder. SQLite would make or change `-shm`; so: with a `-shm` there, it is mapped read-only; without one and
//! without a `-wal`, the file is opened as immutable and watched for change; a `-wal` without `-shm` (a copy) is read from a private copy.

use std::collections::HashMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, params_from_iter};

use super::{About, Item, PAGE, Source, WriterRow, record_of};
use crate::canonical::Fields;
use crate::error::{ErrorKind, TrailError};
use crate::filter::Filter;
use crate::record::Record;
use crate::store::sqlite::{error, schema};
use crate::time::format_timestamp;

const COLUMNS: &str = "e.id, e.timestamp, e.level, e.event, e.component, e.original_output_file, e.file_path, e.old_value, e.new_value, e.user_agent, \
    e.process_id, e.process_name, e.context, e.checksum, e.created_at, e.actor_id, e.actor_type, e.action, e.outcome, e.trace_id, e.span_id, e.stack, \
    e.record_id, e.writer, e.writer_seq, (SELECT p.checksum FROM audit_events p WHERE p.id = e.id - 1)";

/// Rows of one step of a walk.
const STEP: i64 = 4096;

type Stamp = (u64, u64, i64, i64, u64);

struct State {
    conn: Connection,
    /// Set while the file is open as immutable: what it looked like then.
    stamp: Option<Stamp>,
    writers: HashMap<i64, (String, String)>,
    _copy: Option<PrivateCopy>,
}

pub(super) struct SqliteSource {
    path: PathBuf,
    state: Mutex<State>,
}

/// A folder that is removed with its value.
struct PrivateCopy(PathBuf);

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut p = path.as_os_str().to_owned();
    p.push(suffix);
    p.into()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let m = std::fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size()))
}

fn uri(path: &Path, options: &str) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut out = String::from("file:");
    for b in path.as_os_str().as_bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => out.push(char::from(*b)),
            _ => out.push_str(&format!("%{b:02x}")),
        }
    }
    out + "?" + options
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

    /// Runs `f` on a connection that saw one state of the file; again if a writer came while it was open as immutable.
    fn read<T>(&self, f: impl Fn(&mut State) -> rusqlite::Result<T>) -> Result<T, TrailError> {
        let mut state = self.lock();
        for _ in 0..20 {
            if let Some(before) = state.stamp
                && (stamp(&self.path) != Some(before) || beside(&self.path, "-wal").exists())
            {
                *state = connect(&self.path)?;
            }
            let result = f(&mut state);
            match state.stamp {
                // What was read may be a mixture: forget it, whatever it was.
                Some(before) if stamp(&self.path) != Some(before) || beside(&self.path, "-wal").exists() => {
                    *state = connect(&self.path)?
                }
                _ => match result {
                    Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                        std::thread::yield_now()
                    }
                    // The `-shm` went away under us: the last writer closed.
                    Err(e)
                        if state.stamp.is_none() && !beside(&self.path, "-shm").exists() && state._copy.is_none() =>
                    {
                        let _ = e;
                        *state = connect(&self.path)?;
                    }
                    Err(e) => return Err(error("cannot read the audit database", &self.path, e)),
                    Ok(v) => return Ok(v),
                },
            }
        }
        Err(TrailError::new(ErrorKind::Busy, "the audit database kept changing while it was opened")
            .at(&self.path)
            .help("try again"))
    }
}

fn connect(path: &Path) -> Result<State, TrailError> {
    let err = |e| error("cannot open the audit database for reading", path, e);
    let full = path.canonicalize().map_err(|e| TrailError::io("cannot resolve the trail's path", path, e))?;
    let wal = std::fs::metadata(beside(&full, "-wal")).is_ok_and(|m| m.len() > 0);
    let mut copy = None;
    let (target, options, watched) = if beside(&full, "-shm").exists() {
        (full.clone(), "mode=ro&readonly_shm=1", None)
    } else if wal {
        let private = private_copy(&full)?;
        let target = private.0.join("trail.db");
        copy = Some(private);
        (target, "mode=rw", None)
    } else {
        (full.clone(), "mode=ro&immutable=1", stamp(&full))
    };
    let flags = OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | if copy.is_some() { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let conn = Connection::open_with_flags(uri(&target, options), flags).map_err(err)?;
    conn.busy_timeout(std::time::Duration::from_secs(5)).map_err(err)?;
    for (option, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ] {
        conn.set_db_config(option, on).map_err(err)?;
    }
    conn.execute_batch(
        "PRAGMA mmap_size=0; PRAGMA cell_size_check=ON; PRAGMA query_only=ON; PRAGMA temp_store=MEMORY;",
    )
    .map_err(err)?;
    Ok(State { conn, stamp: watched, writers: HashMap::new(), _copy: copy })
}

/// Copies a database and its `-wal` aside. No process has it open, since there is no `-shm`.
fn private_copy(path: &Path) -> Result<PrivateCopy, TrailError> {
    let dir = std::env::temp_dir().join(format!("argus-read-{}", crate::id::WriterId::random()));
    let err = |e| TrailError::io("cannot copy the audit database aside for reading", &dir, e);
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(err)?;
    let copy = PrivateCopy(dir.clone());
    std::fs::copy(path, dir.join("trail.db")).map_err(err)?;
    std::fs::copy(beside(path, "-wal"), dir.join("trail.db-wal")).map_err(err)?;
    Ok(copy)
}

/// A row's fields, or why it is no record.
fn fields<'r>(row: &'r Row<'_>, writers: &'r HashMap<i64, (String, String)>) -> Result<(Fields<'r>, &'r str), String> {
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
        prev_hash: text(25, "checksum of the row before")?,
    };
    Ok((f, must(13, "checksum")?))
}

impl State {
    /// Loads the writers again: a row may name one that came since.
    fn load_writers(&mut self) -> rusqlite::Result<()> {
        let mut s = self.conn.prepare_cached("SELECT id, writer, service_name FROM writers")?;
        let rows = s.query_map([], |r| Ok((r.get(0)?, (r.get(1)?, r.get(2)?))))?;
        self.writers = rows.collect::<rusqlite::Result<_>>()?;
        Ok(())
    }
}

impl Source for SqliteSource {
    fn walk(&self, after: u64, visit: &mut dyn FnMut(Item<'_>) -> bool) -> Result<(), TrailError> {
        let sql = format!("SELECT {COLUMNS} FROM audit_events e WHERE e.id > ?1 ORDER BY e.id LIMIT ?2");
        let mut after = i64::try_from(after).unwrap_or(i64::MAX);
        let visit = std::cell::RefCell::new(visit);
        // Owned rows of one step, so that a step that must be read again was not shown yet.
        loop {
            let step = self.read(|state| {
                state.load_writers()?;
                let State { conn, writers, .. } = state;
                let mut s = conn.prepare_cached(&sql)?;
                let mut rows = s.query((after, STEP))?;
                let watched = state.stamp.is_some();
                let mut owned: Vec<Owned> = Vec::new();
                let (mut n, mut last, mut go_on) = (0, after, true);
                while let Some(row) = rows.next()? {
                    n += 1;
                    last = row.get(0)?;
                    let item = fields(row, writers);
                    if watched {
                        owned.push(Owned::of(u64::try_from(last).unwrap_or(0), item));
                    } else {
                        go_on = match item {
                            Ok((f, sum)) => (visit.borrow_mut())(Item::Row(&f, sum)),
                            Err(e) => (visit.borrow_mut())(Item::Damage(u64::try_from(last).unwrap_or(0), e)),
                        };
                        if !go_on {
                            break;
                        }
                    }
                }
                Ok((n, last, owned, go_on))
            })?;
            let (n, last, owned, mut go_on) = step;
            for o in &owned {
                go_on = go_on && o.show(&mut *visit.borrow_mut());
            }
            after = last;
            if n < STEP || !go_on {
                return Ok(());
            }
        }
    }

    fn page(&self, filter: &Filter, cursor: Option<u64>) -> Result<(Vec<Record>, bool), TrailError> {
        let want = filter.limit.unwrap_or(usize::MAX).min(PAGE);
        let (conditions, values) = conditions(filter);
        let (compare, order, start) = match (filter.newest_first, cursor) {
            (true, c) => ("<", "DESC", c.and_then(|c| i64::try_from(c).ok()).unwrap_or(i64::MAX)),
            (false, c) => (">", "ASC", c.and_then(|c| i64::try_from(c).ok()).unwrap_or(0)),
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM audit_events e WHERE e.id {compare} {start}{conditions} ORDER BY e.id {order}"
        );
        self.read(|state| {
            state.load_writers()?;
            let mut s = state.conn.prepare(&sql)?;
            let mut rows = s.query(params_from_iter(values.iter()))?;
            let mut records = Vec::new();
            while records.len() < want {
                let Some(row) = rows.next()? else { break };
                let Ok((f, sum)) = fields(row, &state.writers) else { continue };
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

    fn check_structure(&self) -> Result<Vec<(&'static str, String)>, TrailError> {
        self.read(|state| {
            let mut found: Vec<(&'static str, String)> =
                schema::differences(&state.conn)?.into_iter().map(|d| ("schema", d)).collect();
            let mut s = state.conn.prepare("PRAGMA integrity_check(20)")?;
            let rows = s.query_map([], |r| r.get::<_, String>(0))?;
            for row in rows {
                match row {
                    Ok(t) if t == "ok" => {}
                    Ok(t) => found.push(("integrity", t)),
                    Err(e) => found.push(("integrity", e.to_string())),
                }
            }
            Ok(found)
        })
    }

    fn about(&self, last: u64) -> Result<Option<About>, TrailError> {
        self.read(|state| {
            let c = &state.conn;
            c.execute_batch("BEGIN")?;
            let result = (|| {
                let newest: Option<u64> = c.query_row("SELECT max(id) FROM audit_events", [], |r| r.get(0))?;
                if newest.unwrap_or(0) > last {
                    return Ok(None);
                }
                let (log_id, first_seq) =
                    c.query_row("SELECT log_id, first_seq FROM log_info", [], |r| Ok((r.get(0)?, r.get(1)?)))?;
                let mut s = c.prepare("SELECT id, writer, service_name, last_seq, closed FROM writers")?;
                let rows = s.query_map([], |r| {
                    Ok(WriterRow {
                        is_log: r.get::<_, i64>(0)? == 0,
                        writer: r.get(1)?,
                        service_name: r.get(2)?,
                        last_seq: r.get(3)?,
                        closed: r.get(4)?,
                    })
                })?;
                let writers = rows.collect::<rusqlite::Result<Vec<_>>>()?;
                let foreign_waiting = c.query_row("SELECT count(*) FROM foreign_events", [], |r| r.get(0))?;
                Ok(Some(About {
                    log_id: Some(log_id),
                    first_seq,
                    writers: Some(writers),
                    foreign_waiting,
                    unfinished: 0,
                }))
            })();
            c.execute_batch("COMMIT")?;
            result
        })
    }
}

/// What of a filter SQLite can decide. The rest, and all of it once more, is decided by `Filter::matches`.
fn conditions(filter: &Filter) -> (String, Vec<String>) {
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

/// A row kept, as its JSONL line, until the step it came from is known to be good.
enum Owned {
    Line(u64, String),
    Damage(u64, String),
}

impl Owned {
    fn of(seq: u64, item: Result<(Fields<'_>, &str), String>) -> Self {
        match item {
            Ok((f, sum)) => {
                let mut line = Vec::new();
                crate::canonical::write_line(&f, sum, &mut line);
                Owned::Line(seq, String::from_utf8(line).unwrap_or_default())
            }
            Err(e) => Owned::Damage(seq, e),
        }
    }

    fn show(&self, visit: &mut dyn FnMut(Item<'_>) -> bool) -> bool {
        match self {
            Owned::Line(seq, line) => match crate::line::Line::parse(line) {
                Ok(l) => visit(Item::Row(&l.fields(), l.checksum())),
                Err(e) => visit(Item::Damage(*seq, e)),
            },
            Owned::Damage(seq, e) => visit(Item::Damage(*seq, e.clone())),
        }
    }
}
