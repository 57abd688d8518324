//! A span exporter that does as it is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum How {
    Works,
    Refuses,
    Panics,
    Hangs,
    /// Works until its provider is shut down.
    ShutDown,
}

/// An exporter that does as it is told; one that hangs does so until the gate opens.
#[derive(Clone, Debug)]
pub(crate) struct Exporter {
    how: How,
    gate: Arc<(Mutex<bool>, Condvar)>,
    pub(crate) taken: Arc<AtomicUsize>,
}

impl Exporter {
    pub(crate) fn new(how: How) -> Self {
        Self { how, gate: Arc::default(), taken: Arc::default() }
    }

    pub(crate) fn open(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        match self.how {
            How::Works | How::ShutDown => {}
            How::Refuses => return Err(OTelSdkError::InternalFailure("503 from the collector".into())),
            How::Panics => panic!("an exporter that panics"),
            How::Hangs => {
                let mut open = self.gate.0.lock().unwrap();
                while !*open {
                    open = self.gate.1.wait(open).unwrap();
                }
            }
        }
        self.taken.fetch_add(batch.len(), Ordering::AcqRel);
        Ok(())
    }
}
