//! What the standard variables say of one signal: where to send, how, with which headers and certificates. Everything that cannot work is an error here, at start.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::trace::Sampler;

use super::error::OtlpError;

/// Of the specification.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The variables of one setting: the signal's own goes before the general one.
type Pair = (&'static str, &'static str);

/// One signal: its variables and its path.
#[derive(Debug)]
pub(super) struct Signal {
    pub(super) path: &'static str,
    /// Whether a rejected item counts by itself: spans do; of data points, nobody knows how many there should be.
    each: bool,
    endpoint: Pair,
    protocol: Pair,
    timeout: Pair,
    headers: Pair,
    ca: Pair,
    client_certificate: Pair,
    client_key: Pair,
}

macro_rules! signal {
    ($name:ident, $path:literal, $word:literal, each: $each:literal) => {
        pub(super) const $name: Signal = Signal {
            path: $path,
            each: $each,
            endpoint: (concat!("OTEL_EXPORTER_OTLP_", $word, "_ENDPOINT"), "OTEL_EXPORTER_OTLP_ENDPOINT"),
            protocol: (concat!("OTEL_EXPORTER_OTLP_", $word, "_PROTOCOL"), "OTEL_EXPORTER_OTLP_PROTOCOL"),
            timeout: (concat!("OTEL_EXPORTER_OTLP_", $word, "_TIMEOUT"), "OTEL_EXPORTER_OTLP_TIMEOUT"),
            headers: (concat!("OTEL_EXPORTER_OTLP_", $word, "_HEADERS"), "OTEL_EXPORTER_OTLP_HEADERS"),
            ca: (concat!("OTEL_EXPORTER_OTLP_", $word, "_CERTIFICATE"), "OTEL_EXPORTER_OTLP_CERTIFICATE"),
            client_certificate: (
                concat!("OTEL_EXPORTER_OTLP_", $word, "_CLIENT_CERTIFICATE"),
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            ),
            client_key: (concat!("OTEL_EXPORTER_OTLP_", $word, "_CLIENT_KEY"), "OTEL_EXPORTER_OTLP_CLIENT_KEY"),
        };
    };
}
signal!(TRACES, "/v1/traces", "TRACES", each: true);
signal!(METRICS, "/v1/metrics", "METRICS", each: false);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Http,
    Grpc,
}

/// A file that a variable names.
#[derive(Clone, Debug)]
pub(super) struct PemFile {
    pub(super) variable: &'static str,
    pub(super) path: PathBuf,
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) transport: Transport,
    /// With user and password, if it has some.
    pub(super) target: String,
    /// Fit for logs.
    pub(super) shown: String,
    pub(super) timeout: Duration,
    pub(super) each: bool,
    /// Percent-decoded.
    pub(super) headers: HashMap<String, String>,
    pub(super) headers_variable: &'static str,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "http:// needs none"))]
    pub(super) ca: Option<PemFile>,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "http:// needs none"))]
    pub(super) client: Option<(PemFile, PemFile)>,
}

pub(super) struct Env<L>(pub(super) L);

