"""The official `cohere` client: a hit is indistinguishable from its miss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cohere
import httpx
import pytest
from support import cohere_wire as wire
from support.clients import Heard, same_twice
from support.openai_wire import tool_call
from support.proxy import Proxy, running_proxy
from support.replies import Framing, Reply
from support.upstream import Upstream

pytestmark = pytest.mark.usefixtures("home")

_NUMBERS = itertools.count()


@dataclass(frozen=True, slots=True)
class Stage:
    """A proxy before an upstream that plays Cohere, and what the client hears."""

    upstream: Upstream
    proxy: Proxy
    heard: Heard
    transport: httpx.Client

    def client(self, path: str = "") -> cohere.ClientV2:
        """A client at the proxy that doesn't repeat what failed."""
        return cohere.ClientV2(
            api_key="test-key",
            base_url=self.proxy.url + path,
            httpx_client=self.transport,
            max_retries=0,
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, Proxy]]:
    home = tmp_path_factory.mktemp("cohere") / "home"
    with Upstream() as upstream:
        with running_proxy(home, {"CACHE_UPSTREAM_COHERE": upstream.url}) as proxy:
            yield upstream, proxy
        assert not upstream.errors


@pytest.fixture
def stage(running: tuple[Upstream, Proxy]) -> Iterator[Stage]:
    heard = Heard()
    with httpx.Client(event_hooks=heard.hooks, trust_env=False) as transport:
        yield Stage(*running, heard, transport)


def prompt() -> list[Any]:
    """Messages that weren't sent before."""
    return [{"role": "user", "content": f"Question number {next(_NUMBERS)}."}]


def reply(body: bytes, status: int = 200) -> Reply:
    return Reply(status=status, body=(body,)).with_header("x-debug-trace-id", "8b3c")


def stream(events: list[bytes]) -> Reply:
    headers = (("content-type", "text/event-stream"),)
    return Reply(headers=headers, body=tuple(events), framing=Framing.CHUNKED)


@pytest.mark.parametrize("path", ["", "/cohere"])
def test_a_plain_chat(stage: Stage, path: str) -> None:
    client, messages = stage.client(path), prompt()
    stage.upstream.script(reply(wire.chat("Grüezi 世界")))
    answer = same_twice(
        stage.upstream,
        stage.heard,
        lambda: client.chat(model=wire.MODEL, messages=messages),
    )
    assert answer.message.content is not None
    assert answer.message.content[0].text == "Grüezi 世界"
    request = stage.upstream.calls[-1].request
    assert (request.target, request.header("authorization")) == ("/v2/chat", "Bearer test-key")


def test_a_streamed_chat(stage: Stage) -> None:
    client, messages = stage.client(), prompt()
    stage.upstream.script(stream(wire.chat_stream("Hello, wörld")))
    events: list[Any] = same_twice(
        stage.upstream,
        stage.heard,
        lambda: list(client.chat_stream(model=wire.MODEL, messages=messages)),
    )
    said = [event.delta.message.content.text for event in events if event.type == "content-delta"]
    assert "".join(said) == "Hello, wörld"
    assert events[-1].type == "message-end"
    assert events[-1].delta.usage.billed_units.output_tokens == 9


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(stage: Stage, streamed: bool) -> None:
    client, messages = stage.client(), prompt()
    tools: list[Any] = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
    if streamed:
        stage.upstream.script(stream(wire.tool_stream()))
        events: list[Any] = same_twice(
            stage.upstream,
            stage.heard,
            lambda: list(client.chat_stream(model=wire.MODEL, messages=messages, tools=tools)),
        )
        start = next(event for event in events if event.type == "tool-call-start")
        assert start.delta.message.tool_calls.function.name == "get_weather"
    else:
        stage.upstream.script(reply(wire.chat(calls=[tool_call("get_weather", {"city": "Rome"})])))
        answer = same_twice(
            stage.upstream,
            stage.heard,
            lambda: client.chat(model=wire.MODEL, messages=messages, tools=tools),
        )
        assert answer.finish_reason == "TOOL_CALL"
        assert answer.message.tool_calls is not None
        function = answer.message.tool_calls[0].function
        assert function is not None
        assert (function.name, function.arguments) == ("get_weather", '{"city": "Rome"}')


def test_embed_and_rerank(stage: Stage) -> None:
    client = stage.client()
    stage.upstream.script(reply(wire.embed([0.5, -1.0])))
    vectors = same_twice(
        stage.upstream,
        stage.heard,
        lambda: client.embed(
            model="embed-v4.0", texts=["a"], input_type="search_query", embedding_types=["float"]
        ),
    )
    assert vectors.embeddings.float_ == [[0.5, -1.0]]
    stage.upstream.script(reply(wire.rerank(0.9, 0.1)))
    ranked = same_twice(
        stage.upstream,
        stage.heard,
        lambda: client.rerank(model="rerank-v3.5", query="a", documents=["b", "c"]),
    )
    assert [result.relevance_score for result in ranked.results] == [0.9, 0.1]


def test_an_error_reaches_the_client_and_is_not_kept(stage: Stage) -> None:
    client, messages = stage.client(), prompt()
    for _ in range(2):
        stage.upstream.script(reply(b'{"id":"1","message":"Slow down"}', 429))
        with pytest.raises(cohere.TooManyRequestsError) as caught:
            client.chat(model=wire.MODEL, messages=messages)
        assert caught.value.body == {"id": "1", "message": "Slow down"}
    assert stage.heard.labels == ["MISS"] * 2


def test_a_chat_that_was_broken_off_is_not_kept(stage: Stage) -> None:
    client, messages = stage.client(), prompt()

    def ask() -> list[Any]:
        return list(client.chat_stream(model=wire.MODEL, messages=messages))

    stage.upstream.script(stream(wire.chat_stream("Half", finish="ERROR")))
    assert ask()[-1].delta.finish_reason == "ERROR"
    stage.upstream.script(stream(wire.chat_stream("Whole")))
    assert ask()[-1].delta.finish_reason == "COMPLETE"
    assert stage.heard.labels == ["MISS"] * 2


def test_a_replayed_miss_is_an_error_the_client_understands(stage: Stage) -> None:
    with pytest.raises(cohere.GatewayTimeoutError) as caught:
        stage.client().chat(
            model=wire.MODEL,
            messages=prompt(),
            request_options={"additional_headers": {"x-cache-mode": "replay"}},
        )
    assert caught.value.body["type"] == "cache_miss"


def test_an_answer_that_names_no_model_has_the_price_of_the_one_asked_for(stage: Stage) -> None:
    client, messages = stage.client(), prompt()
    units = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}
    stage.upstream.script(reply(wire.chat("Hello", usage={"billed_units": units})))
    before = stage.proxy.stats()["usd_saved"]
    same_twice(
        stage.upstream, stage.heard, lambda: client.chat(model=wire.MODEL, messages=messages)
    )
    # command-r7b: $0.0375 per million in, $0.15 out
    assert stage.proxy.stats()["usd_saved"] - before == pytest.approx(0.1875, abs=1e-6)
