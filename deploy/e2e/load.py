"""A paced load: so many requests a second from a few connections, each with a number and a trace id of its own; every answer and its latency are kept."""

import http.client
import json
import os
import threading
import time

KINDS = ("price", "refused", "login", "denied")


class Answer:
    __slots__ = ("n", "kind", "trace", "status", "sent", "seconds")

    def __init__(self, n, kind, trace, status, sent, seconds):
        self.n, self.kind, self.trace, self.status, self.sent, self.seconds = n, kind, trace, status, sent, seconds


def request(kind, n):
    """Method, path, body and the right status of request n."""
    if kind in ("price", "refused"):
        return (
            "PUT",
            f"/price/item-{n}",
            {"user": f"user-{n}", "price": n % 500 if kind == "price" else 10**6},
            200 if kind == "price" else 403,
        )
    return (
        "POST",
        "/login",
        {"user": f"user-{n}", "password": "correct horse" if kind == "login" else "wrong"},
        200 if kind == "login" else 401,
    )


class Load:
    """Runs from `start` to `stop`. `wrong` are answers with another status, `failed` requests without answer."""

    def __init__(self, address, rate=200, connections=4, most=None, first=0):
        self.address, self.rate, self.connections, self.most, self.first = address, rate, connections, most, first
        self.answers, self.wrong, self.failed = [], [], []
        self._stop = threading.Event()
        self._threads = []

    def start(self, begun=None):
        self.begun = begun or time.monotonic()
        self._threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(self.connections)]
        for t in self._threads:
            t.start()
        return self

    def stop(self):
        self._stop.set()
        return self.join()

    def join(self):
        for t in self._threads:
            t.join()
        return self

    def _run(self, lane):
        connection = http.client.HTTPConnection(self.address, timeout=30)
        step = lane
        while not self._stop.is_set() and (self.most is None or step < self.most):
            due = self.begun + step / self.rate
            if self._stop.wait(max(0.0, due - time.monotonic())):
                break
            n = self.first + step
            kind = KINDS[n % len(KINDS)]
            method, path, body, right = request(kind, n)
            trace = os.urandom(16).hex()
            body = json.dumps(body)
            headers = {"content-type": "application/json", "traceparent": f"00-{trace}-{os.urandom(8).hex()}-01"}
            sent = time.monotonic()
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as e:
                self.failed.append((n, repr(e)))
                connection.close()
            else:
                got = Answer(n, kind, trace, answer.status, sent - self.begun, time.monotonic() - sent)
                self.answers.append(got)
                if answer.status != right:
                    self.wrong.append(got)
            step += self.connections
        connection.close()


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def windows(answers, seconds, start, end):
    """Latency samples of each whole window between two moments of the load."""
    out, at = [], start
    while at + seconds <= end + 1e-6:
        out.append([a.seconds for a in answers if at <= a.sent < at + seconds])
        at += seconds
    return out


def unrecorded(answers, records):
    """Acknowledged requests that are not exactly once in the trail: (n, times)."""
    events = {"price_change": "price", "price_refused": "refused", "login": "login", "login_denied": "denied"}
    times = {}
    for r in records:
        kind = events.get(r["event"])
        if kind and (r.get("actor_id") or "").startswith("user-"):
            key = (kind, int(r["actor_id"].removeprefix("user-")))
            times[key] = times.get(key, 0) + 1
    return [(a.n, times.get((a.kind, a.n), 0)) for a in answers if times.get((a.kind, a.n), 0) != 1]
