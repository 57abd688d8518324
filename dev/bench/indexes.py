#!/usr/bin/env python3
"""What each index of `audit_events` costs: time of inserting the same rows without and with it, and bytes a record. Standard library only.

    python3 dev/bench/indexes.py [ROWS]      (default 100,000; five interleaved runs, medians)
"""
import os
import re
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
SCHEMA = open(os.path.join(HERE, "../../argus-core/src/store/sqlite/schema.sql"), encoding="utf-8").read()
TABLE = re.search(r"CREATE TABLE audit_events \(.*?\n\);", SCHEMA, re.S).group().replace(" REFERENCES writers(id)", "")
OURS = re.findall(r"CREATE (?:UNIQUE )?INDEX .*?;", SCHEMA, re.S)
# Indexes that the Go library has beyond these.
GO = ["CREATE INDEX g%d ON audit_events(%s);" % (i, c) for i, c in enumerate(
    ["level", "event", "component", "original_output_file", "process_id", "created_at", "component, timestamp"])]
BATCH = 1000


def rows(n):
    start = 1_795_000_000
    for i in range(n):
        change = i % 4 == 0
        t = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(start + i // 500)) + ".%09dZ" % (i * 2_000_003 % 10**9)
        yield (i + 1, t, "CRITICAL" if change else "INFO", "config_change" if change else "request", "shop", "/var/lib/shop/audit.db",
               "/etc/shop/%d.yaml" % (i % 50) if change else None, '{"port":80}' if change else None, '{"port":443}' if change else None, None,
               4242, "shop", '{"ip":"192.0.2.%d","n":%d,"ok":true}' % (i % 250, i), "%064x" % (i * 0x9E3779B97F4A7C15 % 2**256), t[:10] + " " + t[11:19],
               "jane", "user", "write", "success", "%032x" % (i * 0x9E3779B97F4A7C15 % 2**128) if i % 2 else None, None, None, str(uuid.UUID(int=(i << 64) + i)), 1, i + 1)


def run(data, indexes):
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "t.db")
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute(TABLE)
        for i in indexes:
            db.execute(i)
        insert = "INSERT INTO audit_events VALUES (%s)" % ",".join("?" * 25)
        begin = time.perf_counter()
        for at in range(0, len(data), BATCH):
            db.execute("BEGIN IMMEDIATE")
            db.executemany(insert, data[at:at + BATCH])
            db.execute("COMMIT")
        took = time.perf_counter() - begin
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        return took, os.path.getsize(path) / len(data)


def main():
    data = list(rows(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
    cases = [("none", [])] + [(re.search(r"INDEX (\w+)", i).group(1), [i]) for i in OURS] + [("ours, all", OURS), ("ours and Go's", OURS + GO)]
    seen = {name: [] for name, _ in cases}
    for _ in range(5):
        for name, indexes in cases:
            seen[name].append(run(data, indexes))
    floor = statistics.median(t for t, _ in seen["none"])
    base = statistics.median(b for _, b in seen["none"])
    print("%-20s %10s %8s %12s %8s" % ("indexes", "records/s", "time", "bytes/record", "bytes"))
    for name, _ in cases:
        t, b = (statistics.median(x) for x in zip(*seen[name]))
        print("%-20s %10.0f %7.2fx %12.0f %7.2fx" % (name, len(data) / t, t / floor, b, b / base))


if __name__ == "__main__":
    main()
