"""(a) Each audit.* span stands under its request's trace, in Jaeger through the Collector and in Zipkin, and there are as many as the trail has records."""

import shutil
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from load import Load
from programs import get, get_json, until
from service import of_service

ROUTES = {"price_change": "PUT /price/{sku}", "price_refused": "PUT /price/{sku}", "login": "POST /login", "login_denied": "POST /login"}
EDITS = 5


def tags(span):
    return {t["key"]: t["value"] for t in span["tags"]}


def run(world, service, report, requests):
    load = Load(service.address, rate=150, most=requests).start()
    for n in range(EDITS):
        service.config.set(900 - n)
        time.sleep(0.4)  # longer than the watcher's debounce: each edit is a change of its own
    load.join()
    service.settled()
    report.check(
        "a",
        f"{requests} requests answered as they should be",
        not load.wrong and not load.failed,
        f"{len(load.answers)} answers, {len(load.wrong)} wrong, {len(load.failed)} failed",
    )
    records = of_service(service.trail.records())
    in_jaeger(world, records, load, report)
    if world.zipkin:
        in_zipkin(world, load, report)
    else:
        report.skip("a", "Zipkin is not installed")


def audit_spans(world):
    """Every audit.* span that Jaeger has of the service."""
    operations = get_json(f"{world.jaeger_url}/api/operations?service=shop")["data"]
    names = {o if isinstance(o, str) else o["name"] for o in operations}
    spans = {}
    for name in (n for n in names if n.startswith("audit.")):
        now = int(time.time() * 1e6)
        url = f"{world.jaeger_url}/api/traces?service=shop&operation={name}&limit=100000&start={now - 3600 * 10**6}&end={now + 60 * 10**6}"
        for trace in get_json(url, timeout=60)["data"]:
            for span in trace["spans"]:
                if span["operationName"].startswith("audit."):
                    spans[span["spanID"]] = span
    return list(spans.values())


def in_jaeger(world, records, load, report):
    try:
        spans = until("Jaeger has a span of each record", lambda: len(s := audit_spans(world)) >= len(records) and s, 40, 1)
    except TimeoutError:
        spans = audit_spans(world)
    ids = Counter(tags(s).get("audit.record.id") for s in spans)
    wanted = {r["record_id"] for r in records}
    report.check(
        "a",
        "Jaeger has as many audit spans as the trail has records, one of each",
        ids == Counter(wanted),
        f"{len(spans)} spans, {len(records)} records, {len(wanted - set(ids))} without span",
    )
    # The whole trace of each request, as Jaeger has it.
    with ThreadPoolExecutor(4) as pool:
        traces = dict(pool.map(lambda a: (a.trace, get_json(f"{world.jaeger_url}/api/traces/{a.trace}")["data"][0]["spans"]), load.answers))
    wrong = [w for r in records if r["event"] in ROUTES for w in faults(r, traces)]
    report.check(
        "a",
        "each stands under its HTTP request's span, in the trace that the client began, with its record's attributes",
        not wrong and len(traces) == len(load.answers),
        f"{len(traces)} traces compared; {wrong[:3] or 'no difference'}",
    )
    changes = [s for s in spans if s["operationName"] == "audit.config_change"]
    good = [s for s in changes if tags(s).get("file.path", "").endswith("shop.json") and not s["references"]]
    report.check(
        "a",
        "each edit of the watched file is an audit.config_change span of its own",
        len(good) == len(changes) == EDITS,
        f"{len(good)} of {EDITS}",
    )


def faults(record, traces):
    """What is wrong with the span of one request's record."""
    spans = traces.get(record.get("trace_id"), [])
    mine = [s for s in spans if tags(s).get("audit.record.id") == record["record_id"]]
    if len(mine) != 1:
        return [f"{record['record_id']}: {len(mine)} spans in its trace"]
    span, found = mine[0], tags(mine[0])
    name = ("audit.security." if record["level"] == "SECURITY" else "audit.") + record["event"]
    parent = (
        next((s for s in spans if s["spanID"] == span["references"][0]["spanID"]), {"operationName": "none"})
        if span["references"]
        else {"operationName": "none"}
    )
    wanted = {
        "audit.level": record["level"],
        "audit.event": record["event"],
        "audit.component": record["component"],
        "audit.timestamp": record["timestamp"],
        **{f"audit.context.{k}": v for k, v in record["context"].items()},
    }
    out = [f"{name}: {k} is {found.get(k)!r}, not {v!r}" for k, v in wanted.items() if found.get(k) != v]
    if span["operationName"] != name or parent["operationName"] != ROUTES[record["event"]] or parent.get("spanID") != record["span_id"]:
        out.append(f"{span['operationName']} under {parent['operationName']}")
    return out


def in_zipkin(world, load, report):
    answer = next(a for a in load.answers if a.kind == "denied")
    url = f"{world.zipkin_url}/api/v2/trace/{answer.trace}"
    spans = until("the trace in Zipkin", lambda: (r := get(url))[0] == 200 and b"audit." in r[1] and get_json(url), 20)
    by_id = {s["id"]: s for s in spans}
    audit = next(s for s in spans if s["name"].startswith("audit."))
    parent = by_id.get(audit.get("parentId"), {}).get("name")
    report.check(
        "a",
        "Zipkin has the same trace",
        audit["name"] == "audit.security.login_denied" and parent == "post /login" and audit["tags"].get("audit.event") == "login_denied",
        f"trace {answer.trace}: {audit['name']} under {parent}",
    )
    browser = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
    if not browser:
        return report.skip("a", "no browser: no screenshot of Zipkin's page")
    shot = world.work / "zipkin-trace.png"
    command = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--window-size=1400,760",
        f"--user-data-dir={world.work / 'browser'}",
        "--virtual-time-budget=20000",
        f"--screenshot={shot}",
        f"{world.zipkin_url}/zipkin/traces/{answer.trace}",
    ]
    subprocess.run(command, capture_output=True, timeout=90)
    report.check(
        "a",
        "headless Chromium shows it in Zipkin's own page",
        shot.exists() and shot.stat().st_size > 20_000,
        f"{shot} ({shot.stat().st_size if shot.exists() else 0} bytes)",
    )
