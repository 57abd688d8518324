//! From an accepted entry to the fields of its record. Pure; the writer, recovery, pending files and readers of pending records all go through here.

use crate::canonical::Fields;
use crate::entry::Entry;
use crate::id::hex_into;
use crate::sink::Trace;
use crate::time;
use crate::writer::Identity;

/// Room for what a record spells out and its entry does not.
pub(crate) struct Spelled {
    timestamp: String,
    id: [u8; 36],
    trace: [u8; 32],
    span: [u8; 16],
}

impl Spelled {
    pub(crate) fn new() -> Self {
        Self { timestamp: String::with_capacity(30), id: [0; 36], trace: [0; 32], span: [0; 16] }
    }

    /// The fields of an entry's record that it has before a commit.
    pub(crate) fn fields<'a>(
        &'a mut self,
        e: &Entry<'a>,
        identity: &'a Identity,
        writer: &'a str,
        stack: Option<&'a str>,
    ) -> Fields<'a> {
        let (secs, nanos) = e.time();
        self.timestamp.clear();
        time::write_rfc3339(secs, nanos, &mut self.timestamp);
        let (trace_id, span_id) = match e.trace() {
            Trace::Parent(t) => {
                (Some(hex_into(&t.trace_id, &mut self.trace)), Some(hex_into(&t.span_id, &mut self.span)))
            }
            _ => (None, None),
        };
        let [event, component, context, file_path, user_agent, old_value, new_value, actor_id, action, _] = e.texts();
        Fields {
            timestamp: &self.timestamp,
            level: e.level().as_str(),
            event: event.unwrap_or_default(),
            component: component.unwrap_or_default(),
            original_output_file: &identity.original_output_file,
            context: context.unwrap_or("{}"),
            file_path,
            user_agent,
            old_value,
            new_value,
            process_id: identity.process_id,
            process_name: &identity.process_name,
            actor_id,
            actor_type: e.actor_type().map(|a| a.as_str()),
            action,
            outcome: e.outcome().map(|o| o.as_str()),
            trace_id,
            span_id,
            stack,
            record_id: e.record_id().encode(&mut self.id),
            writer,
            writer_seq: e.writer_seq(),
            ..Fields::default()
        }
    }
}
