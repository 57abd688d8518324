"""Starts, kills and stops the real programs on loopback, on ports that are free. Whatever was started here is gone when this process is."""

import atexit
import ctypes
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEPLOY = HERE.parent
ROOT = DEPLOY.parent
HOME = Path(os.environ.get("ARGUS_E2E_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "argus-e2e")
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
_running = []
_given = set()


def free_port():
    """Below the ports that the operating system gives to connections and to whoever asks for any: none of them takes it while its program is not up yet, or killed."""
    beyond = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, max(beyond, 20_000))
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port


def get(url, timeout=10, data=None, method=None, headers=None):
    """Status and body; status 0 where nobody answers."""
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()
    except OSError:
        return 0, b""


def get_json(url, **kw):
    status, body = get(url, **kw)
    if status != 200:
        raise RuntimeError(f"{url}: status {status}: {body[:300]!r}")
    return json.loads(body)


def until(what, condition, seconds=60, every=0.2):
    """Waits for a condition and gives its value, or fails with what was waited for."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(every)


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: not even a killed test leaves anything behind


class Program:
    def __init__(self, name, work, command, env=None, ready=None):
        self.name, self.command, self.ready = name, [str(c) for c in command], ready
        self.dir = work / name
        self.dir.mkdir(parents=True, exist_ok=True)
        self.log = self.dir / "log"
        self.env = {**{k: v for k, v in os.environ.items() if not k.startswith(("OTEL", "ARGUS_AUDIT", "SHOP_"))}, **(env or {})}
        self.process = None

    def start(self, seconds=60):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        _running.append(self)

        def up():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}: {self.tail()}")
            return self.ready is None or self.ready()

        until(f"{self.name} ready", up, seconds)
        return self

    def kill(self):
        self._end(signal.SIGKILL, 10)

    def stop(self, seconds=60):
        """Asks it to end; its exit code."""
        return self._end(signal.SIGTERM, seconds)

    def _end(self, signo, seconds):
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signo)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
                raise TimeoutError(f"{self.name} did not end within {seconds} s: {self.tail()}") from None
        if self in _running:
            _running.remove(self)
        return self.process.returncode

    def tail(self, lines=5):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@atexit.register
def end_all():
    for program in list(_running):
        program.process.kill()
        program.process.wait()
    _running.clear()


class World:
    """The programs around the service, with their addresses."""

    def __init__(self, work):
        self.work = work
        host = lambda: f"127.0.0.1:{free_port()}"
        prom, jaeger_otlp, query = host(), host(), host()
        self.jaeger_url, self.metrics_url = f"http://{query}", f"http://{prom}/metrics"
        answers = lambda url: lambda: get(url, timeout=2)[0] == 200
        self.jaeger = Program(
            "jaeger",
            work,
            [HOME / "bin/jaeger", "--config", HERE / "configs/jaeger.yaml"],
            {"STATE": str(work / "jaeger"), "OTLP_HTTP": jaeger_otlp, "QUERY_HTTP": query, "QUERY_GRPC": host()},
            answers(f"{self.jaeger_url}/api/services"),
        )

        def collector(name, prom):
            """A Collector and where it takes OTLP."""
            health, otlp = host(), host()
            program = Program(
                name,
                work,
                [HOME / "bin/otelcol", "--config", DEPLOY / "otelcol/config.yaml"],
                {
                    "OTELCOL_HEALTH": health,
                    "OTELCOL_HTTP": otlp,
                    "OTELCOL_GRPC": host(),
                    "OTELCOL_PROMETHEUS": prom,
                    "OTELCOL_STATE": str(work / name),
                    "OTELCOL_SELF_HOST": "127.0.0.1",
                    "OTELCOL_SELF_PORT": str(free_port()),
                    "OTELCOL_EXPIRATION": "5s",
                    "JAEGER_OTLP": f"http://{jaeger_otlp}",
                },
                answers(f"http://{health}"),
            )
            return program, f"http://{otlp}"

        self.collector, self.otlp = collector("otelcol", prom)
        self.control_collector, self.control_otlp = collector("otelcol-control", host())
        self.prometheus = self._prometheus(prom)
        self.zipkin = None
        if (HOME / "zipkin.jar").exists():
            port = free_port()
            self.zipkin_url = f"http://127.0.0.1:{port}"
            self.zipkin = Program(
                "zipkin",
                work,
                ["java", "-Xmx256m", "-jar", HOME / "zipkin.jar", "--server.address=127.0.0.1", f"--server.port={port}"],
                ready=answers(f"{self.zipkin_url}/health"),
            )

    def _prometheus(self, target):
        """The operator's own configuration and rules, with other times: here a minute must show what there takes five."""
        listen = f"127.0.0.1:{free_port()}"
        self.prometheus_url = f"http://{listen}"
        directory = self.work / "prometheus"
        directory.mkdir(parents=True, exist_ok=True)
        config = (DEPLOY / "prometheus/prometheus.yaml").read_text()
        (directory / "prometheus.yaml").write_text(config.replace("15s", "1s").replace("otelcol:8889", target))
        rules = (DEPLOY / "prometheus/rules.yaml").read_text()
        for pattern, shorter in [
            (r"\[5m\]", "[15s]"),
            (r"offset 5m", "offset 15s"),
            (r"\[1h\]", "[3m]"),
            (r"for: \d+m", "for: 3s"),
            (r"seconds\) > 60", "seconds) > 5"),
        ]:
            rules, n = re.subn(pattern, shorter, rules)
            assert n, f"the rules have no {pattern} any more"
        (directory / "rules.yaml").write_text(rules)
        return Program(
            "prometheus",
            self.work,
            [
                HOME / "bin/prometheus",
                f"--config.file={directory / 'prometheus.yaml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={listen}",
            ],
            ready=lambda: get(f"{self.prometheus_url}/-/ready", timeout=2)[0] == 200,
        )

    def query(self, promql):
        """The instant vector of a query: labels and value."""
        url = f"{self.prometheus_url}/api/v1/query"
        answer = get_json(
            url,
            data=b"query=" + urllib.request.quote(promql).encode(),
            method="POST",
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        return [(r["metric"], float(r["value"][1])) for r in answer["data"]["result"]]

    def firing(self):
        alerts = get_json(f"{self.prometheus_url}/api/v1/alerts")["data"]["alerts"]
        return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}
