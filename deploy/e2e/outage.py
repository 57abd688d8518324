"""(b) The Collector is away at the start, in the middle and at the end, killed with -9: nothing is lost, and nobody waits."""

import time

from load import Load, quantile, unrecorded, windows
from service import Service, of_service

WINDOW = 5  # seconds a sample of the p99
QUIET = 2  # runs with the Collector there all the time, before the outages and again after: a machine that gets busier in between does not decide


def p99s(samples):
    return sorted(quantile(s, 0.99) * 1e3 for s in samples if len(s) > 100)


def run(world, report, down, up, rate):
    seconds = max(20, down * 2 // 3)
    before = [baseline(world, f"before-{n}", seconds, rate) for n in range(QUIET)]
    timeline, load, service, errors = outage(world, down, up, rate)
    after = [baseline(world, f"after-{n}", seconds, rate) for n in range(QUIET)]

    records = of_service(service.trail.records())
    missing = unrecorded(load.answers, records)
    report.check(
        "b",
        "each acknowledged request is in the trail once",
        not missing and not load.wrong and not load.failed,
        f"{len(load.answers)} requests, {len(missing)} not once, {len(load.wrong)} wrong, {len(load.failed)} failed, {len(records)} records",
    )
    good, verdict = service.trail.verify()
    report.check("b", "the trail verifies", good, verdict)
    report.check(
        "b",
        "tracing_errors() says that spans failed, and no record is lost",
        all(e["tracing_errors"] > 0 for e in errors) and all(e["lost"] == 0 for e in errors),
        "; ".join(f"{e['when']}: {e['tracing_errors']} spans, {e['lost']} lost" for e in errors),
    )
    compare(report, before, after, timeline, load)


def baseline(world, when, seconds, rate):
    """The same load, with the Collector there all the time."""
    service = Service(world.work, f"service-{when}", world.otlp).start()
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


def compare(report, before, after, timeline, load):
    """Noise is what the windows of the quiet runs differ among themselves, and nothing of the run with the outages: their cost might linger in it."""
    phases = [
        *(("quiet run before", samples) for samples in before),
        *((name, windows(load.answers, WINDOW, start, end)) for name, start, end in timeline[:-1]),
        *(("quiet run after", samples) for samples in after),
    ]
    rows, quiet, away = [], [], []
    for name, samples in phases:
        w, a = p99s(samples), [s for w in samples for s in w]
        if name.startswith("quiet"):
            quiet.extend(w)
        elif name.startswith("away"):
            away.extend(w)
        rows.append(
            f"| {name} | {len(a)} | {quantile(a, 0.5) * 1e3:.2f} | {quantile(a, 0.99) * 1e3:.2f} | {w[0]:.2f} / {quantile(w, 0.5):.2f} / {w[-1]:.2f} |"
        )
    report.table(
        "Latency as the client sees it, ms",
        f"| phase | requests | p50 | p99 | p99 of {WINDOW} s windows: least / median / most |\n|---|---|---|---|---|",
        rows,
    )
    median, limit = quantile(away, 0.5), quantile(quiet, 0.9)
    report.check(
        "b",
        "the service's p99 without Collector is within the noise of the quiet runs",
        median <= limit,
        f"median window {median:.2f} ms of {len(away)}; quiet: {quantile(quiet, 0.5):.2f} of {len(quiet)}, nine of ten up to {limit:.2f}, {min(quiet):.2f} to {max(quiet):.2f} ms",
    )
    report.check("b", "the service ends in time while the Collector is away", "with 0" in timeline[-1][0], timeline[-1][0])
