//! Records on their way into `audit_events`, several in one statement: SQLite then opens table and indexes once for all of them, and looks for each place from the
//! one before. A batch that is over sends the rest one by one. In the transaction of the writer's thread.

use std::sync::LazyLock;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, Statement};

use crate::canonical::Fields;

/// Rows of one statement. Measured: fewer or many more are slower. One more is a power of two, as the callers of `log_durable` often are.
const MANY: usize = 7;
/// Columns beside the id.
const COLUMNS: usize = 24;
const NAMES: &str = "timestamp, level, event, component, original_output_file, file_path, old_value, new_value, user_agent, process_id, process_name, context, \
    checksum, created_at, actor_id, actor_type, action, outcome, trace_id, span_id, stack, record_id, writer, writer_seq";

fn marks(n: usize) -> String {
    format!("({})", vec!["?"; n].join(","))
}

static ONE: LazyLock<String> =
    LazyLock::new(|| format!("INSERT INTO audit_events (id, {NAMES}) VALUES {}", marks(1 + COLUMNS)));

/// Without the id, which is then one more than the largest, and `OR FAIL`: else SQLite copies each page that the statement changes, so as to undo half of it. Here
/// the whole transaction is dropped.
static SEVERAL: LazyLock<String> = LazyLock::new(|| {
    format!("INSERT OR FAIL INTO audit_events ({NAMES}) VALUES {}", vec![marks(COLUMNS); MANY].join(","))
});

/// What a cell gets.
#[derive(Clone, Copy)]
enum Value<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }
}

impl From<u64> for Value<'_> {
    fn from(n: u64) -> Self {
        Self::Integer(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(n) => ValueRef::Integer(*n),
            Self::Text(t) => ValueRef::Text(t.as_bytes()),
        }))
    }
}

/// A cell that waits; and what the statement of several has in its place, which stays bound from one execution to the next.
#[derive(Default)]
struct Cell {
    is: Is,
    text: String,
    /// The statement has something else.
    fresh: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Is {
    #[default]
    Null,
    Integer(i64),
    Text,
}

impl Cell {
    fn set(&mut self, value: Value<'_>) {
        let is = match value {
            Value::Null => Is::Null,
            Value::Integer(n) => Is::Integer(n),
            Value::Text(t) if self.is == Is::Text && self.text == t => return,
            Value::Text(t) => {
                self.text.clear();
                self.text.push_str(t);
                self.fresh = true;
                Is::Text
            }
        };
        self.fresh |= self.is != is;
        self.is = is;
    }

    fn value(&self) -> Value<'_> {
        match self.is {
            Is::Null => Value::Null,
            Is::Integer(n) => Value::Integer(n),
            Is::Text => Value::Text(&self.text),
        }
    }
}

/// The cells of a record, in the order of `NAMES`; `key` is its writer's.
fn values<'a>(f: &Fields<'a>, checksum: &'a str, key: i64) -> [Value<'a>; COLUMNS] {
    [
        f.timestamp.into(),
        f.level.into(),
        f.event.into(),
        f.component.into(),
        f.original_output_file.into(),
        f.file_path.into(),
        f.old_value.into(),
        f.new_value.into(),
        f.user_agent.into(),
        f.process_id.into(),
        f.process_name.into(),
        f.context.into(),
        checksum.into(),
        f.created_at.into(),
        f.actor_id.into(),
        f.actor_type.into(),
        f.action.into(),
        f.outcome.into(),
        f.trace_id.into(),
        f.span_id.into(),
        f.stack.into(),
        f.record_id.into(),
        Value::Integer(key),
        f.writer_seq.into(),
    ]
}

fn insert_one<'a>(
    one: &mut Statement<'_>,
    seq: u64,
    cells: impl IntoIterator<Item = Value<'a>>,
) -> rusqlite::Result<()> {
    one.raw_bind_parameter(1, Value::from(seq))?;
    for (i, value) in cells.into_iter().enumerate() {
        one.raw_bind_parameter(i + 2, value)?;
    }
    one.raw_execute().map(|_| ())
}

/// Takes records in the order of their numbers. What waits at the end needs `finish`.
pub(super) struct Rows<'c> {
    conn: &'c Connection,
    one: CachedStatement<'c>,
    /// Once there was more than one.
    several: Option<(CachedStatement<'c>, Vec<Cell>)>,
    /// Rows that wait, and the number of the last.
    waiting: usize,
    last: Option<u64>,
}

