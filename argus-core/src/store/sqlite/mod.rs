//! The SQLite store. One connection on the writer thread; every transaction is `BEGIN IMMEDIATE` and reads the head it appends to, so any number of processes
//! share one database. Triggers and views of the file never run on this connection. Format: `docs/record-format.md`, section 5.

mod rows;
pub(crate) mod schema;
mod wal;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::ffi::SQLITE_READONLY_ROLLBACK;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::place::{self, Access};
use super::{Backlog, Closed, Ends, ForeignRow, Head, Insert, Store};
use crate::canonical::Fields;
use crate::error::{ErrorKind, TrailError};
use crate::id::{Checksum, RecordId, WriterId};

/// SQLite before this loses committed transactions in a race of checkpoints (the WAL-reset bug).
const OLDEST_SQLITE: i32 = 3_051_003;
/// The longest wait for another process's transaction, or for a reader of this process.
const BUSY: Duration = Duration::from_secs(10);
/// The WAL is cut back to this once it was larger.
const WAL_BYTES: i64 = 16 << 20;

pub(crate) struct SqliteStore {
    conn: Option<Connection>,
    path: PathBuf,
    writer: WriterId,
    /// Key of this writer in `writers`.
    key: i64,
    service: String,
    /// Zero until the first connection.
    log_id: WriterId,
    log_text: String,
    open: bool,
    /// The file that the first connection found, and its bytes, as a transaction last saw them.
    file: place::Seen,
    /// Bytes of a file that was cut.
    cut: Option<u64>,
    log: wal::Log,
}

/// Turns an SQLite failure into what happened, where, and what to do.
pub(crate) fn error(what: &str, path: &Path, e: rusqlite::Error) -> TrailError {
    let (kind, help) = match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Busy, "another program holds the database locked")
        }
        Some(ErrorCode::DiskFull) => (ErrorKind::DiskFull, "free some space"),
        // There is no room for its `-shm`.
        _ if e.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => {
            (ErrorKind::DiskFull, "free some space")
        }
        Some(ErrorCode::ReadOnly) => (ErrorKind::ReadOnly, "make the file, its directory and its file system writable"),
        Some(ErrorCode::NotADatabase) => (ErrorKind::NotATrail, "the file is no SQLite database; name another"),
        Some(ErrorCode::DatabaseCorrupt) => {
            (ErrorKind::Damaged, "keep a copy of the file and its -wal, and run `argus verify` on it")
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            (ErrorKind::PermissionDenied, "check owner and mode")
        }
        // SQLite cannot make its `-shm` there.
        Some(ErrorCode::CannotOpen) if place::is_read_only(path) => {
            (ErrorKind::ReadOnly, "the file system is mounted read-only")
        }
        Some(ErrorCode::CannotOpen) => {
            (ErrorKind::PermissionDenied, "check owner and mode of the file and of its directory")
        }
        _ => (ErrorKind::Io, ""),
    };
    TrailError::new(kind, what).at(path).help(help).because(e)
}

thread_local!(static WAITING_SINCE: Cell<Option<Instant>> = const { Cell::new(None) });

/// Waits a little longer each time, with jitter so that waiting processes do not march in step, up to a total deadline.
fn busy(count: i32) -> bool {
    let now = Instant::now();
    let since = if count == 0 { now } else { WAITING_SINCE.get().unwrap_or(now) };
    WAITING_SINCE.set(Some(since));
    if now.duration_since(since) > BUSY {
        return false;
    }
    let jitter = u64::from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos()) % 97,
    );
    let micros = (100 << count.clamp(0, 6)) + jitter * 10;
    std::thread::sleep(Duration::from_micros(micros));
    true
}

