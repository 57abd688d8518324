//! `WatcherConfig`: every setting of a watcher and its default. Plain data.

use std::time::Duration;

use crate::config::AuditConfig;

/// The settings of a [`Watcher`](super::Watcher).
///
/// ```
/// use argus_core::{AuditConfig, WatcherConfig};
/// use std::time::Duration;
/// let config = WatcherConfig::new(AuditConfig::new("/var/lib/shop/audit.db")).debounce(Duration::from_millis(20));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use]
pub struct WatcherConfig {
    /// The trail that [`Watcher::new`](super::Watcher::new) opens. With a sink of your own only its `redaction` is used, to cut differences at secret keys.
    pub audit: AuditConfig,
    /// How long a file must be quiet before it is read. Default: 50 ms.
    pub debounce: Duration,
    /// The longest that a file that is never quiet goes unread. Default: 1 s.
    pub max_wait: Duration,
    /// How often every file is read and compared whatever the notifications say. Default: 30 s.
    pub poll_interval: Duration,
    /// Most bytes of a file that are read. Default: 1 MiB.
    pub max_file_size: u64,
    /// The longest that `stop` waits for a callback that runs. Default: 5 s.
    pub stop_timeout: Duration,
}

impl Default for WatcherConfig {
    fn default() -> Self {
        Self::new(AuditConfig::default())
    }
}

impl WatcherConfig {
    /// The defaults, with this trail.
    pub fn new(audit: AuditConfig) -> Self {
        Self {
            audit,
            debounce: Duration::from_millis(50),
            max_wait: Duration::from_secs(1),
            poll_interval: Duration::from_secs(30),
            max_file_size: 1 << 20,
            stop_timeout: Duration::from_secs(5),
        }
    }

    /// How long a file must be quiet before it is read.
    pub fn debounce(mut self, quiet: Duration) -> Self {
        self.debounce = quiet;
        self
    }

    /// The longest that a file that is never quiet goes unread.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// How often every file is read whatever the notifications say.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Most bytes of a file that are read.
    pub fn max_file_size(mut self, bytes: u64) -> Self {
        self.max_file_size = bytes;
        self
    }

    /// The longest that `stop` waits for a callback that runs.
    pub fn stop_timeout(mut self, wait: Duration) -> Self {
        self.stop_timeout = wait;
        self
    }
}
