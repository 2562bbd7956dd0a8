"""The keys of the tiers that read a request's body, from bytes alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llm_cache.exchange.asked import Asked, Head
from llm_cache.exchange.control import Control
from llm_cache.exchange.routing import Route
from llm_cache.exchange.tiers import Tiers
from llm_cache.exchange.tiers.either_form import EitherForm
from llm_cache.exchange.tiers.normalized import Normalized
from llm_cache.exchange.tiers.suffix import Suffix
from llm_cache.exchange.upstream import Upstream
from llm_cache.settings import Settings
from llm_cache.wire.normalize import Rules
from llm_cache.wire.provider import Endpoint, Provider


@dataclass(frozen=True, slots=True)
class FurtherKeys:
    """Each key, None where the request has none; `note` says why not."""

    normalized: bytes | None
    suffix: bytes | None
    note: str
    either_form: bytes | None


def further_keys(
    provider: Provider,
    endpoint: Endpoint,
    prefix: bytes,
    body: bytes,
    rules: Rules,
    budget_sec: float,
    *,
    cross_stream: bool = False,
) -> FurtherKeys:
    """What the tiers make of `body`, asked in the context that `prefix` describes."""
    route = Route(
        *(provider, endpoint, Upstream.of("http://127.0.0.1:9"), None),
        *("POST", "/", b"/", b"/", False, {}),  # type: ignore[arg-type]
    )
    head = Head(route, [], {}, Control())
    asked = Asked(head, "cache", started=0.0, body=body, prefix=prefix)
    settings = Settings(home=Path("/nonexistent"), cross_stream=cross_stream)
    keys = Tiers(settings, rules, budget_sec).read(asked)
    found = {type(tier): key for tier, key in keys.found}
    return FurtherKeys(
        normalized=found.get(Normalized),
        suffix=found.get(Suffix),
        note=keys.note,
        either_form=found.get(EitherForm),
    )
