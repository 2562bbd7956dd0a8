"""Prices: cached tokens at their own rate, overrides first, nothing for an unknown model."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llm_cache.errors import SettingsError
from llm_cache.wire.prices import Prices
from llm_cache.wire.provider import Usage
from llm_cache.wire.published_prices import PUBLISHED

PRICES = Prices.load(None, "prices.json")
MODEL = "claude-sonnet-4-5-20250929"  # $3 in, $15 out, $0.30 read, $3.75 write, $6 one-hour write


def cost(usage: Usage, model: str = MODEL, prices: Prices = PRICES) -> float | None:
    return prices.cost("anthropic", model, usage)


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(), 0),
        (Usage(input_tokens=1000), 0.003),
        (Usage(output_tokens=1000), 0.015),
        (Usage(cache_read_tokens=1000), 0.0003),
        (Usage(cache_write_tokens=1000), 0.00375),
        (Usage(cache_write_tokens=1000, cache_write_1h_tokens=1000), 0.006),
        (Usage(cache_write_tokens=1000, cache_write_1h_tokens=400), 0.00375 * 0.6 + 0.006 * 0.4),
        (Usage(1000, 1000, 1000, 1000, 0), 0.003 + 0.015 + 0.0003 + 0.00375),
        (Usage(3000, 1000, 1000, 1000, 0, True), 0.003 + 0.015 + 0.0003 + 0.00375),
    ],
)
def test_each_kind_of_token_has_its_own_price(usage: Usage, dollars: float) -> None:
    assert cost(usage) == pytest.approx(dollars)


@pytest.mark.parametrize(
    ("model", "rates"),
    [
        ("claude-sonnet-4-5", (3e-6, 15e-6)),
        ("claude-sonnet-4-5-20250929", (3e-6, 15e-6)),
        ("claude-3-5-haiku-latest", (0.8e-6, 4e-6)),
        ("claude-3-5-haiku-20241022", (0.8e-6, 4e-6)),
        ("claude-opus-4-1-20250805", (15e-6, 75e-6)),
        ("CLAUDE-HAIKU-4-5", (1e-6, 5e-6)),
    ],
)
def test_dated_and_aliased_names_have_their_models_price(
    model: str, rates: tuple[float, float]
) -> None:
    assert PRICES.per_token(model) == pytest.approx(rates)
    assert cost(Usage(1000, 100), model) == pytest.approx(rates[0] * 1000 + rates[1] * 100)


@pytest.mark.parametrize("model", ["", "qwen3-coder", "claude", "claude-nope-9", "gpt-4o"])
def test_an_unknown_model_has_no_price(model: str) -> None:
    assert cost(Usage(1000, 1000), model) is None
    assert PRICES.per_token(model, "anthropic") is None


def test_an_unknown_provider_has_no_price() -> None:
    assert PRICES.cost("nobody", MODEL, Usage(1000)) is None


def test_overrides_come_first_exact_then_longest() -> None:
    prices = Prices.load(
        '{"haiku": [1, 2], "haiku-4": [3, 4], "my-haiku-4-5": [5, 6], "Local": [0, 0]}', "p"
    )
    assert prices.per_token("claude-haiku-3") == (1, 2)
    assert prices.per_token("claude-haiku-4-5") == (3, 4)
    assert prices.per_token("my-haiku-4-5") == (5, 6)
    assert prices.per_token("MY-HAIKU-4-5") == (5, 6)
    assert prices.cost("anthropic", "localhost/qwen", Usage(1000, 1000)) == 0
    assert prices.per_token("claude-sonnet-4-5") == pytest.approx((3e-6, 15e-6))
    assert prices.per_token("nothing-known") is None


def test_an_override_prices_cached_tokens_as_said_or_as_input() -> None:
    full = '{"m": {"input": 1, "output": 10, "cache_read": 0.5, "cache_write": 2}}'
    usage = Usage(input_tokens=3, output_tokens=1, cache_read_tokens=4, cache_write_tokens=5)
    assert cost(usage, "m", Prices.load(full, "p")) == 3 + 10 + 2 + 10
    assert cost(usage, "m", Prices.load('{"m": [1, 10]}', "p")) == 3 + 10 + 4 + 5
    inclusive = Usage(12, 1, 4, 5, 0, True)
    assert cost(inclusive, "m", Prices.load(full, "p")) == 3 + 10 + 2 + 10


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["not valid JSON"]),
        ("[]", ["JSON object"]),
        ('{"a": [1, 2], "a": [1, 2]}', ["not valid JSON"]),
        ('{"": [1, 2]}', ["name is empty"]),
        ('{"haiku": 5}', ["'haiku'", "5", "[input, output]"]),
        ('{"haiku": [1]}', ["'haiku'", "[1]", "[input, output]"]),
        ('{"haiku": [1, 2, 3]}', ["'haiku'", "[input, output]"]),
        ('{"haiku": {"input": 1}}', ["'haiku'", "output"]),
        ('{"haiku": {"input": 1, "output": 1, "in": 1}}', ["'haiku'", "cache_read"]),
        ('{"haiku": [-1, 2]}', ["'haiku'", "input", "-1", "from 0"]),
        ('{"haiku": [1, "2"]}', ["'haiku'", "output", "'2'"]),
        ('{"haiku": [true, 2]}', ["'haiku'", "input", "True"]),
        ('{"haiku": [1e999, 2]}', ["'haiku'", "input", "inf"]),
        ('{"haiku": [1, NaN]}', ["not valid JSON"]),
    ],
)
def test_a_wrong_price_is_refused_by_name(text: str, told: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Prices.load(text, "prices.json")
    for words in ["prices.json", *told]:
        assert words in str(caught.value)


@pytest.mark.process
def test_the_price_data_and_the_pattern_engine_load_when_first_needed() -> None:
    code = (
        "import sys, llm_cache.wire.normalize, llm_cache.wire.registry\n"
        "import llm_cache.wire.prices as p\n"
        "prices = p.Prices.load('{\"m\": [1, 2]}', 'p'); prices.per_token('m')\n"
        "assert not {'genai_prices', 'regex', 'pydantic'} & set(sys.modules), sys.modules.keys()\n"
        "assert prices.per_token('claude-sonnet-4-5')\n"
        "assert 'genai_prices' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_published_prices_are_found_under_the_names_they_stand_by() -> None:
    for models in PUBLISHED.values():
        for model, (fresh, answered, cached) in models.items():
            assert model == model.lower()
            assert 0 < cached <= fresh
            assert answered >= 0


def test_a_published_price_is_its_hosts_alone_and_prices_json_comes_first() -> None:
    model = "meta-llama/Llama-3.3-70B-Instruct"
    used = Usage(1_000_000, 1_000_000, 200_000, input_includes_cache=True)
    assert PRICES.cost("crusoe", model, used) == pytest.approx(0.25 + 0.75)
    assert PRICES.per_token(model, "crusoe") == pytest.approx((0.25e-6, 0.75e-6))
    assert PRICES.cost("compatible", model, used) is None
    assert PRICES.cost("mantle", model, used) is None
    mine = Prices.load('{"llama-3.3": [1e-6, 2e-6]}', "prices.json")
    assert mine.cost("crusoe", model, used) == pytest.approx(1 + 2)
    flash = Usage(1_000_000, 0, 1_000_000, input_includes_cache=True)
    assert PRICES.cost("crusoe", "zai/GLM-5.3-Flash", flash) == pytest.approx(0.03)


def test_what_openrouter_passes_on_has_its_makers_price_and_what_it_gives_away_none() -> None:
    used = Usage(1000, 1000)
    for model, maker, name in (
        ("x-ai/grok-4", "xai", "grok-4"),
        ("google/gemini-2.5-computer-use-preview-9", "gemini", "gemini-2.5-computer-use-preview-9"),
        ("google/gemini-3-pro-preview", "gemini", "gemini-3-pro-preview"),
    ):
        assert PRICES.cost("openrouter", model, used) == PRICES.cost(maker, name, used)
    assert PRICES.cost("openrouter", "x-ai/grok-4", used)
    assert PRICES.cost("openrouter", "somebody/new-model:free", used) == 0
    assert PRICES.cost("openrouter", "anthropic/claude-sonnet-4.5:free", used) == 0
    assert PRICES.cost("openrouter", "openai/gpt-oss-999b", used) is None
    assert PRICES.cost("openrouter", "somebody/new-model", used) is None
    assert PRICES.cost("groq", "somebody/new-model:free", used) is None


def test_a_model_that_bedrock_names_with_a_version_costs_the_same_without_it() -> None:
    used = Usage(1000, 1000)
    for size in ("20b", "120b"):
        assert PRICES.cost("mantle", f"openai.gpt-oss-{size}", used) == pytest.approx(
            PRICES.cost("bedrock", f"openai.gpt-oss-{size}-1:0", used)
        )
