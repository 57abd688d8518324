//! `OtlpReceiver`: an OTLP/HTTP endpoint (`/v1/traces`, `/v1/logs`, `/v1/metrics`, protobuf) on a loopback port. One thread accepts, one serves each connection; all end with
//! the receiver. What a request carried is kept only if the reply was a clean success, as a Collector would.

use std::fmt;
use std::io::BufReader;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::http::{self, Request};
use crate::reply::Reply;

const PROTOBUF: &str = "application/x-protobuf";

/// One span and where it came from.
#[derive(Clone, Debug)]
pub struct ReceivedSpan {
    /// The span.
    pub span: Span,
    /// The scope.
    pub scope: InstrumentationScope,
    /// The resource.
    pub resource: Resource,
}

impl ReceivedSpan {
    /// An attribute of the span, as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        text(&self.span.attributes, key)
    }

    /// An attribute of the resource, as text.
    pub fn resource_attribute(&self, key: &str) -> Option<String> {
        text(&self.resource.attributes, key)
    }
}

/// One log record and where it came from.
#[derive(Clone, Debug)]
pub struct ReceivedLog {
    /// The log record.
    pub record: LogRecord,
    /// The scope.
    pub scope: InstrumentationScope,
    /// The resource.
    pub resource: Resource,
}

impl ReceivedLog {
    /// An attribute of the log record, as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        text(&self.record.attributes, key)
    }

    /// An attribute of the resource, as text.
    pub fn resource_attribute(&self, key: &str) -> Option<String> {
        text(&self.resource.attributes, key)
    }
}

/// The first attribute `key`, as text; scalars without decoration, all else as `Debug`.
pub fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|kv| kv.key == key)?.value.as_ref()?.value.as_ref()?;
    Some(match value {
        Value::StringValue(s) => s.clone(),
        Value::BoolValue(b) => b.to_string(),
        Value::IntValue(i) => i.to_string(),
        Value::DoubleValue(d) => d.to_string(),
        other => format!("{other:?}"),
    })
}

/// One request, decoded. Of spans, logs and metrics, at most one is not empty.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The path, e.g. `/v1/traces`.
    pub path: String,
    /// The headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The bytes of the body.
    pub body: Vec<u8>,
    /// The spans in it.
    pub spans: Vec<ReceivedSpan>,
    /// The log records in it.
    pub logs: Vec<ReceivedLog>,
    /// The metrics in it, as they came.
    pub metrics: Vec<ResourceMetrics>,
    /// What it was answered; 0 before that.
    pub status: u16,
}

impl Incoming {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

type Respond = Arc<dyn Fn(&Incoming) -> Reply + Send + Sync>;

#[derive(Default)]
struct Inner {
    requests: Vec<Incoming>,
    spans: Vec<ReceivedSpan>,
    logs: Vec<ReceivedLog>,
    respond: Option<Respond>,
    connections: Vec<TcpStream>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    came: Condvar,
    stop: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A running receiver. It ends on drop.
pub struct OtlpReceiver {
    shared: Arc<Shared>,
    address: SocketAddr,
    accept: Option<JoinHandle<()>>,
}

impl fmt::Debug for OtlpReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpReceiver").field("address", &self.address).finish_non_exhaustive()
    }
}

impl OtlpReceiver {
    /// Starts one on a port that the system chooses; it answers 200.
    ///
    /// # Panics
    /// No loopback port, or no thread.
    #[allow(clippy::new_without_default)]
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::<Shared>::default();
        let accept = {
            let shared = shared.clone();
            let body = move || {
                for stream in listener.incoming().flatten() {
                    if shared.stop.load(Ordering::Acquire) {
                        return;
                    }
                    if let Ok(handle) = stream.try_clone() {
                        shared.lock().connections.push(handle);
                    }
                    let shared = shared.clone();
                    std::thread::spawn(move || serve(stream, &shared));
                }
            };
            std::thread::Builder::new().name("otlp-receiver".into()).spawn(body).expect("a thread")
        };
        Self { shared, address, accept: Some(accept) }
    }

    /// The base URL, e.g. for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers every later request with this status.
    pub fn set_status(&self, status: u16) {
        self.respond_with(move |_| Reply::status(status));
    }

    /// Lets `f` choose the answer to each later request.
    pub fn respond_with(&self, f: impl Fn(&Incoming) -> Reply + Send + Sync + 'static) {
        self.shared.lock().respond = Some(Arc::new(f));
    }

    /// Every request, refused ones included.
    pub fn requests(&self) -> Vec<Incoming> {
        self.shared.lock().requests.clone()
    }

    /// The spans that were accepted.
    pub fn spans(&self) -> Vec<ReceivedSpan> {
        self.shared.lock().spans.clone()
    }

    /// The log records that were accepted, in the order of their arrival.
    pub fn logs(&self) -> Vec<ReceivedLog> {
        self.shared.lock().logs.clone()
    }

    /// Waits for at least `n` accepted spans. `Err` has those that came in time.
    ///
    /// # Errors
    /// The time ran out.
    pub fn wait_for_spans(&self, n: usize, timeout: Duration) -> Result<Vec<ReceivedSpan>, Vec<ReceivedSpan>> {
        if self.wait(timeout, |i| i.spans.len() >= n) { Ok(self.spans()) } else { Err(self.spans()) }
    }

    /// Waits for at least `n` accepted log records. `Err` has those that came in time.
    ///
    /// # Errors
    /// The time ran out.
    pub fn wait_for_logs(&self, n: usize, timeout: Duration) -> Result<Vec<ReceivedLog>, Vec<ReceivedLog>> {
        if self.wait(timeout, |i| i.logs.len() >= n) { Ok(self.logs()) } else { Err(self.logs()) }
    }

    /// Waits for at least `n` requests, refused ones included; whether they came.
    pub fn wait_for_requests(&self, n: usize, timeout: Duration) -> bool {
        self.wait(timeout, |i| i.requests.len() >= n)
    }

    fn wait(&self, timeout: Duration, done: impl Fn(&Inner) -> bool) -> bool {
        let until = Instant::now() + timeout;
        let mut inner = self.shared.lock();
        while !done(&inner) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            inner = self.shared.came.wait_timeout(inner, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        true
    }
}

