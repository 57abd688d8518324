"""(c) Prometheus, scraping the Collector: the counters equal the trail, every query of dashboard and rules runs, each alert fires by its cause and clears."""

import json
import re
import sqlite3
import subprocess
import threading
import time
from collections import Counter

from load import Load, unrecorded
from programs import DEPLOY, HOME, get, until
from service import by_level_and_component

HUGE = "x" * 400_000  # more than a record may have


def total(world):
    return Counter({(m["level"], m["component"]): int(v) for m, v in world.query("sum by (level, component) (argus_audit_events_total)")})


def load_some(service):
    """Records of each level, so that this part needs no other before it."""
    Load(service.address, rate=100, most=100, first=5 * 10**6).start().join()


def equal(world, service, report, when):
    """The service is quiet, so trail and counter must come to the same."""
    service.settled()
    wanted = by_level_and_component(service.trail.records())
    try:
        got = until("the counter equals the trail", lambda: (t := total(world)) == wanted and t, 20, 0.5)
    except TimeoutError:
        got = total(world)
    stats = service.trail.stats()
    sums = {"by_level": Counter(), "by_component": Counter()}
    for (level, component), n in got.items():
        sums["by_level"][level] += n
        sums["by_component"][component] += n
    same = got == wanted and all(dict(sums[k]) == stats[k] for k in sums)
    report.check(
        "c",
        f"argus_audit_events_total equals `argus stats` by level and by component, {when}",
        same,
        f"{stats['records']} records, {len(wanted)} series; {'equal' if same else f'counter {dict(got)}, trail {dict(wanted)}'}",
    )


def checks_by_promtool(report):
    promtool, rules = HOME / "bin/promtool", DEPLOY / "prometheus"
    for args in (["check", "config", rules / "prometheus.yaml"], ["test", "rules", rules / "rules_test.yaml"]):
        done = subprocess.run([promtool, *args], capture_output=True, text=True, timeout=120)
        report.check(
            "c",
            f"promtool {' '.join(args[:2])}",
            done.returncode == 0,
            done.stdout.strip().splitlines()[-1] if done.returncode == 0 else done.stderr[-300:],
        )


def queries(world, report):
    """Each query gives something: a name that no metric has would give nothing, and no error."""
    dashboard = json.loads((DEPLOY / "grafana/dashboards/argus.json").read_text())
    found = [t["expr"] for p in dashboard["panels"] for t in p["targets"]]
    for name, value in (("$__rate_interval", "15s"), ("$job", ".*"), ("$instance", ".*"), ("[5m]", "[15s]")):
        found = [q.replace(name, value) for q in found]
    rules = (world.work / "prometheus/rules.yaml").read_text()
    expressions = re.findall(r"expr: (.*)", rules)
    # A rule gives nothing while all is well; so ask for the metrics that it names.
    metrics = sorted({m for q in expressions for m in re.findall(r"\b((?:argus_)?audit_\w+)", q)})
    without = lambda: [q for q in found + metrics if not world.query(q)]
    try:
        # A rate needs two samples, and a service that has just started has one.
        until("series", lambda: not without(), 30, 1)
    except TimeoutError:
        pass
    empty = without()
    for q in expressions:
        world.query(q)
    report.check(
        "c",
        "each query of the dashboard, and each metric of the rules, gives series",
        not empty,
        f"{len(found)} queries, {len(metrics)} metrics, {len(expressions)} rules; {empty or 'none is empty'}",
    )


class Alerts:
    def __init__(self, world, report):
        self.world, self.report = world, report

    def fires(self, *names, seconds=45):
        begin = time.monotonic()
        try:
            until(f"{names} fire", lambda: set(names) <= self.world.firing(), seconds)
            return {n: time.monotonic() - begin for n in names}
        except TimeoutError:
            return {}

    def cause(self, names, what, make, unmake=lambda: None, seconds=45):
        before = self.world.firing() & set(names)
        make()
        fired = self.fires(*names, seconds=seconds)
        unmake()
        begin = time.monotonic()
        try:
            until(f"{names} clear", lambda: not set(names) & self.world.firing(), 60)
            cleared = time.monotonic() - begin
        except TimeoutError:
            cleared = None
        took = f"fired after {max(fired.values()):.0f} s" if fired else f"did not fire ({sorted(self.world.firing())} did)"
        self.report.check(
            "c",
            f"{', '.join(names)}: {what}",
            bool(fired) and cleared is not None and not before,
            f"{took}, {'did not clear' if cleared is None else f'clear {cleared:.0f} s after'}{', fired before' if before else ''}",
        )


