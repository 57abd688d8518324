"""(b) The Collector is away at the start, in the middle and at the end, killed with -9: nothing is lost, and nobody waits."""

import signal
import threading
import time

from load import Load, quantile, unrecorded, windows
from service import Service, of_service

WINDOW = 5  # seconds a sample of the p99
FEWEST = 100  # requests that a sample must have more of
WARM = 5  # seconds that are not measured
QUIET = 2  # pairs with both Collectors there all the time, before the outages and again after


class Pair:
    """Two services under the same load at the same time, so that a slow moment of the machine meets both. The control's Collector is always there."""

    def __init__(self, world, when, rate, most=None):
        self.service = Service(world.work, f"service-{when}", world.otlp).start()
        self.control = Service(world.work, f"control-{when}", world.control_otlp).start()
        begun = time.monotonic()
        # In turns: no request waits for the one of the other service.
        self.load = Load(self.service.address, rate=rate, most=most).start(begun)
        self.control_load = Load(self.control.address, rate=rate, most=most).start(begun + 0.5 / rate)

    def windows(self, start, end):
        """The windows of both between two moments of the load."""
        return [windows(load.answers, WINDOW, start, end) for load in (self.load, self.control_load)]


def run(world, report, args):
    world.control_collector.start()
    seconds = max(20, args.down * 2 // 3)
    quiet = lambda when: [quiet_pair(world, f"{when}-{n}", seconds, args.rate) for n in range(QUIET)]
    before = quiet("before")
    pair, timeline, errors, ended = outage(world, args)
    after = quiet("after")
    world.control_collector.stop()

    for name, service, load in (("service", pair.service, pair.load), ("control", pair.control, pair.control_load)):
        records = of_service(service.trail.records())
        missing = unrecorded(load.answers, records)
        report.check(
            "b",
            f"{name}: each acknowledged request is in the trail once",
            not missing and not load.wrong and not load.failed,
            f"{len(load.answers)} requests, {len(missing)} not once, {len(load.wrong)} wrong, {len(load.failed)} failed, {len(records)} records",
        )
    good, verdict = pair.service.trail.verify()
    report.check("b", "the trail verifies", good, verdict)
    report.check(
        "b",
        "tracing_errors() says that spans failed, and none of the control's; no record is lost",
        all(e["tracing_errors"] > 0 and e["control_errors"] == 0 and e["lost"] == 0 for e in errors),
        "; ".join(f"{e['when']}: {e['tracing_errors']} spans, control {e['control_errors']}, {e['lost']} lost" for e in errors),
    )
    compare(report, before, [(name, *pair.windows(start, end)) for name, start, end in timeline], after, args.report_p99)
    code, took = ended
    report.check("b", "the service ends in time while the Collector is away", code == 0, f"ended with {code} within {took:.1f} s")


def quiet_pair(world, when, seconds, rate):
    pair = Pair(world, when, rate, most=int(rate * (seconds + WARM)))
    pair.load.join()
    pair.control_load.join()
    pair.service.stop()
    pair.control.stop()
    return pair.windows(WARM, seconds + WARM)


def outage(world, args):
    world.collector.kill()
    pair = Pair(world, "outage", args.rate)
    timeline, errors, at = [], [], WARM

    def phase(name, seconds):
        nonlocal at
        time.sleep(max(0.0, pair.load.begun + at + seconds - time.monotonic()))
        timeline.append((name, at, at + seconds))
        at += seconds
        errors.append({"when": name, **pair.service.health(), "control_errors": pair.control.health()["tracing_errors"]})

    def away(name):
        with Slowed(pair.service, args.slow):
            phase(name, args.down)

    time.sleep(WARM)
    away("away at the start")
    world.collector.start()
    phase("there", args.up)
    world.collector.kill()
    away("away in the middle")
    world.collector.start()
    phase("there again", args.up)
    world.collector.kill()
    away("away at the end")
    pair.load.stop()
    pair.control_load.stop()
    begin = time.monotonic()
    ended = pair.service.stop(), time.monotonic() - begin
    pair.control.stop()
    world.collector.start()
    return pair, timeline, errors, ended


class Slowed:
    """A service that stands still for some ms ten times a second: shows that the comparison would notice."""

    def __init__(self, service, ms):
        self.process, self.ms, self.end = service.process, ms, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()

    def _run(self):
        while self.ms and not self.end.wait(0.1):
            self.process.send_signal(signal.SIGSTOP)
            time.sleep(self.ms / 1e3)
            self.process.send_signal(signal.SIGCONT)


def ratios(service, control):
    """The service's p99 over the control's, window by window."""
    p99 = lambda sample: quantile(sample, 0.99)
    return [p99(s) / p99(c) for s, c in zip(service, control) if min(len(s), len(c)) > FEWEST]


def compare(report, before, phases, after, only_report):
    """Noise is how much the two of a quiet pair differ, and nothing of the run with the outages: their cost might linger in it."""
    rows, quiet, away = [], [], []
    named = lambda name, pairs: [(name, *p) for p in pairs]
    for name, service, control in named("quiet pair before", before) + phases + named("quiet pair after", after):
        r = ratios(service, control)
        if name.startswith("quiet"):
            quiet.extend(r)
        elif name.startswith("away"):
            away.extend(r)
        times = [f"{quantile([a for w in samples for a in w], q) * 1e3:.2f}" for q in (0.5, 0.99) for samples in (service, control)]
        rows.append(
            f"| {name} | {sum(map(len, service))} | {' | '.join(times)} | {min(r):.2f} / {quantile(r, 0.5):.2f} / {max(r):.2f} |"
        )
    report.table(
        "Latency as the client sees it, ms",
        f"| phase | requests | p50 | of the control | p99 | of the control | ratio of the p99 in {WINDOW} s windows: least / median / most |\n|---|---|---|---|---|---|---|",
        rows,
    )
    median, limit = quantile(away, 0.5), quantile(quiet, 0.9)
    what = "the service's p99 without Collector, over the control's at the same time, is within the noise of the quiet pairs"
    figures = f"median {median:.2f} of {len(away)} windows; quiet: median {quantile(quiet, 0.5):.2f} of {len(quiet)}, nine of ten up to {limit:.2f}, {min(quiet):.2f} to {max(quiet):.2f}"
    if only_report:
        report.measured("b", what, figures)
    else:
        report.check("b", what, median <= limit, figures)
