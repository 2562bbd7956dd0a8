"""Figures for people and scripts, from tallies as the ledger keeps them.

Money and tokens that our cache saved, and tokens a provider's own prompt cache served, are
separate figures with separate names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llm_cache.exchange.calls import NANO, Kind, Label, kind_of
from llm_cache.exchange.journal import Tallies


def summary(tallies: Tallies) -> dict[str, Any]:
    """The figures of SPEC 5a. `hits` include the coalesced; `calls` = hits + misses + errors +
    bypassed; what was passed through uncached is `passed` and in no other figure. USD and percent
    are rounded; unpriced calls used tokens of a model whose price isn't known.
    """
    return _figures((json.loads(scope)[2], counters) for scope, counters in tallies.items())


def by_model(tallies: Tallies) -> list[dict[str, Any]]:
    """`summary` for each provider and model, the most called first."""
    groups: dict[tuple[str, str], list[tuple[str, Mapping[str, int | float]]]] = {}
    for scope, counters in tallies.items():
        provider, model, label = json.loads(scope)
        if kind_of(label) is not Kind.PASS:
            groups.setdefault((provider, model), []).append((label, counters))
    rows = [
        {"provider": provider, "model": model or None, **_figures(group)}
        for (provider, model), group in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row["calls"], row["provider"], row["model"] or ""))


def by_provider(tallies: Tallies) -> list[dict[str, Any]]:
    """`summary` for each provider, the most called first."""
    groups: dict[str, list[tuple[str, Mapping[str, int | float]]]] = {}
    for scope, counters in tallies.items():
        provider, _, label = json.loads(scope)
        groups.setdefault(provider, []).append((label, counters))
    rows = [{"provider": provider, **_figures(group)} for provider, group in groups.items()]
    return sorted(rows, key=lambda row: (-row["calls"], row["provider"]))


def _figures(group: Iterable[tuple[str, Mapping[str, int | float]]]) -> dict[str, Any]:
    hits = coalesced = misses = errors = bypassed = passed = unpriced = 0
    saved_in = saved_out = saved_nano = spent = spent_nano = 0
    read = write = 0
    for label, counters in group:
        calls = int(counters.get("calls", 0))
        tokens_in = int(counters.get("tokens_in", 0))
        tokens_out = int(counters.get("tokens_out", 0))
        nano = int(counters.get("nano_usd", 0))
        unpriced += int(counters.get("unpriced", 0))
        kind = kind_of(label)
        if kind is Kind.HIT:
            hits += calls
            coalesced += calls if label == Label.HIT_COALESCED else 0
            saved_in += tokens_in
            saved_out += tokens_out
            saved_nano += nano
            continue
        if kind is Kind.PASS:
            passed += calls
        elif kind is Kind.ERROR:
            errors += calls
        elif kind is Kind.BYPASS:
            bypassed += calls
        else:
            misses += calls
        spent += tokens_in + tokens_out
        spent_nano += nano
        read += int(counters.get("cache_read", 0))
        write += int(counters.get("cache_write", 0))
    calls = hits + misses + errors + bypassed
    money = saved_nano + spent_nano
    return {
        "calls": calls,
        "hits": hits,
        "coalesced": coalesced,
        "misses": misses,
        "errors": errors,
        "bypassed": bypassed,
        "passed": passed,
        "hit_rate_pct": round(100 * hits / calls, 2) if calls else 0.0,
        "tokens_saved": saved_in + saved_out,
        "tokens_saved_in": saved_in,
        "tokens_saved_out": saved_out,
        "usd_saved": round(saved_nano / NANO, 6),
        "tokens_spent": spent,
        "usd_spent": round(spent_nano / NANO, 6),
        "savings_pct": round(100 * saved_nano / money, 2) if money else 0.0,
        "unpriced_calls": unpriced,
        "prompt_cache_read_tokens": read,
        "prompt_cache_write_tokens": write,
    }
