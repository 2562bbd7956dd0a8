"""Any number of upstreams under names of their own, and which provider's request goes where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import anthropic_wire as claude
from support import openai_wire as gpt
from support.proxy import Proxy, anthropic_headers
from support.raw import Response, exchange
from support.replies import Reply, json_reply
from support.upstream import Request, Upstream

from llm_cache.exchange.routing import Router
from llm_cache.settings import Settings
from llm_cache.upstreams import NamedUpstream

BEARER = [("content-type", "application/json"), ("authorization", "Bearer sk-client")]

RESPONSE = gpt.dump(gpt.response_document("hi"))


def answering(name: str) -> Any:
    """Answers both APIs, with its name in the text."""

    def answer(request: Request) -> Reply:
        if request.target.endswith(("/messages", "/claude")):
            return json_reply(claude.message(f"{name} {request.target}"))
        return json_reply(gpt.chat(f"{name} {request.target}"))

    return answer


@pytest.fixture
def other() -> Iterator[Upstream]:
    with Upstream(answering("other")) as server:
        yield server
    assert not server.errors


def post(
    proxy: Proxy, path: str, body: bytes, headers: list[tuple[str, str]] | None = None
) -> Response:
    return exchange(proxy.port, "POST", path, headers or BEARER, body, deadline=30)


def label(response: Response) -> tuple[int, str | None]:
    return response.status, response.header("x-cache")


def test_each_name_leads_to_its_upstream_without_the_prefix(
    upstream: Upstream, other: Upstream, proxy: Any
) -> None:
    upstream.default = answering("first")
    one: Proxy = proxy(
        CACHE_UPSTREAMS=f"mine={upstream.url} provider=anthropic; their-gw = {other.url}/base/path"
    )
    for path, body, text in (
        ("/mine/v1/messages", claude.request(), "first /v1/messages"),
        ("/their-gw/v1/chat/completions", gpt.request(), "other /base/path/v1/chat/completions"),
        ("/their-gw/chat/completions", gpt.request(), "other /base/path/chat/completions"),
    ):
        first, second = post(one, path, body), post(one, path, body)
        assert (label(first), label(second)) == ((200, "MISS"), (200, "HIT"))
        assert text.encode() in first.body
        assert second.body == first.body
    assert upstream.call_count == 1
    assert other.calls[0].request.header("host") == f"127.0.0.1:{other.port}"
    assert other.calls[0].request.header("authorization") == "Bearer sk-client"


def test_two_upstreams_never_answer_for_each_other(
    upstream: Upstream, other: Upstream, proxy: Any
) -> None:
    upstream.default = answering("first")
    one: Proxy = proxy(CACHE_UPSTREAMS=f"a={upstream.url};b={other.url}", CACHE_SCOPE="shared")
    for name, text in (("a", b"first"), ("b", b"other"), ("a", b"first"), ("b", b"other")):
        assert text in post(one, f"/{name}/v1/chat/completions", gpt.request()).body
    assert (upstream.call_count, other.call_count) == (1, 1)


def test_without_a_provider_the_paths_tell_and_else_it_is_openais_form(
    other: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy(CACHE_UPSTREAMS=f"llama={other.url}")
    assert label(post(one, "/llama/v1/messages", claude.request())) == (200, "MISS")
    assert label(post(one, "/llama/v1/chat/completions", gpt.request())) == (200, "MISS")
    assert label(post(one, "/llama/tokenize", b"{}")) == (200, "PASS")
    rows = {(row["provider"], row["calls"]) for row in one.stats()["by_model"]}
    assert rows == {("anthropic", 1), ("compatible", 1)}


@pytest.mark.parametrize(
    ("path", "body", "provider", "answer"),
    [
        ("/proxy/openai/responses", gpt.dump({"input": "hi"}), "compatible", RESPONSE),
        ("/proxy/chat/completions", gpt.request(), "compatible", gpt.chat("hi")),
        ("/proxy/anthropic/v1/messages", claude.request(), "anthropic", claude.message("hi")),
        (
            "/proxy/gemini/v1beta/models/gemini-2.5-flash:generateContent",
            b'{"contents":[{"parts":[{"text":"hi"}]}]}',
            "gemini",
            b'{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}',
        ),
        (
            "/a/b/vertex/v1/projects/p/locations/global/publishers/google/models/g:generateContent",
            b'{"contents":[{"parts":[{"text":"hi"}]}]}',
            "vertex",
            b'{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}',
        ),
        (
            "/proxy/bedrock/model/us.amazon.nova-micro-v1%3A0/converse",
            b'{"messages":[{"role":"user","content":[{"text":"hi"}]}]}',
            "bedrock",
            b'{"output":{"message":{"content":[{"text":"hi"}]}},"stopReason":"end_turn"}',
        ),
    ],
)
@pytest.mark.parametrize("everything", [False, True])
def test_an_api_behind_a_gateways_own_path_is_cached(
    upstream: Upstream,
    proxy: Any,
    path: str,
    body: bytes,
    provider: str,
    answer: bytes,
    everything: bool,
) -> None:
    upstream.default = json_reply(answer)
    setting = {"CACHE_UPSTREAM": upstream.url}
    one: Proxy = proxy(**(setting if everything else {"CACHE_UPSTREAMS": f"gw={upstream.url}"}))
    asked = path if everything else f"/gw{path}"
    first, second = post(one, asked, body), post(one, asked, body)
    assert (label(first), label(second)) == ((200, "MISS"), (200, "HIT"))
    assert first.body == second.body == answer
    assert [call.request.target for call in upstream.calls] == [path]
    assert {row["provider"] for row in one.stats()["by_model"]} <= {provider}
    assert label(post(one, asked + "/more", body)) == (200, "PASS")


def test_behind_a_gateways_path_the_real_key_takes_the_clients_place(
    upstream: Upstream, proxy: Any
) -> None:
    """What is cached and what passes through alike."""
    upstream.default = json_reply(claude.message("hi"))
    one: Proxy = proxy(CACHE_UPSTREAM=upstream.url, ANTHROPIC_API_KEY_REAL="sk-ant-real")
    for path in ("/gw/v1/messages", "/gw/v1/messages/batches", "/v1/messages"):
        assert post(one, path, claude.request()).status == 200
    assert {call.request.header("x-api-key") for call in upstream.calls} == {"sk-ant-real"}


def test_an_error_of_ours_has_the_form_of_the_api_that_was_asked(proxy: Any) -> None:
    """Several hosts of OpenAI's API serve Anthropic's beside it."""
    one: Proxy = proxy(CACHE_MODE="replay")
    missed = json.loads(post(one, "/zai/api/anthropic/v1/messages", claude.request()).body)
    assert (missed["type"], missed["error"]["type"]) == ("error", "cache_miss")
    missed = json.loads(post(one, "/zai/api/paas/v4/chat/completions", gpt.request()).body)
    assert "type" not in missed
    assert missed["error"]["type"] == "cache_miss"


def test_a_named_upstreams_own_key_goes_there_and_nowhere_else(
    upstream: Upstream, other: Upstream, proxy: Any, home: Path
) -> None:
    upstream.default = answering("first")
    home.mkdir(mode=0o700)
    (home / ".env").write_text("MINE_KEY=sk-mine\n")
    (home / ".env").chmod(0o600)
    one: Proxy = proxy(
        CACHE_UPSTREAMS=f"mine={other.url},key=MINE_KEY; plain={other.url}/p; "
        f"third={other.url}/t provider=anthropic",
        ANTHROPIC_API_KEY_REAL="sk-ant-real",
        THIRD_API_KEY_REAL="sk-third",
    )
    post(one, "/mine/v1/chat/completions", gpt.request())
    post(one, "/plain/v1/chat/completions", gpt.request())
    post(one, "/third/v1/messages", claude.request(), anthropic_headers("sk-client"))
    post(one, "/v1/messages", claude.request(), anthropic_headers("sk-client"))
    sent = [call.request for call in other.calls]
    assert [request.header("authorization") for request in sent] == [
        "Bearer sk-mine",
        "Bearer sk-client",
        None,
    ]
    assert sent[2].header("x-api-key") == "sk-third"
    assert upstream.calls[0].request.header("x-api-key") == "sk-ant-real"
    assert b"sk-" not in json.dumps(one.stats()).encode()
    assert "sk-mine" not in one.log() + one.output()


def test_an_upstream_with_a_providers_name_stands_in_its_place(
    other: Upstream, upstream: Upstream, proxy: Any
) -> None:
    upstream.default = answering("first")
    one: Proxy = proxy(CACHE_UPSTREAMS=f"openai={other.url}")
    assert b"other" in post(one, "/v1/chat/completions", gpt.request()).body
    assert label(post(one, "/openai/v1/chat/completions", gpt.request())) == (200, "HIT")
    assert b"first" in post(one, "/v1/messages", claude.request(), anthropic_headers()).body


def test_one_upstream_for_everything_and_named_ones_besides(
    upstream: Upstream, other: Upstream, proxy: Any
) -> None:
    upstream.default = answering("first")
    one: Proxy = proxy(CACHE_UPSTREAM=upstream.url, CACHE_UPSTREAMS=f"b={other.url}")
    for path in ("/v1/messages", "/v1/chat/completions", "/groq/openai/v1/chat/completions"):
        assert b"first" in post(one, path, gpt.request()).body, path
    assert b"other" in post(one, "/b/v1/chat/completions", gpt.request()).body
    assert other.call_count == 1


def test_the_flag_sends_everything_to_one_upstream(other: Upstream, home: Path) -> None:
    with Proxy(home, arguments=["--upstream", f"{other.url}/up"]) as one:
        answer = post(one, "/v1/chat/completions", gpt.request())
    assert b"other /up/v1/chat/completions" in answer.body


def test_model_lists_go_by_their_headers(upstream: Upstream, other: Upstream, proxy: Any) -> None:
    seen: dict[str, str] = {}

    def listed(name: str) -> Any:
        def answer(request: Request) -> Reply:
            seen[name] = request.target
            return json_reply(b'{"data":[]}')

        return answer

    upstream.default, other.default = listed("anthropic"), listed("openai")
    one: Proxy = proxy(CACHE_UPSTREAM_OPENAI=other.url)
    for headers, name in (
        ([("x-api-key", "k"), ("anthropic-version", "2023-06-01")], "anthropic"),
        ([("anthropic-version", "2023-06-01"), ("authorization", "Bearer oauth")], "anthropic"),
        ([("x-api-key", "k")], "anthropic"),
        ([("authorization", "Bearer sk")], "openai"),
    ):
        seen.clear()
        answer = exchange(one.port, "GET", "/v1/models?limit=5", headers)
        assert label(answer) == (200, "PASS")
        assert seen == {name: "/v1/models?limit=5"}


@pytest.mark.parametrize("inline", [True, False])
def test_upstreams_come_from_json_too(
    other: Upstream, proxy: Any, home: Path, inline: bool
) -> None:
    text = json.dumps({"a": other.url, "b": {"url": f"{other.url}/b", "provider": "anthropic"}})
    home.mkdir(mode=0o700)
    (home / "upstreams.json").write_text(text)
    one: Proxy = proxy(CACHE_UPSTREAMS=text if inline else "upstreams.json")
    assert label(post(one, "/a/v1/chat/completions", gpt.request())) == (200, "MISS")
    assert b"/b/v1/messages" in post(one, "/b/v1/messages", claude.request()).body


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"CACHE_UPSTREAMS": "mine=http://127.0.0.1 provider=nobody"},
            "CACHE_UPSTREAMS: mine: provider=nobody isn't known; one of vertex,",
        ),
        (
            {"CACHE_UPSTREAMS": "openai=http://127.0.0.1 provider=anthropic"},
            "CACHE_UPSTREAMS: openai: an upstream with a provider's name is that provider's",
        ),
        (
            {"CACHE_UPSTREAM_OPENIA": "http://127.0.0.1"},
            "CACHE_UPSTREAM_OPENIA: there is no provider openia;",
        ),
    ],
)
def test_a_provider_nobody_knows_keeps_the_proxy_from_starting(
    proxy: Any, settings: dict[str, str], told: str
) -> None:
    one: Proxy = proxy(start=False, **settings).start(wait=False)
    assert one.wait_exit() == 2
    assert told in one.output()


@pytest.mark.parametrize(
    ("url", "path", "provider"),
    [
        ("https://api.groq.com", "/openai/v1/chat/completions", "groq"),
        ("https://api.inference.crusoecloud.com", "/v1/chat/completions", "crusoe"),
        ("https://api.z.ai/", "/api/anthropic/v1/messages", "zai"),
        ("https://mine.openai.azure.com", "/openai/v1/responses", "azure"),
        ("https://api.anthropic.com", "/v1/messages", "anthropic"),
        ("https://api.anthropic.com", "/v1/chat/completions", "compatible"),
        ("https://api.groq.com.evil.example", "/openai/v1/chat/completions", "compatible"),
        ("https://llm.example", "/v1/chat/completions", "compatible"),
        ("http://127.0.0.1:8080", "/v1/chat/completions", "compatible"),
        ("http://127.0.0.1:8080", "/v1/messages", "anthropic"),
        ("https://eu-aiplatform.googleapis.com", "/v1beta/models/g:countTokens", "gemini"),
    ],
)
def test_an_upstream_without_a_provider_is_its_hosts(url: str, path: str, provider: str) -> None:
    settings = Settings(home=Path(), named_upstreams={"team": NamedUpstream(url)})
    route = Router(settings, {}).route("POST", f"/team{path}".encode(), {})
    assert route is not None
    assert route.provider.name == provider
    assert route.endpoint is not None
    assert route.real_key is None