impl Drop for OtlpReceiver {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Wakes `accept`.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accept.take() {
            let _ = thread.join();
        }
        for connection in &self.shared.lock().connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Serves one connection until either side ends it.
fn serve(stream: TcpStream, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let mut from = BufReader::new(stream);
    loop {
        let request = match http::read(&mut from) {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(e) => {
                let _ = http::write(from.get_mut(), 400, &[], e.to_string().as_bytes(), false);
                return;
            }
        };
        let keep_alive = request.keep_alive;
        let logs = request.path != "/v1/traces";
        let (status, headers, body) = match decode(request) {
            Ok(incoming) => {
                let reply = answer(incoming, shared);
                let mut headers = vec![("Content-Type", PROTOBUF.to_owned())];
                headers.extend(reply.retry_after.map(|s| ("Retry-After", s.to_string())));
                (reply.status, headers, reply.body(logs))
            }
            Err((status, why)) => (status, Vec::new(), why.into_bytes()),
        };
        if http::write(from.get_mut(), status, &headers, &body, keep_alive).is_err() || !keep_alive {
            return;
        }
    }
}

fn answer(mut incoming: Incoming, shared: &Shared) -> Reply {
    let respond = shared.lock().respond.clone();
    let reply = respond.map_or_else(|| Reply::status(200), |f| f(&incoming));
    std::thread::sleep(reply.delay);
    incoming.status = reply.status;
    let mut inner = shared.lock();
    if reply.is_clean() {
        inner.spans.extend(incoming.spans.iter().cloned());
        inner.logs.extend(incoming.logs.iter().cloned());
    }
    inner.requests.push(incoming);
    drop(inner);
    shared.came.notify_all();
    reply
}

fn decode(request: Request) -> Result<Incoming, (u16, String)> {
    if request.method != "POST" {
        return Err((405, "only POST".into()));
    }
    if request.header("content-type") != Some(PROTOBUF)
        || request.header("content-encoding").is_some_and(|e| e != "identity")
    {
        return Err((415, "only uncompressed application/x-protobuf".into()));
    }
    let (mut spans, mut logs, mut metrics) = (Vec::new(), Vec::new(), Vec::new());
    let bad = |e: prost::DecodeError| (400, e.to_string());
    match request.path.as_str() {
        "/v1/traces" => {
            for group in ExportTraceServiceRequest::decode(&*request.body).map_err(bad)?.resource_spans {
                let resource = group.resource.unwrap_or_default();
                for scoped in group.scope_spans {
                    let scope = scoped.scope.unwrap_or_default();
                    spans.extend(scoped.spans.into_iter().map(|span| ReceivedSpan {
                        span,
                        scope: scope.clone(),
                        resource: resource.clone(),
                    }));
                }
            }
        }
        "/v1/logs" | "/v1/audit" => {
            for group in ExportLogsServiceRequest::decode(&*request.body).map_err(bad)?.resource_logs {
                let resource = group.resource.unwrap_or_default();
                for scoped in group.scope_logs {
                    let scope = scoped.scope.unwrap_or_default();
                    logs.extend(scoped.log_records.into_iter().map(|record| ReceivedLog {
                        record,
                        scope: scope.clone(),
                        resource: resource.clone(),
                    }));
                }
            }
        }
        "/v1/metrics" => {
            metrics = ExportMetricsServiceRequest::decode(&*request.body).map_err(bad)?.resource_metrics;
        }
        other => return Err((404, format!("nothing at {other}"))),
    }
    Ok(Incoming { path: request.path, headers: request.headers, body: request.body, spans, logs, metrics, status: 0 })
}
