"""The official `mistralai` client: a hit is indistinguishable from its miss."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from support import openai_wire as wire
from support.clients import Heard, same_twice
from support.proxy import Proxy, running_proxy
from support.replies import Framing, Reply
from support.upstream import Upstream

pytestmark = pytest.mark.usefixtures("home")

MODEL = "mistral-large-latest"
_NUMBERS = itertools.count()


@dataclass(frozen=True, slots=True)
class Stage:
    """A proxy before an upstream that plays Mistral, and the client at `/mistral`."""

    upstream: Upstream
    proxy: Proxy
    heard: Heard
    client: Mistral


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, Proxy]]:
    home = tmp_path_factory.mktemp("mistral") / "home"
    with Upstream() as upstream:
        with running_proxy(home, {"CACHE_UPSTREAM_MISTRAL": upstream.url}) as proxy:
            yield upstream, proxy
        assert not upstream.errors


@pytest.fixture
def stage(running: tuple[Upstream, Proxy]) -> Iterator[Stage]:
    upstream, proxy = running
    heard = Heard()
    with (
        httpx2.Client(event_hooks=heard.hooks, trust_env=False) as transport,
        Mistral(api_key="test-key", server_url=proxy.url + "/mistral", client=transport) as client,
    ):
        yield Stage(upstream, proxy, heard, client)


def prompt() -> list[Any]:
    """Messages that weren't sent before."""
    return [{"role": "user", "content": f"Question number {next(_NUMBERS)}."}]


def reply(body: bytes, status: int = 200) -> Reply:
    return Reply(status=status, headers=wire.JSON, body=(body,))


def stream(events: list[bytes]) -> Reply:
    return Reply(headers=wire.SSE, body=tuple(events), framing=Framing.CHUNKED)


def events(stage: Stage, messages: list[Any], **fields: Any) -> list[Any]:
    with stage.client.chat.stream(model=MODEL, messages=messages, **fields) as answer:
        return list(answer)


def test_a_plain_chat(stage: Stage) -> None:
    messages = prompt()
    stage.upstream.script(reply(wire.chat("Grüezi 世界")))
    answer = same_twice(
        stage.upstream,
        stage.heard,
        lambda: stage.client.chat.complete(model=MODEL, messages=messages, random_seed=1),
    )
    assert answer.choices[0].message.content == "Grüezi 世界"
    request = stage.upstream.calls[-1].request
    assert request.target.partition("#")[0] == "/v1/chat/completions"
    assert request.header("authorization") == "Bearer test-key"


def test_a_streamed_chat(stage: Stage) -> None:
    messages = prompt()
    stage.upstream.script(stream(wire.chat_stream("Hello, wörld", tokens=wire.usage(5, 6))))
    parts = same_twice(stage.upstream, stage.heard, lambda: events(stage, messages))
    said = [part.data.choices[0].delta.content or "" for part in parts if part.data.choices]
    assert "".join(said) == "Hello, wörld"
    assert parts[-1].data.usage.completion_tokens == 6


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(stage: Stage, streamed: bool) -> None:
    messages = prompt()
    calls = [wire.tool_call("get_weather", {"city": "Nice"})]
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
    if streamed:
        whole = wire.chunk(wire.delta(finish="tool_calls", content="", tool_calls=calls))
        stage.upstream.script(stream([whole, wire.DONE]))  # Mistral never cuts a call in pieces
        parts = same_twice(
            stage.upstream, stage.heard, lambda: events(stage, messages, tools=tools)
        )
        made = [part.data.choices[0].delta.tool_calls for part in parts]
        written = [call[0].function.arguments for call in made if call]
        assert "".join(written) == '{"city": "Nice"}'
        assert parts[-1].data.choices[0].finish_reason == "tool_calls"
    else:
        stage.upstream.script(reply(wire.chat(calls=calls)))
        answer = same_twice(
            stage.upstream,
            stage.heard,
            lambda: stage.client.chat.complete(model=MODEL, messages=messages, tools=tools),
        )
        (call,) = answer.choices[0].message.tool_calls
        assert (call.function.name, call.function.arguments) == (
            "get_weather",
            '{"city": "Nice"}',
        )


def test_fill_in_the_middle_and_embeddings(stage: Stage) -> None:
    stage.upstream.script(reply(wire.chat("return a + b")))
    filled = same_twice(
        stage.upstream,
        stage.heard,
        lambda: stage.client.fim.complete(model="codestral-latest", prompt="def add(a, b):"),
    )
    assert filled.choices[0].message.content == "return a + b"
    body = {"id": "0c1d", **json.loads(wire.embeddings([0.5, -1.0]))}
    stage.upstream.script(reply(wire.dump(body)))
    vectors = same_twice(
        stage.upstream,
        stage.heard,
        lambda: stage.client.embeddings.create(model="mistral-embed", inputs=["a"]),
    )
    assert vectors.data[0].embedding == [0.5, -1.0]


def test_an_error_reaches_the_client_and_is_not_kept(stage: Stage) -> None:
    messages = prompt()
    body = wire.dump({"object": "error", "message": "Slow down", "type": "rate_limited"})
    for _ in range(2):
        stage.upstream.script(reply(body, 429).with_header("retry-after", "7"))
        with pytest.raises(SDKError, match="Slow down") as caught:
            stage.client.chat.complete(model=MODEL, messages=messages)
        assert caught.value.status_code == 429
        assert caught.value.headers["retry-after"] == "7"
    assert stage.heard.labels == ["MISS"] * 2


def test_an_error_inside_a_200_stream_is_not_kept(stage: Stage) -> None:
    messages = prompt()
    stage.upstream.script(stream([*wire.chat_stream("Half")[:-2], wire.chunk(), wire.DONE]))
    events(stage, messages)  # the client doesn't notice that no choice finished
    stage.upstream.script(stream(wire.chat_stream("Whole")))
    assert events(stage, messages)[-1].data.choices[0].finish_reason == "stop"
    assert stage.heard.labels == ["MISS"] * 2


def test_a_replayed_miss_is_an_error_the_client_understands(stage: Stage) -> None:
    with pytest.raises(SDKError, match="cache_miss") as caught:
        stage.client.chat.complete(
            model=MODEL, messages=prompt(), http_headers={"x-cache-mode": "replay"}
        )
    assert caught.value.status_code == 504


def test_its_tokens_have_its_price(stage: Stage) -> None:
    messages = prompt()
    tokens = wire.usage(1_000_000, 1_000_000)
    body = wire.chat("Hello", tokens=tokens).replace(wire.MODEL.encode(), MODEL.encode())
    stage.upstream.script(reply(body))
    before = stage.proxy.stats()["usd_saved"]
    same_twice(
        stage.upstream,
        stage.heard,
        lambda: stage.client.chat.complete(model=MODEL, messages=messages),
    )
    assert stage.proxy.stats()["usd_saved"] - before > 1
