//! One file a command.

mod look;
mod place;
mod query;
mod signals;
mod watch;

use std::io::{self, BufWriter, Write};

use crate::args::{Args, Command};
use crate::{Exit, Failure};

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let exit = match &args.command {
        Command::Watch { paths } => watch::watch(args, paths, &mut out)?,
        Command::Query { filter, limit, oldest_first, cursor, no_pending } => query::query(
            args,
            filter,
            *limit,
            query::Order { oldest_first: *oldest_first, cursor: *cursor },
            !no_pending,
            &mut out,
        )?,
        Command::Tail { filter, limit, follow, no_pending } => {
            query::tail(args, filter, *limit, *follow, !no_pending, &mut out)?
        }
        Command::Show { record } => look::show(args, record, &mut out)?,
        Command::Verify => look::verify(args, &mut out)?,
        Command::Stats => look::stats(args, &mut out)?,
        Command::Where => place::place(args, &mut out)?,
    };
    match out.flush() {
        // `argus verify | head -0` must not turn a verdict into 0.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(exit),
    }
}
