//! `AuditConfig` in files: read from and written to any format of serde, with the forms of `forms`. Unknown names are refused, what is left out keeps its
//! default, and hooks and clock are no part of a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::forms::{self, Bytes, CommittedFrom, Count, Durable, Form, Gid, Mode};
use super::{AuditConfig, Overflow};
use crate::error::{ErrorKind, OpenError, TrailError};
use crate::level::Level;
use crate::redaction::Redaction;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "the settings of an audit trail, see docs/configuration.md")]
struct Settings {
    enabled: Option<Form<bool>>,
    output_file: Option<PathBuf>,
    min_level: Option<Form<Level>>,
    buffer_size: Option<Form<Count>>,
    flush_interval: Option<Form<Duration>>,
    commit_delay: Option<Form<Duration>>,
    stats_interval: Option<Form<Duration>>,
    include_stack: Option<Form<bool>>,
    journal: Option<Form<bool>>,
    context: Option<serde_json::Map<String, serde_json::Value>>,
    component: Option<String>,
    service_name: Option<String>,
    service_version: Option<String>,
    service_instance: Option<String>,
    durability: Option<Durable>,
    durability_from: Option<Form<CommittedFrom>>,
    overflow: Option<Overflow>,
    redaction: Option<Rules>,
    queue_bytes: Option<Form<Bytes>>,
    file_mode: Option<Form<Mode>>,
    group: Option<Form<Gid>>,
    spill_dir: Option<PathBuf>,
}

#[derive(serde::Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "{default_keys: true, keys: [..], shapes: {name: pattern}, without_shapes: [..]}"
)]
struct Rules {
    default_keys: Option<Form<bool>>,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    shapes: BTreeMap<String, String>,
    #[serde(default)]
    without_shapes: Vec<String>,
}

fn set<T>(to: &mut T, from: Option<T>) {
    if let Some(value) = from {
        *to = value;
    }
}

impl<'de> Deserialize<'de> for AuditConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = Settings::deserialize(d)?;
        let mut c = AuditConfig::default();
        set(&mut c.enabled, s.enabled.map(|f| f.0));
        set(&mut c.output_file, s.output_file);
        set(&mut c.min_level, s.min_level.map(|f| f.0));
        set(&mut c.buffer_size, s.buffer_size.map(|f| f.0.0));
        set(&mut c.flush_interval, s.flush_interval.map(|f| f.0));
        c.commit_delay = s.commit_delay.map(|f| f.0);
        if let Some(Form(interval)) = s.stats_interval {
            c = c.stats_interval(interval);
        }
        set(&mut c.include_stack, s.include_stack.map(|f| f.0));
        set(&mut c.journal, s.journal.map(|f| f.0));
        set(&mut c.context, s.context.map(|m| m.into_iter().collect()));
        set(&mut c.component, s.component);
        c.service_name = s.service_name;
        c.service_version = s.service_version;
        c.service_instance = s.service_instance;
        if s.durability.is_some() && s.durability_from.is_some() {
            return Err(de::Error::custom("`durability` and `durability_from` say the same thing: give one of them"));
        }
        set(&mut c.committed_from, s.durability.map(|d| d.0).or(s.durability_from.map(|f| f.0.0)));
        set(&mut c.overflow, s.overflow);
        if let Some(rules) = s.redaction {
            let base = match rules.default_keys {
                Some(Form(false)) => Redaction::default().without_keys(),
                _ => Redaction::default(),
            };
            let keyed = rules.keys.iter().fold(base, |r, k| r.key(k));
            let fewer = rules.without_shapes.iter().fold(keyed, |r, name| r.without_shape(name));
            c.redaction = rules.shapes.iter().fold(fewer, |r, (name, pattern)| r.shape(name, pattern));
        }
        set(&mut c.queue_bytes, s.queue_bytes.map(|f| f.0.0));
        set(&mut c.file_mode, s.file_mode.map(|f| f.0.0));
        c.group = s.group.map(|f| f.0.0).or(c.group);
        c.spill_dir = s.spill_dir;
        Ok(c)
    }
}

