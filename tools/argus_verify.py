#!/usr/bin/env python3
"""Verifies an Argus audit trail (SQLite or JSONL) from docs/record-format.md alone.

    argus_verify.py PATH [--json]

Read-only: a SQLite trail is copied to a temporary directory and the copy is opened. Standard library only; shares no code with
the Rust implementation. Exit codes: 0 ok, 1 tampered, 2 usage, 3 cannot read.

A finding is `tampered: seq K..=K+1, CODE, explanation`, or `tampered: log, CODE, explanation` where no record is concerned.
`K..=K` means that record K is wrong whatever its neighbours say. Codes:

    link        the chain breaks between the two records
    content     a JSONL record does not have its own checksum
    column      a field breaks a rule of section 1, or is not canonical
    gap         seq is not contiguous
    schema      the schema text, schema_info or log_info
    integrity   SQLite finds the file damaged
    writer_gap  a writer's own numbering, opening or closing
    writers     the writers table is not what the log says
    time        created_at goes backwards
    format      a JSONL line or segment is malformed
"""
import argparse
import hashlib
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile

MAX_DEPTH = 32
MAX_CANONICAL = 262144
MAX_LINE = MAX_CANONICAL + 4096
MAX_FINDINGS = 1000
I64_MIN, I64_MAX, U64_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1
SCHEMA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "argus-core", "src", "store", "sqlite", "schema.sql")

# ---------------------------------------------------------------------------------------------------------------- JSON


class JsonError(ValueError):
    """reason: syntax, number_range, duplicate_key, lone_surrogate, depth, reserved_key."""

    def __init__(self, reason, message):
        super().__init__(message)
        self.reason = reason


