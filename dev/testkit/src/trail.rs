//! `TempTrail`: a private temporary directory and the paths of trails in it. It goes away on drop.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary directory for trails.
#[derive(Debug)]
pub struct TempTrail(TempDir);

impl TempTrail {
    /// An empty directory, mode 0700.
    ///
    /// # Panics
    /// It cannot be made.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("argus-test-").tempdir().expect("a temporary directory"))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Path of a SQLite trail.
    pub fn db(&self) -> PathBuf {
        self.path("audit.db")
    }

    /// Path of a JSONL trail.
    pub fn jsonl(&self) -> PathBuf {
        self.path("audit.jsonl")
    }
}
