"""`/metrics`: the ledger's figures and this run's latencies in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from llm_cache.exchange import Tallies, figures
from llm_cache.server.latencies import BUCKETS, Histogram

Latencies = Mapping[tuple[str, str, str], Histogram]

_COUNTERS = {
    "calls": "Requests to cacheable endpoints, all time",
    "hits": "Requests answered without an upstream call of their own, all time",
    "coalesced": "Of the hits, those that followed another request's call",
    "misses": "Requests the cache had no answer to",
    "errors": "Requests that ended in an error",
    "bypassed": "Requests that went past the cache",
    "tokens_spent": "Tokens of answers that came from an upstream",
    "tokens_saved": "Tokens of answers that came from the cache",
    "usd_saved": "US dollars that answers from the cache would have cost",
    "usd_spent": "US dollars that upstream answers cost, where the price is known",
    "prompt_cache_read_tokens": "Tokens served by a provider's own prompt cache",
    "prompt_cache_write_tokens": "Tokens written to a provider's own prompt cache",
}
_LABELS = ("provider", "model")


def render(all_time: Tallies, latencies: Latencies, sizes: Mapping[str, int]) -> bytes:
    """The whole exposition (text format 0.0.4)."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(all_time, latencies, sizes))
    return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, all_time: Tallies, latencies: Latencies, sizes: Mapping[str, int]) -> None:
        self._all_time = all_time
        self._latencies = latencies
        self._sizes = sizes

    def collect(self) -> Iterator[Metric]:
        rows = figures.by_model(self._all_time)
        for name, meaning in _COUNTERS.items():
            counter = CounterMetricFamily(f"llm_cache_{name}", meaning, labels=_LABELS)
            for row in rows:
                counter.add_metric([row["provider"], row["model"] or ""], row[name])
            yield counter
        overall = figures.summary(self._all_time)
        yield GaugeMetricFamily(
            "llm_cache_hit_ratio",
            "Hits per call, 0 to 1, all time",
            value=overall["hit_rate_pct"] / 100,
        )
        yield GaugeMetricFamily(
            "llm_cache_entries", "Entries in the store", value=self._sizes["entries"]
        )
        yield GaugeMetricFamily(
            "llm_cache_bytes", "Bytes of the store's blobs on disk", value=self._sizes["bytes"]
        )
        for kind, meaning in (
            ("hit", "Seconds to answer from the cache, this run"),
            ("upstream", "Seconds to answer by an upstream, this run"),
        ):
            family = HistogramMetricFamily(f"llm_cache_{kind}_seconds", meaning, labels=_LABELS)
            for (of_kind, provider, model), histogram in self._latencies.items():
                if of_kind == kind:
                    family.add_metric([provider, model], _cumulated(histogram), histogram.seconds)
            yield family


def _cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
