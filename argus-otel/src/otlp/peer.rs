//! Who the requests of a pipeline go to, and what becomes of them.

use std::fmt::Write as _;

use super::env::Settings;
use crate::account::SpanAccount;

#[derive(Debug)]
pub(super) struct Peer {
    /// Fit for logs.
    pub(super) shown: String,
    pub(super) account: SpanAccount,
    /// Whether each rejected item is counted, or the request as one.
    each: bool,
}

impl Peer {
    pub(super) fn new(settings: &Settings, account: &SpanAccount) -> Self {
        Self { shown: settings.shown.clone(), account: account.clone(), each: settings.each }
    }

    /// Counts what the other side says that it did not take. That is no error: the SDK would send all of it again.
    pub(super) fn took_a_part(&self, rejected: i64, why: &str) {
        let n = rejected.unsigned_abs();
        if rejected > 0 {
            let counted = if self.each { n } else { 1 };
            self.account.rejected(counted, || format!("{} rejected {n} of a batch: {why}", self.shown));
        }
    }
}

/// An error with the chain of its causes.
pub(super) fn causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let _ = write!(text, ": {c}");
        cause = c.source();
    }
    text
}
