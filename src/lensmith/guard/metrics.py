"""What a guard counts, as Prometheus reads it. Labels never name a client, a key or a model."""

import contextlib
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4"


class GuardMetrics:
    """The counters of one guard. `in_flight` is a gauge; everything else only grows."""

    def __init__(self, clients: Callable[[], int]) -> None:
        """`clients` says of how many clients statistics are kept."""
        self._registry = CollectorRegistry()
        self.in_flight = 0
        self.requests = self._counter("requests", "Requests answered, by path and status.", "path", "status")
        self.refused = self._counter("refused", "Requests refused, by what they asked for.", "reason")
        self.stripped = self._counter("stripped", "Request fields left out on the way to the upstream server.", "field")
        self.unparsable_answers = self._counter(
            "unparsable_answers", "Upstream answers that were not passed on because they could not be read."
        )
        self.upstream_errors = self._counter("upstream_errors", "Upstream failures, by kind.", "kind")
        self.extraction = self._counter(
            "extraction", "Clients whose requests came to look like an extraction, by pattern.", "pattern"
        )
        self.cancelled = self._counter("cancelled", "Requests whose client went away before the answer was complete.")
        self.events = self._counter("events", "Events of streams passed on.")
        self._gauge("in_flight", "Requests in progress.", lambda: self.in_flight)
        self._gauge("clients", "Clients of whom statistics are kept.", clients)

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Around a request in progress."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def value(self, name: str, **labels: str) -> int:
        """The sum of a counter (`requests_total`) over all series that have these labels."""
        samples = [sample for metric in self._registry.collect() for sample in metric.samples]
        series = [each for each in samples if each.name == f"lensmith_guard_{name}"]
        return int(sum(each.value for each in series if labels.items() <= each.labels.items()))

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"lensmith_guard_{name}", meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, value: Callable[[], int]) -> None:
        Gauge(f"lensmith_guard_{name}", meaning, registry=self._registry).set_function(value)
