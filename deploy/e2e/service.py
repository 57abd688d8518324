"""The service under test, examples/axum_service.rs, its configuration as Kubernetes lays it out, and its trail."""

import json
import os
import subprocess
from collections import Counter

from programs import TARGET, Program, get, until

PROGRAM = TARGET / "release/examples/axum_service"
ARGUS = TARGET / "release/argus"


class Config:
    """shop.json -> ..data/shop.json, ..data -> ..N: a ConfigMap's volume, changed by one rename."""

    def __init__(self, directory):
        self.dir, self.n = directory, 0
        directory.mkdir(parents=True)
        self.set(1000)
        os.symlink("..data/shop.json", directory / "shop.json")

    @property
    def path(self):
        return self.dir / "shop.json"

    def set(self, max_price):
        self.n += 1
        new = self.dir / f"..{self.n}"
        new.mkdir()
        (new / "shop.json").write_text(json.dumps({"max_price": max_price}))
        os.symlink(new.name, self.dir / "..data_tmp")
        os.rename(self.dir / "..data_tmp", self.dir / "..data")


class Service(Program):
    def __init__(self, work, name, otlp=None, zipkin=None):
        directory = work / name
        self.config = Config(directory / "config")
        self.trail = Trail(directory / "trail/audit.db")
        env = {
            "SHOP_LISTEN": "127.0.0.1:0",
            "SHOP_CONFIG": str(self.config.path),
            "ARGUS_AUDIT_OUTPUT_FILE": str(self.trail.path),
            "RUST_LOG": "off",
        }
        if otlp:
            # The SDK's batches: often, and as many as a service's peak has in between. Its queue is bounded, and what is beyond it is dropped.
            env |= {
                "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
                "OTEL_BSP_SCHEDULE_DELAY": "500",
                "OTEL_BSP_MAX_QUEUE_SIZE": "8192",
                "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            }
        if zipkin:
            env["OTEL_EXPORTER_ZIPKIN_ENDPOINT"] = f"{zipkin}/api/v2/spans"
        super().__init__(name, work, [PROGRAM], env, ready=self._listening)

    def start(self, seconds=60):
        self.starts = self.log.read_text().count("listening on") if self.log.exists() else 0
        return super().start(seconds)

    def _listening(self):
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.startswith("listening on ")]
        if len(lines) <= self.starts:
            return False
        self.address = lines[-1].removeprefix("listening on ")
        return True

    def health(self):
        status, body = get(f"http://{self.address}/health")
        return json.loads(body) if status in (200, 503) else None

    def settled(self):
        """Waits until all that was accepted is committed."""
        until("nothing waits", lambda: (self.health() or {}).get("waiting") == 0, 60)


class Trail:
    def __init__(self, path):
        self.path = path

    def _argus(self, *args):
        return subprocess.run([str(ARGUS), "--db", str(self.path), *args], capture_output=True, text=True, timeout=120)

    def records(self):
        done = self._argus("query", "--json", "--oldest-first", "-n", "10000000")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def stats(self):
        done = self._argus("stats", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def verify(self):
        """Whether the verdict is good, and the verdict."""
        done = self._argus("verify")
        return done.returncode == 0, "; ".join(done.stdout.split("\n")[:2]).strip("; ")


def of_service(records):
    """Those that went through the wrapper; Argus's own are made below it and have no span."""
    return [r for r in records if not r["event"].startswith("audit_")]


def by_level_and_component(records):
    return Counter((r["level"], r["component"]) for r in records)
