#!/usr/bin/env python3
"""Tests of argus_verify.py and make_vectors.py: python3 tools/test_argus_verify.py"""
import contextlib
import copy
import hashlib
import io
import json
import os
import sqlite3
import struct
import sys
import tempfile
import unittest

TOOLS = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, TOOLS)
import argus_verify as av  # noqa: E402
import make_vectors as mv  # noqa: E402

ROOT = os.path.dirname(TOOLS)
RFC8785 = os.path.join(ROOT, "..", "shared", "vectors", "rfc8785")
VECTORS = os.path.join(ROOT, "argus-core", "tests", "vectors")


def run(path, *more):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = av.main([path, *more])
        except SystemExit as e:
            code = e.code
    return code, out.getvalue(), err.getvalue()


def relink(records, start=0, prev=None):
    """New prev_hash and checksum from index `start` on: what a forger of the whole log would do."""
    for i in range(start, len(records)):
        before = records[i - 1]["checksum"] if i else prev
        records[i].pop("prev_hash", None)
        if before:
            records[i]["prev_hash"] = before
        records[i]["checksum"] = av.leaf_hash(av.record_canonical(records[i]))
    return records


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def verdict(self, path):
        """(code, {(first, last, code)})"""
        code, out, err = run(path, "--json")
        self.assertEqual(err, "")
        answer = json.loads(out)
        self.assertEqual(answer["verdict"], "ok" if code == 0 else "tampered")
        self.assertEqual(code, 1 if answer["findings"] else 0)
        return answer, {(f["first"], f["last"], f["code"]) for f in answer["findings"]}

    def expect(self, path, *wanted, only=True):
        answer, got = self.verdict(path)
        if only:
            self.assertEqual(got, set(wanted), answer["findings"])
        else:
            self.assertLessEqual(set(wanted), got, answer["findings"])
        return answer


# ------------------------------------------------------------------------------------------------------------- numbers


class Rfc8785(unittest.TestCase):
    def test_documents(self):
        folder = os.path.join(RFC8785, "testdata")
        if not os.path.isdir(folder):
            print("SKIPPED: no RFC 8785 documents")
            self.skipTest("no RFC 8785 documents")
        names = sorted(os.listdir(os.path.join(folder, "input")))
        self.assertTrue(names)
        for name in names:
            with self.subTest(name), open(os.path.join(folder, "input", name), encoding="utf-8") as i, open(os.path.join(folder, "output", name), encoding="utf-8") as o:
                self.assertEqual(av.canonical(av.parse_json(i.read())), o.read().rstrip("\n"))

    def test_numbers(self):
        path = os.path.join(RFC8785, "es6-numbers-first-10000.txt")
        if not os.path.isfile(path):
            print("SKIPPED: no ES6 number list")
            self.skipTest("no ES6 number list")
        count = 0
        with open(path, encoding="ascii") as f:
            for line in f:
                bits, want = line.strip().split(",")
                x = struct.unpack(">d", bytes.fromhex(bits.zfill(16)))[0]
                self.assertEqual(av.es6(x), want, bits)
                count += 1
        self.assertGreater(count, 1000)


class Values(unittest.TestCase):
    def test_integers_stay(self):
        for text in ("9007199254740993", "18446744073709551615", "-9223372036854775808"):
            self.assertEqual(av.canonical(av.parse_json(text)), text)

    def test_stored_digits_of_a_double(self):
        self.assertEqual(av.canonical(av.parse_json("100000000000000000000")), "100000000000000000000")
        for text in ("18446744073709551616", "100000000000000000001", "-9223372036854775809", "1" + "0" * 21, "9" * 5000):
            with self.assertRaises(av.JsonError):
                av.parse_json(text)

    def test_canonical_is_a_fixed_point(self):
        for name, raw, want in mv.NUMBERS + mv.STRINGS + mv.STRUCTURES:
            self.assertEqual(av.canonical(av.parse_json(raw)), want, name)
            self.assertEqual(av.canonical(av.parse_json(want)), want, name)

    def test_times(self):
        def ok(t):
            return not [b for b in av.check_fields({"timestamp": t}) if b.startswith("timestamp")]

        for t in ("2024-02-29T00:00:00.000000000Z", "0000-02-29T00:00:00.000000000Z", "9999-12-31T23:59:59.999999999Z"):
            self.assertTrue(ok(t), t)
        for t in ("2023-02-29T00:00:00.000000000Z", "2024-01-01T24:00:00.000000000Z", "2024-01-01T00:00:00.00000000Z", "2024-01-01T00:00:00.000000000+00:00",
                  "2024-01-01 00:00:00.000000000Z", "2024-13-01T00:00:00.000000000Z", "2024-01-00T00:00:00.000000000Z", "2024-01-01T00:00:00.000000000Z\n",
                  "\u0662024-01-01T00:00:00.000000000Z", "2024-01-01T00:00:60.000000000Z", "2016-12-31T23:59:60.000000000Z"):
            self.assertFalse(ok(t), t)


