"""What tokens cost, in US dollars.

First what `prices.json` says, then the `genai-prices` data that is installed (no network, no
updates), then the few of `wire.published_prices`. A model that none of them knows has no price:
None, never 0 and never a guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from llm_cache.errors import SettingsError
from llm_cache.wire.framing import strict_json
from llm_cache.wire.provider import Usage
from llm_cache.wire.published_prices import PASSED_ON, PUBLISHED
from llm_cache.wire.registry import by_name

if TYPE_CHECKING:
    from genai_prices import types as genai

_RATES: Final = ("input", "output", "cache_read", "cache_write")
_FREE: Final = ":free"
"""How OpenRouter marks what costs nothing (https://openrouter.ai/docs, "Free Variant")."""
_ALLOWED: Final = (
    "[input, output] or an object with input, output and, if wanted, cache_read and cache_write: "
    "US dollars per token, from 0"
)


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars per token. A cache rate that wasn't given is the input rate."""

    input: float
    output: float
    cache_read: float
    cache_write: float


class Prices:
    """The prices in force. Thread-safe; unchanging once made."""

    __slots__ = ("_rates",)

    def __init__(self, rates: dict[str, Rates]) -> None:
        # Longest first, so that the first substring found is the longest.
        self._rates = dict(sorted(rates.items(), key=lambda item: (-len(item[0]), item[0])))

    @staticmethod
    def load(text: str | None, source: str) -> Prices:
        """The prices with the overrides in `text`, the content of the file named `source`.

        None: no such file. Two forms: `{"haiku": [0.8e-6, 4e-6]}` and `{"haiku": {"input": 0.8e-6,
        "output": 4e-6, "cache_read": ..., "cache_write": ...}}`; a name counts for every model that
        holds it, the longest name first. Raises SettingsError with all that is wrong: which entry,
        its value, what is allowed.
        """
        if text is None:
            return Prices({})
        try:
            doc = strict_json.parse(text.encode("utf-8"))
        except ValueError as error:
            raise SettingsError(f"{source}: not valid JSON: {error}") from None
        if not isinstance(doc, dict):
            raise SettingsError(f"{source}: must be a JSON object of model names")
        rates: dict[str, Rates] = {}
        wrong = []
        for name, value in doc.items():
            try:
                rates[name.lower()] = _rates(name, value)
            except ValueError as error:
                wrong.append(str(error))
        if wrong:
            raise SettingsError.of_file(source, wrong)
        return Prices(rates)

    def cost(
        self, provider: str | None, model: str, usage: Usage, price_ids: tuple[str, ...] = ()
    ) -> float | None:
        """What `usage` cost in US dollars, or None when the model's price isn't known.

        `provider` None: of whoever made the model. `price_ids` are the endpoint's: who served the
        request, when that isn't the provider itself.
        """
        read, written = usage.cache_read_tokens, usage.cache_write_tokens
        cached = read + written
        if usage.input_includes_cache:
            whole, fresh = max(usage.input_tokens, cached), max(usage.input_tokens - cached, 0)
        else:
            whole, fresh = usage.input_tokens + cached, usage.input_tokens
        found = None
        if (rates := self._override(model)) is None:
            found = _known_model(provider, model, price_ids)
            rates = _published(provider, model, price_ids) if found is None else None
        if rates is not None:
            return (
                fresh * rates.input
                + usage.output_tokens * rates.output
                + read * rates.cache_read
                + written * rates.cache_write
            )
        if found is None:
            return None
        from genai_prices import Usage as GenaiUsage

        owner, info = found
        tokens = {
            "input_tokens": whole,  # genai-prices counts cached tokens as input tokens too
            "output_tokens": usage.output_tokens,
            "cache_read_tokens": read,
            "cache_write_tokens": written,
            "cache_write_1h_tokens": min(usage.cache_write_1h_tokens, written),
            "web_searches": usage.web_searches,
            "storage_searches": usage.storage_searches,
        }
        context = _context(info, usage)
        # Parts that don't fit their sums (a cache whose modalities aren't told) cost as the rest.
        for counts in ({**tokens, **_parts(usage)}, tokens):
            try:
                price = info.calc_price(GenaiUsage(**counts), owner, price_context=context)
            except ValueError:
                continue
            return float(price.total_price)
        return None

    def per_token(self, model: str, provider: str | None = None) -> tuple[float, float] | None:
        """US dollars per (input, output) token, before any tier for long prompts; None: unknown."""
        if (rates := self._override(model)) is not None:
            return rates.input, rates.output
        if (found := _known_model(provider, model)) is None:
            rates = _published(provider, model)
            return None if rates is None else (rates.input, rates.output)
        prices = _prices_now(found[1])
        return _base(prices.input_mtok) / 1e6, _base(prices.output_mtok) / 1e6

    def _override(self, model: str) -> Rates | None:
        name = model.lower()
        if (rates := self._rates.get(name)) is not None:
            return rates
        return next((rates for part, rates in self._rates.items() if part in name), None)


def _parts(usage: Usage) -> dict[str, int]:
    """What of the tokens can have a rate of its own, by the price data's names. A 0 is told too:
    what isn't told is guessed from the rest."""
    return {
        "input_audio_tokens": usage.input_audio_tokens,
        "input_image_tokens": usage.input_image_tokens,
        "input_video_tokens": usage.input_video_tokens,
        "output_audio_tokens": usage.output_audio_tokens,
        "output_image_tokens": usage.output_image_tokens,
        "output_video_tokens": usage.output_video_tokens,
        "cache_audio_read_tokens": usage.cache_audio_read_tokens,
        "cache_image_read_tokens": usage.cache_image_read_tokens,
        "cache_video_read_tokens": usage.cache_video_read_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
        "output_citation_tokens": usage.citation_tokens,
    }


def _context(info: genai.ModelInfo, usage: Usage) -> dict[str, str]:
    """By what else the price data tells a model's rates apart. What it has no rates for costs the
    standard ones. Flex processing costs what a batch does, where it has no rates of its own
    (https://platform.openai.com/docs/guides/flex-processing)."""
    context = {}
    if usage.speed:
        context["speed"] = usage.speed
    if usage.service_tier:
        context["service_tier"] = usage.service_tier
        tiers = {variant.when.get("service_tier") for variant in info.price_variants or ()}
        if usage.service_tier == "batch" or (usage.service_tier == "flex" and "flex" not in tiers):
            context["processing"] = "batch"
    return context


def _rates(name: str, value: Any) -> Rates:
    """The rates of one entry. ValueError says what is wrong with it."""
    if not name:
        raise ValueError("a model name is empty")
    if isinstance(value, list) and len(value) == 2:
        numbers = {"input": value[0], "output": value[1]}
    elif isinstance(value, dict) and {"input", "output"} <= value.keys() <= set(_RATES):
        numbers = value
    else:
        raise ValueError(f"{name!r} is {value!r}, allowed: {_ALLOWED}")
    for field, number in numbers.items():
        if (
            isinstance(number, bool)
            or not isinstance(number, int | float | Decimal)
            or not math.isfinite(number)
            or number < 0
        ):
            raise ValueError(
                f"{name!r} has {field} {number!r}, allowed: US dollars per token, from 0"
            )
    fresh = float(numbers["input"])
    return Rates(
        input=fresh,
        output=float(numbers["output"]),
        cache_read=float(numbers.get("cache_read", fresh)),
        cache_write=float(numbers.get("cache_write", fresh)),
    )


@lru_cache(maxsize=1024)
def _known_model(
    provider: str | None, model: str, price_ids: tuple[str, ...] = ()
) -> tuple[genai.Provider, genai.ModelInfo] | None:
    """The provider and model of the price data, or None when it has no price for them."""
    ids = price_ids or _price_ids(provider)
    asked = [(id, model) for id in ids]
    for id in ids:
        for beginning, maker in PASSED_ON.get(id or "", {}).items():
            if model.lower().startswith(beginning) and not model.lower().endswith(_FREE):
                asked.append((maker, model.partition("/")[2]))
    return next((found for one in asked if (found := _genai_model(*one)) is not None), None)


def _published(provider: str | None, model: str, price_ids: tuple[str, ...] = ()) -> Rates | None:
    """What the host itself publishes, where the price data has nothing."""
    if provider == "openrouter" and model.lower().endswith(_FREE):
        return Rates(0.0, 0.0, 0.0, 0.0)
    for id in price_ids or _price_ids(provider):
        told = PUBLISHED.get(id or "", {}).get(model.lower())
        if told is not None:
            fresh, answered, cached = (dollars / 1e6 for dollars in told)
            return Rates(input=fresh, output=answered, cache_read=cached, cache_write=fresh)
    return None


def _price_ids(provider: str | None) -> tuple[str | None, ...]:
    known = None if provider is None else by_name(provider)
    return (provider,) if known is None else known.price_ids or (known.name,)


def _genai_model(provider: str | None, model: str) -> tuple[genai.Provider, genai.ModelInfo] | None:
    from genai_prices.data_snapshot import get_snapshot  # costs 0.15 s of a command's start-up

    try:
        found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    prices = _prices_now(found[1])
    unpriced = prices.input_mtok is None and prices.output_mtok is None
    return None if unpriced and not found[1].id.endswith(_FREE) else found


def _prices_now(info: genai.ModelInfo) -> genai.ModelPrice:
    from datetime import UTC, datetime

    return info.get_prices(datetime.now(UTC))


def _base(price: Decimal | genai.TieredPrices | None) -> float:
    """Dollars per million tokens; what a model has no price for it doesn't charge."""
    if price is None:
        return 0.0
    return float(price if isinstance(price, Decimal) else price.base)