impl<'c> Rows<'c> {
    pub(super) fn new(conn: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self { conn, one: conn.prepare_cached(&ONE)?, several: None, waiting: 0, last: None })
    }

    pub(super) fn add(&mut self, f: &Fields<'_>, checksum: &str, key: i64) -> rusqlite::Result<()> {
        let values = values(f, checksum, key);
        // The first goes in by its number; those that follow get theirs by following.
        if self.last.replace(f.seq).is_none() {
            return insert_one(&mut self.one, f.seq, values);
        }
        if self.several.is_none() {
            let mut statement = self.conn.prepare_cached(&SEVERAL)?;
            statement.clear_bindings();
            self.several = Some((statement, (0..MANY * COLUMNS).map(|_| Cell::default()).collect()));
        }
        let Some((statement, cells)) = &mut self.several else { return Ok(()) };
        for (cell, value) in cells.iter_mut().skip(self.waiting * COLUMNS).zip(values) {
            cell.set(value);
        }
        self.waiting += 1;
        if self.waiting < MANY {
            return Ok(());
        }
        self.waiting = 0;
        for (i, cell) in cells.iter_mut().enumerate() {
            if std::mem::take(&mut cell.fresh) {
                statement.raw_bind_parameter(i + 1, cell.value())?;
            }
        }
        statement.raw_execute()?;
        // The number is hashed: a row in another place must not stay.
        if u64::try_from(self.conn.last_insert_rowid()) == Ok(f.seq) {
            return Ok(());
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_ROWID);
        Err(rusqlite::Error::SqliteFailure(code, Some("a record got another place than its number's".into())))
    }

    /// Sends what waits.
    pub(super) fn finish(mut self) -> rusqlite::Result<()> {
        let (Some((_, cells)), Some(last)) = (&self.several, self.last) else { return Ok(()) };
        for (row, after) in cells.chunks_exact(COLUMNS).zip((0..self.waiting as u64).rev()) {
            insert_one(&mut self.one, last - after, row.iter().map(Cell::value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::config::DbConfig;
    use rusqlite::types;

    use super::*;

    /// The number of the first record, as in a log that begins behind rows of an older program.
    const FIRST: u64 = 100;

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("PRAGMA foreign_keys=OFF").unwrap();
        conn.execute_batch(super::super::schema::SCHEMA).unwrap();
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
        conn
    }

    /// The texts of a record: some as in the record before, some others, some absent, in all orders.
    struct Texts([Option<String>; 20]);

    impl Texts {
        fn of(n: u64) -> Self {
            Self(std::array::from_fn(|i| match (n * (i as u64 + 1) + n / 3) % 4 {
                0 => None,
                1 => Some(format!("{i} of {n}")),
                2 => Some(String::new()),
                _ => Some("the same".into()),
            }))
        }

        fn fields(&self, n: u64) -> Fields<'_> {
            let text = |i: usize| self.0[i].as_deref();
            let always = |i: usize| text(i).unwrap_or_default();
            Fields {
                timestamp: always(0),
                level: always(1),
                event: always(2),
                component: always(3),
                original_output_file: always(4),
                context: always(5),
                file_path: text(6),
                user_agent: text(7),
                old_value: text(8),
                new_value: text(9),
                process_id: n % 3,
                process_name: always(10),
                actor_id: text(11),
                actor_type: text(12),
                action: text(13),
                outcome: text(14),
                trace_id: text(15),
                span_id: text(16),
                stack: text(17),
                record_id: "",
                writer_seq: n,
                created_at: always(18),
                seq: FIRST + n,
                ..Fields::default()
            }
        }
    }

    fn cell(value: Value<'_>) -> types::Value {
        match value {
            Value::Null => types::Value::Null,
            Value::Integer(n) => types::Value::Integer(n),
            Value::Text(t) => types::Value::Text(t.into()),
        }
    }

    #[test]
    fn every_row_has_the_cells_and_the_number_of_its_record() {
        for count in 0..=3 * MANY as u64 + 3 {
            let conn = database();
            let mut rows = Rows::new(&conn).unwrap();
            let mut expected: Vec<Vec<types::Value>> = Vec::new();
            for n in 0..count {
                let (texts, id) = (Texts::of(n), n.to_string());
                let fields = Fields { record_id: &id, ..texts.fields(n) };
                rows.add(&fields, "sum", 1 + n as i64 / 5).unwrap();
                let id = types::Value::Integer(fields.seq as i64);
                expected.push([id].into_iter().chain(values(&fields, "sum", 1 + n as i64 / 5).map(cell)).collect());
            }
            rows.finish().unwrap();
            let mut query = conn.prepare(&format!("SELECT id, {NAMES} FROM audit_events ORDER BY id")).unwrap();
            let found = query.query_map([], |r| (0..=COLUMNS).map(|i| r.get(i)).collect::<Result<Vec<_>, _>>());
            let found: Vec<Vec<types::Value>> = found.unwrap().map(Result::unwrap).collect();
            assert_eq!(found, expected, "{count} records");
        }
    }

    #[test]
    fn rows_that_would_get_another_number_are_an_error() {
        let conn = database();
        let mut rows = Rows::new(&conn).unwrap();
        let mut add = |n: u64| {
            let (texts, id) = (Texts::of(n), n.to_string());
            rows.add(&Fields { record_id: &id, ..texts.fields(n) }, "sum", 1)
        };
        add(0).unwrap();
        let other = "INSERT INTO audit_events (id, timestamp, level, event, component, original_output_file, process_id, process_name)";
        conn.execute_batch(&format!("{other} VALUES (5000, '', '', '', '', '', 1, '')")).unwrap();
        let error = (1..=MANY as u64).find_map(|n| add(n).err()).unwrap();
        assert!(error.to_string().contains("another place"), "{error}");
    }

    /// That statement does not undo what it did; the transaction does.
    #[test]
    fn of_rows_of_which_one_is_refused_none_stays() {
        let conn = database();
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut rows = Rows::new(&conn).unwrap();
        let refused = (0..=MANY as u64).find_map(|n| {
            let (texts, id) = (Texts::of(n), (n % 4).to_string());
            rows.add(&Fields { record_id: &id, ..texts.fields(n) }, "sum", 1).err()
        });
        assert!(refused.unwrap().to_string().contains("UNIQUE"));
        drop(rows);
        conn.execute_batch("ROLLBACK").unwrap();
        let left: u64 = conn.query_row("SELECT count(*) FROM audit_events", [], |r| r.get(0)).unwrap();
        assert_eq!(left, 0);
    }
}
