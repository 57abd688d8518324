//! The environment laid over a configuration: each variable that is set changes its own setting and no other. Reads through a lookup, so that tests set no variable.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use super::forms::{Bytes, CommittedFrom, Count, Gid, Human, Mode};
use super::{AuditConfig, Overflow};
use crate::error::{AuditError, ErrorKind, OpenError, TrailError};
use crate::level::Level;

const PREFIX: &str = "ARGUS_AUDIT_";
/// Every variable that begins so; `ARGUS_AUDIT_DB` is read when the place of the trail is looked for (`location`).
const KNOWN: [&str; 19] = [
    "ARGUS_AUDIT_DB",
    "ARGUS_AUDIT_ENABLED",
    "ARGUS_AUDIT_OUTPUT_FILE",
    "ARGUS_AUDIT_MIN_LEVEL",
    "ARGUS_AUDIT_BUFFER_SIZE",
    "ARGUS_AUDIT_FLUSH_INTERVAL",
    "ARGUS_AUDIT_COMMIT_DELAY",
    "ARGUS_AUDIT_STATS_INTERVAL",
    "ARGUS_AUDIT_INCLUDE_STACK",
    "ARGUS_AUDIT_JOURNAL",
    "ARGUS_AUDIT_CONTEXT",
    "ARGUS_AUDIT_COMPONENT",
    "ARGUS_AUDIT_DURABILITY_FROM",
    "ARGUS_AUDIT_OVERFLOW",
    "ARGUS_AUDIT_REDACT_KEYS",
    "ARGUS_AUDIT_QUEUE_BYTES",
    "ARGUS_AUDIT_FILE_MODE",
    "ARGUS_AUDIT_GROUP",
    "ARGUS_AUDIT_SPILL_DIR",
];

/// What the environment did that somebody should hear of.
#[derive(Clone, Debug, Default)]
pub(crate) struct FromEnv {
    /// The value of `ARGUS_AUDIT_ENABLED`, if it means off.
    off: Option<String>,
    /// Names that begin like ours and are none.
    unknown: Vec<String>,
}

impl AuditConfig {
    /// The defaults, with what the environment says.
    ///
    /// # Errors
    /// As [`overlay_env`](Self::overlay_env).
    pub fn from_env() -> Result<AuditConfig, OpenError> {
        Self::default().overlay_env()
    }

    /// Lays the environment (`ARGUS_AUDIT_*`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) over what is set so far; what is set after this call goes over the
    /// environment. An empty variable counts as unset.
    ///
    /// `ARGUS_AUDIT_ENABLED=false` switches auditing off, and not in silence: `on_error` is told of it, and [`Health::degraded`](crate::Health::degraded)
    /// says so. A variable that begins with `ARGUS_AUDIT_` and is none of ours is told to `on_error`, too.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: a value cannot be read. The error names the variable, the value and the accepted forms.
    pub fn overlay_env(self) -> Result<AuditConfig, OpenError> {
        let mut config = self.overlay_env_with(|name| std::env::var_os(name))?;
        config.from_env.unknown = FromEnv::with_unknown(std::env::vars_os().map(|(name, _)| name)).unknown;
        Ok(config)
    }

    /// As [`overlay_env`](Self::overlay_env), from another source than the process's environment.
    ///
    /// # Errors
    /// As [`overlay_env`](Self::overlay_env).
    pub fn overlay_env_with(mut self, lookup: impl Fn(&str) -> Option<OsString>) -> Result<AuditConfig, OpenError> {
        let lookup: &dyn Fn(&str) -> Option<OsString> = &lookup;
        let read = Reader(lookup);
        if let Some((on, text)) = read.value_and_text::<bool>("ENABLED")? {
            self.enabled = on;
            self.from_env.off = (!on).then_some(text);
        }
        // Any bytes may be a path.
        if let Some(path) = read.raw("OUTPUT_FILE") {
            self.output_file = PathBuf::from(path);
        }
        if let Some(dir) = read.raw("SPILL_DIR") {
            self.spill_dir = Some(PathBuf::from(dir));
        }
        read.set::<Level>("MIN_LEVEL", |v| self.min_level = v)?;
        read.set::<Count>("BUFFER_SIZE", |v| self.buffer_size = v.0)?;
        read.set::<Duration>("FLUSH_INTERVAL", |v| self.flush_interval = v)?;
        read.set::<Duration>("COMMIT_DELAY", |v| self.commit_delay = Some(v))?;
        read.set::<Duration>("STATS_INTERVAL", |v| self.stats_interval = Some(v).filter(|i| !i.is_zero()))?;
        read.set::<bool>("INCLUDE_STACK", |v| self.include_stack = v)?;
        read.set::<bool>("JOURNAL", |v| self.journal = v)?;
        read.set::<CommittedFrom>("DURABILITY_FROM", |v| self.committed_from = v.0)?;
        read.set::<Overflow>("OVERFLOW", |v| self.overflow = v)?;
        read.set::<Bytes>("QUEUE_BYTES", |v| self.queue_bytes = v.0)?;
        read.set::<Mode>("FILE_MODE", |v| self.file_mode = v.0)?;
        read.set::<Gid>("GROUP", |v| self.group = Some(v.0))?;
        if let Some(component) = read.text("COMPONENT")? {
            self.component = component;
        }
        for key in read.text("REDACT_KEYS")?.iter().flat_map(|t| t.split(',')).map(str::trim).filter(|k| !k.is_empty())
        {
            self.redaction = self.redaction.key(key);
        }
        if let Some(pairs) = read.text("CONTEXT")? {
            for (n, pair) in pairs.split(',').enumerate().filter(|(_, p)| !p.trim().is_empty()) {
                // What is not understood may be the rest of a secret, so it is not repeated.
                let (key, value) = pair.split_once('=').filter(|(k, _)| !k.trim().is_empty()).ok_or_else(|| {
                    refused(
                        &format!("{PREFIX}CONTEXT"),
                        &format!("(pair {})", n + 1),
                        "`key=value,key=value`, with %2C for a comma in a value",
                    )
                })?;
                self = self.with(decoded(key.trim()), decoded(value.trim()));
            }
        }
        let service = Service::of(lookup);
        self.service_name = service.name.or(self.service_name);
        self.service_version = service.version.or(self.service_version);
        self.service_instance = service.instance.or(self.service_instance);
        Ok(self)
    }