impl SqliteStore {
    pub(crate) fn open(path: &Path, access: Access, writer: WriterId, service: &str) -> Result<Self, TrailError> {
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(TrailError::new(
                ErrorKind::Config,
                format!("SQLite {} can lose committed records", rusqlite::version()),
            )
            .help("build with rusqlite's feature `bundled`, or link SQLite 3.51.3 or newer"));
        }
        crate::fork::refuse(path)?;
        let (path, created) = place::prepare(path, access)?;
        place::check_file_system(&path)?;
        if !created {
            refuse_other_files(&path)?;
        }
        let mut store = Self {
            conn: None,
            path,
            writer,
            key: 0,
            service: service.into(),
            log_id: WriterId([0; 16]),
            log_text: String::new(),
            open: false,
            file: place::Seen::default(),
            cut: None,
            log: wal::Log::default(),
        };
        store.file =
            place::seen(&store.path).map_err(|e| TrailError::io("cannot look at the trail's file", &store.path, e))?;
        store.log.path = store.beside("-wal");
        store.connect()?;
        Ok(store)
    }

    fn err(&self, what: &'static str) -> impl Fn(rusqlite::Error) -> TrailError + use<> {
        let path = self.path.clone();
        move |e| error(what, &path, e)
    }

    /// Connects; what is busy is waited for here, too: SQLite does not ask the handler at each step of an opening (the switch to WAL, the recovery of one).
    fn connect(&mut self) -> Result<(), TrailError> {
        let since = Instant::now();
        loop {
            match self.try_connect() {
                Err(e) if e.kind() == ErrorKind::Busy && since.elapsed() < BUSY => {
                    std::thread::sleep(Duration::from_micros(500 + u64::from(std::process::id() % 97) * 10));
                }
                result => return result,
            }
        }
    }

    fn try_connect(&mut self) -> Result<(), TrailError> {
        let err = self.err("cannot open the audit database");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        self.wait_for_old_log()?;
        self.look_first()?;
        let mut conn = Connection::open_with_flags(&self.path, flags).map_err(&err)?;
        conn.busy_handler(Some(busy)).map_err(&err)?;
        for (option, on) in [
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
            (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
            (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
            // A connection that is given up does not believe its log, or its file, any more, and copies nothing from one into the other. See `close`.
            (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
        ] {
            conn.set_db_config(option, on).map_err(&err)?;
        }
        // `secure_delete`: an adopted row may have held a secret, which its record does not.
        conn.execute_batch(
            "PRAGMA mmap_size=0; PRAGMA cell_size_check=ON; PRAGMA foreign_keys=OFF; PRAGMA secure_delete=ON;",
        )
        .map_err(&err)?;
        let mode: String = conn.query_row("PRAGMA journal_mode=WAL", [], |r| r.get(0)).map_err(&err)?;
        if mode != "wal" {
            return Err(TrailError::new(
                ErrorKind::ReadOnly,
                format!("the audit database stays in journal mode `{mode}`"),
            )
            .at(&self.path)
            .help("make the file and its directory writable"));
        }
        conn.execute_batch(&format!("PRAGMA synchronous=FULL; PRAGMA fullfsync=ON; PRAGMA checkpoint_fullfsync=ON; PRAGMA journal_size_limit={WAL_BYTES};"))
            .map_err(&err)?;
        let sync: i64 = conn.query_row("PRAGMA synchronous", [], |r| r.get(0)).map_err(&err)?;
        if sync != 2 {
            return Err(TrailError::new(
                ErrorKind::Config,
                format!("SQLite keeps synchronous={sync}, so commits would not survive power loss"),
            )
            .at(&self.path));
        }
        conn.set_prepared_statement_cache_capacity(32);
        let log_id = schema::create_or_check(&conn, &self.path)?;
        if self.log_id != WriterId([0; 16]) && self.log_id != log_id {
            return Err(place::replaced(&self.path));
        }
        // Where a sync of the switch fails, SQLite says `wal` all the same, and goes on without one.
        if place::seen(&self.log.path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            return Err(TrailError::new(ErrorKind::Io, "the audit database was not switched to a write-ahead log")
                .at(&self.path)
                .help("it is tried again; look for errors of the disk"));
        }
        self.log_id = log_id;
        self.log_text = self.log_id.to_string();
        self.conn = Some(conn);
        self.log_opened();
        Ok(())
    }

    /// Refuses what is no trail of ours before anything about it changes: already the switch to WAL writes to the file.
    fn look_first(&self) -> Result<(), TrailError> {
        let err = self.err("cannot look at the audit database");
        if rustix::fs::stat(&self.path).is_ok_and(|s| s.st_size == 0) {
            return Ok(());
        }
        let look = |access: OpenFlags| -> rusqlite::Result<schema::Kind> {
            let flags = access
                | OpenFlags::SQLITE_OPEN_NOFOLLOW
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
                | OpenFlags::SQLITE_OPEN_EXRESCODE;
            let mut conn = Connection::open_with_flags(&self.path, flags)?;
            conn.busy_handler(Some(busy))?;
            schema::kind(&conn)
        };
        let kind = match look(OpenFlags::SQLITE_OPEN_READ_ONLY) {
            // Power was lost while the database was made: what it is shows only after the rollback, which any program that opens it does.
            Err(e) if e.sqlite_error().is_some_and(|e| e.extended_code == SQLITE_READONLY_ROLLBACK) => {
                look(OpenFlags::SQLITE_OPEN_READ_WRITE)
            }
            kind => kind,
        };
        match kind.map_err(&err)? {
            // It had a log: what made that stood in a write-ahead log that is gone.
            schema::Kind::Empty if self.log_id != WriterId([0; 16]) => Err(place::replaced(&self.path)),
            // Another process is about to make it.
            schema::Kind::Empty => Ok(()),
            kind => schema::check_kind(&kind, &self.path),
        }
    }

    /// Looks for the file that was opened, with all that it held.
    fn look_at_file(&mut self) -> Result<(), TrailError> {
        let Some(here) = place::seen(&self.path).ok().filter(|f| f.id == self.file.id) else {
            return Err(place::replaced(&self.path));
        };
        if here.bytes < self.file.bytes {
            // Seldom: another program's VACUUM, or somebody cut it.
            if self.cut == Some(here.bytes) || self.lacks_pages(here.bytes)? {
                self.cut = Some(here.bytes);
                return Err(TrailError::new(ErrorKind::Damaged, "the trail's file was cut while it was written")
                    .at(&self.path)
                    .help("put its bytes back, and leave the -wal where it is; what is queued is kept and written as soon as they are there"));
            }
        }
        (self.file.bytes, self.cut) = (here.bytes, None);
        Ok(())
    }

    /// Whether a file that has become as short as this lacks pages. By a connection that has none of them in memory.
    fn lacks_pages(&self, bytes: u64) -> Result<bool, TrailError> {
        // In front of an empty file SQLite removes the log.
        if bytes < 512 {
            return Ok(true);
        }
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let look = || -> rusqlite::Result<bool> {
            let mut conn = Connection::open_with_flags(&self.path, flags)?;
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            conn.busy_handler(Some(busy))?;
            conn.execute_batch("PRAGMA mmap_size=0; BEGIN")?;
            let number = |pragma| conn.query_row(pragma, [], |r| r.get::<_, u64>(0));
            if number("PRAGMA page_count")?.saturating_mul(number("PRAGMA page_size")?) <= bytes {
                return Ok(false);
            }
            // What is not in the file may be in the log.
            conn.query_row("PRAGMA quick_check(1)", [], |r| Ok(r.get::<_, String>(0)? != "ok"))
        };
        match look() {
            Ok(lacks) => Ok(lacks),
            Err(e) => match error("cannot look at the audit database", &self.path, e) {
                e if e.kind() == ErrorKind::Busy => Err(e),
                _ => Ok(true),
            },
        }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(ending);
        name.into()
    }

    fn closed(&self, n: i64) -> Result<Closed, TrailError> {
        Closed::from_number(n).ok_or_else(|| {
            TrailError::new(ErrorKind::Damaged, format!("`closed` of a writer is {n}, which says nothing"))
                .at(&self.path)
                .help("run `argus verify`; what that writer left stays as it is")
        })
    }

    fn conn(&self) -> Result<&Connection, TrailError> {
        self.conn.as_ref().ok_or_else(|| TrailError::new(ErrorKind::Io, "the audit database is closed").at(&self.path))
    }
}

/// Looks at the first bytes through SQLite's own rule: a file that is neither empty nor a database is refused before SQLite touches it.
fn refuse_other_files(path: &Path) -> Result<(), TrailError> {
    let len =
        std::fs::symlink_metadata(path).map_err(|e| TrailError::io("cannot look at the trail's file", path, e))?.len();
    if len > 0 && len < 512 {
        return Err(TrailError::new(ErrorKind::NotATrail, "the file is too short to be a database")
            .at(path)
            .help("name another file"));
    }
    Ok(())
}

impl SqliteStore {
    fn begin_immediate(&mut self) -> Result<(), TrailError> {
        if self.conn.is_none() {
            // After a failure: a connection that has seen one is not believed again.
            self.connect()?;
        }
        self.bound_log()?;
        let err = self.err("cannot begin a transaction");
        self.conn()?.prepare_cached("BEGIN IMMEDIATE").and_then(|mut s| s.execute([])).map(drop).map_err(err)
    }
}

impl Store for SqliteStore {
    fn act_as(&mut self, writer: WriterId, service: &str) {
        self.rollback();
        self.writer = writer;
        self.service = service.into();
    }

    fn log_id(&self) -> WriterId {
        self.log_id
    }

    fn unclosed(&mut self) -> Result<Vec<WriterId>, TrailError> {
        let err = self.err("cannot read the writers");
        let read = |conn: &Connection| -> rusqlite::Result<Vec<String>> {
            let mut s = conn.prepare("SELECT writer FROM writers WHERE closed = 0 AND id <> 0 ORDER BY id")?;
            s.query_map([], |r| r.get(0))?.collect()
        };
        let all = read(self.conn()?).map_err(err)?;
        Ok(all.iter().filter_map(|w| WriterId::parse_exact(w)).collect())
    }

    fn standing(&mut self, writer: WriterId) -> Result<Option<Closed>, TrailError> {
        let err = self.err("cannot read a writer");
        let row = self
            .conn()?
            .query_row("SELECT closed FROM writers WHERE writer = ?1", [writer.to_string()], |r| r.get(0))
            .optional()
            .map_err(err)?;
        row.map(|n| self.closed(n)).transpose()
    }

    fn begin(&mut self) -> Result<Head, TrailError> {
        self.rollback();
        if let Err(e) = self.look_at_file() {
            // What is written now would go into a file that nobody finds again.
            self.conn = None;
            return Err(e);
        }
        let err = self.err("cannot begin a transaction");
        let since = Instant::now();
        while let Err(e) = self.begin_immediate() {
            if e.kind() != ErrorKind::ReadOnly || since.elapsed() > BUSY || !place::is_writable(&self.path) {
                return Err(e);
            }
            // A reader of this process mapped the `-shm` first, read-only, and SQLite has one mapping for both (ADR 7). Mostly it is about to let go.
            self.conn = None;
            std::thread::sleep(Duration::from_millis(1));
        }
        // Under the write lock: nobody begins another log now, and nothing is written behind what another process wrote to another one.
        if let Err(here) = self.look_at_log() {
            // The connection is needed to save what stands in the log.
            self.open = true;
            self.rollback();
            return Err(self.leave_log(here).1);
        }
        let conn = self.conn()?;
        type Last = Option<(u64, String, String)>;
        let read = || -> rusqlite::Result<(i64, u64, i64, Last, u64, u64)> {
            let mut writers = conn.prepare_cached("SELECT id, last_seq, closed FROM writers WHERE writer = ?1")?;
            let mut key = writers
                .query_row([self.writer.to_string()], |r| {
                    Ok((r.get::<_, i64>(0)?, r.get::<_, u64>(1)?, r.get::<_, i64>(2)?))
                })
                .optional()?;
            if key.is_none() {
                conn.prepare_cached("INSERT INTO writers (writer, service_name, last_seq) VALUES (?1, ?2, 0)")?
                    .execute([&self.writer.to_string(), &self.service])?;
                key = Some((conn.last_insert_rowid(), 0, 0));
            }
            let (key, last, closed) = key.unwrap_or_default();
            let log_last: u64 =
                conn.prepare_cached("SELECT last_seq FROM writers WHERE id = 0")?.query_row([], |r| r.get(0))?;
            let head = conn
                .prepare_cached("SELECT id, checksum, created_at FROM audit_events ORDER BY id DESC LIMIT 1")?
                .query_row([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
                .optional()?;
            let next = match &head {
                Some((seq, ..)) => seq + 1,
                None => conn.query_row("SELECT first_seq FROM log_info", [], |r| r.get(0))?,
            };
            Ok((key, last, closed, head, log_last, next))
        };
        let (key, writer_last, closed, head, log_writer_last, next_seq) = read().map_err(&err)?;
        self.key = key;
        self.open = true;
        let damaged = || {
            TrailError::new(ErrorKind::Damaged, "the last record's checksum is no checksum")
                .at(&self.path)
                .help("run `argus verify`")
        };
        let prev = match &head {
            Some((_, sum, _)) => Some(Checksum::parse_exact(sum).ok_or_else(damaged)?),
            None => None,
        };
        Ok(Head {
            log_id: self.log_id,
            next_seq,
            prev,
            created_at: head.map(|h| h.2),
            writer_last,
            closed: self.closed(closed)?,
            log_writer_last,
        })
    }

    fn aside(&mut self) -> Result<Vec<String>, TrailError> {
        let err = self.err("cannot look for records of files that were put aside");
        let read = |conn: &Connection| -> rusqlite::Result<Vec<String>> {
            // (By the index of the levels.)
            let mut s = conn.prepare(
                "SELECT context FROM audit_events WHERE level = 'SECURITY' AND writer = 0 AND (event = 'log_replaced' OR event = 'audit_recovered' AND instr(context, '\"journal_torn\"'))",
            )?;
            s.query_map([], |r| r.get(0))?.collect()
        };
        read(self.conn()?).map_err(err)
    }

    fn foreign(&mut self, limit: usize) -> Result<Vec<ForeignRow>, TrailError> {
        /// What one transaction takes of them, beside the number of rows.
        const BYTES: usize = 8 << 20;
        let err = self.err("cannot read rows of other programs");
        let read = |conn: &Connection| -> rusqlite::Result<Vec<ForeignRow>> {
            let mut statement = conn.prepare_cached(schema::SELECT_FOREIGN)?;
            let mut rows = statement.query([])?;
            let (mut out, mut bytes) = (Vec::new(), 0);
            while out.len() < limit
                && bytes < BYTES
                && let Some(row) = rows.next()?
            {
                let mut cells = Vec::with_capacity(schema::FOREIGN_COLUMNS.len());
                for (i, name) in schema::FOREIGN_COLUMNS.iter().enumerate() {
                    let text = match row.get_ref(i + 1)? {
                        ValueRef::Null => None,
                        ValueRef::Integer(i) => Some(i.to_string()),
                        ValueRef::Real(f) => Some(f.to_string()),
                        ValueRef::Text(b) | ValueRef::Blob(b) => Some(String::from_utf8_lossy(b).into_owned()),
                    };
                    bytes += text.as_ref().map_or(0, String::len);
                    cells.push((*name, text));
                }
                out.push(ForeignRow { id: row.get(0)?, cells });
            }
            Ok(out)
        };
        read(self.conn()?).map_err(err)
    }

    fn forget_foreign(&mut self, up_to: i64) -> Result<(), TrailError> {
        let err = self.err("cannot remove adopted rows");
        self.conn()?
            .prepare_cached("DELETE FROM foreign_events WHERE id <= ?1")
            .and_then(|mut s| s.execute([up_to]))
            .map(|_| ())
            .map_err(err)
    }

    fn foreign_waiting(&mut self) -> bool {
        let look = |c: &Connection| {
            c.prepare_cached("SELECT EXISTS (SELECT 1 FROM foreign_events)")?.query_row([], |r| r.get::<_, bool>(0))
        };
        // What happened to the files of a logger that has nothing to say is noticed by a transaction, too.
        let touched = |s: &Self| !place::seen(&s.path).is_ok_and(|f| f.id == s.file.id && f.bytes >= s.file.bytes);
        self.conn.as_ref().is_some_and(|c| look(c).unwrap_or(false))
            || self.conn.is_some() && (touched(self) || self.look_at_log().is_err())
    }

    fn insert(&mut self, f: &Fields<'_>, checksum: &str) -> Result<(), TrailError> {
        self.insert_all(&mut |insert| insert(f, checksum))
    }

    fn insert_all(&mut self, all: &mut dyn FnMut(&mut Insert<'_>) -> Result<(), TrailError>) -> Result<(), TrailError> {
        let failed = |e| error("cannot insert a record", &self.path, e);
        let mut rows = rows::Rows::new(self.conn()?).map_err(failed)?;
        all(&mut |f, checksum| {
            let key = if f.writer == self.log_text { 0 } else { self.key };
            rows.add(f, checksum, key).map_err(failed)
        })?;
        rows.finish().map_err(failed)
    }

    fn commit(&mut self, ends: &Ends) -> Result<(), TrailError> {
        let err = self.err("cannot commit");
        let (key, closed) = (self.key, ends.closed as i64);
        let commit = |conn: &Connection| -> rusqlite::Result<()> {
            conn.prepare_cached("UPDATE writers SET last_seq = ?1, closed = ?2 WHERE id = ?3")?.execute((
                i64::try_from(ends.writer_last).unwrap_or(i64::MAX),
                closed,
                key,
            ))?;
            conn.prepare_cached("UPDATE writers SET last_seq = ?1 WHERE id = 0 AND last_seq <> ?1")?
                .execute([i64::try_from(ends.log_writer_last).unwrap_or(i64::MAX)])?;
            conn.prepare_cached("COMMIT")?.execute([]).map(|_| ())
        };
        let result = commit(self.conn()?).map_err(err);
        match result {
            Ok(()) => self.open = false,
            // The connection has seen a failed write or sync: never believed again.
            Err(_) => self.conn = None,
        }
        result?;
        // Before anybody learns of it: what stands in a log without a name is gone with the last process that has it open.
        self.look_at_log().map_err(|here| self.leave_log(here).1)
    }

    fn rollback(&mut self) {
        if std::mem::take(&mut self.open) {
            let failed = self.conn.as_ref().is_some_and(|c| !c.is_autocommit() && c.execute_batch("ROLLBACK").is_err());
            if failed {
                self.conn = None;
            }
        } else if self.conn.as_ref().is_some_and(|c| !c.is_autocommit()) {
            self.conn = None;
        }
    }

    fn find(&mut self, first: u64, last: u64) -> Result<Vec<(u64, u64, Checksum)>, TrailError> {
        let err = self.err("cannot look for committed records");
        let key = self.key;
        let read = |conn: &Connection| -> rusqlite::Result<Vec<(u64, u64, String)>> {
            // Newest first and no further than needed: they are near the end, and numbers rise.
            let mut s = conn.prepare_cached("SELECT writer_seq, id, checksum FROM audit_events WHERE writer = ?1 AND writer_seq <= ?2 ORDER BY id DESC")?;
            let rows = s.query_map((key, last), |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
            let asked = |row: &rusqlite::Result<(u64, u64, String)>| row.as_ref().map_or(true, |r| r.0 >= first);
            rows.take_while(asked).take(usize::try_from(last - first + 1).unwrap_or(usize::MAX)).collect()
        };
        let mut found: Vec<_> = read(self.conn()?)
            .map_err(err)?
            .into_iter()
            .filter_map(|(w, s, c)| Some((w, s, Checksum::parse_exact(&c)?)))
            .collect();
        found.reverse();
        Ok(found)
    }

    fn take_known(&mut self, ids: &mut BTreeSet<RecordId>) -> Result<(), TrailError> {
        let err = self.err("cannot look for committed records");
        let mut look = |conn: &Connection| -> rusqlite::Result<()> {
            let mut s = conn.prepare_cached("SELECT 1 FROM audit_events WHERE record_id = ?1")?;
            let mut result = Ok(());
            ids.retain(|id| {
                result.is_err()
                    || !s.exists([id.to_string()]).unwrap_or_else(|e| {
                        result = Err(e);
                        false
                    })
            });
            result
        };
        look(self.conn()?).map_err(err)
    }

    fn backlog(&mut self) -> Backlog {
        self.look_at_wal()
    }

    fn close(&mut self) -> Result<(), TrailError> {
        self.rollback();
        if self.conn.is_none() || self.look_at_file().is_err() {
            self.conn = None;
            return Ok(());
        }
        if let Err(here) = self.look_at_log() {
            let (saved, e) = self.leave_log(here);
            self.conn = None;
            return if saved { Ok(()) } else { Err(e) };
        }
        let Some(conn) = self.conn.take() else { return Ok(()) };
        let _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        // A reader may be in the way; then the WAL stays, which harms nothing. Nobody waits for him.
        let _ = conn.busy_timeout(Duration::ZERO);
        let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        conn.close().map_err(|(_, e)| error("cannot close the audit database", &self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn no_transaction_prepares_a_statement_again() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access { mode: 0o600, group: None };
        let mut store = SqliteStore::open(&dir.path().join("t.db"), access, WriterId::random(), "shop").unwrap();
        for writer_last in 1..=20 {
            let head = store.begin().unwrap();
            assert!(store.foreign(500).unwrap().is_empty());
            let log_writer_last = head.log_writer_last;
            store.commit(&Ends { writer_last, log_writer_last, closed: Closed::No }).unwrap();
        }
        let select = store.conn().unwrap().prepare_cached(schema::SELECT_FOREIGN).unwrap();
        let status = |what| select.get_status(what);
        assert_eq!((status(StatementStatus::Run), status(StatementStatus::RePrepare)), (20, 0));
    }

    #[test]
    fn a_commit_to_a_log_that_was_removed_meanwhile_is_an_error_and_is_in() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access { mode: 0o600, group: None };
        let mut store = SqliteStore::open(&dir.path().join("t.db"), access, WriterId::random(), "shop").unwrap();
        let head = store.begin().unwrap();
        std::fs::remove_file(dir.path().join("t.db-wal")).unwrap();
        let ends = Ends { writer_last: 7, log_writer_last: head.log_writer_last, closed: Closed::No };
        assert_eq!(store.commit(&ends).unwrap_err().kind(), ErrorKind::Replaced);
        assert_eq!(store.begin().unwrap().writer_last, 7, "of the new log");
        assert!(dir.path().join("t.db-wal").exists());
    }
}
