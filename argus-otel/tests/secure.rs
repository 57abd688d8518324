//! TLS and gRPC against real servers: a private authority, a client certificate, a certificate of another host, the wrong protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use argus_otel::{OtlpError, names};
use argus_testkit::TempTrail;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric, metric::Data};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};

use support::SOON;
use support::pipeline::{Collected, ENDPOINT, HEADERS, fares, spans as from};

/// An authority and what it has signed, as files.
struct Pki {
    dir: TempTrail,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = TempTrail::new();
        std::fs::write(dir.path("ca.pem"), ca.pem()).unwrap();
        Self { dir, ca }
    }

    /// Certificate and key for a name, in PEM, also in files of that name.
    fn issue(&self, name: &str) -> (String, String, Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.ca).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        (certificate.pem(), key.serialize_pem(), certificate.der().to_vec(), key.serialize_der())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// An HTTPS server that takes whatever comes; gives its port.
fn https(pki: &Pki, host: &str, client: bool) -> u16 {
    let (_, _, certificate, key) = pki.issue(host);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if client {
        let mut roots = RootCertStore::empty();
        roots.add(pki.ca.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::try_from(key).unwrap();
    let config = Arc::new(builder.with_single_cert(vec![certificate.into()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = config.clone();
            std::thread::spawn(move || {
                let connection = ServerConnection::new(config).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(connection, stream));
                let (mut length, mut line) = (0, String::new());
                while stream.read_line(&mut line)? > 0 && line != "\r\n" {
                    let header = line.to_ascii_lowercase();
                    length = header.strip_prefix("content-length: ").map_or(length, |v| v.trim().parse().unwrap());
                    line.clear();
                }
                std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink())?;
                stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
                stream.get_mut().conn.send_close_notify();
                stream.get_mut().flush()
            });
        }
    });
    port
}

/// Names of spans or metrics, and the token they came with.
type Received = Vec<(String, Option<String>)>;

#[derive(Default)]
struct Log {
    received: Received,
    /// When each request came.
    at: Vec<Instant>,
}

/// A Collector over gRPC. The token says how it is to answer.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Log>>);

impl Collector {
    /// Whether the answer is to be a partial success.
    fn take<'n, T>(&self, request: &'n Request<T>, names: impl Iterator<Item = &'n String>) -> Result<bool, Status> {
        let mut log = self.0.lock().unwrap();
        log.at.push(Instant::now());
        let token = request.metadata().get("x-token").map(|v| v.to_str().unwrap().to_owned());
        match token.as_deref() {
            Some("bad") => return Err(Status::unauthenticated("who are you")),
            Some("later") if log.at.len() <= 2 => return Err(Status::unavailable("not yet")),
            Some("never") => return Err(Status::unavailable("not yet")),
            Some("paced") if log.at.len() <= 1 => return Err(throttled(Some(PACE))),
            Some("tomorrow") => return Err(throttled(Some(Duration::from_secs(86_400)))),
            Some("enough") => return Err(throttled(None)),
            _ => {}
        }
        let partial = token.as_deref() == Some("partial");
        log.received.extend(names.map(|n| (n.clone(), token.clone())));
        Ok(partial)
    }

    fn requests(&self) -> usize {
        self.0.lock().unwrap().at.len()
    }

    fn received(&self) -> Received {
        self.0.lock().unwrap().received.clone()
    }
}

/// Longer than the first wait of our own.
const PACE: Duration = Duration::from_millis(300);

/// Too many requests, with a `google.rpc.RetryInfo` or without.
fn throttled(wait: Option<Duration>) -> Status {
    fn number(tag: u8, mut n: u64) -> Vec<u8> {
        let mut out = vec![tag << 3];
        while n >= 128 {
            out.push(n as u8 | 128);
            n >>= 7;
        }
        out.push(n as u8);
        out
    }
    let bytes = |tag: u8, bytes: &[u8]| [&[tag << 3 | 2, bytes.len() as u8], bytes].concat();
    let detail = |url: &str, message: &[u8]| bytes(3, &[bytes(1, url.as_bytes()), bytes(2, message)].concat());
    let mut details = [number(1, 8), bytes(2, b"slow down")].concat();
    if let Some(wait) = wait {
        let delay = [number(1, wait.as_secs()), number(2, wait.subsec_nanos().into())].concat();
        details.extend(detail("type.googleapis.com/google.rpc.DebugInfo", &bytes(2, b"x")));
        details.extend(detail("type.googleapis.com/google.rpc.RetryInfo", &bytes(1, &delay)));
    }
    Status::with_details(Code::ResourceExhausted, "slow down", details.into())
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.get_ref().resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        let partial = self.take(&request, spans.map(|s| &s.name))?;
        let partial_success =
            partial.then(|| ExportTracePartialSuccess { rejected_spans: 1, error_message: "too long".into() });
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let metrics = request.get_ref().resource_metrics.iter().flat_map(|r| &r.scope_metrics);
        let metrics: Vec<_> = metrics.flat_map(|s| &s.metrics).map(|m| format!("{}{}", m.name, delta(m))).collect();
        let partial = self.take(&request, metrics.iter())?;
        let partial_success =
            partial.then(|| ExportMetricsPartialSuccess { rejected_data_points: 7, error_message: "too old".into() });
        Ok(Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}

/// A mark of sums that are sent as changes.
fn delta(metric: &Metric) -> &'static str {
    match &metric.data {
        Some(Data::Sum(sum)) if sum.aggregation_temporality == AggregationTemporality::Delta as i32 => " (delta)",
        _ => "",
    }
}