_WS = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_HEX4 = re.compile(r"[0-9A-Fa-f]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class Parser:
    """A strict RFC 8259 parser over text; integers of section 2 become int, every other number float."""

    def __init__(self, text, reserved_ok=True):
        self.t = text
        self.i = 0
        self.reserved_ok = reserved_ok

    def fail(self, reason, what):
        raise JsonError(reason, "%s at character %d" % (what, self.i))

    def ws(self):
        self.i = _WS.match(self.t, self.i).end()

    def peek(self):
        return self.t[self.i] if self.i < len(self.t) else ""

    def take(self, c):
        if self.peek() != c:
            self.fail("syntax", "expected %r" % c)
        self.i += 1

    def value(self, room=MAX_DEPTH):
        c = self.peek()
        if c == '"':
            return self.string()
        if c == "{":
            return self.object(room)
        if c == "[":
            return self.array(room)
        for word, v in (("true", True), ("false", False), ("null", None)):
            if self.t.startswith(word, self.i):
                self.i += len(word)
                return v
        return self.number()

    def number(self):
        m = _NUMBER.match(self.t, self.i)
        if not m:
            self.fail("syntax", "expected a value")
        self.i = m.end()
        whole, fraction, exponent = m.groups()
        if fraction is None and exponent is None and whole != "-0":
            if len(whole) <= 20:
                n = int(whole)
                if I64_MIN <= n <= U64_MAX:
                    return n
            x = float(whole)
            if abs(x) == float("inf"):
                self.fail("number_range", "number beyond a double")
            # Stored text may hold the digits of a double; a writer refuses the literal.
            if not self.reserved_ok or es6(x) != whole:
                self.fail("number_range", "integer literal outside -2^63..2^64-1")
            return x
        x = float(m.group())
        if abs(x) == float("inf"):
            self.fail("number_range", "number beyond a double")
        return x

    def hex4(self):
        m = _HEX4.match(self.t, self.i)
        if not m:
            self.fail("syntax", "bad \\u escape")
        self.i = m.end()
        return int(m.group(), 16)

    def string(self):
        self.take('"')
        out = []
        while True:
            m = _PLAIN.match(self.t, self.i)
            out.append(m.group())
            self.i = m.end()
            c = self.peek()
            if c == '"':
                self.i += 1
                return "".join(out)
            if c != "\\":
                self.fail("syntax", "control character or end inside a string")
            self.i += 1
            e = self.peek()
            self.i += 1
            if e == "u":
                u = self.hex4()
                if 0xD800 <= u < 0xDC00:
                    if not self.t.startswith("\\u", self.i):
                        self.fail("lone_surrogate", "lone surrogate")
                    self.i += 2
                    low = self.hex4()
                    if not 0xDC00 <= low < 0xE000:
                        self.fail("lone_surrogate", "lone surrogate")
                    u = 0x10000 + ((u - 0xD800) << 10) + (low - 0xDC00)
                elif 0xDC00 <= u < 0xE000:
                    self.fail("lone_surrogate", "lone surrogate")
                out.append(chr(u))
            elif e in _ESCAPES:
                out.append(_ESCAPES[e])
            else:
                self.fail("syntax", "bad escape")

    def array(self, room):
        if room < 1:
            self.fail("depth", "deeper than %d" % MAX_DEPTH)
        self.take("[")
        out = []
        self.ws()
        if self.peek() == "]":
            self.i += 1
            return out
        while True:
            self.ws()
            out.append(self.value(room - 1))
            self.ws()
            if self.peek() == "]":
                self.i += 1
                return out
            self.take(",")

    def object(self, room):
        if room < 1:
            self.fail("depth", "deeper than %d" % MAX_DEPTH)
        return {k: v for k, v, _ in self.members(lambda: self.value(room - 1))}

    def members(self, read_value):
        """The members of one object, as (name, value, raw text of the value)."""
        self.take("{")
        out, seen = [], set()
        self.ws()
        if self.peek() == "}":
            self.i += 1
            return out
        while True:
            self.ws()
            name = self.string()
            if name in seen:
                self.fail("duplicate_key", "duplicate name %s" % json.dumps(name))
            if not self.reserved_ok and name.startswith("$argus."):
                self.fail("reserved_key", "reserved name")
            seen.add(name)
            self.ws()
            self.take(":")
            self.ws()
            start = self.i
            v = read_value()
            out.append((name, v, self.t[start:self.i]))
            self.ws()
            if self.peek() == "}":
                self.i += 1
                return out
            self.take(",")

    def end(self):
        self.ws()
        if self.i != len(self.t):
            self.fail("syntax", "something after the value")


def parse_json(text, from_caller=False):
    """One strict JSON value. from_caller applies what writers refuse; otherwise the text is stored text."""
    p = Parser(text, reserved_ok=not from_caller)
    p.ws()
    v = p.value()
    p.end()
    return v


def es6(x):
    """Number::toString of ECMAScript, from the shortest digits that repr gives."""
    if x != x or abs(x) == float("inf"):
        raise ValueError("not a JSON number")
    if x == 0:
        return "0"
    mantissa, _, exponent = repr(abs(x)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits, n = whole + fraction, len(whole) + int(exponent or 0)
    stripped = digits.lstrip("0")
    n -= len(digits) - len(stripped)
    digits = stripped.rstrip("0")
    k = len(digits)
    if k <= n <= 21:
        s = digits + "0" * (n - k)
    elif 0 < n <= 21:
        s = digits[:n] + "." + digits[n:]
    elif -6 < n <= 0:
        s = "0." + "0" * -n + digits
    else:
        s = digits[0] + ("." + digits[1:] if k > 1 else "") + "e" + ("+" if n > 0 else "-") + str(abs(n - 1))
    return "-" + s if x < 0 else s


_MUST_ESCAPE = re.compile(r'["\\\x00-\x1f]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def quote(s):
    return '"' + _MUST_ESCAPE.sub(lambda m: _SHORT.get(m.group()) or "\\u%04x" % ord(m.group()), s) + '"'


def utf16(s):
    return s.encode("utf-16-be")


def canonical(v):
    """Section 2, of a parsed value."""
    if v is None:
        return "null"
    if v is True:
        return "true"
    if v is False:
        return "false"
    if isinstance(v, str):
        return quote(v)
    if isinstance(v, int):
        return str(v)
    if isinstance(v, float):
        return es6(v)
    if isinstance(v, list):
        return "[" + ",".join(map(canonical, v)) + "]"
    return "{" + ",".join(quote(k) + ":" + canonical(v[k]) for k in sorted(v, key=utf16)) + "}"


# -------------------------------------------------------------------------------------------------------------- fields

TEXT = "text"
INT = "integer"
JSON = "json"
# name -> (type, always)
FIELDS = {
    "timestamp": (TEXT, True), "level": (TEXT, True), "event": (TEXT, True), "component": (TEXT, True),
    "original_output_file": (TEXT, True), "context": (JSON, True), "file_path": (TEXT, False), "user_agent": (TEXT, False),
    "old_value": (JSON, False), "new_value": (JSON, False), "process_id": (INT, True), "process_name": (TEXT, True),
    "actor_id": (TEXT, False), "actor_type": (TEXT, False), "action": (TEXT, False), "outcome": (TEXT, False),
    "trace_id": (TEXT, False), "span_id": (TEXT, False), "stack": (TEXT, False), "record_id": (TEXT, True),
    "writer": (TEXT, True), "writer_seq": (INT, True), "created_at": (TEXT, True), "seq": (INT, True),
    "prev_hash": (TEXT, None), "checksum": (TEXT, True),
}
WORDS = {
    "level": ("INFO", "WARN", "CRITICAL", "SECURITY"),
    "actor_type": ("user", "service", "system"),
    "outcome": ("success", "failure", "unknown", "abandoned"),
}
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-%s[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
UUID4 = re.compile(_UUID % "4")
FORMS = {
    "trace_id": (re.compile("[0-9a-f]{32}"), "32 lower-case hex digits"),
    "span_id": (re.compile("[0-9a-f]{16}"), "16 lower-case hex digits"),
    "record_id": (re.compile(_UUID % "7"), "a lower-case UUID of version 7"),
    "writer": (UUID4, "a lower-case UUID of version 4"),
    "prev_hash": (re.compile("[0-9a-f]{64}"), "64 lower-case hex digits"),
    "checksum": (re.compile("[0-9a-f]{64}"), "64 lower-case hex digits"),
}
HEX64 = FORMS["checksum"][0]
_STAMP = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})\.[0-9]{9}Z")
_CREATED = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})")


