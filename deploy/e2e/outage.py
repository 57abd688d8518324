"""(b) The Collector is away at the start, in the middle and at the end, killed with -9: nothing is lost, and nobody waits."""

import time

from load import Load, quantile, unrecorded, windows
from service import Service, of_service

WINDOW = 5  # seconds a sample of the p99


def p99s(samples):
    return sorted(quantile(s, 0.99) * 1e3 for s in samples if len(s) > 100)


def run(world, report, down, up, rate):
    quiet = baseline(world, down, rate)
    timeline, load, service, errors = outage(world, down, up, rate)

    records = of_service(service.trail.records())
    missing = unrecorded(load.answers, records)
    report.check("b", "each acknowledged request is in the trail once", not missing and not load.wrong and not load.failed, f"{len(load.answers)} requests, {len(missing)} not once, {len(load.wrong)} wrong, {len(load.failed)} failed, {len(records)} records")
    good, verdict = service.trail.verify()
    report.check("b", "the trail verifies", good, verdict)
    report.check("b", "tracing_errors() says that spans failed, and no record is lost", all(e["tracing_errors"] > 0 for e in errors) and all(e["lost"] == 0 for e in errors), "; ".join(f"{e['when']}: {e['tracing_errors']} spans, {e['lost']} lost" for e in errors))
    compare(report, quiet, timeline, load)


def baseline(world, seconds, rate):
    """The same load, with the Collector there all the time."""
    world.collector.start()
    service = Service(world.work, "service-baseline", world.otlp).start()
    load = Load(service.address, rate=rate, most=int(rate * (seconds + 5))).start().join()
    service.stop()
    return windows(load.answers, WINDOW, 5, seconds + 5)


def outage(world, down, up, rate):
    world.collector.kill()
    service = Service(world.work, "service-outage", world.otlp).start()
    load = Load(service.address, rate=rate).start()
    timeline, errors, at = [], [], 5.0

    def phase(name, seconds):
        nonlocal at
        load._stop.wait(max(0.0, load.begun + at + seconds - time.monotonic()))
        timeline.append((name, at, at + seconds))
        at += seconds
        errors.append({"when": name, **service.health()})

    load._stop.wait(5)  # as in the baseline, the first seconds warm up
    phase("away at the start", down)
    world.collector.start()
    phase("there", up)
    world.collector.kill()
    phase("away in the middle", down)
    world.collector.start()
    phase("there again", up)
    world.collector.kill()
    phase("away at the end", down)
    load.stop()
    begin = time.monotonic()
    code = service.stop()
    world.collector.start()
    timeline.append((f"ended with {code} within {time.monotonic() - begin:.1f} s, without Collector", at, at))
    return timeline, load, service, errors


def compare(report, quiet, timeline, load):
    """Noise is what the quiet windows differ among themselves; the outage's median window must lie within their span, or 2 ms above its end."""
    base = p99s(quiet)
    rows = [("without outage", base, [s for w in quiet for s in w])]
    away = []
    for name, start, end in timeline[:-1]:
        samples = windows(load.answers, WINDOW, start, end)
        rows.append((name, p99s(samples), [s for w in samples for s in w]))
        away += p99s(samples) if name.startswith("away") else []
    table = [f"| {name} | {len(a)} | {quantile(a, 0.5) * 1e3:.2f} | {quantile(a, 0.99) * 1e3:.2f} | {w[0]:.2f} / {w[len(w) // 2]:.2f} / {w[-1]:.2f} |" for name, w, a in rows if w]
    report.table("Latency as the client sees it, ms", f"| phase | requests | p50 | p99 | p99 of {WINDOW} s windows: least / median / most |\n|---|---|---|---|---|", table)
    median = sorted(away)[len(away) // 2]
    report.check("b", "the service's p99 is within noise of the run without outage", median <= base[-1] + 2, f"median window {median:.2f} ms with the Collector away; {base[0]:.2f} to {base[-1]:.2f} ms without outage")
    report.check("b", "the service ends in time while the Collector is away", "with 0" in timeline[-1][0], timeline[-1][0])
