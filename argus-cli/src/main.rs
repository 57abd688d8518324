//! The `argus` command. `main` maps what a command came to onto an exit code, and nothing else.
//!
//! Layout: [`args`] what was typed; [`plan`] which trail and which filter that means; [`commands`] one file each; [`output`] text and JSON for people and programs.

mod args;
mod commands;
mod output;
mod plan;

use std::process::ExitCode;

use clap::Parser;

/// What a command came to. The codes are part of the interface: 0 ok, 1 tampered (or nothing found by `show`), 2 usage, 3 cannot read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok,
    Tampered,
    Usage,
    Unreadable,
}

impl From<Exit> for ExitCode {
    fn from(e: Exit) -> ExitCode {
        ExitCode::from(match e {
            Exit::Ok => 0,
            Exit::Tampered => 1,
            Exit::Usage => 2,
            Exit::Unreadable => 3,
        })
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    Usage(String),
    Trail(argus_core::TrailError),
    Other(String),
    Output(std::io::Error),
}

impl From<argus_core::TrailError> for Failure {
    fn from(e: argus_core::TrailError) -> Self {
        Failure::Trail(e)
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Failure::Output(e)
    }
}

fn main() -> ExitCode {
    let args = args::Args::parse();
    let exit = match commands::run(&args) {
        Ok(exit) => exit,
        // `argus query | head` is no failure.
        Err(Failure::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(failure) => {
            let (text, exit) = match failure {
                Failure::Usage(t) => (t, Exit::Usage),
                Failure::Trail(e) => (e.to_string(), Exit::Unreadable),
                Failure::Other(t) => (t, Exit::Unreadable),
                Failure::Output(e) => (format!("cannot write the output: {e}"), Exit::Unreadable),
            };
            output::complain(&text);
            exit
        }
    };
    exit.into()
}
