"""
What the parent tells its operator: counts, and one log line a request.

Neither has anything of a request but its method, route, status, sizes and times: no body, no
query, no address, no header.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.parent.body import BODY_BYTES_KEY
from app.protocol.errors import AppError
from app.protocol.messages import HealthReport

if TYPE_CHECKING:
    from _typeshed import OptExcInfo

ROUTES: Final = ("/v1/attestation", "/v1/chat", "/healthz", "/readyz", "/metrics")
_METHODS: Final = ("GET", "HEAD", "POST")
_OTHER: Final = "other"  # text a client made up becomes neither a label nor a log line
_LOG: Final = logging.getLogger("enclave_llm.parent")
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 720)


def log_to_stderr() -> None:
    """Write log lines, each alone on its line, to standard error."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.INFO)


def log(event: str, **fields: str | int) -> None:
    """Write one JSON line."""
    _LOG.info("%s", json.dumps({"at": int(time.time()), "event": event, **fields}))


class Metrics:
    """
    The parent's counts, in a registry of their own.

    Args:
        health: Asks the enclave for its counts, each time that the metrics are read.
    """

    def __init__(self, health: Callable[[], HealthReport]) -> None:
        self._registry = registry = CollectorRegistry()
        registry.register(_EnclaveCollector(health))
        self.requests = Counter(
            "parent_requests", "Requests ended.", ["route", "status"], registry=registry
        )
        self.received = Counter("parent_received_bytes", "Request bodies.", registry=registry)
        self.sent = Counter("parent_sent_bytes", "Answer bodies.", registry=registry)
        self.streams = Gauge("parent_streams", "Chat requests under way.", registry=registry)
        self.cancelled = Counter(
            "parent_cancelled", "Answers whose client hung up.", registry=registry
        )
        self.failures = Counter(
            "parent_upstream_failures",
            "Failures of or at the enclave.",
            ["code"],
            registry=registry,
        )
        self.first_frame = Histogram(
            "parent_first_frame_seconds",
            "From a whole request to its answer's first frame.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.stream = Histogram(
            "parent_stream_seconds",
            "From a whole request to its answer's end.",
            buckets=_SECONDS,
            registry=registry,
        )

    def encode(self) -> bytes:
        """Give all counts in Prometheus's text format."""
        return generate_latest(self._registry)


class _EnclaveCollector(Collector):
    """The enclave's counts as it states them; only `enclave_up` when it is out of reach."""

    def __init__(self, health: Callable[[], HealthReport]) -> None:
        self._health = health

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Ask the enclave; give its counts."""
        try:
            report = self._health()
        except AppError:
            yield GaugeMetricFamily("enclave_up", "The enclave gives its counts.", 0)
            return
        yield GaugeMetricFamily("enclave_up", "The enclave gives its counts.", 1)
        for name in ("active", "waiting", "answered", "failed", "refused"):
            text = f"Chat requests {name}, as the enclave counts."
            yield GaugeMetricFamily(f"enclave_{name}", text, getattr(report, name))
        done, total = report.loading or (0, 0)
        yield GaugeMetricFamily("enclave_loading_done_bytes", "Weights that have come.", done)
        yield GaugeMetricFamily("enclave_loading_bytes", "Weights in all, 0 once loaded.", total)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Name nothing, so that registering does not ask the enclave."""
        return ()


class Observer:
    """WSGI around the parent: counts and logs each request when its answer has ended."""

    def __init__(self, application: WSGIApplication, metrics: Metrics) -> None:
        self._application = application
        self._metrics = metrics

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass the request on."""
        return _Observed(self._application, environ, start_response, self._end)

    def _end(self, environ: WSGIEnvironment, status: str, sent: int, seconds: float) -> None:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        route = path if path in ROUTES else _OTHER
        received = environ.get(BODY_BYTES_KEY, 0)
        self._metrics.requests.labels(route, status).inc()
        self._metrics.received.inc(received)
        self._metrics.sent.inc(sent)
        log(
            "request",
            method=method if method in _METHODS else _OTHER,
            route=route,
            status=int(status),
            received_bytes=received,
            sent_bytes=sent,
            milliseconds=round(seconds * 1000),
        )


class _Observed:
    """One answer on its way out."""

    def __init__(
        self,
        application: WSGIApplication,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        end: Callable[[WSGIEnvironment, str, int, float], None],
    ) -> None:
        self._started = time.monotonic()
        self._environ = environ
        self._start_response = start_response
        self._end = end
        self._status = "500"
        self._sent = 0
        self._pieces = application(environ, self._start)

    def _start(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: "OptExcInfo | None" = None,
        /,
    ) -> Callable[[bytes], object]:
        self._status = status[:3]
        return self._start_response(status, headers, exc_info)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._sent += len(piece)
            yield piece

    def close(self) -> None:
        """End the answer, whole or not."""
        try:
            if (close := getattr(self._pieces, "close", None)) is not None:
                close()
        finally:
            seconds = time.monotonic() - self._started
            self._end(self._environ, self._status, self._sent, seconds)
