"""Hosts that speak OpenAI's API: their names, paths, headers, errors and prices."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest
from support import anthropic_wire as claude

from llm_cache.wire.prices import Prices
from llm_cache.wire.provider import Provider, Usage
from llm_cache.wire.providers.anthropic import COUNT_TOKENS, MESSAGES
from llm_cache.wire.providers.compatible import HOSTS, Compatible
from llm_cache.wire.providers.openai import CHAT, EMBEDDINGS
from llm_cache.wire.registry import PROVIDERS, by_name

PRICES = Prices.load(None, "prices.json")


def named(name: str) -> Provider:
    provider = by_name(name)
    assert provider is not None, name
    return provider


@pytest.mark.parametrize(
    ("name", "host", "path"),
    [
        ("mistral", "api.mistral.ai", "/v1/chat/completions"),
        ("groq", "api.groq.com", "/openai/v1/chat/completions"),
        ("deepseek", "api.deepseek.com", "/chat/completions"),
        ("openrouter", "openrouter.ai", "/api/v1/chat/completions"),
        ("cerebras", "api.cerebras.ai", "/v1/chat/completions"),
        ("together", "api.together.xyz", "/v1/chat/completions"),
        ("xai", "api.x.ai", "/v1/chat/completions"),
        ("fireworks", "api.fireworks.ai", "/inference/v1/chat/completions"),
        ("huggingface", "router.huggingface.co", "/novita/v3/openai/chat/completions"),
        ("perplexity", "api.perplexity.ai", "/chat/completions"),
        ("moonshot", "api.moonshot.ai", "/v1/chat/completions"),
        ("zai", "api.z.ai", "/api/paas/v4/chat/completions"),
        ("crusoe", "api.inference.crusoecloud.com", "/v1/chat/completions"),
        ("mantle", "bedrock-mantle.us-east-1.api.aws", "/openai/v1/chat/completions"),
        ("vllm", "127.0.0.1", "/v1/chat/completions"),
        ("llamacpp", "127.0.0.1", "/v1/chat/completions"),
        ("lmstudio", "127.0.0.1", "/v1/chat/completions"),
        ("ollama", "127.0.0.1", "/v1/chat/completions"),
    ],
)
def test_each_host_is_reached_by_its_name_with_its_own_path(
    name: str, host: str, path: str
) -> None:
    provider = named(name)
    assert urlsplit(provider.base_url).hostname == host
    assert provider.endpoint("POST", path) == CHAT
    assert provider.key_setting == f"{name.upper()}_API_KEY_REAL"
    assert not provider.claims("POST", path, {})
    assert provider.auth_header("k") == (b"authorization", b"Bearer k")


def test_names_are_unique_and_fit_a_path_and_a_setting() -> None:
    names = [provider.name for provider in PROVIDERS]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and name == name.lower() for name in names)
    assert {host.name for host in HOSTS} < set(names)


def test_a_hosts_own_headers_are_in_the_key() -> None:
    assert named("groq").is_key_header(b"groq-model-version")
    assert named("openrouter").is_key_header(b"x-anthropic-beta")
    assert named("vllm").is_key_header(b"openai-beta")
    assert not named("groq").is_key_header(b"x-groq-region")
    assert not named("openrouter").is_key_header(b"x-title")


def test_mistrals_errors_are_flat_and_the_others_like_openais() -> None:
    flat = json.loads(named("mistral").error_body(504, "cache_miss", "none"))
    assert (flat["object"], flat["type"], flat["message"]) == ("error", "cache_miss", "none")
    assert json.loads(named("groq").error_body(504, "cache_miss", "none"))["error"] == {
        "message": "none",
        "type": "cache_miss",
        "param": None,
        "code": None,
    }


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openai", "gpt-4o-2024-08-06"),
        ("openai", "gpt-5-mini-2025-08-07"),
        ("openai", "text-embedding-3-small"),
        ("azure", "o1"),
        ("azure", "gpt-4o-2024-08-06"),
        ("mistral", "mistral-large-latest"),
        ("groq", "llama-3.3-70b-versatile"),
        ("deepseek", "deepseek-chat"),
        ("openrouter", "anthropic/claude-sonnet-4.5"),
        ("cerebras", "gpt-oss-120b"),
        ("xai", "grok-3"),
        ("moonshot", "kimi-k2"),
        ("zai", "glm-4.7"),
        ("cohere", "command-r7b-12-2024"),
        ("mantle", "openai.gpt-5.6-luna"),
        ("mantle", "openai.gpt-oss-120b"),
        ("mantle", "openai.gpt-oss-safeguard-20b"),
        ("bedrock", "cohere.embed-english-v3"),
        ("bedrock", "cohere.embed-v4:0"),
        ("bedrock", "amazon.nova-2-multimodal-embeddings-v1:0"),
        ("crusoe", "meta-llama/Llama-3.3-70B-Instruct"),
        ("voyage", "voyage-3.5"),
        ("compatible", "claude-sonnet-4-5"),
    ],
)
def test_each_hosts_models_have_its_prices(name: str, model: str) -> None:
    cost = PRICES.cost(name, model, Usage(1000, 1000, input_includes_cache=True))
    assert cost is not None
    assert cost > 0


def test_a_free_model_costs_nothing_and_a_local_one_has_no_price() -> None:
    used = Usage(1000, 1000, input_includes_cache=True)
    assert PRICES.cost("openrouter", "google/gemini-2.0-flash-exp:free", used) == 0
    for local in ("ollama", "vllm", "llamacpp", "lmstudio"):
        assert PRICES.cost(local, "gpt-4o", used) is None


def test_a_partners_price_is_the_partners() -> None:
    provider = named("huggingface")
    used = Usage(1_000_000, 0, input_includes_cache=True)

    def cost(path: str) -> float | None:
        endpoint = provider.endpoint("POST", path)
        assert endpoint == CHAT  # where it goes makes no other operation
        return PRICES.cost("huggingface", "Qwen/Qwen2.5-VL-72B-Instruct", used, endpoint.price_ids)

    nebius, hyperbolic = (
        cost("/nebius/v1/chat/completions"),
        cost("/hyperbolic/v1/chat/completions"),
    )
    assert nebius is not None
    assert hyperbolic is not None
    assert nebius != hyperbolic
    assert cost("/v1/chat/completions") is None
    assert cost("/nobody/v1/chat/completions") is None
    assert provider.endpoint("POST", "/v1/files") is None
    assert provider.endpoint("POST", "/v1/embeddings") == EMBEDDINGS


def test_what_hugging_face_has_no_price_for_costs_what_the_partner_says() -> None:
    scout = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
    used = Usage(1000, 1000, input_includes_cache=True)

    def cost(path: str) -> float | None:
        endpoint = named("huggingface").endpoint("POST", path)
        assert endpoint is not None
        return PRICES.cost("huggingface", scout, used, endpoint.price_ids)

    assert cost("/together/v1/chat/completions") == PRICES.cost("together", scout, used)
    assert cost("/together/v1/chat/completions") is not None
    assert cost("/openai/v1/chat/completions") is None  # no partner: whose name it is doesn't count


def test_a_host_that_was_never_named_can_be_added_by_a_line() -> None:
    host = Compatible("acme", "Acme", "https://llm.acme.example", price_ids=("openai",))
    assert host.endpoint("POST", "/any/base/v9/chat/completions") == CHAT
    assert host.key_setting == "ACME_API_KEY_REAL"
    assert host.is_key_header(b"acme-model-version")


def test_voyages_embeddings_and_reranks_are_whole_and_counted() -> None:
    provider = named("voyage")
    bodies = {
        "/v1/embeddings": b'{"data":[{"object":"embedding","embedding":[0.1],"index":0}],'
        b'"model":"voyage-3.5","usage":{"total_tokens":7}}',
        "/v1/rerank": b'{"object":"list","data":[{"relevance_score":0.9,"index":0}],'
        b'"model":"rerank-2.5","usage":{"total_tokens":7}}',
    }
    for path, body in bodies.items():
        endpoint = provider.endpoint("POST", path)
        assert endpoint is not None
        watcher = provider.watch(endpoint, 200, "application/json")
        watcher.feed(body)
        answer = watcher.close()
        assert answer.complete, (path, answer.reason)
        assert answer.usage == Usage(7, 0, input_includes_cache=True)
        assert answer.model is not None


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("openrouter", "/api/v1/messages"),
        ("deepseek", "/anthropic/v1/messages"),
        ("zai", "/api/anthropic/v1/messages"),
        ("moonshot", "/anthropic/v1/messages"),
        ("azure", "/anthropic/v1/messages"),
        ("ollama", "/v1/messages"),
        ("llamacpp", "/v1/messages"),
        ("vllm", "/v1/messages"),
        ("lmstudio", "/v1/messages"),
        ("compatible", "/api/v2/cortex/v1/messages"),
    ],
)
def test_anthropics_api_at_another_host_is_read_as_anthropics_own(name: str, path: str) -> None:
    provider = named(name)
    endpoint = provider.endpoint("POST", path)
    assert endpoint == MESSAGES
    assert provider.endpoint("POST", f"{path}/count_tokens") == COUNT_TOKENS
    assert provider.endpoint("POST", f"{path}/batches") is None
    assert provider.endpoint("POST", f"/x/..{path}") is None
    assert provider.endpoint("POST", f"/{path}") is None
    assert provider.endpoint("GET", path) is None
    assert provider.is_key_header(b"anthropic-version")
    assert b"x-api-key" in provider.credential_headers
    body = b"".join(claude.stream("Good day"))
    whole = provider.watch(MESSAGES, 200, "text/event-stream")
    whole.feed(body)
    answer = whole.close()
    assert answer.complete
    assert answer.snippet == "Good day"
    assert answer.usage is not None
    cut = provider.watch(MESSAGES, 200, "text/event-stream")
    cut.feed(body[: body.index(b"event: message_stop")])
    assert cut.close().reason == "no message_stop"
    doc = {
        "model": "m",
        "system": "x-anthropic-billing-header: cc_version=1; cch=2;\nBe kind.",
        "metadata": {"user_id": "u"},
        "user": "kept: not a field of this API",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    }
    provider.strip_volatile(MESSAGES, doc)
    assert doc["system"] == "Be kind."
    assert "metadata" not in doc
    assert "user" in doc
    provider.map_texts(MESSAGES, doc, str.upper, str.upper)
    assert doc["system"] == "BE KIND."
    assert doc["messages"] == [{"role": "user", "content": [{"type": "text", "text": "HI"}]}]
    assert provider.request_model(MESSAGES, path, doc) == "m"
    assert provider.strip_form(MESSAGES, {"stream": True}) is None