class Vectors(unittest.TestCase):
    def test_check(self):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(mv.main(["--check"]), 0, out.getvalue())

    def test_records(self):
        with open(os.path.join(VECTORS, "records.jsonl"), encoding="utf-8") as f:
            rows = [json.loads(line) for line in f]
        self.assertGreaterEqual(len(rows), 70)
        for r in rows:
            self.assertEqual(hashlib.sha256(b"\0" + r["canonical"].encode()).hexdigest(), r["checksum"])
            p = av.Parser(r["canonical"])
            again = {k: v for k, v, _ in p.members(p.value)}
            p.end()
            self.assertEqual(av.canonical(again), r["canonical"], r["name"])
            self.assertEqual(set(again), set(r["fields"]) | set(r["raw"]))
            for text in r["raw"].values():
                refused = False
                try:
                    av.parse_json(text, from_caller=True)
                except av.JsonError:
                    refused = True
                if refused:
                    self.assertTrue(r["name"].startswith("stored_"), r["name"])

    def test_refused(self):
        with open(os.path.join(VECTORS, "refused.jsonl"), encoding="utf-8") as f:
            rows = [json.loads(line) for line in f]
        self.assertGreaterEqual(len(rows), 25)
        for r in rows:
            with self.assertRaises(av.JsonError) as e:
                av.parse_json(r["raw"], from_caller=True)
            self.assertEqual(e.exception.reason, r["reason"], r["name"])


# --------------------------------------------------------------------------------------------------------------- JSONL

WRONG = {  # values that break each field's rule
    "timestamp": "2024-05-17T08:00:03Z", "level": "info", "event": "", "component": "a\0b", "original_output_file": 5, "context": [], "file_path": "", "user_agent": "",
    "process_id": -1, "process_name": None, "actor_id": "", "actor_type": "robot", "action": "", "outcome": "SUCCESS", "trace_id": "0AF7651916CD43DD8448EB211C80319C",
    "span_id": "0", "stack": "", "record_id": mv.uuid("r", 4), "writer": mv.uuid("r", 7), "writer_seq": 0, "created_at": "2024-05-17T08:00:03", "checksum": "0" * 63,
    "prev_hash": "z" * 64,
}
OTHER = {  # values that keep it
    "timestamp": "2024-05-17T08:00:03.000000000Z", "level": "CRITICAL", "event": "other", "component": "other", "original_output_file": "", "context": {"k": 1},
    "file_path": "/x", "user_agent": "x", "old_value": 1, "new_value": 1, "process_id": 9, "process_name": "x", "actor_id": "x", "actor_type": "system", "action": "x",
    "outcome": "failure", "trace_id": "1" * 32, "span_id": "1" * 16, "stack": "x", "record_id": mv.uuid("other", 7), "created_at": "2024-05-17 08:00:03", "prev_hash": "0" * 64,
}