def real_time(pattern, text):
    m = pattern.fullmatch(text)
    if not m:
        return False
    y, mo, d, h, mi, s = map(int, m.groups())
    if not 1 <= mo <= 12:
        return False
    days = [31, 29 if y % 4 == 0 and (y % 100 or y % 400 == 0) else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][mo - 1]
    return 1 <= d <= days and h < 24 and mi < 60 and s < 60


def is_int(v):
    return isinstance(v, int) and not isinstance(v, bool)


def check_fields(f):
    """Problems with the present fields of one record (prev_hash's presence is the caller's)."""
    bad = []
    for name, (kind, always) in FIELDS.items():
        if name not in f:
            if always:
                bad.append("%s is missing" % name)
            continue
        v = f[name]
        if kind == TEXT:
            if not isinstance(v, str):
                bad.append("%s is not text" % name)
            elif "\0" in v:
                bad.append("%s holds U+0000" % name)
            elif not v and not always:
                bad.append("%s is empty" % name)
            elif name in WORDS and v not in WORDS[name]:
                bad.append("%s is not one of %s" % (name, ", ".join(WORDS[name])))
            elif name in FORMS and not FORMS[name][0].fullmatch(v):
                bad.append("%s is not %s" % (name, FORMS[name][1]))
            elif name == "event" and not 1 <= len(v.encode()) <= 256:
                bad.append("event is not 1 to 256 bytes")
            elif name == "timestamp" and not real_time(_STAMP, v):
                bad.append("timestamp is not YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ")
            elif name == "created_at" and not real_time(_CREATED, v):
                bad.append("created_at is not YYYY-MM-DD HH:MM:SS")
        elif kind == INT:
            low = 0 if name == "process_id" else 1
            if not is_int(v):
                bad.append("%s is not an integer" % name)
            elif not low <= v <= I64_MAX:
                bad.append("%s is out of range" % name)
        elif name == "context":
            if not isinstance(v, dict):
                bad.append("context is not an object")
            elif len(v) > 128:
                bad.append("context has more than 128 members")
    return bad


def record_canonical(f):
    """Canonical text of a record: every present field but checksum."""
    return "{" + ",".join(quote(k) + ":" + canonical(f[k]) for k in sorted(f) if k != "checksum") + "}"


def leaf_hash(text):
    return hashlib.sha256(b"\0" + text.encode()).hexdigest()


# --------------------------------------------------------------------------------------------------------------- trail


class Writer:
    def __init__(self, start, known):
        self.start = start      # numbers up to this one stand before what is seen here
        self.last = start
        self.known = known      # named by the segment's audit_segment
        self.count = 0
        self.closed = False
        self.recovered = False  # dead, and an audit_recovered says so
        self.service = None
        self.holes = []         # (first, last, seq of the record that shows it)
        self.covers = []        # (first, last, seq of the audit_gap, whether the writer itself wrote it)


def merge(spans):
    out = []
    for a, b in sorted(spans):
        if out and a <= out[-1][1] + 1:
            out[-1][1] = max(out[-1][1], b)
        else:
            out.append([a, b])
    return [tuple(s) for s in out]


def subtract(spans, others):
    """Parts of the merged spans that no merged other has."""
    out = []
    for a, b in spans:
        for c, d in others:
            if d < a or c > b:
                continue
            if c > a:
                out.append((a, c - 1))
            a = d + 1
        if a <= b:
            out.append((a, b))
    return out


