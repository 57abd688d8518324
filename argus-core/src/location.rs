//! Where a trail is, and why there. The only place that knows the search order; never a temporary directory.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, TrailError};

/// Which store a path selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// SQLite.
    Sqlite,
    /// JSON lines.
    Jsonl,
}

/// Where the records go and why there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// The file.
    pub path: PathBuf,
    /// Which store.
    pub backend: Backend,
    /// Why this file, in words.
    pub reason: String,
    /// The `output_file` named no trail (neither empty nor of a known ending), so the unified database was taken.
    pub redirected: bool,
}

/// Where `output_file` leads.
///
/// # Errors
/// [`ErrorKind::NoLocation`] if the unified database has no place.
pub fn locate(output_file: &Path) -> Result<Location, TrailError> {
    locate_with(output_file, &|name| std::env::var_os(name))
}

pub(crate) fn locate_with(output_file: &Path, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Location, TrailError> {
    if let Some(backend) = backend_of(output_file) {
        return Ok(Location {
            path: output_file.into(),
            backend,
            reason: "output_file names it".into(),
            redirected: false,
        });
    }
    let dir = |name: &str, below: &str| {
        // systemd joins several state directories by colons: the first is the service's own.
        let value = env(name).filter(|v| !v.is_empty())?;
        let first = value.as_encoded_bytes().split(|b| *b == b':' && name == "STATE_DIRECTORY").next()?;
        let base = PathBuf::from(std::ffi::OsStr::from_bytes(first));
        // XDG: a relative path is to be ignored.
        base.is_absolute().then(|| (base.join(below), format!("{name} is set")))
    };
    let (path, reason) = match env("ARGUS_AUDIT_DB").filter(|v| !v.is_empty()) {
        Some(v) => (PathBuf::from(v), "ARGUS_AUDIT_DB is set".to_owned()),
        None => dir("XDG_DATA_HOME", "argus/audit.db")
            .or_else(|| dir("HOME", ".local/share/argus/audit.db"))
            .or_else(|| dir("STATE_DIRECTORY", "audit.db"))
            .ok_or_else(|| {
                TrailError::new(
                    ErrorKind::NoLocation,
                    "there is no place for the audit database: XDG_DATA_HOME, HOME and STATE_DIRECTORY are unset",
                )
                .help("set ARGUS_AUDIT_DB to a file such as /var/lib/myservice/audit.db")
            })?,
    };
    let backend = backend_of(&path).unwrap_or(Backend::Sqlite);
    Ok(Location { path, backend, reason, redirected: !output_file.as_os_str().is_empty() })
}

fn backend_of(path: &Path) -> Option<Backend> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "jsonl" => Some(Backend::Jsonl),
        "db" | "sqlite" | "sqlite3" => Some(Backend::Sqlite),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(out: &str, vars: &[(&str, &str)]) -> Result<Location, TrailError> {
        locate_with(Path::new(out), &|n| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| v.into()))
    }

    #[test]
    fn the_search_order_holds() {
        assert_eq!(at("/x/a.jsonl", &[]).unwrap().backend, Backend::Jsonl);
        assert_eq!(at("/x/a.sqlite3", &[]).unwrap().path, Path::new("/x/a.sqlite3"));
        let all = [("ARGUS_AUDIT_DB", "/e/t.db"), ("XDG_DATA_HOME", "/d"), ("HOME", "/h"), ("STATE_DIRECTORY", "/s")];
        let paths: Vec<_> = (0..4).map(|n| at("", &all[n..]).unwrap().path).collect();
        assert_eq!(
            paths,
            ["/e/t.db", "/d/argus/audit.db", "/h/.local/share/argus/audit.db", "/s/audit.db"].map(PathBuf::from)
        );
        let e = at("", &[]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NoLocation);
        assert!(e.to_string().contains("ARGUS_AUDIT_DB"));
        assert!(at("/var/log/audit.log", &all).unwrap().redirected);
        assert_eq!(at("", &[("STATE_DIRECTORY", "/s/a:/s/b")]).unwrap().path, Path::new("/s/a/audit.db"));
    }
}