/// A gRPC server on a runtime of its own, which ends with it; gives its port.
fn grpc(runtime: &tokio::runtime::Runtime, collector: &Collector, tls: Option<ServerTlsConfig>) -> u16 {
    let _entered = runtime.enter();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = incoming.local_addr().unwrap().port();
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let services = server
        .add_service(TraceServiceServer::new(collector.clone()))
        .add_service(MetricsServiceServer::new(collector.clone()));
    runtime.spawn(services.serve_with_incoming(incoming));
    port
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Variables for gRPC to that port, with that token.
fn to(port: u16, token: &str) -> [(&'static str, String); 3] {
    let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned());
    [(ENDPOINT, format!("http://127.0.0.1:{port}")), protocol, (HEADERS, format!("X-Token={token}"))]
}

const CA: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";

#[test]
fn https_with_a_private_authority_and_a_client_certificate() {
    let pki = Pki::new();
    pki.issue("client");
    let port = https(&pki, "localhost", true);
    let endpoint = (ENDPOINT, format!("https://localhost:{port}"));
    let ca = (CA, pki.text("ca.pem"));
    let certificate = ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", pki.text("client.pem"));
    let key = ("OTEL_EXPORTER_OTLP_CLIENT_KEY", pki.text("client.key"));

    let good = from(&[endpoint.clone(), ca.clone(), certificate, key]).unwrap();
    good.probe(SOON).unwrap();
    assert_eq!(fares(&good), (1, 0, String::new()));
    // Without a client certificate the server ends the handshake; without the authority we do.
    for vars in [&[endpoint.clone(), ca][..], &[endpoint]] {
        let pipeline = from(vars).unwrap();
        assert!(matches!(pipeline.probe(SOON), Err(OtlpError::Refused { .. })));
        let (exported, failed, why) = fares(&pipeline);
        assert_eq!((exported, failed), (0, 1), "{why}");
    }
}

#[test]
fn a_certificate_of_another_host_is_refused_and_named() {
    let pki = Pki::new();
    let port = https(&pki, "elsewhere.example", false);
    let pipeline = from(&[(ENDPOINT, format!("https://localhost:{port}")), (CA, pki.text("ca.pem"))]).unwrap();
    let why = pipeline.probe(SOON).unwrap_err().to_string();
    assert!(why.contains("certificate") && why.contains("localhost"), "{why}");
    let (exported, failed, why) = fares(&pipeline);
    assert_eq!((exported, failed), (0, 1));
    assert!(why.contains("certificate"), "{why}");
}

#[test]
fn certificates_that_cannot_be_used_are_errors_at_start() {
    let pki = Pki::new();
    pki.issue("client");
    std::fs::write(pki.path("empty.pem"), "nothing").unwrap();
    for protocol in ["http/protobuf", "grpc"] {
        let vars = |more: &[(&'static str, String)]| {
            let both =
                [(ENDPOINT, "https://localhost:1".to_owned()), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned())];
            [&both[..], more].concat()
        };
        let certificate = ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", pki.text("client.pem"));
        for (wrong, named) in [
            (vec![(CA, pki.text("missing.pem"))], "missing.pem"),
            (vec![(CA, pki.text("empty.pem"))], "empty.pem"),
            (vec![certificate.clone()], "client.pem"),
            (vec![certificate.clone(), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", pki.text("empty.pem"))], "empty.pem"),
        ] {
            let e = from(&vars(&wrong)).unwrap_err();
            assert!(matches!(e, OtlpError::Certificate { .. }) && e.to_string().contains(named), "{protocol}: {e}");
        }
    }
}

#[test]
fn grpc_on_every_runtime_with_headers() {
    let server = runtime();
    let collector = Collector::default();
    let port = grpc(&server, &collector, None);
    let good = || from(&to(port, "a%20b")).unwrap();
    // No runtime.
    good().probe(SOON).unwrap();
    assert_eq!(fares(&good()), (1, 0, String::new()));
    // A runtime with one thread, which is this one; dropped inside it and after it.
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kept = single.block_on(async {
        assert_eq!(fares(&good()), (1, 0, String::new()));
        good()
    });
    drop(single);
    assert_eq!(fares(&kept), (1, 0, String::new()));
    drop(kept);
    assert_eq!(collector.received(), vec![("audit.security.login_denied".into(), Some("a b".into())); 3]);
}

#[test]
fn grpc_with_tls_and_a_client_certificate() {
    let (server, pki, collector) = (runtime(), Pki::new(), Collector::default());
    pki.issue("client");
    let (certificate, key, ..) = pki.issue("localhost");
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let port = grpc(&server, &collector, Some(tls.client_ca_root(Certificate::from_pem(pki.ca.pem()))));
    let vars = [
        (ENDPOINT, format!("https://localhost:{port}")),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc".to_owned()),
        (CA, pki.text("ca.pem")),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", pki.text("client.pem")),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", pki.text("client.key")),
    ];
    assert_eq!(fares(&from(&vars).unwrap()), (1, 0, String::new()));
    let (exported, failed, why) = fares(&from(&vars[..3]).unwrap());
    assert_eq!((exported, failed), (0, 1), "{why}");
    assert_eq!(collector.received().len(), 1);
}

#[test]
fn grpc_that_is_none_or_refuses_is_counted() {
    let server = runtime();
    let port = grpc(&server, &Collector::default(), None);
    let [_, protocol, _] = to(port, "");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let plain = argus_testkit::OtlpReceiver::start();
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    for vars in [
        to(port, "bad").to_vec(),
        to(closed, "").to_vec(),
        // Nobody ever answers.
        vec![(ENDPOINT, format!("http://{}", hangs.local_addr().unwrap())), protocol.clone()],
        // gRPC where HTTP/1 is spoken.
        vec![(ENDPOINT, plain.endpoint()), protocol],
        // HTTP/1 where gRPC is spoken.
        vec![(ENDPOINT, format!("http://127.0.0.1:{port}"))],
    ] {
        let pipeline = from(&vars).unwrap();
        let (exported, failed, why) = fares(&pipeline);
        assert_eq!((exported, failed), (0, 1), "{vars:?}: {why}");
        assert!(!why.is_empty());
        println!("{why}");
    }
}

#[test]
fn grpc_that_takes_a_part_is_counted_and_not_sent_again() {
    let (server, collector) = (runtime(), Collector::default());
    let port = grpc(&server, &collector, None);
    let (exported, failed, why) = fares(&from(&to(port, "partial")).unwrap());
    assert_eq!((exported, failed, collector.requests()), (0, 1, 1));
    assert!(why.contains("rejected 1 of a batch: too long"), "{why}");
}

#[test]
fn grpc_that_may_come_right_is_tried_again_but_not_for_ever() {
    let (server, collector) = (runtime(), Collector::default());
    let port = grpc(&server, &collector, None);
    assert_eq!(fares(&from(&to(port, "later")).unwrap()), (1, 0, String::new()));
    assert_eq!(collector.requests(), 3);
    let (exported, failed, why) = fares(&from(&to(port, "never")).unwrap());
    assert_eq!((exported, failed, collector.requests()), (0, 1, 3 + 4), "{why}");
    assert!(why.contains("gRPC code Unavailable"), "{why}");
}

#[test]
fn grpc_that_asks_for_a_wait_gets_it_within_the_time_limit() {
    let (server, collector) = (runtime(), Collector::default());
    let port = grpc(&server, &collector, None);
    assert_eq!(fares(&from(&to(port, "paced")).unwrap()), (1, 0, String::new()));
    let at = collector.0.lock().unwrap().at.clone();
    assert!(at.len() == 2 && at[1] - at[0] >= PACE, "{at:?}");
    for (token, requests) in [("tomorrow", 3), ("enough", 4)] {
        let (exported, failed, why) = fares(&from(&to(port, token)).unwrap());
        assert_eq!((exported, failed, collector.requests()), (0, 1, requests), "{why}");
        assert!(why.contains("gRPC code ResourceExhausted"), "{why}");
    }
}

#[test]
fn metrics_go_over_grpc_and_their_failures_are_counted() {
    let (server, collector) = (runtime(), Collector::default());
    let port = grpc(&server, &collector, None);
    let good = Collected::new(&to(port, "a%20b"));
    assert_eq!(good.fares(), (0, String::new()));
    good.pipeline.shutdown(SOON).unwrap();
    let received = collector.received();
    let events = received.iter().filter(|(name, _)| name == names::METRIC_EVENTS);
    assert_eq!(
        events.map(|(_, token)| token.as_deref()).collect::<Vec<_>>(),
        [Some("a b"); 2],
        "at the call and the end"
    );
    let preference = ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta".to_owned());
    assert_eq!(Collected::new(&[&to(port, "")[..], &[preference]].concat()).fares(), (0, String::new()));
    assert!(collector.received().contains(&(format!("{} (delta)", names::METRIC_EVENTS), Some(String::new()))));
    for (token, word) in [("bad", "gRPC code Unauthenticated"), ("partial", "rejected 7 of a batch: too old")] {
        let (failed, why) = Collected::new(&to(port, token)).fares();
        assert!(failed == 1 && why.contains(word), "{failed}: {why}");
    }
}
