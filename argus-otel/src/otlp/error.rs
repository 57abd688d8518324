//! `OtlpError`: what is wrong with the environment, and what to write instead.

use std::fmt;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why telemetry cannot be sent as the environment asks. Endpoints are shown without user, password and query.
#[derive(Debug)]
#[non_exhaustive]
pub enum OtlpError {
    /// The endpoint is no URL with a scheme and a host.
    Endpoint {
        /// The variable.
        variable: &'static str,
        /// What it says.
        endpoint: String,
    },
    /// The endpoint is `https://`, and this build has no TLS.
    Tls {
        /// The variable.
        variable: &'static str,
        /// What it says.
        endpoint: String,
    },
    /// A protocol that this build does not speak.
    Protocol {
        /// The variable.
        variable: &'static str,
        /// What it says.
        value: String,
    },
    /// A header that cannot be sent. Its value is not shown.
    Header {
        /// The variable.
        variable: &'static str,
        /// The header's name.
        name: String,
    },
    /// A certificate or key that cannot be used.
    Certificate {
        /// The variable.
        variable: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: Source,
    },
    /// The exporter could not be built.
    Build(Source),
    /// The endpoint did not accept an empty request; see [`OtlpPipeline::probe`](crate::OtlpPipeline::probe).
    Refused {
        /// The endpoint.
        endpoint: String,
        /// What it or the network said.
        why: String,
    },
    /// The last items were not sent within the time given, or the exporter failed.
    Shutdown(String),
}

impl fmt::Display for OtlpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OtlpError::Endpoint { variable, endpoint } => {
                write!(
                    f,
                    "{variable}: `{endpoint}` is no http:// or https:// URL; write for example http://localhost:4318"
                )
            }
            OtlpError::Tls { variable, endpoint } => {
                let help = "build argus-otel with its feature `tls`, or send to a Collector on this host over http://";
                write!(f, "{variable}: `{endpoint}` needs TLS, which this build has not; {help}")
            }
            OtlpError::Protocol { variable, value } if value.trim() == "grpc" => {
                let help =
                    "build argus-otel with its feature `grpc`, or use `http/protobuf` (port 4318 of a Collector)";
                write!(f, "{variable} is `{value}`, which this build does not speak; {help}")
            }
            OtlpError::Protocol { variable, value } => {
                write!(f, "{variable} is `{value}`; write `http/protobuf` (port 4318 of a Collector) or `grpc` (4317)")
            }
            OtlpError::Header { variable, name } => write!(f, "{variable}: the header `{name}` cannot be sent"),
            OtlpError::Certificate { variable, path, source } => {
                write!(f, "{variable}: `{path}` cannot be used: {source}")
            }
            OtlpError::Build(e) => write!(f, "the OTLP exporter cannot be built: {e}"),
            OtlpError::Refused { endpoint, why } => write!(f, "`{endpoint}` does not take OTLP: {why}"),
            OtlpError::Shutdown(why) => write!(f, "the last spans may not have been sent: {why}"),
        }
    }
}

impl std::error::Error for OtlpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OtlpError::Build(e) | OtlpError::Certificate { source: e, .. } => Some(&**e),
            _ => None,
        }
    }
}
