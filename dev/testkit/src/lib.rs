//! For Argus's own tests: temporary trails, the independent verifier, an OTLP/HTTP receiver, the shared samples. Never published; panics are failures of the
//! test that called.
//!
//! - `trail`: [`TempTrail`], a directory that goes away with paths for both backends
//! - `python`: [`verify_with_python`], the verifier that shares no code with Argus
//! - `otlp`: [`OtlpReceiver`], a real OTLP/HTTP endpoint on loopback; `http` is its server side of HTTP/1.1, `reply` what it
//!   answers
//! - `sample`: [`shared`], what lies beside the workspace, and [`workspace_root`]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod http;
mod otlp;
mod python;
mod reply;
mod sample;
mod trail;

pub use argus_core::ManualClock;
/// The messages that the receiver decodes.
pub use opentelemetry_proto;
pub use otlp::{Incoming, OtlpReceiver, ReceivedLog, ReceivedSpan, text};
pub use python::verify_with_python;
pub use reply::Reply;
pub use sample::{shared, workspace_root};
pub use trail::TempTrail;
