//! What was typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Look at, follow, verify and feed an Argus audit trail.
///
/// The trail is --db, else $ARGUS_AUDIT_DB, else the unified database ($XDG_DATA_HOME/argus/audit.db, ~/.local/share/argus/audit.db, $STATE_DIRECTORY/audit.db).
/// A path that ends in .jsonl is a JSONL trail. All commands but `watch` are strictly read-only.
#[derive(Debug, Parser)]
#[command(
    name = "argus",
    version,
    after_help = "Exit codes: 0 ok; 1 tampered, or `show` found nothing; 2 usage; 3 the trail cannot be read or written.\n\n\
Examples:\n  argus query --since 1h --level warn          what happened in the last hour, WARN and above\n  argus query --event config_change -n 5 --json | jq .new_value\n  \
argus tail -f                                follow the trail\n  argus watch /etc/myapp/*.yaml                record every change of these files\n  argus verify                                 is the trail as it was written?"
)]
pub(crate) struct Args {
    /// The trail's file.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) db: Option<PathBuf>,
    /// One JSON object a line: records in the JSONL form.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Record changes of configuration files until SIGINT or SIGTERM.
    Watch {
        /// Files, or directories whose files of a known format are watched.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Print records, newest first.
    Query {
        #[command(flatten)]
        filter: FilterArgs,
        /// At most so many.
        #[arg(short = 'n', long = "limit", default_value_t = 50, value_name = "N")]
        limit: usize,
        /// Oldest first.
        #[arg(long)]
        oldest_first: bool,
        /// Go on behind this position (the seq that the page before ended with).
        #[arg(long, value_name = "SEQ")]
        cursor: Option<u64>,
    },
    /// Print the last records, oldest first, and with -f those that come.
    Tail {
        #[command(flatten)]
        filter: FilterArgs,
        /// How many of the last records.
        #[arg(short = 'n', long = "limit", default_value_t = 10, value_name = "N")]
        limit: usize,
        /// Go on as records come, until SIGINT or SIGTERM.
        #[arg(short = 'f', long)]
        follow: bool,
    },
    /// Print one record with all its fields.
    Show {
        /// Its position, or its record id.
        #[arg(value_name = "SEQ|RECORD_ID")]
        record: String,
    },
    /// Check the whole trail: chain, columns, schema, numbers of each writer.
    Verify,
    /// Counts by level, event and component.
    Stats,
    /// Where the trail is, and why there.
    Where,
}

/// Conditions, joined by AND.
#[derive(Debug, clap::Args)]
pub(crate) struct FilterArgs {
    /// From this time on: an age such as 90s, 15m, 1h, 7d, or an RFC 3339 time.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Before this time; as --since.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// This level or above: info, warn, critical, security.
    #[arg(long)]
    pub(crate) level: Option<String>,
    /// The event's name.
    #[arg(long)]
    pub(crate) event: Option<String>,
    /// The component.
    #[arg(long)]
    pub(crate) component: Option<String>,
    /// The service's name, or the configured output file.
    #[arg(long)]
    pub(crate) app: Option<String>,
    /// The file that the record is about; with a `*` at the end, every path that begins so.
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<String>,
    /// Who acted.
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// The trace id, 32 hex digits.
    #[arg(long, value_name = "TRACE_ID")]
    pub(crate) trace: Option<String>,
    /// The process id.
    #[arg(long)]
    pub(crate) pid: Option<u64>,
    /// A context member; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) context: Vec<String>,
}
