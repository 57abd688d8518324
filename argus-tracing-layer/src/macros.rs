//! Macros that mark an event by field and keep the caller's own target, so that an `EnvFilter` treats it as any other event of its module. A misspelt reserved
//! field does not compile.

/// An audit event of level INFO (tracing level INFO).
///
/// ```
/// argus_tracing_layer::audit_info!("cache_flushed", entries = 12, "flushed by hand");
/// ```
///
/// A reserved field that does not exist is refused, in every form of a field; so are `audit.event` and `audit.level`, which the macro sets:
///
/// ```compile_fail
/// argus_tracing_layer::audit_info!("cache_flushed", audit.actr = "jane");
/// ```
/// ```compile_fail
/// # let who = "jane";
/// argus_tracing_layer::audit_info!("cache_flushed", entries = 12, audit.actor.id = %who, "a message");
/// ```
/// ```compile_fail
/// # struct Audit { actr: u8 } let audit = Audit { actr: 1 };
/// argus_tracing_layer::audit_info!("cache_flushed", ?audit.actr);
/// ```
/// ```compile_fail,E0080
/// argus_tracing_layer::audit_info!("cache_flushed", "audit.actr" = "jane");
/// ```
/// ```compile_fail,E0080
/// const ACTOR: &str = "audit.actr";
/// argus_tracing_layer::audit_info!("cache_flushed", { ACTOR } = "jane");
/// ```
/// ```compile_fail
/// argus_tracing_layer::audit_info!("cache_flushed", audit.level = "SECURITY");
/// ```
#[macro_export]
macro_rules! audit_info {
    ($event:expr $(, $($fields:tt)*)?) => {{
        $crate::__fields!($($($fields)*)?);
        $crate::__tracing::event!($crate::__tracing::Level::INFO, audit.event = $event, audit.level = "INFO" $(, $($fields)*)?)
    }};
}

/// An audit event of level WARN (tracing level WARN). See [`audit_info!`].
///
/// ```compile_fail
/// argus_tracing_layer::audit_warn!("e", audit.file = "/etc/shop.yaml");
/// ```
#[macro_export]
macro_rules! audit_warn {
    ($event:expr $(, $($fields:tt)*)?) => {{
        $crate::__fields!($($($fields)*)?);
        $crate::__tracing::event!($crate::__tracing::Level::WARN, audit.event = $event, audit.level = "WARN" $(, $($fields)*)?)
    }};
}

/// An audit event of level CRITICAL (tracing level ERROR). See [`audit_info!`].
///
/// ```compile_fail
/// argus_tracing_layer::audit_critical!("e", audit.new = 1);
/// ```
#[macro_export]
macro_rules! audit_critical {
    ($event:expr $(, $($fields:tt)*)?) => {{
        $crate::__fields!($($($fields)*)?);
        $crate::__tracing::event!($crate::__tracing::Level::ERROR, audit.event = $event, audit.level = "CRITICAL" $(, $($fields)*)?)
    }};
}

/// An audit event of level SECURITY (tracing level ERROR). See [`audit_info!`].
///
/// ```compile_fail
/// argus_tracing_layer::audit_security!("e", audit.outcom = "failure");
/// ```
#[macro_export]
macro_rules! audit_security {
    ($event:expr $(, $($fields:tt)*)?) => {{
        $crate::__fields!($($($fields)*)?);
        $crate::__tracing::event!($crate::__tracing::Level::ERROR, audit.event = $event, audit.level = "SECURITY" $(, $($fields)*)?)
    }};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __reserved {
    (audit) => {};
    (audit.component) => {};
    (audit.file_path) => {};
    (audit.old_value) => {};
    (audit.new_value) => {};
    (audit.user_agent) => {};
    (audit.actor) => {};
    (audit.actor_type) => {};
    (audit.action) => {};
    (audit.outcome) => {};
    (audit . $($other:tt)+) => {
        compile_error!(concat!("`audit.", stringify!($($other)+), "` is no reserved audit field here; use component, file_path, old_value, new_value, user_agent, actor, actor_type, action or outcome"))
    };
    ($($other:tt)*) => {};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __fields {
    () => {};
    ($message:literal $(, $args:expr)* $(,)?) => {};
    ($key:literal = ? $value:expr $(, $($rest:tt)*)?) => { const _: () = $crate::__check_key($key); $crate::__fields!($($($rest)*)?); };
    ($key:literal = % $value:expr $(, $($rest:tt)*)?) => { const _: () = $crate::__check_key($key); $crate::__fields!($($($rest)*)?); };
    ($key:literal = $value:expr $(, $($rest:tt)*)?) => { const _: () = $crate::__check_key($key); $crate::__fields!($($($rest)*)?); };
    ({ $key:expr } = ? $value:expr $(, $($rest:tt)*)?) => { const _: () = $crate::__check_key($key); $crate::__fields!($($($rest)*)?); };
    ({ $key:expr } = % $value:expr $(, $($rest:tt)*)?) => { const _: () = $crate::__check_key($key); $crate::__fields!($($($rest)*)?); };
    ({ $key:expr } = $value:expr $(, $($rest:tt)*)?) => { const _: () = $crate::__check_key($key); $crate::__fields!($($($rest)*)?); };
    ($($key:ident).+ = ? $value:expr $(, $($rest:tt)*)?) => { $crate::__reserved!($($key).+); $crate::__fields!($($($rest)*)?); };
    ($($key:ident).+ = % $value:expr $(, $($rest:tt)*)?) => { $crate::__reserved!($($key).+); $crate::__fields!($($($rest)*)?); };
    ($($key:ident).+ = $value:expr $(, $($rest:tt)*)?) => { $crate::__reserved!($($key).+); $crate::__fields!($($($rest)*)?); };
    (? $($key:ident).+ $(, $($rest:tt)*)?) => { $crate::__reserved!($($key).+); $crate::__fields!($($($rest)*)?); };
    (% $($key:ident).+ $(, $($rest:tt)*)?) => { $crate::__reserved!($($key).+); $crate::__fields!($($($rest)*)?); };
    ($($key:ident).+ $(, $($rest:tt)*)?) => { $crate::__reserved!($($key).+); $crate::__fields!($($($rest)*)?); };
    // Any other form of a message, or a mistake, which `tracing` explains better.
    ($($message:tt)*) => {};
}