class Jsonl(Case):
    def lines(self):
        with open(os.path.join(VECTORS, "chain.jsonl"), "rb") as f:
            return f.read().splitlines(keepends=True)

    def write(self, lines):
        path = self.path("t.jsonl")
        with open(path, "wb") as f:
            f.write(b"".join(lines))
        return path

    def put(self, records):
        return self.write([(mv.line(r) + "\n").encode() for r in records])

    def test_whole(self):
        code, out, _ = run(self.write(self.lines()))
        self.assertEqual(code, 0)
        self.assertRegex(out, r"\Aok: 12 records, seq 1\.\.=12, head [0-9a-f]{64}, assurance linked\n")
        self.assertEqual(self.write(self.lines()), self.put(mv.chain()))
        self.expect(self.put(mv.chain()))

    def test_text_of_a_finding(self):
        lines = self.lines()
        lines[3] = lines[3].replace(b"192.0.2.7", b"192.0.2.8")
        code, out, _ = run(self.write(lines))
        self.assertEqual(code, 1)
        self.assertTrue(out.startswith("tampered: seq 4..=4, content, "), out)

    def test_each_field_edited(self):
        for name, v in OTHER.items():
            records = mv.chain()
            records[2][name] = v
            wanted = {(3, 3, "content")} | ({(2, 3, "link")} if name == "prev_hash" else {(3, 4, "time")} if name == "created_at" else set())
            with self.subTest(name):
                self.expect(self.put(records), *wanted)

    def test_each_field_edited_and_checksum_recomputed(self):
        for name, v in OTHER.items():
            records = mv.chain()
            records[2][name] = v
            records[2]["checksum"] = av.leaf_hash(av.record_canonical(records[2]))
            with self.subTest(name):
                self.expect(self.put(records), (3, 4, "link"), only=False)

    def test_each_field_against_its_rule(self):
        for name, v in WRONG.items():
            records = mv.chain()
            records[2][name] = v
            if name not in ("prev_hash", "checksum"):
                relink(records, 2)
            with self.subTest(name):
                self.expect(self.put(records), (3, 3, "column"), only=False)

    def test_each_field_removed(self):
        for name, (_, always) in av.FIELDS.items():
            records = mv.chain()
            if name == "seq" or name not in records[2]:
                continue
            del records[2][name]
            with self.subTest(name):
                self.expect(self.put(records), (3, 3, "column" if always or name in ("checksum", "prev_hash") else "content"), only=False)

    def test_deleted(self):
        lines = self.lines()
        self.expect(self.write(lines[:6] + lines[7:]), (6, 8, "gap"), (11, 12, "writer_gap"))
        self.expect(self.write(lines[1:]), (2, 2, "format"), only=False)

    def test_swapped(self):
        lines = self.lines()
        lines[6], lines[7] = lines[7], lines[6]
        self.expect(self.write(lines), (6, 8, "gap"), only=False)

    def test_repeated(self):
        lines = self.lines()
        self.expect(self.write(lines[:7] + lines[6:]), (7, 8, "gap"), (7, 7, "writer_gap"))

    def test_truncated_lines_stay_linked(self):
        self.expect(self.write(self.lines()[:8]))

    def test_torn_last_line(self):
        lines = self.lines()
        lines[-1] = lines[-1][:-1]
        answer = self.expect(self.write(lines))
        self.assertEqual(answer["records"], 11)
        self.assertTrue(any("unterminated" in d for d in answer["details"]))

    def test_form_of_a_line(self):
        whole = self.lines()
        for what, edit in {
            "unknown member": lambda b: b.replace(b'{"timestamp"', b'{"extra":1,"timestamp"'),
            "duplicate": lambda b: b.replace(b'{"timestamp"', b'{"level":"WARN","timestamp"'),
            "trailing": lambda b: b[:-1] + b"{}\n",
            "two records": lambda b: b[:-1] + b + b"",
            "not utf-8": lambda b: b.replace(b"served.toml", b"served\xff.toml"),
            "empty": lambda b: b"\n",
            "array": lambda b: b"[" + b[:-1] + b"]\n",
            "bom": lambda b: b"\xef\xbb\xbf" + b,
            "comma": lambda b: b[:-2] + b",}\n",
            "lone surrogate": lambda b: b.replace(b"served.toml", b"\\ud800"),
            "too long": lambda b: b" " * (av.MAX_LINE + 5) + b,
            "nested duplicate": lambda b: b.replace(b'"context":{', b'"context":{"z":1,'),
        }.items():
            lines = list(whole)
            lines[2] = edit(lines[2])
            self.assertNotEqual(lines[2], whole[2], what)
            with self.subTest(what):
                self.expect(self.write(lines), (2, 3, "format"), only=False)

    def test_free_in_order_and_space(self):
        lines = self.lines()
        p = av.Parser(lines[2].decode())
        parts = p.members(p.value)
        lines[2] = ("  { " + " ,\t".join(av.quote(k) + " : " + raw for k, _, raw in reversed(parts)) + "} \r\n").encode()
        self.expect(self.write(lines))

    def test_not_canonical(self):
        for old, new in ((b'"z":1.5', b'"z":1.50'), (b'"z":1.5', b'"z": 1.5'), (b'1e+21', b'1e21'), (b"9007199254740993", b"9007199254740993.0")):
            lines = self.lines()
            lines[2] = lines[2].replace(old, new)
            with self.subTest(new):
                self.expect(self.write(lines), (3, 3, "column"), only=False)

    def test_integers_are_literals(self):
        lines = self.lines()
        lines[2] = lines[2].replace(b'"process_id":4242', b'"process_id":4242.0')
        self.expect(self.write(lines), (3, 3, "column"))

    def forged(self, edit, *wanted, only=True):
        records = mv.chain()
        edit(records)
        return self.expect(self.put(relink(records)), *wanted, only=only)

    def test_gap_record(self):
        self.forged(lambda r: r[5]["context"].update(last=4), (5, 6, "writer_gap"))
        self.forged(lambda r: r[5]["context"].update(first=3), (6, 6, "writer_gap"))
        self.forged(lambda r: r[5]["context"].update(writer=mv.BETA, first=2), (5, 6, "writer_gap"), (6, 6, "writer_gap"))
        self.forged(lambda r: r[5]["context"].update(last=40), (6, 6, "writer_gap"))
        # What an unclosed writer lost at its end, told by another.
        self.forged(lambda r: r[7].update(event="audit_gap", component="argus", context={"reason": "x", "writer": mv.BETA, "first": 4, "last": 40}))
        self.forged(lambda r: r[11].update(event="audit_gap", component="argus", context={"reason": "x", "writer": mv.ALPHA, "first": 10, "last": 10}), (12, 12, "writer_gap"))
        self.forged(lambda r: r[5]["context"].update(last="5"), (5, 6, "writer_gap"), (6, 6, "writer_gap"))
        self.forged(lambda r: r[5].update(event="note"), (5, 6, "writer_gap"))
        self.forged(lambda r: r[5].update(component="mine"), (5, 6, "writer_gap"))
        self.forged(lambda r: r[7].update(writer_seq=8), (7, 8, "writer_gap"), (10, 10, "writer_gap"))
        # An adopted foreign row cannot account for a loss.
        self.forged(lambda r: (r[8].update(event="audit_gap", context=dict(r[5]["context"])), r[5].update(event="note")), (5, 6, "writer_gap"), (9, 9, "writer_gap"))

    def test_gap_of_a_dead_writer(self):
        """The log writer names numbers that a recovery did not find; the writer goes on behind them."""
        def gap(first, last, then, writer=mv.BETA):
            def change(r):
                r[8].update(event="audit_gap", context={"reason": "store_failed", "writer": writer, "first": first, "last": last})
                r[11].update(writer_seq=then)
            return change
        self.forged(gap(3, 5, 6))
        self.forged(gap(3, 5, 5), (12, 12, "writer_gap"))
        self.forged(gap(3, 5, 8), (11, 12, "writer_gap"))
        self.forged(gap(4, 5, 3), (9, 9, "writer_gap"))
        self.forged(gap(2, 5, 3), (9, 9, "writer_gap"))
        self.forged(gap(3, 2, 3), (9, 9, "writer_gap"))
        self.forged(gap(3, "5", 3), (9, 9, "writer_gap"))
        self.forged(gap(8, 8, 3, mv.ALPHA), (10, 10, "writer_gap"))
        # Of one that began in a pending file, the first numbers may be missing; but only the first.
        self.forged(gap(1, 1, 3, mv.uuid("nobody", 4)))
        self.forged(gap(2, 2, 3, mv.uuid("nobody", 4)), (9, 9, "writer_gap"))
        self.forged(gap(1, 1, 3, "nobody"), (9, 9, "writer_gap"))

    def test_open_and_close(self):
        self.forged(lambda r: r[1].update(event="hello"), (2, 2, "writer_gap"))
        self.forged(lambda r: r[3].update(event="audit_open", component="argus"), (4, 4, "writer_gap"))
        self.forged(lambda r: r[4].update(writer_seq=2), (4, 5, "writer_gap"), (5, 5, "writer_gap"), (7, 7, "writer_gap"))
        self.forged(lambda r: r[9].update(event="audit_close", component="argus"), (11, 11, "writer_gap"))
        self.forged(lambda r: r[8].update(writer_seq=3), (8, 9, "writer_gap"))

    def test_time(self):
        self.forged(lambda r: r[6].update(created_at="2024-05-17 07:59:59"), (6, 7, "time"))
        self.forged(lambda r: r[6].update(timestamp="1999-05-17T07:59:59.000000000Z"))

    def test_size(self):
        self.forged(lambda r: r[6].update(stack="x" * av.MAX_CANONICAL), (7, 7, "column"))
        self.forged(lambda r: r[6].update(event="x" * 257), (7, 7, "column"))
        self.forged(lambda r: r[6].update(context={str(i): i for i in range(129)}), (7, 7, "column"))
        self.forged(lambda r: r[6].update(context={str(i): i for i in range(128)}))

    def test_segment(self):
        for change in ({"canonical": 2}, {"log_id": mv.ALPHA}, {"segment": 0}, {"writers": []}, {"writers": {mv.ALPHA: 3}}, {"last_checksum": "0" * 64}):
            with self.subTest(change):
                self.forged(lambda r: r[0]["context"].update(change), (1, 1, "format"), only=False)
        self.forged(lambda r: r[0].update(level="WARN"), (1, 1, "format"))
        self.forged(lambda r: r[8].update(event="audit_segment"), (9, 9, "format"))
        self.expect(self.write([]), (None, None, "format"))

    def second(self):
        records = copy.deepcopy(mv.chain())[8:]
        head = records[0]
        head.update(event="audit_segment", level="INFO", writer_seq=5,
                    context={"canonical": 1, "log_id": mv.LOG, "segment": 2, "last_checksum": "ab" * 32, "writers": {mv.ALPHA: 7, mv.BETA: 2}})
        return records

    def test_second_segment(self):
        self.expect(self.put(relink(self.second(), prev="ab" * 32)))
        self.expect(self.put(relink(self.second(), prev="ac" * 32)), (8, 9, "link"))
        records = self.second()
        records[0]["context"]["writers"][mv.ALPHA] = 6
        self.expect(self.put(relink(records, prev="ab" * 32)), (9, 10, "writer_gap"))
        records = self.second()
        del records[0]["context"]["writers"][mv.BETA]
        self.expect(self.put(relink(records, prev="ab" * 32)), (11, 12, "writer_gap"))


