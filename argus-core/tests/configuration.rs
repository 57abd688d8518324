//! The real environment: read in another process, so that this one's stays as it is.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use argus_core::{AuditConfig, AuditLogger, AuditSink, ErrorKind, Level};
use common::{Dir, WAIT, child, part};

#[test]
fn the_environment_of_the_process_is_read() {
    match part().as_deref() {
        Some("level") => {
            let (tell, told) = std::sync::mpsc::channel();
            let config = AuditConfig::from_env().unwrap().on_error(move |e| drop(tell.send(e.to_string())));
            assert!(config.enabled);
            let logger = AuditLogger::open(config).unwrap();
            assert!(!logger.enabled(Level::Warn) && logger.enabled(Level::Critical));
            let notice = told.recv_timeout(WAIT).unwrap();
            assert!(notice.contains("ARGUS_AUDIT_MINLEVEL"), "{notice}");
            common::close(&logger);
            println!("{}", logger.location().unwrap().path.display());
        }
        Some("bad") => {
            let e = AuditConfig::default().overlay_env().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config);
            println!("{e}");
        }
        _ => {
            let dir = Dir::new();
            let run = |part: &str, vars: &[(&str, &str)]| {
                let mut c = child("the_environment_of_the_process_is_read", part);
                let out = c.envs(vars.iter().copied()).output().unwrap();
                let text = String::from_utf8_lossy(&out.stdout).into_owned();
                assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
                text
            };
            let file = dir.path("t.jsonl").to_string_lossy().into_owned();
            let vars = [
                ("ARGUS_AUDIT_OUTPUT_FILE", file.as_str()),
                ("ARGUS_AUDIT_MIN_LEVEL", "critical"),
                ("ARGUS_AUDIT_MINLEVEL", "info"),
            ];
            assert!(run("level", &vars).contains(&file));
            let said = run("bad", &[("ARGUS_AUDIT_QUEUE_BYTES", "a lot")]);
            assert!(said.contains("ARGUS_AUDIT_QUEUE_BYTES=a lot") && said.contains("64MiB"), "{said}");
        }
    }
}