class Trail:
    def __init__(self):
        self.findings = []
        self.count_findings = 0
        self.details = []
        self.records = 0
        self.first = self.last = None
        self.head = None
        self.prev = None            # checksum of the record above, None where it cannot be known
        self.created = None
        self.log_id = None
        self.writers = {}

    def find(self, where, code, text):
        self.count_findings += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append({"first": where[0] if where else None, "last": where[1] if where else None, "code": code, "explanation": text})

    def detail(self, text):
        self.details.append(text)

    def order(self, seq, expected):
        """Contiguity; True where the record stands right after the one above."""
        if seq == expected:
            return True
        if seq > expected:
            self.find((expected - 1 if self.records else expected, seq), "gap", "%d record(s) missing from seq %d" % (seq - expected, expected))
        else:
            self.find((seq, expected), "gap", "seq %d stands where %d should" % (seq, expected))
        return False

    def size(self, seq, text):
        if len(text.encode()) > MAX_CANONICAL:
            self.find((seq, seq), "column", "canonical form is longer than %d bytes" % MAX_CANONICAL)

    def time(self, seq, f):
        now = f.get("created_at")
        if isinstance(now, str) and _CREATED.fullmatch(now):
            if self.created is not None and now < self.created:
                self.find((seq - 1, seq), "time", "created_at %s is before %s" % (now, self.created))
            self.created = now

    def note(self, seq, checksum):
        self.records += 1
        if self.first is None:
            self.first = seq
        self.last = seq
        self.head = self.prev = checksum if isinstance(checksum, str) and HEX64.fullmatch(checksum) else None

    def writer_rules(self, seq, f):
        """Section 4, for a record whose writer and writer_seq are well formed."""
        uid, n = f.get("writer"), f.get("writer_seq")
        if not isinstance(uid, str) or not is_int(n) or n < 1:
            return
        is_log = uid == self.log_id
        w = self.writers.get(uid)
        if w is None:
            w = self.writers[uid] = Writer(0, False)
        own = not is_log and f.get("component") == "argus"
        event, context = f.get("event"), f.get("context")
        context = context if isinstance(context, dict) else {}
        opens = own and event == "audit_open"
        here = (seq, seq)
        if w.last is None:      # the log writer of a later segment, its number not named
            w.start = w.last = n - 1
        if w.closed or w.recovered:
            self.find(here, "writer_gap", "writer %s has a record after its %s" % (uid, "audit_close" if w.closed else "audit_recovered"))
        if n <= w.last:
            self.find(here, "writer_gap", "writer %s: writer_seq %d after %d" % (uid, n, w.last))
        elif n > w.last + 1:
            w.holes.append((w.last + 1, n - 1, seq))
        if n == 1 and not is_log and not opens:
            self.find(here, "writer_gap", "writer %s does not begin with audit_open" % uid)
        if opens:
            if n != 1:
                self.find(here, "writer_gap", "writer %s: audit_open with writer_seq %d" % (uid, n))
            if isinstance(context.get("service_name"), str):
                w.service = context["service_name"]
        w.last = max(w.last, n)
        w.count += 1
        if own and event == "audit_close":
            w.closed = True
        # Rows of other programs carry argus.foreign, whatever they call themselves.
        if is_log and f.get("component") == "argus" and "argus.foreign" not in context:
            if event == "audit_recovered" and "writer" in context:
                self.recovered(here, context)
            if event == "audit_gap":
                self.gap_of_the_dead(here, context)
        if own and event == "audit_gap" and "first" in context:
            target, a, b = context.get("writer"), context.get("first"), context.get("last")
            if not (isinstance(target, str) and UUID4.fullmatch(target) and is_int(a) and is_int(b) and 1 <= a <= b):
                self.find(here, "writer_gap", "audit_gap without a proper writer, first and last")
            else:
                t = self.writers.get(target)
                if t is None:
                    t = self.writers[target] = Writer(0, False)
                t.covers.append((a, b, seq, target == uid))

    def gap_of_the_dead(self, here, context):
        """What a recovery did not find: numbers before one that it found (with `last`), or what may be lost at the end."""
        target, first, last = context.get("writer"), context.get("first"), context.get("last")
        t = self.writers.get(target) if isinstance(target, str) else None
        if t is None and first == 1 and "last" in context and isinstance(target, str) and UUID4.fullmatch(target):
            # Of one that began in a pending file, the first numbers may be those that are missing.
            t = self.writers[target] = Writer(0, False)
        right = t is not None and t.last is not None and is_int(first) and first == t.last + 1
        if "last" not in context:
            right = right and t.recovered
        elif right and is_int(last) and first <= last and not t.closed and not t.recovered:
            t.last = last
        else:
            right = False
        if not right:
            self.find(here, "writer_gap", "audit_gap of the log writer does not stand at the end of a dead writer's numbers")

    def recovered(self, here, context):
        target, last = context.get("writer"), context.get("last")
        t = self.writers.get(target) if isinstance(target, str) else None
        if context.get("cause") == "spill":   # the merge of a live writer's pending file ends no writer
            if t is None or t.last is None or not is_int(last) or not 1 <= last <= t.last or t.closed or t.recovered:
                self.find(here, "writer_gap", "audit_recovered of a pending file names no live writer's number")
            return
        if t is None or t.last is None or not is_int(last) or last != t.last or t.closed or t.recovered:
            self.find(here, "writer_gap", "audit_recovered does not end an unclosed writer at its last number")
        if t is not None:
            t.recovered = True

    def finish_writers(self):
        for uid, w in self.writers.items():
            if w.last is None:
                continue
            spans = [(a, b) for a, b, _, _ in w.covers]
            ordered = sorted(spans)
            for (_, b), (c, _) in zip(ordered, ordered[1:]):
                if c <= b:
                    self.find(None, "writer_gap", "writer %s: number %d is in two audit_gap records" % (uid, c))
            cover = merge(spans) if uid != self.log_id else []
            holes = merge([(a, b) for a, b, _ in w.holes])
            for a, b, seq in w.holes:
                for c, d in subtract([(a, b)], cover):
                    self.find((seq - 1, seq), "writer_gap", "writer %s: writer_seq %d..=%d missing without an audit_gap" % (uid, c, d))
            for a, b, seq, own in w.covers:
                # Numbers before this segment cannot be judged here. Another writer may account for what a dead one lost at its end.
                low, high = max(a, w.start + 1), b if own or w.closed or w.recovered else min(b, w.last)
                if uid == self.log_id or low <= high and subtract([(low, high)], holes):
                    self.find((seq, seq), "writer_gap", "audit_gap %d..=%d of writer %s covers numbers that are not missing" % (a, b, uid))
            if cover:
                self.detail("writer %s: lost %s, accounted for" % (uid, ", ".join("%d..=%d" % s for s in cover)))
            if uid != self.log_id and (w.count or w.last > w.start):
                self.detail("writer %s: %d record(s), last %d, %s" % (uid, w.count, w.last, "closed" if w.closed else "recovered" if w.recovered else "unclosed"))

    # ------------------------------------------------------------------------------------------------------- results

    def report(self, as_json, out):
        ok = not self.count_findings
        if as_json:
            json.dump({"verdict": "ok" if ok else "tampered", "records": self.records, "first": self.first, "last": self.last,
                       "head": self.head, "assurance": "linked" if ok else None, "findings_total": self.count_findings,
                       "findings": self.findings, "details": self.details}, out, indent=2)
            out.write("\n")
            return 0 if ok else 1
        if ok:
            span = "seq %d..=%d" % (self.first, self.last) if self.records else "seq none"
            out.write("ok: %d records, %s, head %s, assurance linked\n" % (self.records, span, self.head or "none"))
        for f in self.findings:
            where = "log" if f["first"] is None else "seq %d..=%d" % (f["first"], f["last"])
            out.write("tampered: %s, %s, %s\n" % (where, f["code"], f["explanation"]))
        if self.count_findings > len(self.findings):
            out.write("  and %d more\n" % (self.count_findings - len(self.findings)))
        for d in self.details:
            out.write("  %s\n" % d)
        return 0 if ok else 1


