//! Power-loss simulation, for Argus's own tests: what Argus does to its files is recorded, and every state that a power cut could have left is built and opened.
//! How to run it at length, and what it does not show: `README.md`. Never published; panics are failures of the test that called.
//!
//! - `interpose`: the C library's file calls, watched in this process; the only `unsafe`
//! - `recorder`: from calls to a log of [`Op`]s, with notes of what was acknowledged when
//! - `image`: what may be on the disk after a crash at an operation; [`sample`] chooses which images to build
//! - `workload`: the real logger, writing a trail under the recorder
//! - `oracle`: opens an image and says what is wrong with it
//! - `fail`: file calls that fail instead, for `tests/io_errors.rs`
//! - `run`: all images of a recording, on all cores
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fail;
mod image;
mod interpose;
mod oracle;
mod recorder;
mod rng;
mod run;
mod workload;

pub use fail::{Call, Failure, failing};
pub use image::{Crash, Disk, Variant, sample};
pub use interpose::tune;
pub use recorder::{Note, Op, Recording, record};
pub use rng::Rng;
pub use run::{Outcome, images_wanted, run};
pub use workload::{Store, Workload};
