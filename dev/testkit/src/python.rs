//! Runs `tools/argus_verify.py`, which was written from `docs/record-format.md` alone: what both verifiers accept, the format says.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use crate::sample::workspace_root;

/// The verifier's exit code (0 ok, 1 tampered, 2 usage, 3 cannot read; -1 killed by a signal) and what it printed. `None`, and `SKIPPED:` on standard output, on
/// a machine without python3.
///
/// # Panics
/// The tool is missing, or cannot be started.
pub fn verify_with_python(trail: impl AsRef<Path>) -> Option<(i32, String)> {
    let tool = workspace_root().join("tools/argus_verify.py");
    assert!(tool.is_file(), "{} is missing", tool.display());
    match Command::new("python3").arg(&tool).arg(trail.as_ref()).output() {
        Ok(out) => {
            if !out.stderr.is_empty() {
                eprintln!("argus_verify.py: {}", String::from_utf8_lossy(&out.stderr));
            }
            Some((out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stdout).into_owned()))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            println!("SKIPPED: python3 not found");
            None
        }
        Err(e) => panic!("python3 cannot be started: {e}"),
    }
}
