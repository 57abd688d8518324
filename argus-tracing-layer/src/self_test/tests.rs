use tracing_core::{Dispatch, Level, LevelFilter};
use tracing_subscriber::prelude::*;

use super::*;
use crate::AuditLayer;

/// What is compiled in cannot be changed by a test: the maximum is given instead.
#[test]
fn a_level_that_is_not_compiled_in() {
    let (logger, _trail) = logger();
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(AuditLayer::new(logger)));
    let max = LevelFilter::WARN;
    let error = SelfTest::new().level(Level::TRACE).run_with(&dispatch, max).unwrap_err();
    let lost = |level| Problem::StaticMaxLevel { level, max };
    assert_eq!(error.problems(), [lost(Level::INFO), lost(Level::TRACE)]);
    assert!(
        error.to_string().contains("INFO events are not compiled in: `tracing`'s static maximum is warn"),
        "{error}"
    );
    assert_eq!(SelfTest::new().run_with(&dispatch, LevelFilter::INFO), Ok(TraceIds::NotInUse));
}

fn logger() -> (argus_core::AuditLogger, argus_core::MemoryTrail) {
    let trail = argus_core::MemoryTrail::new();
    (argus_core::AuditLogger::open_in_memory(argus_core::AuditConfig::default(), &trail).unwrap(), trail)
}