def post(service, path, body, method):
    return get(
        f"http://{service.address}{path}",
        data=json.dumps(body).encode(),
        method=method,
        headers={"content-type": "application/json"},
        timeout=60,
    )[0]


def alerts(world, service, report):
    a = Alerts(world, report)
    quiet = world.firing()
    report.check("c", "a healthy service raises no alert", not quiet, ", ".join(sorted(quiet)) or "none")

    def refused():
        assert post(service, "/login", {"user": HUGE, "password": "wrong"}, "POST") == 401
        assert post(service, "/price/huge", {"user": HUGE, "price": 1}, "PUT") == 503

    a.cause(
        ["ArgusRecordsLost", "ArgusRecordsRejected"],
        "an event larger than a record may be, through the layer and by a direct call",
        refused,
    )

    lock = {}

    def locked():
        lock["db"] = sqlite3.connect(service.trail.path, isolation_level=None, timeout=30)
        lock["db"].execute("BEGIN IMMEDIATE")
        lock["load"] = Load(service.address, rate=20, connections=2, first=10**6).start()

    def free():
        lock["load"].stop()
        lock["db"].execute("ROLLBACK")
        lock["db"].close()

    a.cause(
        ["ArgusStoreDegraded", "ArgusRecordsPending", "ArgusCommitStalled"], "another program holds the database's write lock", locked, free
    )
    service.settled()
    load = lock["load"]
    missing = unrecorded(load.answers, service.trail.records())
    good = not load.wrong and not load.failed and not missing
    report.check(
        "c",
        "while it was held, requests went on, and each is in the trail once",
        good,
        f"{len(load.answers)} requests, {len(load.wrong)} wrong, {len(load.failed)} failed, {len(missing)} not once",
    )

    killed = Load(service.address, rate=200, connections=4, first=3 * 10**6)

    def kill():
        killed.start()
        until("some answers", lambda: len(killed.answers) > 300, 30)
        service.kill()  # in the middle of requests; those without answer may be in the trail or not
        killed.stop()

    a.cause(["ArgusWriterUnclosed"], "the service is killed with -9 under load, and started again", kill, service.start)
    missing = unrecorded(killed.answers, service.trail.records())
    report.check(
        "c",
        "each request that it had acknowledged is in the trail once",
        not missing and not killed.wrong,
        f"{len(killed.answers)} acknowledged, {len(killed.failed)} without answer, {len(missing)} not once",
    )
    equal(world, service, report, "after kill -9 and restart")
    good, verdict = service.trail.verify()
    report.check("c", "the trail verifies after it", good, verdict)

    def away():
        world.collector.kill()
        a.missing = threading.Thread(target=lambda: setattr(a, "seen", a.fires("ArgusMetricsMissing", seconds=20)))
        a.missing.start()
        load = Load(service.address, rate=50, connections=2, most=500, first=2 * 10**6).start()
        load.join()
        a.missing.join()
        world.collector.start()

    a.cause(["ArgusSpansFailing"], "the Collector is killed with -9 under load, and comes back", away)
    report.check(
        "c",
        "ArgusMetricsMissing: meanwhile",
        bool(a.seen) and "ArgusMetricsMissing" not in world.firing(),
        "fired and is clear" if a.seen else "did not fire",
    )
    try:
        query = "max(argus_audit_metrics_export_errors_total)"
        failed = until("the failed exports", lambda: [v for _, v in world.query(query) if v > 0], 20)[0]
    except TimeoutError:
        failed = 0
    report.check("c", "argus_audit_metrics_export_errors_total: exports failed meanwhile", failed > 0, f"{failed:.0f} exports")

    aside, gone = service.trail.path.with_suffix(".aside"), {}

    def moved():
        service.trail.path.rename(aside)
        gone["load"] = Load(service.address, rate=20, connections=2, first=4 * 10**6).start()

    def back():
        gone["load"].stop()
        aside.rename(service.trail.path)

    a.cause(["ArgusCountUnreadable"], "the trail's file is moved away, and back", moved, back)
    service.settled()
    load = gone["load"]
    missing = unrecorded(load.answers, service.trail.records())
    report.check(
        "c",
        "while it was away, requests went on, and each is in the trail once",
        not load.wrong and not load.failed and not missing,
        f"{len(load.answers)} requests, {len(load.wrong)} wrong, {len(load.failed)} failed, {len(missing)} not once",
    )
    equal(world, service, report, "after the trail was away")
    good, verdict = service.trail.verify()
    report.check("c", "the trail verifies after it", good, verdict)
