//! `include_stack`: where the caller stood. `capture` runs on the caller's thread and only walks the stack up; `Names` runs on the writer thread and gives the
//! addresses their names, each address once.
//!
//! The walk and the look-up share one lock of the `backtrace` crate, so a caller may wait while the writer looks up an address that it meets for the first time.
//! What is dear about that, reading the program's debug information, is done while the trail is being opened.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Most bytes of a record's `stack` in canonical form: accept keeps room for them.
pub(crate) const MAX_STACK: usize = 8 << 10;
/// Most frames of a record.
const MAX_FRAMES: usize = 32;
/// Most addresses that are captured: those of Argus and `tracing` above the caller's are among them.
const MAX_CAPTURED: usize = 64;
/// Most bytes of a function's name, and of a file's.
const MAX_NAME: usize = 256;
/// Most addresses whose names are kept.
const MAX_KNOWN: usize = 10_000;
/// The innermost frames of these crates are the way into Argus, not the caller: by the function's path, and, since an inlined function has none, by the file's.
const WAY_IN: [&str; 11] = [
    "argus_core",
    "argus_otel",
    "argus_tracing_layer",
    "backtrace",
    "tracing",
    "tracing_core",
    "tracing_subscriber",
    "tracing_opentelemetry",
    "std",
    "core",
    "alloc",
];
/// Below it the runtime starts threads, and nobody's code stands.
const BOTTOM: &str = "__rust_begin_short_backtrace";

/// Appends the addresses of the calling thread's frames, eight bytes each, the innermost first.
pub(crate) fn capture(out: &mut Vec<u8>) {
    let mut left = MAX_CAPTURED;
    backtrace::trace(|frame| {
        out.extend_from_slice(&(frame.ip().addr() as u64).to_le_bytes());
        left -= 1;
        left > 0
    });
}

/// The names of addresses of this process. Addresses of another process mean nothing here: whoever recovers its entries must leave them out.
#[derive(Default)]
pub(crate) struct Names(RefCell<HashMap<u64, Vec<Frame>>>);

/// One function at an address; where functions are inlined into each other there are several.
struct Frame {
    way_in: bool,
    bottom: bool,
    line: String,
}

impl Frame {
    fn new(name: &str, place: Option<(&str, Option<u32>)>) -> Self {
        let short = cut(name);
        let line = match place.map(|(f, n)| (cut_front(f), n)) {
            Some((file, Some(n))) => format!("{short} ({file}:{n})"),
            Some((file, None)) => format!("{short} ({file})"),
            None => short,
        };
        Self {
            way_in: is_way_in(name) || place.is_some_and(|(f, _)| is_way_in_file(f)),
            bottom: name.contains(BOTTOM),
            line: line.replace(char::is_control, "\u{fffd}"),
        }
    }
}

impl Names {
    /// Makes the debug information be read now.
    pub(crate) fn prepare(&self) {
        let mut addresses = Vec::new();
        capture(&mut addresses);
        self.text(addresses.as_chunks().0.iter().copied().map(u64::from_le_bytes));
    }

    /// The text of a record's `stack`; `None` if no frame is the caller's.
    pub(crate) fn text(&self, addresses: impl Iterator<Item = u64>) -> Option<String> {
        let mut known = self.0.borrow_mut();
        if known.len() > MAX_KNOWN {
            known.clear();
        }
        let (mut text, mut size, mut lines, mut inside) = (String::new(), 0, 0, true);
        for address in addresses {
            for frame in known.entry(address).or_insert_with(|| look_up(address)) {
                inside = inside && frame.way_in;
                if inside {
                    continue;
                }
                size += crate::json::escaped_len(&frame.line) + 2;
                if lines == MAX_FRAMES || size > MAX_STACK || frame.bottom {
                    return Some(text).filter(|t| !t.is_empty());
                }
                if lines > 0 {
                    text.push('\n');
                }
                text.push_str(&frame.line);
                lines += 1;
            }
        }
        Some(text).filter(|t| !t.is_empty())
    }
}

/// Whether a function belongs to Argus or to what calls it: `argus_core::f`, `<argus_core::T as _>::f`, `<S as argus_core::ext::AuditSinkExt>::log`.
fn is_way_in(name: &str) -> bool {
    let plain = name.trim_start_matches(['<', '&', '*']);
    let plain = ["mut ", "dyn ", "const "].iter().fold(plain, |n, word| n.strip_prefix(word).unwrap_or(n));
    WAY_IN.iter().any(|w| plain.strip_prefix(w).is_some_and(|rest| rest.starts_with("::")))
        || name.contains(" as argus_core::ext::AuditSinkExt>::")
        || name == "__rust_try"
}

