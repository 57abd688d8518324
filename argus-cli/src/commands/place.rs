//! `where`: the trail, why it is there, who writes it, and what lies beside it.

use std::io::Write;
use std::path::Path;

use argus_core::{AuditReader, TrailFiles, WriterFiles};
use serde_json::json;

use crate::args::Args;
use crate::{Exit, Failure, output, plan};

pub(crate) fn place(args: &Args, out: &mut dyn Write) -> Result<Exit, Failure> {
    let l = plan::location(args)?;
    let state = match AuditReader::open(&l.path) {
        Ok(_) => "readable".to_owned(),
        Err(e) if e.kind() == argus_core::ErrorKind::NotFound => {
            "does not exist yet; the first writer makes it".to_owned()
        }
        Err(e) => e.to_string(),
    };
    // A folder that is not there has nothing in it; one that may not be read, the state tells of.
    let files = TrailFiles::beside(&l.path).unwrap_or_default();
    let text = |p: &Path| p.to_string_lossy().into_owned();
    if args.json {
        let writers: Vec<_> = files
            .writers
            .iter()
            .map(|w| {
                json!({"writer": w.writer.to_string(), "alive": w.alive, "process_id": w.process_id, "process_name": w.process_name, "service_name": w.service_name,
                    "lock": w.lock.as_deref().map(text), "journals": w.journals.iter().map(|p| text(p)).collect::<Vec<_>>()})
            })
            .collect();
        let put_aside: Vec<_> = files.put_aside.iter().map(|p| text(p)).collect();
        let value = json!({"path": text(&l.path), "backend": format!("{:?}", l.backend).to_lowercase(), "reason": l.reason, "state": state, "writers": writers, "put_aside": put_aside});
        writeln!(out, "{value}")?;
        return Ok(Exit::Ok);
    }
    let clean = |p: &Path| output::clean(&text(p));
    writeln!(out, "{}\n  why:   {}\n  state: {}", clean(&l.path), output::clean(&l.reason), output::clean(&state))?;
    for w in &files.writers {
        writeln!(out, "  {}", output::clean(&of_writer(w)))?;
        for path in w.lock.iter().chain(&w.journals) {
            writeln!(out, "    {}", clean(path))?;
        }
    }
    for path in &files.put_aside {
        writeln!(out, "  put aside: {}", clean(path))?;
    }
    Ok(Exit::Ok)
}

fn of_writer(w: &WriterFiles) -> String {
    let state = match w.alive {
        Some(true) => "alive",
        Some(false) => "dead, not recovered: the next one who opens the trail for writing does it",
        None => "alive or dead, which cannot be told from here",
    };
    let mut text = format!("writer {}", w.writer);
    if let Some(service) = &w.service_name {
        text += &format!(" of {service}");
    }
    if let Some(pid) = w.process_id {
        text += &format!(", process {pid}");
    }
    if let Some(name) = &w.process_name {
        text += &format!(" ({name})");
    }
    format!("{text}: {state}")
}