# -------------------------------------------------------------------------------------------------------------- SQLite


class Unreadable(Exception):
    pass


class BadText:
    """A SQLite text cell that is not UTF-8."""


def text_cell(raw):
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return BadText()


def kind(v):
    names = {type(None): "null", int: "integer", float: "real", str: "text", bytes: "blob", BadText: "text that is not UTF-8"}
    return names[type(v)]


def split_statements(sql):
    out, part = [], ""
    for piece in sql.split(";")[:-1]:
        part += piece + ";"
        if sqlite3.complete_statement(part):
            out.append(part.strip()[:-1])
            part = ""
    return out


def expected_schema():
    with open(SCHEMA, encoding="utf-8") as f:
        statements = split_statements(f.read())
    out = {}
    for s in statements:
        m = re.match(r"CREATE (?:UNIQUE )?(TABLE|INDEX|TRIGGER) (\w+)", s)
        out[(m.group(1).lower(), m.group(2))] = s
    return out


def copy_database(path, directory):
    """The database and what belongs to it, copied while nothing changed."""
    path = os.path.realpath(path)
    copy = os.path.join(directory, "trail.db")

    def stamp():
        out = []
        for suffix in ("", "-wal", "-journal"):
            try:
                s = os.stat(path + suffix)
                out.append((s.st_ino, s.st_size, s.st_mtime_ns))
            except FileNotFoundError:
                out.append(None)
        return out

    for _ in range(8):
        before = stamp()
        for suffix, present in zip(("", "-wal", "-journal"), before):
            if os.path.exists(copy + suffix):
                os.remove(copy + suffix)
            if present:
                try:
                    shutil.copyfile(path + suffix, copy + suffix)
                except FileNotFoundError:
                    break
        if stamp() == before:
            return copy
    raise Unreadable("the trail kept changing while it was copied")