impl<L: Fn(&str) -> Option<String>> Env<L> {
    /// A variable that is empty counts as not set.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
    }

    fn either(&self, pair: Pair) -> Option<(&'static str, String)> {
        [pair.0, pair.1].into_iter().find_map(|name| Some((name, self.get(name)?)))
    }

    pub(super) fn disabled(&self) -> bool {
        self.get("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"))
    }

    /// `None` where no endpoint is set.
    pub(super) fn settings(&self, signal: &Signal) -> Result<Option<Settings>, OtlpError> {
        let Some((variable, given)) = self.either(signal.endpoint) else { return Ok(None) };
        let transport = match self.either(signal.protocol) {
            None => Transport::Http,
            Some((_, v)) if v == "http/protobuf" => Transport::Http,
            Some((_, v)) if v == "grpc" && cfg!(feature = "grpc") => Transport::Grpc,
            Some((variable, value)) => return Err(OtlpError::Protocol { variable, value }),
        };
        // For HTTP the general endpoint is a base, the signal's own is taken as it is. gRPC has no path.
        let target = match transport {
            Transport::Http if variable == signal.endpoint.1 => {
                format!("{}{}", given.trim_end_matches('/'), signal.path)
            }
            _ => given.clone(),
        };
        check(variable, &given, &target)?;
        let (headers_variable, headers) = self.either(signal.headers).unwrap_or((signal.headers.1, String::new()));
        let file = |pair| self.either(pair).map(|(variable, path)| PemFile { variable, path: path.into() });
        let client = match (file(signal.client_certificate), file(signal.client_key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                return Err(OtlpError::Certificate {
                    variable: one.variable,
                    path: one.path.display().to_string(),
                    source: "a client certificate and its key go together, and one of them is not set".into(),
                });
            }
        };
        let timeout = self.either(signal.timeout).and_then(|(_, v)| v.parse().ok());
        Ok(Some(Settings {
            transport,
            shown: shown(&target),
            target,
            timeout: timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis),
            each: signal.each,
            headers: pairs(&headers).map(|(k, v)| (k.to_owned(), decoded(v))).collect(),
            headers_variable,
            ca: file(signal.ca),
            client,
        }))
    }

    /// `OTEL_SERVICE_NAME` before `OTEL_RESOURCE_ATTRIBUTES` before the name in the code.
    pub(super) fn resource(&self, service_name: &str) -> Resource {
        let attributes = self.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let mut resource = Resource::builder().with_service_name(service_name.to_owned());
        resource = resource.with_attributes(pairs(&attributes).map(|(k, v)| KeyValue::new(k.to_owned(), decoded(v))));
        if let Some(name) = self.get("OTEL_SERVICE_NAME") {
            resource = resource.with_service_name(name);
        }
        resource.build()
    }

    /// Cumulative, unless the backend wants changes.
    pub(super) fn temporality(&self) -> Temporality {
        let wanted = self.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE");
        wanted.and_then(|v| v.parse().ok()).unwrap_or_default()
    }

    /// `OTEL_TRACES_SAMPLER`, as the SDK reads it.
    pub(super) fn sampler(&self) -> Sampler {
        let ratio = || {
            let given = self.get("OTEL_TRACES_SAMPLER_ARG").and_then(|v| v.parse().ok());
            Sampler::TraceIdRatioBased(given.filter(|r| (0.0..=1.0).contains(r)).unwrap_or(1.0))
        };
        match self.get("OTEL_TRACES_SAMPLER").as_deref() {
            Some("always_on") => Sampler::AlwaysOn,
            Some("always_off") => Sampler::AlwaysOff,
            Some("traceidratio") => ratio(),
            Some("parentbased_always_off") => Sampler::ParentBased(Box::new(Sampler::AlwaysOff)),
            Some("parentbased_traceidratio") => Sampler::ParentBased(Box::new(ratio())),
            _ => Sampler::ParentBased(Box::new(Sampler::AlwaysOn)),
        }
    }
}

fn check(variable: &'static str, given: &str, target: &str) -> Result<(), OtlpError> {
    let endpoint = shown(given);
    let url = reqwest::Url::parse(target).ok().filter(|u| u.has_host() && u.host_str().is_some_and(|h| !h.is_empty()));
    // `http:///x` parses, with `x` as its host.
    let slashes = target.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'));
    match url.filter(|_| slashes).as_ref().map(reqwest::Url::scheme) {
        Some("http") => Ok(()),
        Some("https") if cfg!(feature = "tls") => Ok(()),
        Some("https") => Err(OtlpError::Tls { variable, endpoint }),
        _ => Err(OtlpError::Endpoint { variable, endpoint }),
    }
}

/// `key=value,key=value`, as OpenTelemetry writes headers and resource attributes.
fn pairs(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.split(',')
        .filter_map(|kv| kv.split_once('='))
        .map(|(k, v)| (k.trim(), v.trim()))
        .filter(|(k, _)| !k.is_empty())
}

/// Percent-decoded; as it is where that gives no text.
pub(super) fn decoded(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten().filter(|h| h.iter().all(u8::is_ascii_hexdigit));
        let byte = hex.and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = after.get(if byte.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    String::from_utf8(out).unwrap_or_else(|_| value.to_owned())
}

/// A URL fit for logs: no user, no password, no query.
pub(super) fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(s, r)| (s, r));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}{}{host}{path}", if scheme.is_empty() { "" } else { "://" })
}
