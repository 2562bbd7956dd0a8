"""A local model server gets prompts whose beginnings are equal from turn to turn (SPEC 4a)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import anthropic_wire as wire
from support.cache import Cache, CacheFactory
from support.llama import BILLING, FORMS, LlamaServer, turn_bodies
from support.upstream import Upstream

from llm_cache.exchange.routing import Router
from llm_cache.settings import load_settings


def talk(one: Cache, bodies: list[bytes]) -> None:
    for body in bodies:
        answer = one.ask(body, {"x-cache-mode": "fresh"})
        assert (answer.status, answer.header("x-cache")) == (200, "MISS")


@pytest.fixture
def llama(upstream: Upstream) -> LlamaServer:
    server = LlamaServer()
    upstream.default = server.answer
    return server


@pytest.mark.parametrize("as_blocks", [True, False])
def test_the_server_reuses_its_prompt_over_the_turns_of_a_talk(
    llama: LlamaServer, upstream: Upstream, cache: CacheFactory, as_blocks: bool
) -> None:
    one = cache()
    for form in FORMS:
        bodies = turn_bodies(form, as_blocks=as_blocks, turns=12, stream=form is FORMS[0])
        llama.last, llama.reused = "", []
        before = upstream.call_count
        talk(one, bodies)
        assert len(llama.reused) == 11
        assert min(llama.reused) >= 0.99, form
        # Nothing but the system's billing line is another one.
        for sent, call in zip(bodies, upstream.calls[before:], strict=True):
            got = json.loads(call.request.body)
            wanted = json.loads(sent)
            assert got.pop("system") != wanted.pop("system")
            assert got == wanted


@pytest.mark.parametrize("path", ["/llamacpp/v1/messages", "/llamacpp/anthropic/v1/messages"])
def test_the_server_reuses_its_prompt_under_its_own_name_too(
    llama: LlamaServer, upstream: Upstream, cache: CacheFactory, path: str
) -> None:
    one = cache(CACHE_UPSTREAM_LLAMACPP=upstream.url)
    for body in turn_bodies(FORMS[0], as_blocks=True, turns=6):
        answer = one.send(body, None, path)
        assert (answer.status, answer.header("x-cache")) == (200, "MISS")
    assert len(llama.reused) == 5
    assert min(llama.reused) >= 0.99


def test_without_the_rewriting_there_is_next_to_nothing_to_reuse(
    llama: LlamaServer, cache: CacheFactory
) -> None:
    talk(cache(CACHE_REWRITE_BILLING="off"), turn_bodies(FORMS[0], as_blocks=True, turns=12))
    assert max(llama.reused) < 0.01


def test_what_is_forwarded_has_the_same_bytes_elsewhere(
    llama: LlamaServer, upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    bodies = [
        b' {"max_tokens" :1, "messages":[ {"role":"user","content":"caf\\u00e9 \xc3\xa9"}],\r\n'
        b'"system":"x-anthropic-billing-header: cch=%d;\\nBe brief.", "model":"m"} ' % number
        for number in range(2)
    ]
    for body in bodies:
        one.ask(body, {"x-cache-mode": "fresh"})
    first, second = (call.request.body for call in upstream.calls)
    assert first == second
    head, _, tail = bodies[0].partition(b" cch=0;")
    assert first.startswith(head)
    assert first.endswith(tail)


def test_the_key_is_of_the_clients_bytes(
    llama: LlamaServer, upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache(CACHE_NORMALIZE="off")
    first, second = turn_bodies(FORMS[0], as_blocks=True, turns=2)
    keys = [one.ask(body).header("x-cache-key") for body in (first, second, first)]
    assert keys[0] == keys[2] != keys[1]
    assert upstream.call_count == 2
    one.stop()
    plain = cache(CACHE_REWRITE_BILLING="off")
    assert plain.ask(first).header("x-cache-key") == keys[0]


@pytest.mark.parametrize("settings", [{}, {"CACHE_OFF": "1"}])
def test_what_bypasses_the_cache_is_rewritten_too(
    llama: LlamaServer, cache: CacheFactory, settings: dict[str, str]
) -> None:
    one = cache(**settings)
    for body in turn_bodies(FORMS[0], as_blocks=True, turns=3):
        answer = one.ask(body, {"x-cache-mode": "bypass"})
        assert answer.header("x-cache") == "BYPASS"
    assert min(llama.reused) >= 0.99


def test_a_body_of_megabytes_is_rewritten_too(
    llama: LlamaServer, upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache(CACHE_LOG_LEVEL="debug")
    code = "def f(x):\\n    return {'a': [1, 2, x]}\n" * 66_000 + 'print("ü")\n' * 200_000
    bodies = []
    for number in range(3):
        line = FORMS[0].format(name=BILLING, n=number)
        messages = [{"role": "user", "content": code}] * (1 + number % 2)
        bodies.append(
            wire.dump({"messages": messages, "system": [wire.text_block(line)], "model": "m"})
        )
    assert min(map(len, bodies)) > 5_000_000
    talk(one, bodies)
    sent = [call.request.body for call in upstream.calls]
    assert sent[0] == sent[2]
    log = one.log()
    for body, forwarded in zip(bodies, sent, strict=True):
        assert (
            f"POST /v1/messages to {upstream.url}: body of {len(body)} bytes, "
            f"1 billing header values fixed: {len(forwarded)} bytes"
        ) in log


@pytest.mark.parametrize(
    ("setting", "settings", "fixes"),
    [
        ("auto", {}, False),
        ("auto", {"CACHE_UPSTREAM_ANTHROPIC": "http://127.0.0.1:8080"}, True),
        ("auto", {"CACHE_UPSTREAM_ANTHROPIC": "https://gateway.example/anthropic"}, True),
        ("auto", {"CACHE_UPSTREAM_ANTHROPIC": "https://API.anthropic.com"}, False),
        ("auto", {"CACHE_UPSTREAM_ANTHROPIC": "https://anthropic.com.example"}, True),
        ("auto", {"CACHE_UPSTREAM_ANTHROPIC": "https://notanthropic.com"}, True),
        ("auto", {"CACHE_UPSTREAM": "http://10.0.0.5:8080"}, True),
        ("auto", {"CACHE_UPSTREAM": "https://res.services.ai.azure.com/anthropic"}, False),
        ("auto", {"CACHE_UPSTREAM": "https://bedrock-runtime.eu-west-1.amazonaws.com"}, False),
        ("auto", {"CACHE_UPSTREAM": "https://europe-west1-aiplatform.googleapis.com"}, False),
        ("auto", {"CACHE_UPSTREAM": "https://openrouter.ai/api"}, False),
        ("on", {}, True),
        ("off", {"CACHE_UPSTREAM": "http://127.0.0.1:8080"}, False),
    ],
)
def test_auto_means_every_host_that_is_no_providers_own(
    tmp_path: Path, setting: str, settings: dict[str, str], fixes: bool
) -> None:
    environ = {
        "LLM_CACHE_HOME": str(tmp_path / "home"),
        "CACHE_REWRITE_BILLING": setting,
        **settings,
    }
    router = Router(load_settings(environ=environ), {})
    route = router.route("POST", b"/v1/messages", {})
    assert route is not None
    assert route.fixes_billing is fixes
    passed = router.route("POST", b"/v1/messages/batches", {})
    assert passed is not None
    assert not passed.fixes_billing