COLUMNS = [n for n in FIELDS if n not in ("seq", "prev_hash", "writer")]


def verify_sqlite(path, trail):
    expected = expected_schema()
    with tempfile.TemporaryDirectory(prefix="argus-verify-") as directory:
        copy = copy_database(path, directory)
        db = sqlite3.connect(copy, isolation_level=None)
        try:
            db.text_factory = text_cell
            db.execute("PRAGMA trusted_schema=OFF")
            db.execute("PRAGMA query_only=ON")
            try:
                usable = sqlite_schema(db, trail, expected)
                sqlite_integrity(db, trail)
                if usable:
                    sqlite_rows(db, trail, sqlite_heads(db, trail))
            except sqlite3.DatabaseError as e:
                trail.find(None, "integrity", "SQLite cannot read the trail: %s" % e)
        finally:
            db.close()


def sqlite_schema(db, trail, expected):
    seen = set()
    for t, name, table, sql in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        if isinstance(name, str) and name.lower().startswith("sqlite_") and t in ("table", "index"):
            continue
        if (t, name) in seen:
            trail.find(None, "schema", "%s %s stands twice" % (t, name))
        seen.add((t, name))
        if (t, name) not in expected:
            trail.find(None, "schema", "unknown %s %s" % (t, name))
        elif sql != expected[(t, name)]:
            trail.find(None, "schema", "%s %s differs from the schema text" % (t, name))
    for t, name in sorted(set(expected) - seen):
        trail.find(None, "schema", "%s %s is missing" % (t, name))
    return all(("table", n) in seen for n in ("schema_info", "log_info", "writers", "audit_events", "foreign_events"))


def sqlite_integrity(db, trail):
    for (line,) in db.execute("PRAGMA integrity_check(20)"):
        if line != "ok":
            trail.find(None, "integrity", str(line).replace("\n", " "))


def sqlite_heads(db, trail):
    """schema_info, log_info and writers; the answer is first_seq and the writers rows."""
    rows = db.execute("SELECT version FROM schema_info").fetchall()
    if rows != [(3,)]:
        trail.find(None, "schema", "schema_info is not one row of version 3")
    first = 1
    rows = db.execute("SELECT id, log_id, canonical, first_seq FROM log_info").fetchall()
    if len(rows) != 1:
        trail.find(None, "schema", "log_info has %d rows" % len(rows))
    else:
        _, log_id, form, first = rows[0]
        if not isinstance(log_id, str) or not UUID4.fullmatch(log_id):
            trail.find(None, "schema", "log_info.log_id is not a UUID of version 4")
        else:
            trail.log_id = log_id
            trail.detail("log %s" % log_id)
        if form != 1 or not is_int(form):
            trail.find(None, "schema", "log_info.canonical is not 1")
        if not is_int(first) or first < 1:
            trail.find(None, "schema", "log_info.first_seq is not an integer from 1")
            first = 1
    table = {}
    for wid, uid, service, last, closed in db.execute("SELECT id, writer, service_name, last_seq, closed FROM writers"):
        if not isinstance(uid, str) or not UUID4.fullmatch(uid):
            trail.find(None, "writers", "writers row %s: writer is not a UUID of version 4" % wid)
            continue
        if not isinstance(service, str) or "\0" in service:
            trail.find(None, "writers", "writers row %s: service_name is not text" % wid)
        if not is_int(last) or not is_int(closed) or closed not in (0, 1, 2):
            trail.find(None, "writers", "writers row %s: last_seq or closed is not proper" % wid)
        if (wid == 0) != (uid == trail.log_id):
            trail.find(None, "writers", "writers row %s: row 0 and only row 0 is the log writer" % wid)
        table[wid] = (uid, service, last, closed)
    if 0 not in table:
        trail.find(None, "writers", "writers has no row 0")
    return first, table


