"""What a server counts, as Prometheus reads it. It tells of the traffic, not of the model."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lensmith.core.endpoint import RefusedError
from lensmith.serve.engine import Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class ServerMetrics:
    """The counters of one server."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "lensmith_requests", "Requests by path and status.", ["path", "status"], registry=self._registry
        )
        self.refusals = Counter(
            "lensmith_refusals", "Requests refused because of a feature.", ["feature"], registry=self._registry
        )
        self.disconnects = Counter(
            "lensmith_disconnects", "Clients that went away before their answer.", registry=self._registry
        )
        self.tokens = Counter("lensmith_answered_tokens", "Tokens of answers.", registry=self._registry)
        self.first_token_s = Histogram(
            "lensmith_first_token_seconds",
            "From a request to its first token.",
            registry=self._registry,
            buckets=_SECONDS,
        )
        self.answer_s = Histogram(
            "lensmith_answer_seconds", "From a request to its whole answer.", registry=self._registry, buckets=_SECONDS
        )
        decoder, prefill = engine.decoder, engine.answering.prefill
        self._gauge("lensmith_running_rows", "Rows in the batch.", lambda: decoder.num_running)
        self._gauge("lensmith_waiting_rows", "Rows that wait for a slot.", lambda: decoder.num_waiting)
        self._gauge("lensmith_open_requests", "Requests accepted and not yet answered.", lambda: engine.open_requests)
        self._gauge("lensmith_steps", "Steps of the batch so far.", lambda: decoder.steps)
        self._gauge("lensmith_generated_tokens", "Tokens generated so far.", lambda: decoder.generated_tokens)
        self._gauge("lensmith_read_prompt_tokens", "Prompt tokens computed so far.", lambda: prefill.read_tokens)
        self._gauge("lensmith_known_prompt_tokens", "Prompt tokens taken from the store.", lambda: prefill.known_tokens)
        self._gauge("lensmith_read_pictures", "Pictures computed so far.", lambda: prefill.read_pictures)

    def refused(self, error: RefusedError) -> None:
        for feature in error.feature:
            self.refusals.labels(feature=str(feature.name).lower()).inc()

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, what: str, value: Callable[[], int]) -> None:
        Gauge(name, what, registry=self._registry).set_function(value)


class Stopwatch:
    """Times one request."""

    def __init__(self, metrics: ServerMetrics) -> None:
        self._metrics, self._began, self._has_token = metrics, time.monotonic(), False

    def token(self) -> None:
        if not self._has_token:
            self._has_token = True
            self._metrics.first_token_s.observe(time.monotonic() - self._began)

    def done(self, tokens: int) -> None:
        self._metrics.tokens.inc(tokens)
        self._metrics.answer_s.observe(time.monotonic() - self._began)
