"""How long answers took in this run: histograms of hits and of upstream answers, for `/metrics`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from llm_cache.exchange import Call, Kind, Listener

BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""Upper bounds of the histograms, in seconds."""


@dataclass(slots=True)
class Histogram:
    """Latencies of one kind: counts per bucket of `BUCKETS`, and the last for what is above."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    def note(self, seconds: float) -> None:
        """Count one latency."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


class Latencies(Listener):
    """The histograms by (`hit` or `upstream`, provider, model)."""

    def __init__(self) -> None:
        self.by_name: dict[tuple[str, str, str], Histogram] = {}

    def heard(self, calls: Sequence[Call], now: float) -> None:
        for call in calls:
            kind = call.kind
            if kind is Kind.PASS or kind is Kind.ERROR or call.status >= 400:
                continue  # also what no upstream was asked for, and what nobody waited for
            name = ("hit" if kind is Kind.HIT else "upstream", call.provider, call.model or "")
            histogram = self.by_name.get(name)
            if histogram is None:
                histogram = self.by_name[name] = Histogram()
            histogram.note(call.seconds)