def sqlite_rows(db, trail, heads):
    first_seq, table = heads
    expected = first_seq
    sql = "SELECT id, writer, %s FROM audit_events ORDER BY id" % ", ".join(COLUMNS)
    for row in db.execute(sql):
        seq, writer_key, cells = row[0], row[1], dict(zip(COLUMNS, row[2:]))
        f, rebuild = {"seq": seq}, True
        bad = []
        for name, v in cells.items():
            want = FIELDS[name][0]
            if v is None:
                continue
            if kind(v) != (INT if want == INT else TEXT):
                bad.append("%s is %s" % (name, kind(v)))
                rebuild = False
                continue
            if want == JSON:
                try:
                    f[name] = parse_json(v)
                except JsonError as e:
                    bad.append("%s is not JSON of this format: %s" % (name, e))
                    rebuild = False
                    continue
                if canonical(f[name]) != v:
                    bad.append("%s is not in canonical form" % name)
            else:
                f[name] = v
        writer_row = table.get(writer_key) if is_int(writer_key) else None
        if writer_row:
            f["writer"] = writer_row[0]
        elif is_int(writer_key):
            trail.find((seq, seq), "writers", "writer %d has no row in writers" % writer_key)
            rebuild = False
        else:
            bad.append("writer is %s" % kind(writer_key))
            rebuild = False
        said = {b.split(" ")[0] for b in bad}
        for b in check_fields(f):
            if b.split(" ")[0] not in said and not (b == "writer is missing"):
                bad.append(b)
        for b in bad:
            trail.find((seq, seq), "column", b)
        follows = trail.order(seq, expected)
        is_first = seq == first_seq
        if rebuild and (is_first or follows and trail.prev is not None):
            if not is_first:
                f["prev_hash"] = trail.prev
            text = record_canonical(f)
            trail.size(seq, text)
            if leaf_hash(text) != f.get("checksum"):
                trail.find((seq if is_first else seq - 1, seq), "link", "the checksum of record %d does not follow" % seq)
        trail.time(seq, f)
        trail.writer_rules(seq, f)
        trail.note(seq, f.get("checksum"))
        expected = seq + 1
    trail.finish_writers()
    seen_ids = set()
    for wid, (uid, service, last, closed) in sorted(table.items()):
        seen_ids.add(uid)
        w = trail.writers.get(uid)
        if w is None or not (w.count or w.last):
            if wid != 0:
                trail.find(None, "writers", "writer %s has no record" % uid)
            elif last != 0 or closed != 0:
                trail.find(None, "writers", "the log writer has no record, and its row says %s, %s" % (last, closed))
            continue
        if last != w.last:
            trail.find(None, "writers", "writer %s: last_seq is %s, the log has %d" % (uid, last, w.last))
        says = 1 if w.closed else 2 if w.recovered else 0
        if closed != says:
            trail.find(None, "writers", "writer %s: closed is %s, the log says %d" % (uid, closed, says))
        if w.service is not None and service != w.service:
            trail.find(None, "writers", "writer %s: service_name is not that of its audit_open" % uid)
    (waiting,) = db.execute("SELECT count(*) FROM foreign_events").fetchone()
    if waiting:
        trail.detail("%d foreign row(s) waiting" % waiting)


# --------------------------------------------------------------------------------------------------------------- JSONL