/// Whether a file is a source of these crates: `.../argus-core/src/ext.rs`, `.../tracing-core-0.1.36/src/event.rs`, `.../library/core/src/ops.rs`.
fn is_way_in_file(file: &str) -> bool {
    let parts: Vec<&str> = file.split('/').collect();
    parts.windows(3).any(|w| {
        let [above, folder, "src"] = *w else { return false };
        let version = folder.rfind('-').filter(|i| folder[i + 1..].starts_with(|c: char| c.is_ascii_digit()));
        let package = &folder[..version.unwrap_or(folder.len())];
        match package {
            "std" | "core" | "alloc" => above == "library",
            _ => WAY_IN.contains(&package.replace('-', "_").as_str()),
        }
    })
}

fn look_up(address: u64) -> Vec<Frame> {
    let mut frames = Vec::new();
    let at = usize::try_from(address).unwrap_or(0);
    // Foreign code that reads the program's file: what it makes of a damaged one must not end the writer.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        backtrace::resolve(std::ptr::without_provenance_mut(at), |symbol| {
            let Some(name) = symbol.name() else { return };
            let file = symbol.filename().map(|f| f.to_string_lossy());
            frames.push(Frame::new(&format!("{name:#}"), file.as_deref().map(|f| (f, symbol.lineno()))));
        });
    }));
    if frames.is_empty() {
        frames.push(Frame::new(&format!("{address:#x}"), None));
    }
    frames
}

/// The beginning of a long name.
fn cut(name: &str) -> String {
    match name.len() <= MAX_NAME {
        true => name.to_owned(),
        false => {
            let end = (0..=MAX_NAME).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
            format!("{}…", &name[..end])
        }
    }
}

/// The end of a long path.
fn cut_front(path: &str) -> String {
    match path.len() <= MAX_NAME {
        true => path.to_owned(),
        false => {
            let start = (path.len() - MAX_NAME..path.len()).find(|i| path.is_char_boundary(*i)).unwrap_or(path.len());
            format!("…{}", &path[start..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(frames: &[(u64, &[&str])]) -> Names {
        let frame = |n: &&str| match n.split_once('@') {
            Some((name, file)) => Frame::new(name, Some((file, None))),
            None => Frame::new(n, Some(("f.rs", Some(1)))),
        };
        Names(RefCell::new(frames.iter().map(|(a, f)| (*a, f.iter().map(frame).collect())).collect()))
    }

    #[test]
    fn the_way_into_argus_and_the_runtime_below_are_left_out() {
        let n = names(&[
            (1, &["backtrace::trace", "argus_core::stack::capture"]),
            (2, &["<argus_core::logger::AuditLogger as argus_core::sink::AuditSink>::submit"]),
            (
                3,
                &[
                    "core::ops::function::FnOnce::call_once",
                    "__rust_try",
                    "do_call<F>@/rustc/0a1/library/std/src/panicking.rs",
                ],
            ),
            (4, &["log<L>@/src/argus-core/src/ext.rs", "event@/r/tracing-core-0.1.36/src/dispatcher.rs"]),
            (5, &["<shop::Sink as argus_core::ext::AuditSinkExt>::log", "shop::pay"]),
            (6, &["core::iter::Iterator::for_each"]),
            (7, &["argus_core::watch::engine::callback", "shop::main"]),
            (8, &["std::sys::backtrace::__rust_begin_short_backtrace", "std::rt::lang_start"]),
        ]);
        let lines =
            ["shop::pay", "core::iter::Iterator::for_each", "argus_core::watch::engine::callback", "shop::main"];
        assert_eq!(n.text(1..9).unwrap(), lines.map(|l| format!("{l} (f.rs:1)")).join("\n"));
        assert_eq!(n.text(1..5), None);
        assert_eq!(n.text(std::iter::empty()), None);
        for theirs in ["argus_core_extras::log", "<shop::T as argus_core::sink::AuditSink>::submit", "stdx::f", "0x7f"]
        {
            assert!(!is_way_in(theirs), "{theirs}");
        }
        for theirs in [
            "/shop/core/src/a.rs",
            "/argus-core/tests/a.rs",
            "/argus-core-x/src/a.rs",
            "src/main.rs",
            "tracing-x/src/a.rs",
        ] {
            assert!(!is_way_in_file(theirs), "{theirs}");
        }
    }

    #[test]
    fn a_deep_stack_of_awful_names_stays_within_its_bound() {
        let awful = cut(&"\\\"".repeat(1000));
        assert!(awful.len() < MAX_NAME + 4);
        let frames: Vec<&str> = vec![awful.as_str(); 100];
        let text = names(&[(1, &frames)]).text(1..2).unwrap();
        assert!(crate::json::escaped_len(&text) <= MAX_STACK && text.lines().count() > 5);
        let short: Vec<&str> = vec!["shop::f"; 100];
        assert_eq!(names(&[(1, &short)]).text(1..2).unwrap().lines().count(), MAX_FRAMES);
        assert!(cut_front(&"é".repeat(1000)).len() <= MAX_NAME + 4);
        assert_eq!(look_up(1)[0].line, "0x1");
    }
}
