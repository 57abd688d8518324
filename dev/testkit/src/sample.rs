//! Where things are: the workspace, and the samples in `../shared` beside it, which a checkout may lack.

use std::path::{Path, PathBuf};

/// The root of the workspace.
///
/// # Panics
/// No directory above this crate has a `Cargo.toml` with `[workspace]`.
pub fn workspace_root() -> PathBuf {
    let is_root = |d: &&Path| std::fs::read_to_string(d.join("Cargo.toml")).is_ok_and(|t| t.contains("[workspace]"));
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(is_root).expect("a workspace above the testkit").to_owned()
}

/// The file or directory `name` of the shared samples: of `$ARGUS_SHARED`, else of `../shared` beside the workspace. `None`, and `SKIPPED:` on standard output,
/// where it is missing.
pub fn shared(name: impl AsRef<Path>) -> Option<PathBuf> {
    let beside = || workspace_root().join("../shared");
    let path = std::env::var_os("ARGUS_SHARED").filter(|v| !v.is_empty()).map_or_else(beside, PathBuf::from).join(name);
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED: {} not found (ARGUS_SHARED names another directory)", path.display());
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_where_the_tools_are() {
        assert!(workspace_root().join("tools").is_dir());
        assert_eq!(shared("there/is/no/such/sample"), None);
    }
}
