//! What files and variables do to a configuration. No test sets a variable of the process.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::*;

fn env(config: AuditConfig, vars: &[(&str, &str)]) -> Result<AuditConfig, OpenError> {
    config.overlay_env_with(|n| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| OsString::from(v)))
}

fn json(text: &str) -> Result<AuditConfig, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// All settings, to compare.
fn all(c: &AuditConfig) -> String {
    serde_json::to_string(c).unwrap()
}

/// Every variable, and the file's member that means the same.
const BOTH: &[(&str, &str, &str)] = &[
    ("ENABLED", "off", r#""enabled":false"#),
    ("OUTPUT_FILE", "/t/a.db", r#""output_file":"/t/a.db""#),
    ("MIN_LEVEL", "warn", r#""min_level":"Warn""#),
    ("BUFFER_SIZE", "7", r#""buffer_size":7"#),
    ("FLUSH_INTERVAL", "1m 30s", r#""flush_interval":90000"#),
    ("COMMIT_DELAY", "250", r#""commit_delay":"250ms""#),
    ("STATS_INTERVAL", "10s", r#""stats_interval":"10s""#),
    ("INCLUDE_STACK", "1", r#""include_stack":true"#),
    ("JOURNAL", "off", r#""journal":false"#),
    ("CONTEXT", "region=eu-1, list=a%2Cb", r#""context":{"region":"eu-1","list":"a,b"}"#),
    ("COMPONENT", "gate", r#""component":"gate""#),
    ("DURABILITY_FROM", "security", r#""durability":{"from":"SECURITY"}"#),
    ("OVERFLOW", "block:250ms", r#""overflow":{"block":"250ms"}"#),
    ("QUEUE_BYTES", "16 MiB", r#""queue_bytes":16777216"#),
    ("FILE_MODE", "0640", r#""file_mode":"0o640""#),
    ("SPILL_DIR", "/t/spill", r#""spill_dir":"/t/spill""#),
    ("GROUP", "1000", r#""group":"1000""#),
];

#[test]
fn a_variable_or_member_changes_its_own_setting_and_no_other() {
    let default = all(&AuditConfig::default());
    for (name, value, member) in BOTH {
        let variable = format!("ARGUS_AUDIT_{name}");
        let by_env = env(AuditConfig::default(), &[(&variable, value)]).unwrap();
        let by_file = json(&format!("{{{member}}}")).unwrap();
        assert_eq!(all(&by_env), all(&by_file), "{name}");
        assert!(by_env.enabled || *name == "ENABLED", "{name}");
        let own = |text: &str| -> serde_json::Map<String, serde_json::Value> { serde_json::from_str(text).unwrap() };
        let (before, after) = (own(&default), own(&all(&by_env)));
        let changed = before.keys().chain(after.keys()).filter(|k| before.get(*k) != after.get(*k));
        let changed: std::collections::BTreeSet<_> = changed.collect();
        assert_eq!(changed.len(), 1, "{name}: {changed:?}");
    }
    assert!(json("{}").unwrap().enabled);
    assert_eq!(all(&json("{}").unwrap()), default);
    assert_eq!(all(&env(AuditConfig::default(), &[]).unwrap()), default);
    // Set to nothing is not set.
    assert_eq!(
        all(&env(AuditConfig::default(), &[("ARGUS_AUDIT_ENABLED", ""), ("ARGUS_AUDIT_GROUP", "")]).unwrap()),
        default
    );
}

#[test]
fn code_goes_before_the_environment_before_a_file_before_the_defaults() {
    let file = r#"{"min_level":"critical","component":"file","buffer_size":3,"service_name":"file","context":{"a":"file","b":"file","c":1}}"#;
    let vars = [
        // INFO can be selected though the base is higher.
        ("ARGUS_AUDIT_MIN_LEVEL", "INFO"),
        ("ARGUS_AUDIT_COMPONENT", "env"),
        ("ARGUS_AUDIT_CONTEXT", "a=env,b=env"),
        ("OTEL_SERVICE_NAME", "env"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=no,service.version=1%2E2,service.instance.id=i"),
    ];
    let c = env(json(file).unwrap(), &vars).unwrap().component("code").with("a", "code");
    assert_eq!((c.min_level, c.component.as_str(), c.buffer_size), (Level::Info, "code", 3));
    assert_eq!(c.flush_interval, Duration::from_secs(5));
    assert_eq!(c.service_name.as_deref(), Some("env"));
    assert_eq!((c.service_version.as_deref(), c.service_instance.as_deref()), (Some("1.2"), Some("i")));
    let mut context: Vec<_> = c.context.iter().map(|(k, v)| format!("{k}={v}")).collect();
    context.sort();
    assert_eq!(context, [r#"a="code""#, r#"b="env""#, "c=1"]);
}

#[test]
fn what_cannot_be_read_names_variable_value_and_forms() {
    for (name, value, forms) in [
        ("ENABLED", "maybe", "true, false"),
        ("MIN_LEVEL", "verbose", "INFO, WARN, CRITICAL or SECURITY"),
        ("BUFFER_SIZE", "-1", "whole number"),
        ("FLUSH_INTERVAL", "5 parsecs", "`5s`"),
        ("COMMIT_DELAY", "-5s", "`250ms`"),
        ("DURABILITY_FROM", "always", "never"),
        ("OVERFLOW", "spil", "reject"),
        ("QUEUE_BYTES", "64M", "64MiB"),
        ("QUEUE_BYTES", "99999999999GiB", "64MiB"),
        ("FILE_MODE", "0999", "0640"),
        ("FILE_MODE", "0666", "not everybody"),
        ("GROUP", "wheel", "gid"),
    ] {
        let e = env(AuditConfig::default(), &[(&format!("ARGUS_AUDIT_{name}"), value)]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        let text = e.to_string();
        assert!(text.contains(&format!("ARGUS_AUDIT_{name}={value}")) && text.contains(forms), "{text}");
    }
    // What may be the rest of a secret is not repeated.
    let e = env(AuditConfig::default(), &[("ARGUS_AUDIT_CONTEXT", "key=pass,word")]).unwrap_err().to_string();
    assert!(e.contains("(pair 2)") && e.contains("key=value") && !e.contains("word"), "{e}");
    let bytes = || Some(OsString::from_vec(b"/t/\xff.db".to_vec()));
    let c = AuditConfig::default().overlay_env_with(|n| bytes().filter(|_| n == "ARGUS_AUDIT_OUTPUT_FILE")).unwrap();
    assert_eq!(c.output_file.into_os_string(), bytes().unwrap());
    let e = AuditConfig::default().overlay_env_with(|n| bytes().filter(|_| n == "ARGUS_AUDIT_COMPONENT")).unwrap_err();
    assert!(e.to_string().contains("UTF-8"), "{e}");
}

#[test]
fn a_file_is_refused_where_it_says_what_nobody_understands() {
    for (text, says) in [
        (r#"{"min_levle":"WARN"}"#, "unknown field `min_levle`"),
        (r#"{"min_level":"LOUD"}"#, "expected INFO, WARN"),
        (r#"{"min_level":2}"#, "integer `2`"),
        (r#"{"enabled":2}"#, "true, false"),
        (r#"{"flush_interval":5.5}"#, "milliseconds"),
        (r#"{"flush_interval":-1}"#, "milliseconds"),
        (r#"{"queue_bytes":"64 MB/s"}"#, "64MiB"),
        (r#"{"file_mode":640}"#, "octal text"),
        (r#"{"overflow":"wait"}"#, "reject"),
        (r#"{"overflow":{"block":"5s","reject":1}}"#, "reject"),
        (r#"{"overflow":{}}"#, "reject"),
        (r#"{"durability":{"from":"LOUD"}}"#, "never"),
        (r#"{"durability":"committed","durability_from":"never"}"#, "give one"),
        (r#"{"redaction":{"words":[]}}"#, "unknown field `words`"),
        (r#"{"on_error":1}"#, "unknown field"),
        (r#"{"component":"a","component":"b"}"#, "duplicate field"),
    ] {
        let e = json(text).unwrap_err();
        assert!(e.contains(says), "{text}: {e}");
    }
}

#[test]
fn words_of_a_file_mean_what_the_builder_says() {
    let c = json(r#"{"durability":"committed","overflow":"REJECT","redaction":{"keys":["session_id"]}}"#).unwrap();
    assert_eq!((c.committed_from, c.overflow), (Some(Level::Info), Overflow::Reject));
    assert!(c.redaction.hides("sessionId") && c.redaction.hides("password"));
    assert_eq!(json(r#"{"durability":"accepted"}"#).unwrap().committed_from, None);
    assert_eq!(json(r#"{"durability_from":"never","overflow":"block"}"#).unwrap().overflow, Overflow::default());
    let c = json(r#"{"redaction":{"default_keys":false,"keys":["pin"]}}"#).unwrap();
    assert!(c.redaction.hides("pin") && !c.redaction.hides("password"));
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
    assert!(c.redaction.text(jwt).is_some(), "the shapes stay");
    let c = json(r#"{"redaction":{"shapes":{"ticket":"ACME-[0-9]{6}"},"without_shapes":["jwt"]}}"#).unwrap();
    assert!(c.redaction.text("see ACME-123456").is_some_and(|t| !t.contains("123456")));
    assert!(c.redaction.text(jwt).is_none() && c.redaction.hides("password"));
    let wrong = json(r#"{"redaction":{"shapes":{"ticket":"ACME-["}}}"#).unwrap();
    assert!(wrong.redaction.compiled().unwrap_err().contains("ticket"));
    let c = env(AuditConfig::default(), &[("ARGUS_AUDIT_REDACT_KEYS", "pin, session_id,")]).unwrap();
    assert!(c.redaction.hides("pin") && c.redaction.hides("session-id") && c.redaction.hides("password"));
    assert!(!c.redaction.hides("user"));
}

/// In YAML, TOML and JSON alike; and what is written is read again.
#[cfg(all(feature = "yaml", feature = "toml"))]
#[test]
fn each_format_of_files_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        AuditConfig::from_file(path)
    };
    let wanted = AuditConfig::new("/t/a.db")
        .min_level(Level::Warn)
        .flush_interval(Duration::from_millis(1500))
        .durability_from(Level::Security, Durability::Committed)
        .overflow(Overflow::Block { timeout: Duration::from_millis(250) })
        .queue_bytes(16 << 20)
        .file_mode(0o640)
        .group(5)
        .include_stack(true)
        .service("shop", "1.4.2")
        .service_instance("a")
        .with("tries", 3)
        .with("region", "eu-1");
    let yaml = "
output_file: /t/a.db
min_level: warn  # in any case
flush_interval: 1500
durability: {from: security}
overflow: {block: 250ms}
queue_bytes: 16MiB
file_mode: 0o640
group: 5
include_stack: yes
service_name: shop
service_version: 1.4.2
service_instance: a
context:
  tries: 3
  region: eu-1
";
    let toml = r#"
output_file = "/t/a.db"
min_level = "WARN"
flush_interval = "1.5s"
durability_from = "SECURITY"
queue_bytes = "16 MiB"
file_mode = 0o640
group = 5
include_stack = true
service_name = "shop"
service_version = "1.4.2"
service_instance = "a"
overflow.block = "250ms"
[context]
tries = 3
region = "eu-1"
"#;
    for (name, text) in [("a.yaml", yaml), ("a.toml", toml), ("a.json", &all(&wanted))] {
        assert_eq!(all(&read(name, text).unwrap()), all(&wanted), "{name}");
    }
    let default = all(&AuditConfig::default());
    for (name, text) in [("e.yml", "# all of it by default\n"), ("e.toml", ""), ("e.json", "{}")] {
        assert_eq!(all(&read(name, text).unwrap()), default, "{name}");
    }
    // Decimal where octal is meant.
    for (name, text) in [("m.yaml", "file_mode: 640"), ("m.toml", "file_mode = 640")] {
        let e = read(name, text).unwrap_err();
        assert_eq!((e.kind(), e.path().is_some()), (ErrorKind::Config, true));
        assert!(e.to_string().contains("octal"), "{e}");
    }
    assert!(read("t.yaml", "min_levle: WARN").unwrap_err().to_string().contains("min_levle"));
    assert!(read("d.yaml", "group: 1\ngroup: 2").is_err());
    assert_eq!(read("a.ini", "").unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(AuditConfig::from_file(dir.path().join("no.json")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_cannot_be_meant_is_refused_at_the_opening() {
    let trail = crate::MemoryTrail::new();
    for (config, says) in [
        (AuditConfig::default().flush_interval(Duration::ZERO), "flush_interval"),
        (AuditConfig::default().commit_delay(Duration::MAX), "commit_delay"),
        (AuditConfig::default().file_mode(0o400), "file_mode 0o400"),
        (AuditConfig::default().file_mode(0o666), "file_mode 0o666"),
        (AuditConfig::default().component(""), "component"),
    ] {
        let e = crate::AuditLogger::open_in_memory(config, &trail).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        assert!(e.to_string().contains(says), "{e}");
    }
    let dir = tempfile::tempdir().unwrap();
    let config = AuditConfig::new(dir.path().join("a.jsonl")).flush_interval(Duration::MAX).buffer_size(0);
    let logger = crate::AuditLogger::open(config).unwrap();
    assert_eq!(crate::AuditSink::close(&logger, Duration::from_secs(20)).error, None);
}

/// Told by `on_error`, on Argus's own thread.
#[test]
fn the_environment_switches_off_loudly_and_code_has_the_last_word() {
    use crate::{AuditLogger, AuditSink};
    let dir = tempfile::tempdir().unwrap();
    let open = |by_code: Option<bool>| {
        let (tell, told) = std::sync::mpsc::channel();
        let c = AuditConfig::new(dir.path().join("a.db")).on_error(move |e| drop(tell.send(e.to_string())));
        let c = env(c, &[("ARGUS_AUDIT_ENABLED", "No")]).unwrap();
        let logger = AuditLogger::open(by_code.into_iter().fold(c, AuditConfig::enabled)).unwrap();
        (logger, told.recv_timeout(Duration::from_secs(20)).unwrap())
    };
    let (off, notice) = open(None);
    assert!(notice.contains("ARGUS_AUDIT_ENABLED=No") && notice.contains("nothing is recorded"), "{notice}");
    assert!(!off.enabled(Level::Security) && !off.health().is_ok());
    assert_eq!(off.health().degraded.map(|d| d.contains("ARGUS_AUDIT_ENABLED")), Some(true));
    assert_eq!(off.close(Duration::from_secs(20)).error, None);
    assert!(!dir.path().join("a.db").exists());

    let (on, notice) = open(Some(true));
    assert!(notice.contains("has no effect"), "{notice}");
    assert!(on.enabled(Level::Info) && on.health().is_ok());
    on.close(Duration::from_secs(20));

    // Off by the program's own will is no trouble.
    let off = AuditLogger::open(AuditConfig::default().enabled(false)).unwrap();
    assert!(off.health().is_ok());
    // Said twice, the last counts.
    let c = env(AuditConfig::default(), &[("ARGUS_AUDIT_ENABLED", "no")]).unwrap();
    assert_eq!(env(c, &[("ARGUS_AUDIT_ENABLED", "yes")]).unwrap().notices(), []);
}

#[test]
fn a_variable_that_looks_like_ours_and_is_none_is_told() {
    let names = ["ARGUS_AUDIT_MINLEVEL", "ARGUS_AUDIT_DB", "ARGUS_AUDIT_MIN_LEVEL", "PATH", "ARGUS_AUDIT_A"];
    let with = |names: Vec<OsString>| AuditConfig {
        from_env: env::FromEnv::with_unknown(names.into_iter()),
        ..AuditConfig::default()
    };
    let config = with(names.map(OsString::from).into());
    let notices: Vec<_> = config.notices().iter().map(ToString::to_string).collect();
    assert_eq!(notices.len(), 2);
    assert!(notices[1].contains("ARGUS_AUDIT_MINLEVEL") && notices[1].contains("ARGUS_AUDIT_MIN_LEVEL"), "{notices:?}");
    // Every variable that the overlay asks for is known.
    let asked = std::cell::RefCell::new(Vec::new());
    drop(AuditConfig::default().overlay_env_with(|n| {
        asked.borrow_mut().push(OsString::from(n));
        None
    }));
    let ours = asked.borrow().iter().filter(|n| n.to_string_lossy().starts_with("ARGUS")).count();
    assert_eq!(ours, 18);
    assert_eq!(with(asked.into_inner()).notices(), []);
}
