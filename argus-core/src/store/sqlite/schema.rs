//! The schema's text (`schema.sql`), making it, and comparing a file's own with it. A database whose schema differs is not written to.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::error;
use crate::error::{ErrorKind, TrailError};
use crate::id::WriterId;

pub(crate) const SCHEMA: &str = include_str!("schema.sql");
pub(crate) const VERSION: i64 = 3;

pub(crate) const FOREIGN_COLUMNS: &[&str] = &[
    "timestamp",
    "level",
    "event",
    "component",
    "original_output_file",
    "file_path",
    "old_value",
    "new_value",
    "user_agent",
    "process_id",
    "process_name",
    "context",
    "checksum",
    "created_at",
];

/// Without a `LIMIT`: bound to a parameter, SQLite would prepare the statement anew at each run, which took as long as the rest of a small transaction.
pub(crate) const SELECT_FOREIGN: &str = "SELECT id, timestamp, level, event, component, original_output_file, file_path, old_value, new_value, user_agent, \
    process_id, process_name, context, checksum, created_at FROM foreign_events ORDER BY id";

/// The statements of the schema, as SQLite keeps them: without the last semicolon.
fn statements() -> impl Iterator<Item = &'static str> {
    SCHEMA.split("\n\n").map(|s| s.trim().trim_end_matches(';')).filter(|s| !s.is_empty())
}

/// What differs between a file's schema and ours; empty if nothing does.
pub(crate) fn differences(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut query =
        conn.prepare("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")?;
    let rows = query
        .query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get::<_, Option<String>>(2)?)))?;
    let mut expected: Vec<&str> = statements().collect();
    let mut differences = Vec::new();
    for row in rows {
        let (kind, name, sql) = row?;
        match expected.iter().position(|e| Some(*e) == sql.as_deref()) {
            Some(i) => {
                expected.swap_remove(i);
            }
            None => differences.push(format!("{kind} `{name}` is not one that Argus made")),
        }
    }
    differences.extend(
        expected
            .iter()
            .map(|e| format!("missing: {}", e.lines().next().unwrap_or_default().trim_end_matches(['(', ' ']))),
    );
    Ok(differences)
}

/// What a database file is.
pub(crate) enum Kind {
    Empty,
    Argus(i64),
    Go(i64),
    Other,
}

pub(crate) fn kind(conn: &Connection) -> rusqlite::Result<Kind> {
    let exists = |name: &str| {
        conn.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)", [name], |r| r.get::<_, bool>(0))
    };
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    if tables == 0 {
        return Ok(Kind::Empty);
    }
    if !exists("schema_info")? || !exists("audit_events")? {
        return Ok(Kind::Other);
    }
    let version: Option<i64> =
        conn.query_row("SELECT max(version) FROM schema_info", [], |r| r.get(0)).optional()?.flatten();
    Ok(match version {
        Some(v) if v < VERSION => Kind::Go(v),
        Some(v) => Kind::Argus(v),
        None => Kind::Other,
    })
}

/// Refuses every file that is not a trail of this version.
pub(crate) fn check_kind(kind: &Kind, path: &Path) -> Result<(), TrailError> {
    let refuse = |kind, what: String, help: &'static str| Err(TrailError::new(kind, what).at(path).help(help));
    match kind {
        Kind::Argus(VERSION) => Ok(()),
        Kind::Argus(v) => refuse(
            ErrorKind::NewerVersion,
            format!("the audit database has schema version {v}, this build knows up to {VERSION}"),
            "use a newer Argus",
        ),
        Kind::Go(v) => refuse(
            ErrorKind::GoTrail,
            format!(
                "the database was written by the Go library (schema version {v}), and this release does not take it over yet"
            ),
            "name another file; the Go file stays as it is",
        ),
        Kind::Empty => refuse(ErrorKind::NotATrail, "the database is empty".into(), "name the trail's own file"),
        Kind::Other => {
            refuse(ErrorKind::NotATrail, "the database belongs to another program".into(), "name another file")
        }
    }
}

/// Makes the schema in an empty database, compares it in any other, and returns the log's id.
pub(crate) fn create_or_check(conn: &Connection, path: &Path) -> Result<WriterId, TrailError> {
    let err = |e| error("cannot read or make the schema", path, e);
    if matches!(kind(conn).map_err(err)?, Kind::Empty) {
        conn.execute_batch("BEGIN IMMEDIATE").map_err(err)?;
        let made = (|| {
            // Another process may have been faster.
            if matches!(kind(conn)?, Kind::Empty) {
                conn.execute_batch(SCHEMA)?;
                let log = WriterId::random().to_string();
                conn.execute("INSERT INTO schema_info (version) VALUES (?1)", [VERSION])?;
                conn.execute("INSERT INTO log_info (id, log_id, canonical, first_seq) VALUES (1, ?1, 1, 1)", [&log])?;
                conn.execute("INSERT INTO writers (id, writer, service_name, last_seq) VALUES (0, ?1, '', 0)", [&log])?;
            }
            conn.execute_batch("COMMIT")
        })();
        if made.is_err() {
            let _ = conn.execute_batch("ROLLBACK");
        }
        made.map_err(err)?;
    }
    check_kind(&kind(conn).map_err(err)?, path)?;
    let differences = differences(conn).map_err(err)?;
    if !differences.is_empty() {
        return Err(TrailError::new(
            ErrorKind::SchemaMismatch,
            format!("the schema was changed: {}", differences.join("; ")),
        )
        .at(path)
        .help("nothing is written to it; run `argus verify`, and start a new trail elsewhere"));
    }
    log_id(conn, path)
}

/// The log's id, which stands in two places.
fn log_id(conn: &Connection, path: &Path) -> Result<WriterId, TrailError> {
    let ids = "SELECT log_id, (SELECT writer FROM writers WHERE id = 0) FROM log_info";
    let (text, again): (String, Option<String>) =
        conn.query_row(ids, [], |r| Ok((r.get(0)?, r.get(1)?))).map_err(|e| error("cannot read log_info", path, e))?;
    let id = WriterId::parse_exact(&text).filter(|_| again.as_ref() == Some(&text));
    id.ok_or_else(|| {
        TrailError::new(ErrorKind::Damaged, "the log's id in log_info is none, or not the one in writers")
            .at(path)
            .help(
                "keep a copy of the file and its -wal, and run `argus verify` on it; nothing is written to it as it is",
            )
    })
}
