//! TLS and gRPC against real servers: a private authority, a client certificate, a certificate of another host, the wrong protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt};
use argus_otel::{OtelAuditWrapper, OtelWrapperConfig, OtlpError, OtlpPipeline, otlp_from_lookup};
use argus_testkit::TempTrail;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

const SOON: Duration = Duration::from_secs(20);

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

/// Names of spans and the token they came with.
type Received = Vec<(String, Option<String>)>;

#[derive(Clone, Default)]
struct Traces(Arc<Mutex<Received>>);

#[tonic::async_trait]
impl TraceService for Traces {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let token = request.metadata().get("x-token").map(|v| v.to_str().unwrap().to_owned());
        if token.as_deref() == Some("bad") {
            return Err(Status::unauthenticated("who are you"));
        }
        let spans = request.get_ref().resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
        self.0.lock().unwrap().extend(spans.map(|s| (s.name.clone(), token.clone())));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A gRPC server on a runtime of its own, which ends with it; gives its port.
fn grpc(runtime: &tokio::runtime::Runtime, traces: &Traces, tls: Option<ServerTlsConfig>) -> u16 {
    let _entered = runtime.enter();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = incoming.local_addr().unwrap().port();
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    runtime.spawn(server.add_service(TraceServiceServer::new(traces.clone())).serve_with_incoming(incoming));
    port
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn from(vars: &[(&str, String)]) -> Result<OtlpPipeline, OtlpError> {
    let lookup = |n: &str| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| v.clone());
    otlp_from_lookup("svc", |n| lookup(n).or((n == "OTEL_EXPORTER_OTLP_TIMEOUT").then(|| "2000".into())))
        .map(Option::unwrap)
}

/// Logs one record: spans delivered, spans failed, why.
fn fares(pipeline: &OtlpPipeline) -> (u64, u64, String) {
    let trail = TempTrail::new();
    let logger = AuditLogger::open(AuditConfig::new(trail.jsonl())).unwrap();
    let config = OtelWrapperConfig::default().account(pipeline.account());
    let audit = OtelAuditWrapper::new(logger, pipeline.tracer(), config);
    audit.log(AuditEvent::security("login_denied")).unwrap();
    assert_eq!(audit.close(SOON).committed, 1);
    pipeline.shutdown(SOON).ok();
    (pipeline.account().exported(), audit.tracing_errors(), audit.tracing_error().unwrap_or_default())
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
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
    let traces = Traces::default();
    let port = grpc(&server, &traces, None);
    let good = || {
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "X-Token=a%20b".to_owned());
        let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned());
        from(&[(ENDPOINT, format!("http://127.0.0.1:{port}")), protocol, headers]).unwrap()
    };
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
    assert_eq!(*traces.0.lock().unwrap(), vec![("audit.security.login_denied".into(), Some("a b".into())); 3]);
}

#[test]
fn grpc_with_tls_and_a_client_certificate() {
    let (server, pki, traces) = (runtime(), Pki::new(), Traces::default());
    pki.issue("client");
    let (certificate, key, ..) = pki.issue("localhost");
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let port = grpc(&server, &traces, Some(tls.client_ca_root(Certificate::from_pem(pki.ca.pem()))));
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
    assert_eq!(traces.0.lock().unwrap().len(), 1);
}

#[test]
fn grpc_that_is_none_or_refuses_is_counted() {
    let server = runtime();
    let port = grpc(&server, &Traces::default(), None);
    let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned());
    let token = ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=bad".to_owned());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let plain = argus_testkit::OtlpReceiver::start();
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    for vars in [
        vec![(ENDPOINT, format!("http://127.0.0.1:{port}")), protocol.clone(), token],
        vec![(ENDPOINT, format!("http://127.0.0.1:{closed}")), protocol.clone()],
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
