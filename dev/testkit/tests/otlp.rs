//! The receiver itself, over bare sockets: lengths, chunks, keep-alive, refusals.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use argus_testkit::opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use argus_testkit::opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use argus_testkit::{OtlpReceiver, Reply};
use prost::Message;

const SOON: Duration = Duration::from_secs(10);

fn one_log(name: &str) -> Vec<u8> {
    let record = LogRecord { event_name: name.into(), ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
        .encode_to_vec()
}

fn answer(from: &mut BufReader<TcpStream>) -> (u16, String, Vec<u8>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(from.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    from.read_exact(&mut body).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head, body)
}

#[test]
fn lengths_chunks_and_refusals_on_one_connection() {
    let receiver = OtlpReceiver::start();
    let stream = TcpStream::connect(receiver.endpoint().strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut c = BufReader::new(stream);
    let head = "POST /v1/logs HTTP/1.1\r\nHost: x\r\ncontent-type: application/x-protobuf\r\n";

    let a = one_log("a");
    c.get_mut().write_all(format!("{head}Content-Length: {}\r\n\r\n", a.len()).as_bytes()).unwrap();
    c.get_mut().write_all(&a).unwrap();
    let (status, _, body) = answer(&mut c);
    assert_eq!(
        (status, ExportLogsServiceResponse::decode(&*body).unwrap()),
        (200, ExportLogsServiceResponse::default())
    );

    let b = one_log("b");
    let (x, y) = b.split_at(3);
    c.get_mut().write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).unwrap();
    for part in [x, y] {
        c.get_mut().write_all(format!("{:x};ext=1\r\n", part.len()).as_bytes()).unwrap();
        c.get_mut().write_all(&[part, b"\r\n"].concat()).unwrap();
    }
    c.get_mut().write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(answer(&mut c).0, 200);

    receiver.respond_with(|_| Reply::status(503).retry_after(7));
    c.get_mut().write_all(format!("{head}Content-Length: {}\r\n\r\n", a.len()).as_bytes()).unwrap();
    c.get_mut().write_all(&a).unwrap();
    let (status, head_of_503, _) = answer(&mut c);
    assert!(status == 503 && head_of_503.contains("Retry-After: 7"), "{head_of_503}");

    receiver.respond_with(|i| Reply::partial(i.logs.len().try_into().unwrap(), "no"));
    c.get_mut().write_all(format!("{head}Content-Length: {}\r\n\r\n", a.len()).as_bytes()).unwrap();
    c.get_mut().write_all(&a).unwrap();
    let partial = ExportLogsServiceResponse::decode(&*answer(&mut c).2).unwrap().partial_success.unwrap();
    assert_eq!((partial.rejected_log_records, partial.error_message.as_str()), (1, "no"));

    c.get_mut().write_all(format!("{head}Content-Length: 2\r\n\r\n\u{7f}\u{7f}").as_bytes()).unwrap();
    assert_eq!(answer(&mut c).0, 400);

    let logs = receiver.wait_for_logs(2, SOON).unwrap();
    assert_eq!(logs.iter().map(|l| l.record.event_name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(receiver.requests().iter().map(|r| r.status).collect::<Vec<_>>(), [200, 200, 503, 200]);
}
