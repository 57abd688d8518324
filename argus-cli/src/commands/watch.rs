//! `watch`: records changes of files until it is told to stop, then closes the trail.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use argus_core::{AuditConfig, AuditLogger, AuditSink, WatchError, Watcher, WatcherConfig};
use serde_json::json;

use super::signals::Stop;
use crate::args::Args;
use crate::{Exit, Failure, output, plan};

/// How long the last commit may take.
const CLOSE: Duration = Duration::from_secs(10);

pub(crate) fn watch(args: &Args, paths: &[PathBuf], out: &mut dyn Write) -> Result<Exit, Failure> {
    // First of all: a signal that comes while the trail is being opened must close it in order, too.
    let stop = Stop::install()?;
    let location = plan::location(args)?;
    let audit = AuditConfig::new(args.db.as_deref().unwrap_or(Path::new("")))
        .on_error(|e| output::complain(&format!("audit: {e}")));
    let logger = AuditLogger::open(audit.clone())?;
    let watcher = Watcher::with_sink(WatcherConfig::new(audit), logger.clone());
    watcher.error_handler(|e| output::complain(&e.to_string()));

    let begun = begin(&watcher, paths);
    if begun.is_ok() {
        ready(&watcher, &location.path, args.json, out);
        while !stop.wait(Duration::from_secs(3600)) {}
    }
    let stopped = watcher.stop();
    let report = logger.close(CLOSE);
    begun.and(stopped).map_err(|e| Failure::Other(e.to_string()))?;
    if let Some(e) = report.error {
        return Err(Failure::Other(format!("the trail was not closed in order: {e}")));
    }
    match logger.health().lost {
        0 => Ok(Exit::Ok),
        n => Err(Failure::Other(format!("{n} records were lost; `argus query --event audit_gap` says why"))),
    }
}

fn begin(watcher: &Watcher, paths: &[PathBuf]) -> Result<(), WatchError> {
    for path in paths {
        if path.is_dir() {
            watcher.watch_dir(path, |_| {})?;
        } else {
            watcher.watch(path, |_| {})?;
            if !path.exists() {
                output::complain(&format!("{} is not there yet; it is recorded when it comes", path.display()));
            }
        }
    }
    watcher.start()
}

/// Nobody need read it: a reader that has gone away ends no audit.
fn ready(watcher: &Watcher, trail: &Path, json: bool, out: &mut dyn Write) {
    let (files, trail) = (watcher.watched().len(), trail.to_string_lossy());
    let line = match json {
        true => json!({"ready": true, "files": files, "trail": trail}).to_string(),
        false => format!("ready: watching {files} files, trail {}", output::clean(&trail)),
    };
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
