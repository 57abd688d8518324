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
    /// The trail's file (.db, .sqlite, .sqlite3 or .jsonl), instead of $ARGUS_AUDIT_DB or the unified database.
    #[arg(long, global = true, value_name = "PATH", display_order = 900)]
    pub(crate) db: Option<PathBuf>,
    /// One JSON object a line, for programs; records in the JSONL form.
    #[arg(long, global = true, display_order = 901)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Record changes of configuration files until SIGINT or SIGTERM.
    #[command(
        after_help = "Prints `ready: watching N files, trail PATH` when it is, records each change of a value with the old one, the new one and the difference, and \
        closes the trail when it is told to stop. JSON, YAML and TOML are compared by value, other files as text. Values of secret keys are withheld."
    )]
    Watch {
        /// Files, which may come later, or directories: all their .json, .yaml, .yml and .toml files.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Print records, newest first.
    #[command(
        after_help = "Conditions are joined by AND. A line of text has the position (seq), time (UTC), level, event, component, file, actor, values and context; \
        `argus show SEQ` prints all of a record. Records that are accepted and not committed yet follow the committed ones, so newest first they come first; they have \
        `pending` for a position, with --json no seq, created_at, prev_hash and checksum. No page by --cursor shows them but the last of --oldest-first."
    )]
    Query {
        #[command(flatten)]
        filter: FilterArgs,
        /// At most so many.
        #[arg(short = 'n', long = "limit", default_value_t = 50, value_name = "N", allow_negative_numbers = true)]
        limit: usize,
        /// Oldest first.
        #[arg(long)]
        oldest_first: bool,
        /// The next page: go on behind this position, the seq that the page before ended with.
        #[arg(long, value_name = "SEQ", allow_negative_numbers = true, value_parser = whole())]
        cursor: Option<u64>,
        /// Only committed records.
        #[arg(long)]
        no_pending: bool,
    },
    /// Print the last records, oldest first, and with -f those that come.
    #[command(
        after_help = "Without -f, the last records are those that are accepted and not committed yet (`pending`), and before them the committed ones. With -f, only \
        committed records are printed, each once, when it is committed."
    )]
    Tail {
        #[command(flatten)]
        filter: FilterArgs,
        /// How many of the last records.
        #[arg(short = 'n', long = "limit", default_value_t = 10, value_name = "N", allow_negative_numbers = true)]
        limit: usize,
        /// Go on as records come, until SIGINT or SIGTERM.
        #[arg(short = 'f', long)]
        follow: bool,
        /// Only committed records; with -f it is so anyway.
        #[arg(long)]
        no_pending: bool,
    },
    /// Print one record with all its fields.
    Show {
        /// Its position, or its record id.
        #[arg(value_name = "SEQ|RECORD_ID")]
        record: String,
    },
    /// Check the whole trail: chain, columns, schema, numbers of each writer.
    #[command(
        after_help = "Prints the count, positions, head, times and the assurance: `linked` means that the chain holds, so nothing was changed unless everything after \
        it was made anew; keep the head elsewhere to notice that, too. Records that wait for their commit (`pending`) are counted, and are no part of the verdict. Else prints each place that is wrong: position, code and record. Exit code 0 or 1."
    )]
    Verify,
    /// Counts by level, event and component.
    Stats,
    /// Where the trail is, and why there; the writers that have files beside it, and files that were put aside.
    Where,
}

/// The integers of the record format: 0 to 2^63-1.
fn whole() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(..=i64::MAX.unsigned_abs())
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
    /// This level or above: info, warn, critical or security.
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
    /// The file that the record is about; with a `*` at the end (quote it), every path that begins so.
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<String>,
    /// Who acted.
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// The trace id, 32 hex digits.
    #[arg(long, value_name = "TRACE_ID")]
    pub(crate) trace: Option<String>,
    /// The process id.
    #[arg(long, allow_negative_numbers = true, value_parser = whole())]
    pub(crate) pid: Option<u64>,
    /// A context member, e.g. port=8080; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) context: Vec<String>,
}
