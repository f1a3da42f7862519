"""Counters of a guard, in the text format that Prometheus reads. Labels never name a client, a key or a model."""

from collections import Counter
from collections.abc import Mapping

_HELP = {
    "requests_total": "Requests answered, by path and status.",
    "refused_total": "Requests refused, by what they asked for.",
    "stripped_total": "Request fields left out on the way to the upstream server.",
    "unparsable_answers_total": "Upstream answers that were not passed on because they could not be read.",
    "upstream_errors_total": "Upstream failures, by kind.",
    "extraction_total": "Clients whose requests came to look like an extraction, by pattern.",
    "cancelled_total": "Requests whose client went away before the answer was complete.",
    "events_total": "Events of streams passed on.",
    "in_flight": "Requests in progress.",
    "clients": "Clients of whom statistics are kept.",
}
PREFIX = "lensmith_guard_"


class Metrics:
    """What a guard counts. `in_flight` is a gauge; everything else only grows."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()

    def count(self, name: str, *, by: int = 1, **labels: str) -> None:
        """Adds to a counter. `name` is one of those with a help text."""
        assert name in _HELP, name
        self._counts[name, tuple(sorted(labels.items()))] += by

    def value(self, name: str, **labels: str) -> int:
        """The sum of a counter over all series that have these labels."""
        wanted = set(labels.items())
        return sum(count for (each, series), count in self._counts.items() if each == name and wanted <= set(series))

    def text(self, gauges: Mapping[str, int]) -> str:
        """All counters and these gauges in Prometheus' text format, version 0.0.4."""
        lines = []
        for name, meaning in _HELP.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {PREFIX}{name} {meaning}", f"# TYPE {PREFIX}{name} {kind}"]
            if kind == "gauge":
                lines.append(f"{PREFIX}{name} {gauges.get(name, 0)}")
            lines += [f"{PREFIX}{each}{_labels(series)} {count}" for (each, series), count in self._sorted(name)]
        return "\n".join(lines) + "\n"

    def _sorted(self, name: str) -> list[tuple[tuple[str, tuple[tuple[str, str], ...]], int]]:
        return sorted(item for item in self._counts.items() if item[0][0] == name)


def _labels(series: tuple[tuple[str, str], ...]) -> str:
    if not series:
        return ""
    escaped = [(key, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for key, value in series]
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped) + "}"