    /// What `on_error` should hear of at the opening.
    pub(crate) fn notices(&self) -> Vec<AuditError> {
        let invalid =
            |name: &str, reason: String| AuditError::Invalid { field: name.to_owned().into(), reason: reason.into() };
        let unknown = self.from_env.unknown.iter();
        let mut notices: Vec<_> = unknown
            .map(|name| invalid(name, format!("Argus knows no such variable; it knows {}", KNOWN.join(", "))))
            .collect();
        if let Some(value) = &self.from_env.off {
            notices.push(match self.switched_off_by_env() {
                Some(reason) => invalid("enabled", reason),
                None => invalid(
                    "enabled",
                    format!("{PREFIX}ENABLED={value} has no effect: the program switches auditing on"),
                ),
            });
        }
        notices
    }

    /// Why nothing is recorded, if that was not the program's own will.
    pub(crate) fn switched_off_by_env(&self) -> Option<String> {
        let value = self.from_env.off.as_ref().filter(|_| !self.enabled)?;
        Some(format!("auditing is switched off by {PREFIX}ENABLED={value}: nothing is recorded"))
    }
}

impl FromEnv {
    pub(super) fn with_unknown(names: impl Iterator<Item = OsString>) -> Self {
        let ours = names.filter_map(|n| n.into_string().ok()).filter(|n| n.starts_with(PREFIX));
        let mut unknown: Vec<_> = ours.filter(|n| !KNOWN.contains(&n.as_str())).collect();
        unknown.sort();
        Self { off: None, unknown }
    }
}

fn refused(name: &str, value: &str, forms: &'static str) -> OpenError {
    TrailError::new(ErrorKind::Config, format!("the environment variable {name}={value} cannot be read"))
        .help(format!("it takes {forms}"))
}

struct Reader<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Reader<'_> {
    fn raw(&self, name: &str) -> Option<OsString> {
        (self.0)(&format!("{PREFIX}{name}")).filter(|v| !v.is_empty())
    }

    fn text(&self, name: &str) -> Result<Option<String>, OpenError> {
        let text = self.raw(name).map(OsString::into_string).transpose();
        text.map_err(|raw| refused(&format!("{PREFIX}{name}"), &raw.to_string_lossy(), "text in UTF-8"))
    }

    fn value_and_text<T: Human>(&self, name: &str) -> Result<Option<(T, String)>, OpenError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match T::text(&text) {
            Some(value) => Ok(Some((value, text))),
            None => Err(refused(&format!("{PREFIX}{name}"), &text, T::FORMS)),
        }
    }

    fn set<T: Human>(&self, name: &str, set: impl FnOnce(T)) -> Result<(), OpenError> {
        if let Some((value, _)) = self.value_and_text(name)? {
            set(value);
        }
        Ok(())
    }
}

/// Who speaks, by the variables of OpenTelemetry.
pub(crate) struct Service {
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) instance: Option<String>,
}

impl Service {
    pub(crate) fn of(lookup: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| lookup(name).as_deref().map(OsStr::to_string_lossy).map(|t| t.trim().to_owned());
        let attributes = text("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let attribute = |key: &str| {
            let mut pairs = attributes.split(',').filter_map(|kv| kv.split_once('='));
            pairs.find(|(k, _)| k.trim() == key).map(|(_, v)| decoded(v.trim())).filter(|v| !v.is_empty())
        };
        Self {
            name: text("OTEL_SERVICE_NAME").filter(|v| !v.is_empty()).or_else(|| attribute("service.name")),
            version: attribute("service.version"),
            instance: attribute("service.instance.id"),
        }
    }
}

/// Without percent-encoding, as OpenTelemetry asks for attributes; what is none stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&b) = bytes.get(i) {
        let digits = bytes.get(i + 1..i + 3).filter(|d| b == b'%' && d.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 16).ok());
        out.push(byte.unwrap_or(b));
        i += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}
