//! The server side of HTTP/1.1, as little as an OTLP exporter needs: requests with a length or in chunks, keep-alive, `Expect: 100-continue`. One thread for
//! each connection; sizes are bounded.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

const MOST_HEAD: u64 = 64 * 1024;
const MOST_BODY: usize = 64 * 1024 * 1024;

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) keep_alive: bool,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.take(MOST_HEAD).read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(l) => Ok(l.strip_suffix('\r').unwrap_or(l).to_owned()),
        None if line.is_empty() => Err(ErrorKind::UnexpectedEof.into()),
        None => Err(bad("a line without end")),
    }
}

/// The next request; `None` where the client has closed.
pub(crate) fn read(from: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let first = match line(from) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut words = first.split(' ');
    let (Some(method), Some(path), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(bad("no request line"));
    };
    let mut request = Request { method: method.into(), path: path.into(), ..Request::default() };
    loop {
        let header = line(from)?;
        if header.is_empty() {
            break;
        }
        if request.headers.len() == 200 {
            return Err(bad("too many headers"));
        }
        let (name, value) = header.split_once(':').ok_or_else(|| bad("a header without colon"))?;
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let says = |name: &str, word: &str| request.header(name).is_some_and(|v| v.to_ascii_lowercase().contains(word));
    let keep_alive = version == "HTTP/1.1" && !says("connection", "close");
    if says("expect", "100-continue") {
        from.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = if says("transfer-encoding", "chunked") {
        chunks(from)?
    } else {
        sized(from, request.header("content-length"))?
    };
    (request.keep_alive, request.body) = (keep_alive, body);
    Ok(Some(request))
}

fn sized(from: &mut impl BufRead, length: Option<&str>) -> io::Result<Vec<u8>> {
    let length: usize = length.unwrap_or("0").parse().map_err(|_| bad("Content-Length is no number"))?;
    exactly(from, length, 0)
}

fn exactly(from: &mut impl BufRead, length: usize, before: usize) -> io::Result<Vec<u8>> {
    if length.saturating_add(before) > MOST_BODY {
        return Err(bad("the body is too large"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(body)
}

fn chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(from)?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| bad("no chunk size"))?;
        if size == 0 {
            // Trailers, then the empty line.
            while !line(from)?.is_empty() {}
            return Ok(body);
        }
        body.append(&mut exactly(from, size, body.len())?);
        if !line(from)?.is_empty() {
            return Err(bad("a chunk longer than it says"));
        }
    }
}

/// Answers one request.
pub(crate) fn write(
    to: &mut TcpStream,
    status: u16,
    headers: &[(&str, String)],
    body: &[u8],
    keep_alive: bool,
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} {}\r\nContent-Length: {}\r\n", reason(status), body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(if keep_alive { "\r\n" } else { "Connection: close\r\n\r\n" });
    to.write_all(&[head.as_bytes(), body].concat())?;
    to.flush()
}

fn reason(status: u16) -> &'static str {
    match status {
        200..=299 => "OK",
        400..=499 => "Client Error",
        500..=599 => "Server Error",
        _ => "Status",
    }
}