# -------------------------------------------------------------------------------------------------------------- SQLite


class Sqlite(Case):
    def build(self, records=None, wal=False):
        path = self.path("t.db")
        if os.path.exists(path):
            os.remove(path)
        db = sqlite3.connect(path, isolation_level=None)
        with open(av.SCHEMA, encoding="utf-8") as f:
            db.executescript(f.read())
        records = copy.deepcopy(mv.chain()) if records is None else records
        writers = {mv.LOG: [0, "", 0, 0], mv.ALPHA: [1, "alpha", 0, 0], mv.BETA: [2, "beta", 0, 0]}
        for r in records:
            w = writers[r["writer"]]
            w[2] = max(w[2], r["writer_seq"])
            w[3] |= int(r["event"] == "audit_close")
        db.execute("INSERT INTO schema_info (version) VALUES (3)")
        db.execute("INSERT INTO log_info VALUES (1, ?, 1, ?)", (mv.LOG, records[0]["seq"] if records else 1))
        for uid, (i, service, last, closed) in writers.items():
            if records or i == 0:
                db.execute("INSERT INTO writers VALUES (?, ?, ?, ?, ?)", (i, uid, service, last, closed))
        db.execute("BEGIN")
        for r in records:
            row = {k: av.canonical(v) if av.FIELDS[k][0] == av.JSON else v for k, v in r.items() if k != "prev_hash"}
            row["id"] = row.pop("seq")
            row["writer"] = writers[r["writer"]][0]
            db.execute("INSERT INTO audit_events (%s) VALUES (%s)" % (",".join(row), ",".join("?" * len(row))), list(row.values()))
        db.execute("COMMIT")
        db.close()
        return path

    def edit(self, path, *statements):
        """Runs statements with the triggers away, and puts them back to the letter."""
        db = sqlite3.connect(path, isolation_level=None)
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute("DROP TRIGGER " + name)
        for s in statements:
            db.execute(*s) if isinstance(s, tuple) else db.execute(s)
        for _, sql in triggers:
            db.execute(sql)
        db.close()
        return path

    def test_whole(self):
        code, out, _ = run(self.build())
        self.assertEqual(code, 0, out)
        self.assertRegex(out, r"\Aok: 12 records, seq 1\.\.=12, head [0-9a-f]{64}, assurance linked\n")

    def test_read_only(self):
        path = self.build()
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("INSERT INTO audit_events (timestamp, level, event, component, original_output_file, process_id, process_name) VALUES ('t', 'l', 'e', 'c', 'o', 1, 'p')")

        def bytes_of_all():
            out = {}
            for n in os.listdir(self.dir.name):
                if not n.endswith("-shm"):
                    with open(self.path(n), "rb") as f:
                        out[n] = f.read()
            return out

        before = bytes_of_all()
        self.assertIn("t.db-wal", before)
        answer = self.expect(path)
        self.assertIn("1 foreign row(s) waiting", answer["details"])
        self.assertEqual(before, bytes_of_all())
        db.close()

    def test_empty_log(self):
        answer = self.expect(self.build([]))
        self.assertEqual((answer["records"], answer["head"]), (0, None))

    def test_each_column_edited(self):
        for name, v in OTHER.items():
            if name == "prev_hash":
                continue
            v = av.canonical(v) if av.FIELDS[name][0] == av.JSON else v
            path = self.edit(self.build(), ("UPDATE audit_events SET %s = ? WHERE id = 3" % name, (v,)))
            with self.subTest(name):
                self.expect(path, (2, 3, "link"), *([(3, 4, "time")] if name == "created_at" else []))

    def test_each_column_against_its_rule(self):
        for name, v in WRONG.items():
            if name in ("prev_hash", "writer"):
                continue
            v = "x" if v is None else v
            if name == "process_name":
                v = "a\0"
            v = av.canonical(v) if av.FIELDS[name][0] == av.JSON else str(v) + "\0" if name == "original_output_file" else v
            path = self.edit(self.build(), ("UPDATE audit_events SET %s = ? WHERE id = 3" % name, (v,)))
            with self.subTest(name):
                self.expect(path, (3, 3, "column"), only=False)

    def test_each_column_of_another_type(self):
        for name, (want, _) in av.FIELDS.items():
            if name in ("prev_hash", "seq", "writer"):
                continue
            for v in (b"blob",) + ((1.5, "word") if want == av.INT else ()):
                path = self.edit(self.build(), ("UPDATE audit_events SET %s = ? WHERE id = 3" % name, (v,)))
                with self.subTest(name, v=v):
                    self.expect(path, (3, 3, "column"), only=False)

    def test_each_column_null(self):
        for name in av.FIELDS:
            if name in ("prev_hash", "seq") or name not in mv.chain()[2]:
                continue
            path = self.build()
            try:
                self.edit(path, "UPDATE audit_events SET %s = NULL WHERE id = 3" % name)
            except sqlite3.IntegrityError:
                continue
            with self.subTest(name):
                code, out, _ = run(path)
                self.assertEqual(code, 1, out)

    def test_blob_of_the_same_bytes(self):
        self.expect(self.edit(self.build(), "UPDATE audit_events SET event = CAST(event AS BLOB) WHERE id = 3"), (3, 3, "column"))

    def test_text_that_is_not_utf8(self):
        self.expect(self.edit(self.build(), "UPDATE audit_events SET event = CAST(x'ff61' AS TEXT) WHERE id = 3"), (3, 3, "column"))

    def test_recomputed_checksum(self):
        records = mv.chain()
        r = records[2]
        r["event"] = "other"
        new = av.leaf_hash(av.record_canonical(r))
        path = self.edit(self.build(), ("UPDATE audit_events SET event = 'other', checksum = ? WHERE id = 3", (new,)))
        self.expect(path, (3, 4, "link"))

    def test_first_and_last_row(self):
        self.expect(self.edit(self.build(), "UPDATE audit_events SET process_name = 'x' WHERE id = 1"), (1, 1, "link"))
        self.expect(self.edit(self.build(), "UPDATE audit_events SET process_name = 'x' WHERE id = 12"), (11, 12, "link"))

    def test_deleted(self):
        self.expect(self.edit(self.build(), "DELETE FROM audit_events WHERE id = 7"), (6, 8, "gap"), (11, 12, "writer_gap"))
        self.expect(self.edit(self.build(), "DELETE FROM audit_events WHERE id = 1"), (1, 2, "gap"), (8, 9, "writer_gap"))
        self.expect(self.edit(self.build(), "DELETE FROM audit_events WHERE id = 12"), (None, None, "writers"))
        self.expect(self.edit(self.build(), "DELETE FROM audit_events WHERE id >= 11"), (None, None, "writers"))
        self.expect(self.edit(self.build(), "DELETE FROM audit_events"), (None, None, "writers"))

    def test_deleted_and_renumbered(self):
        path = self.edit(self.build(), "DELETE FROM audit_events WHERE id = 7", "UPDATE audit_events SET id = id - 1 WHERE id > 7")
        self.expect(path, (6, 7, "link"), only=False)

    def test_swapped(self):
        path = self.edit(self.build(), "UPDATE audit_events SET id = 99 WHERE id = 3", "UPDATE audit_events SET id = 3 WHERE id = 4", "UPDATE audit_events SET id = 4 WHERE id = 99")
        self.expect(path, (2, 3, "link"), (3, 4, "link"), (4, 5, "link"), only=False)

    def test_inserted(self):
        path = self.edit(self.build(), "INSERT INTO audit_events SELECT 13, timestamp, level, event, component, original_output_file, file_path, old_value, new_value, user_agent, process_id, "
                         "process_name, context, checksum, created_at, actor_id, actor_type, action, outcome, trace_id, span_id, stack, '%s', writer, 4 FROM audit_events WHERE id = 12" % mv.uuid("new", 7))
        self.expect(path, (12, 13, "link"), (None, None, "writers"))

    def test_first_seq(self):
        self.expect(self.edit(self.build(), "UPDATE log_info SET first_seq = 2"), (1, 2, "gap"), only=False)
        records = mv.chain()
        for r in records:
            r["seq"] += 100
        self.expect(self.build(relink(records)))

    def test_not_canonical(self):
        for column, text in (("context", '{"a":{"\U0001f600":2,"\ufb33":1},"z":1.50}'), ("context", '{"z":1.5,"a":{"\U0001f600":2,"\ufb33":1}}'), ("new_value", "9007199254740993 "),
                             ("new_value", "9007199254740993.0"), ("context", ""), ("context", "{} {}"), ("context", '{"a":1,"a":1}'), ("context", "null"), ("new_value", "nul"),
                             ("old_value", "18446744073709551616"), ("old_value", '"\\ud800"'), ("old_value", "[" * 33 + "]" * 33), ("new_value", '"\\u0041"')):
            path = self.edit(self.build(), ("UPDATE audit_events SET %s = ? WHERE id = 3" % column, (text,)))
            with self.subTest(text):
                self.expect(path, (3, 3, "column"), only=False)

    def test_schema(self):
        for what, statement in {
            "trigger": "CREATE TRIGGER x AFTER INSERT ON audit_events BEGIN SELECT 1; END", "view": "CREATE VIEW v AS SELECT 1", "table": "CREATE TABLE more (x)",
            "index": "CREATE INDEX more ON audit_events(event)", "index away": "DROP INDEX idx_audit_file", "column": "ALTER TABLE audit_events ADD COLUMN more TEXT",
            "table away": "DROP TABLE foreign_events",
        }.items():
            path = self.build()
            db = sqlite3.connect(path, isolation_level=None)
            if what == "table away":
                db.execute("DROP TRIGGER argus_foreign_insert")
            db.execute(statement)
            db.close()
            with self.subTest(what):
                self.expect(path, (None, None, "schema"))
        path = self.build()
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("DROP TRIGGER argus_no_update")
        db.close()
        self.expect(path, (None, None, "schema"))
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("CREATE TRIGGER argus_no_update BEFORE UPDATE ON audit_events BEGIN SELECT 1; END")
        db.close()
        self.expect(path, (None, None, "schema"))

    def test_statistics_tables_are_sqlites_own(self):
        path = self.build()
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("ANALYZE")
        db.close()
        self.expect(path)

    def test_heads(self):
        for statement in ("UPDATE schema_info SET version = 2", "INSERT INTO schema_info (version) VALUES (4)", "DELETE FROM schema_info", "UPDATE log_info SET canonical = 2",
                          "UPDATE log_info SET first_seq = 'x'", "UPDATE log_info SET log_id = 'x'", "DELETE FROM log_info"):
            with self.subTest(statement):
                self.expect(self.edit(self.build(), statement), (None, None, "schema"), only=False)

    def test_writers(self):
        for statement in ("UPDATE writers SET last_seq = 10 WHERE id = 1", "UPDATE writers SET closed = 0 WHERE id = 1", "UPDATE writers SET closed = 1 WHERE id = 2",
                          "UPDATE writers SET closed = 2 WHERE id = 1", "UPDATE writers SET closed = 1 WHERE id = 0", "UPDATE writers SET last_seq = 'x' WHERE id = 2",
                          "UPDATE writers SET service_name = 'gamma' WHERE id = 2", "INSERT INTO writers VALUES (3, '%s', 's', 1, 0)" % mv.uuid("gamma", 4),
                          "INSERT INTO writers VALUES (3, '%s', 's', 0, 0)" % mv.uuid("gamma", 4)):
            with self.subTest(statement):
                self.expect(self.edit(self.build(), statement), (None, None, "writers"))
        self.expect(self.edit(self.build(), "UPDATE writers SET writer = 'x' WHERE id = 2"), (None, None, "writers"), only=False)
        self.expect(self.edit(self.build(), "DELETE FROM writers WHERE id = 2"), (5, 5, "writers"), (7, 7, "writers"), (12, 12, "writers"), only=False)
        self.expect(self.edit(self.build(), "UPDATE writers SET id = 9 WHERE id = 0", "UPDATE audit_events SET writer = 9 WHERE writer = 0"), (None, None, "writers"))
        self.expect(self.edit(self.build(), "UPDATE audit_events SET writer = 2 WHERE id = 3"), (2, 3, "link"), only=False)

    def test_waiting_foreign_rows(self):
        path = self.build()
        db = sqlite3.connect(path, isolation_level=None)
        for _ in range(3):
            db.execute("INSERT INTO audit_events (timestamp, level, event, component, original_output_file, process_id, process_name) VALUES ('t', 'l', 'e', 'c', 'o', 1, 'p')")
        db.close()
        answer = self.expect(path)
        self.assertIn("3 foreign row(s) waiting", answer["details"])

    def test_row_without_record_id(self):
        self.expect(self.edit(self.build(), "UPDATE audit_events SET record_id = NULL WHERE id = 3"), (3, 3, "column"), only=False)

    def test_damage(self):
        path = self.build()
        with open(path, "r+b") as f:
            f.seek(0, 2)
            size = f.tell()
            f.seek(4096 * 5)
            f.write(b"\xa5" * 4096)
        self.assertGreater(size, 4096 * 6)
        self.expect(path, (None, None, "integrity"), only=False)
        path = self.build()
        with open(path, "r+b") as f:
            f.truncate(4096 * 4)
        self.expect(path, (None, None, "integrity"), only=False)
        path = self.build()
        with open(path, "r+b") as f:
            f.seek(16)
            f.write(b"\xff" * 84)
        self.expect(path, (None, None, "integrity"), only=False)


class Command(Case):
    def test_usage(self):
        self.assertEqual(run("--wrong")[0], 2)
        self.assertEqual(run("a", "b")[0], 2)

    def test_cannot_read(self):
        self.assertEqual(run(self.path("none.jsonl"))[0], 3)
        self.assertEqual(run(self.dir.name)[0], 3)
        with open(self.path("x.db"), "wb") as f:
            f.write(b"nothing")
        code, out, err = run(self.path("x.db"))
        self.assertEqual((code, out), (3, ""))
        self.assertTrue(err.startswith("cannot read: "))


if __name__ == "__main__":
    unittest.main()
