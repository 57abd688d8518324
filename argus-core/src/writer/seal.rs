//! Sealing: an entry, or what Argus says itself, gets its position and link and becomes a record of the open transaction. The writer and recovery go through here.

use crate::canonical::Fields;
use crate::chain;
use crate::core::Core;
use crate::entry::Entry;
use crate::error::TrailError;
use crate::fields::Spelled;
use crate::id::{Checksum, WriterId, hex};
use crate::level::Level;
use crate::store::{Head, Insert};
use crate::time;
use crate::value::Value;

/// What every record of this process says.
#[derive(Clone, Default)]
pub(crate) struct Identity {
    pub(crate) original_output_file: String,
    pub(crate) process_id: u64,
    pub(crate) process_name: String,
}

/// The log writer's numbers within a transaction.
pub(crate) struct LogWriter {
    pub(crate) id: WriterId,
    pub(crate) last: u64,
}

impl LogWriter {
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

/// Seals one entry as a record of `writer`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn seal_entry(
    insert: &mut Insert<'_>,
    canonical: &mut Vec<u8>,
    sealed: &mut Vec<(u64, u64, Checksum)>,
    head: &mut Head,
    entry: &Entry<'_>,
    created_at: &str,
    (identity, writer, stack): (&Identity, &str, Option<&str>),
) -> Result<(), TrailError> {
    let mut spelled = Spelled::new();
    let fields = Fields { created_at, ..spelled.fields(entry, identity, writer, stack) };
    seal(insert, canonical, sealed, head, fields)
}

/// The id and the time of a record of the log writer.
#[derive(Clone)]
pub(crate) struct Stamp {
    id: String,
    timestamp: String,
}

impl Stamp {
    pub(crate) fn now(core: &Core) -> Self {
        Self { id: new_id(core), timestamp: time::format_timestamp(core.config.clock.now()) }
    }
}

/// The stamps of a transaction. A reader may have seen lines of a JSONL trail that were not synced: in their place come the same ones.
#[derive(Default)]
pub(super) struct Stamps {
    /// The first position of the transaction.
    at: u64,
    given: Vec<Stamp>,
    /// What one before it was given.
    before: std::vec::IntoIter<Stamp>,
}

impl Stamps {
    /// A transaction begins at this position; `again`: for one that failed.
    pub(super) fn begin(&mut self, again: bool, at: u64) {
        let mut given = std::mem::take(&mut self.given);
        given.extend(std::mem::take(&mut self.before));
        if again && self.at == at {
            self.before = given.into_iter();
        }
        self.at = at;
    }

    pub(super) fn next(&mut self, core: &Core) -> Stamp {
        let stamp = self.before.next().unwrap_or_else(|| Stamp::now(core));
        self.given.push(stamp.clone());
        stamp
    }
}

/// Seals a record of the log writer with nothing but a context.
#[allow(clippy::too_many_arguments)]
pub(crate) fn seal_log_record(
    stamp: &Stamp,
    insert: &mut Insert<'_>,
    canonical: &mut Vec<u8>,
    head: &mut Head,
    lw: &mut LogWriter,
    created_at: &str,
    (event, level, context): (&str, Level, &str),
    identity: &Identity,
) -> Result<(), TrailError> {
    let writer = lw.id.to_string();
    let fields = Fields {
        timestamp: &stamp.timestamp,
        level: level.as_str(),
        event,
        component: "argus",
        original_output_file: &identity.original_output_file,
        context,
        process_id: identity.process_id,
        process_name: &identity.process_name,
        record_id: &stamp.id,
        writer: &writer,
        writer_seq: lw.next(),
        created_at,
        ..Fields::default()
    };
    seal(insert, canonical, &mut Vec::new(), head, fields)
}

/// The chain step: position, link, checksum, insert.
pub(super) fn seal(
    insert: &mut Insert<'_>,
    buf: &mut Vec<u8>,
    sealed: &mut Vec<(u64, u64, Checksum)>,
    head: &mut Head,
    fields: Fields<'_>,
) -> Result<(), TrailError> {
    let (mut prev, mut sum) = ([0; 64], [0; 64]);
    let fields = Fields { seq: head.next_seq, prev_hash: head.prev.map(|p| p.encode(&mut prev) as &str), ..fields };
    let checksum = chain::checksum(&fields, buf);
    insert(&fields, checksum.encode(&mut sum))?;
    sealed.push((fields.writer_seq, head.next_seq, checksum));
    head.next_seq += 1;
    head.prev = Some(checksum);
    Ok(())
}

pub(super) fn new_id(core: &Core) -> String {
    core.fresh_id().to_string()
}

/// Canonical JSON of a list of members, for records of the log writer.
pub(crate) fn context_of(members: &[(&str, Value<'_>)]) -> String {
    let (mut out, mut scratch) = (Vec::new(), crate::json::Scratch::default());
    let redaction = crate::redaction::Redaction::none();
    let mut w = crate::json::JsonWriter::new(&mut out, &mut scratch, &redaction, crate::json::Source::Stored);
    let ok = (|| {
        let mut open = w.open_object()?;
        for (key, value) in members {
            w.key(&mut open, key)?;
            value.encode(&mut w)?;
            w.end_member();
        }
        w.close_object(&open)
    })();
    match ok {
        Ok(()) => String::from_utf8(out).unwrap_or_default(),
        Err(_) => "{}".into(),
    }
}

/// SHA-256 in hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(bytes))
}