def parse_line(raw):
    """The fields of one line, and what is wrong with them. Raises JsonError for a line that is no record."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise JsonError("syntax", "the line is not UTF-8")
    p = Parser(text)
    p.ws()
    members = p.members(p.value)
    p.end()
    f, bad = {}, []
    for name, v, literal in members:
        if name not in FIELDS:
            raise JsonError("syntax", "unknown member %s" % json.dumps(name))
        f[name] = v
        if FIELDS[name][0] == JSON and canonical(v) != literal:
            bad.append("%s is not in canonical form" % name)
    return f, bad + check_fields(f)


def segment_rules(trail, f, seq):
    """The audit_segment at the head of a file. The answer is the number of the segment, or 1."""
    def no(text):
        trail.find((seq, seq), "format", text)

    c = f.get("context")
    if f.get("event") != "audit_segment" or f.get("component") != "argus" or not isinstance(c, dict):
        no("the first record is not audit_segment")
        return 1 if seq == 1 else 2
    if f.get("level") != "INFO":
        no("audit_segment is not of level INFO")
    if c.get("canonical") != 1 or not is_int(c.get("canonical")):
        no("audit_segment: canonical is not 1")
    log_id = c.get("log_id")
    if not isinstance(log_id, str) or not UUID4.fullmatch(log_id) or log_id != f.get("writer"):
        no("audit_segment: log_id is not the UUID of its writer")
    else:
        trail.log_id = log_id
        trail.detail("log %s" % log_id)
    segment = c.get("segment")
    if not is_int(segment) or segment < 1:
        no("audit_segment: segment is not an integer from 1")
        segment = 1 if seq == 1 else 2
    named = c.get("writers")
    if not isinstance(named, dict) or not all(UUID4.fullmatch(k) and is_int(n) and n >= 0 for k, n in named.items()):
        no("audit_segment: writers is not an object of UUIDs and numbers")
        named = {}
    if segment == 1:
        if seq != 1:
            trail.find((1, seq), "gap", "segment 1 does not begin with record 1")
        if named:
            no("audit_segment: writers before segment 1")
        if "last_checksum" in c:
            no("audit_segment: last_checksum in segment 1")
    else:
        trail.detail("segment %d" % segment)
        for uid, n in named.items():
            trail.writers[uid] = Writer(n, True)
        if trail.log_id is not None and trail.log_id not in trail.writers:
            trail.writers[trail.log_id] = Writer(None, True)
        last = c.get("last_checksum")
        if not isinstance(last, str) or not HEX64.fullmatch(last):
            no("audit_segment: last_checksum is missing")
        else:
            trail.prev = last
    return segment


def verify_jsonl(path, trail):
    expected, number, segment, head_seen = None, 0, 1, False
    with open(path, "rb") as f:
        while True:
            raw = f.readline(MAX_LINE)
            if not raw:
                break
            number += 1
            too_long, size = False, len(raw)
            while not raw.endswith(b"\n"):
                more = f.readline(MAX_LINE)
                if not more:
                    break
                too_long, size, raw = True, size + len(more), more
            if not raw.endswith(b"\n"):
                trail.detail("unterminated last line of %d bytes, no record" % size)
                break
            try:
                if too_long:
                    raise JsonError("syntax", "the line is longer than any record")
                fields, bad = parse_line(raw[:-1])
            except JsonError as e:
                at = trail.last or 0
                trail.find((at, at + 1), "format", "line %d: %s" % (number, e))
                head_seen = True
                if expected is not None:
                    trail.last = expected
                    expected += 1
                trail.prev = None
                continue
            seq = fields.get("seq")
            if not is_int(seq) or seq < 1:
                at = expected or 1
                for b in bad:
                    trail.find((at, at), "column", "line %d: %s" % (number, b))
                head_seen = True
                trail.prev = None
                if expected is not None:
                    trail.last = expected
                    expected += 1
                continue
            for b in bad:
                trail.find((seq, seq), "column", b)
            is_head = not head_seen
            head_seen = True
            if is_head:
                segment = segment_rules(trail, fields, seq)
                follows = True
            else:
                follows = expected is None or trail.order(seq, expected)
                if fields.get("event") == "audit_segment" and fields.get("component") == "argus" and fields.get("writer") == trail.log_id:
                    trail.find((seq, seq), "format", "audit_segment inside a segment")
            text = record_canonical(fields)
            trail.size(seq, text)
            if "checksum" in fields and leaf_hash(text) != fields["checksum"]:
                trail.find((seq, seq), "content", "the checksum of record %d is not that of its content" % seq)
            if is_head and segment == 1:
                if "prev_hash" in fields:
                    trail.find((seq, seq), "column", "prev_hash in the first record")
            elif "prev_hash" not in fields:
                trail.find((seq, seq), "column", "prev_hash is missing")
            elif follows and trail.prev is not None and fields["prev_hash"] != trail.prev:
                trail.find((max(seq - 1, 0), seq), "link", "prev_hash of record %d is not the checksum of the one before" % seq)
            trail.time(seq, fields)
            trail.writer_rules(seq, fields)
            trail.note(seq, fields.get("checksum"))
            expected = seq + 1
    if not head_seen:
        trail.find(None, "format", "no complete record: a segment begins with audit_segment")
    trail.finish_writers()


# ---------------------------------------------------------------------------------------------------------------- main


def verify(path):
    """The Trail of a path, verified. Raises Unreadable or OSError."""
    trail = Trail()
    if os.path.isdir(path):
        raise Unreadable("is a directory")
    with open(path, "rb") as f:
        magic = f.read(16)
    if magic == b"SQLite format 3\0":
        verify_sqlite(path, trail)
    elif path.endswith(".jsonl"):
        verify_jsonl(path, trail)
    else:
        raise Unreadable("neither a SQLite database nor a .jsonl file")
    return trail


def main(argv=None):
    p = argparse.ArgumentParser(description="Verify an Argus audit trail. Exit codes: 0 ok, 1 tampered, 2 usage, 3 cannot read.")
    p.add_argument("path", metavar="PATH")
    p.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    args = p.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        trail = verify(args.path)
    except (OSError, Unreadable) as e:
        sys.stderr.write("cannot read: %s: %s\n" % (args.path, e))
        return 3
    except Exception as e:  # a fault of this program is no verdict on the trail
        sys.stderr.write("cannot read: %s: %s: %s\n" % (args.path, type(e).__name__, e))
        return 3
    try:
        code = trail.report(args.json, sys.stdout)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1 if trail.count_findings else 0


if __name__ == "__main__":
    sys.exit(main())
