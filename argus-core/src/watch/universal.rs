//! The shortest way to watch: one call for a file or a directory. Nothing but a use of `Watcher`.

use std::path::Path;

use super::{ChangeEvent, WatchError, Watcher, WatcherConfig};

/// Watches a file, or every known file of a directory, with a trail at the default place. The watcher is started; keep it, for its drop stops it.
///
/// # Errors
/// As [`Watcher::new`], [`Watcher::watch`], [`Watcher::watch_dir`] and [`Watcher::start`].
pub fn universal_config_watcher(
    path: impl AsRef<Path>,
    callback: impl Fn(&ChangeEvent) + Send + Sync + 'static,
) -> Result<Watcher, WatchError> {
    universal_config_watcher_with_config(path, WatcherConfig::default(), callback)
}

/// As [`universal_config_watcher`], with settings.
///
/// # Errors
/// The same.
pub fn universal_config_watcher_with_config(
    path: impl AsRef<Path>,
    config: WatcherConfig,
    callback: impl Fn(&ChangeEvent) + Send + Sync + 'static,
) -> Result<Watcher, WatchError> {
    let watcher = Watcher::new(config)?;
    match path.as_ref().is_dir() {
        true => watcher.watch_dir(path, callback)?,
        false => watcher.watch(path, callback)?,
    }
    watcher.start()?;
    Ok(watcher)
}