impl Serialize for AuditConfig {
    /// All settings in the forms that are read again, the values of `context` in clear. What is `None` is left out; hooks, clock and the redaction rules are no part of it.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut out = s.serialize_struct("AuditConfig", 20)?;
        out.serialize_field("enabled", &self.enabled)?;
        out.serialize_field("output_file", &self.output_file)?;
        out.serialize_field("min_level", self.min_level.as_str())?;
        out.serialize_field("buffer_size", &self.buffer_size)?;
        out.serialize_field("flush_interval", &forms::duration_text(self.flush_interval))?;
        for (name, value) in [("commit_delay", self.commit_delay), ("stats_interval", self.stats_interval)] {
            match value {
                Some(v) => out.serialize_field(name, &forms::duration_text(v))?,
                None => out.skip_field(name)?,
            }
        }
        out.serialize_field("include_stack", &self.include_stack)?;
        out.serialize_field("journal", &self.journal)?;
        out.serialize_field("component", &self.component)?;
        let optional = [
            ("service_name", &self.service_name),
            ("service_version", &self.service_version),
            ("service_instance", &self.service_instance),
        ];
        for (name, value) in optional {
            match value {
                Some(v) => out.serialize_field(name, v)?,
                None => out.skip_field(name)?,
            }
        }
        out.serialize_field("durability_from", self.committed_from.map_or("never", Level::as_str))?;
        out.serialize_field(
            "overflow",
            &match self.overflow {
                Overflow::Block { timeout } => format!("block:{}", forms::duration_text(timeout)),
                Overflow::Reject => "reject".into(),
                Overflow::Spill => "spill".into(),
            },
        )?;
        out.serialize_field("queue_bytes", &forms::size_text(self.queue_bytes))?;
        out.serialize_field("file_mode", &format!("{:04o}", self.file_mode))?;
        match self.group {
            Some(gid) => out.serialize_field("group", &gid)?,
            None => out.skip_field("group")?,
        }
        match &self.spill_dir {
            Some(dir) => out.serialize_field("spill_dir", dir)?,
            None => out.skip_field("spill_dir")?,
        }
        // Last: in TOML a table comes after the plain members.
        out.serialize_field(
            "context",
            &self.context.iter().map(|(k, v)| (k, v)).collect::<std::collections::BTreeMap<_, _>>(),
        )?;
        out.end()
    }
}

impl AuditConfig {
    /// The defaults, with what a file of settings says: `.json`, and `.yaml`, `.yml`, `.toml` with the features of these names. The whole file is the trail's; a
    /// service that has a file of its own puts an `AuditConfig` into its own settings instead.
    ///
    /// # Errors
    /// The file cannot be read, has another ending, names a setting that there is not, or a value that cannot be read.
    pub fn from_file(path: impl AsRef<Path>) -> Result<AuditConfig, OpenError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|e| TrailError::io("the audit configuration cannot be read", path, e))?;
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let bad =
            |e: String| TrailError::new(ErrorKind::Config, "the audit configuration is wrong").at(path).because(e);
        match ending.as_str() {
            "json" => serde_json::from_str(&text).map_err(|e| bad(e.to_string())),
            // An empty document, or one of comments only, is an empty configuration.
            #[cfg(feature = "yaml")]
            "yaml" | "yml" => serde_saphyr::from_str_with_options::<Option<AuditConfig>>(&text, yaml_options())
                .map(Option::unwrap_or_default)
                .map_err(|e| bad(e.to_string())),
            #[cfg(feature = "toml")]
            "toml" => toml::from_str(&text).map_err(|e| bad(e.to_string().trim_end().to_owned())),
            _ => Err(TrailError::new(
                ErrorKind::Config,
                "the audit configuration has an ending that this build does not read",
            )
            .at(path)
            .help(".json; .yaml, .yml and .toml with the features `yaml` and `toml` of argus-core")),
        }
    }
}

/// As the watcher's: a key named twice is an error. No excerpt in errors, for it may show what stands beside.
#[cfg(feature = "yaml")]
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        with_snippet: false,
    }
}
