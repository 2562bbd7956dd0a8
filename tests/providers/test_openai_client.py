"""The official `openai` client: a hit is indistinguishable from its miss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import pytest
from support import openai_wire as wire
from support.clients import Heard, same_twice
from support.proxy import Proxy, running_proxy
from support.replies import Framing, Gate, Reply
from support.upstream import Upstream

pytestmark = pytest.mark.usefixtures("home")

_NUMBERS = itertools.count()


@dataclass(frozen=True, slots=True)
class Stage:
    """A proxy before an upstream that plays OpenAI and Azure, and what the client hears."""

    upstream: Upstream
    proxy: Proxy
    heard: Heard
    transport: httpx2.Client

    def client(self, path: str = "/v1", **options: Any) -> openai.OpenAI:
        """A client at the proxy."""
        return openai.OpenAI(base_url=self.proxy.url + path, **self._options(), **options)

    def azure(self) -> openai.AzureOpenAI:
        """An Azure client at the proxy."""
        return openai.AzureOpenAI(
            azure_endpoint=self.proxy.url, api_version="2024-10-21", **self._options()
        )

    def _options(self) -> dict[str, Any]:
        return {"api_key": "sk-test", "max_retries": 0, "http_client": self.transport}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, Proxy]]:
    home = tmp_path_factory.mktemp("openai") / "home"
    with Upstream() as upstream:
        names = ("ANTHROPIC", "OPENAI", "AZURE", "GROQ")
        settings = {f"CACHE_UPSTREAM_{name}": upstream.url for name in names}
        with running_proxy(home, settings) as proxy:
            yield upstream, proxy
        assert not upstream.errors


@pytest.fixture
def stage(running: tuple[Upstream, Proxy]) -> Iterator[Stage]:
    heard = Heard()
    with httpx2.Client(event_hooks=heard.hooks, trust_env=False) as transport:
        yield Stage(*running, heard, transport)


def prompt() -> list[Any]:
    """Messages that weren't sent before."""
    return [{"role": "user", "content": f"Question number {next(_NUMBERS)}."}]


def reply(body: bytes, status: int = 200) -> Reply:
    return Reply(status=status, headers=(*wire.JSON, *wire.RESPONSE_HEADERS), body=(body,))


def stream(events: list[bytes]) -> Reply:
    headers = (*wire.SSE, *wire.RESPONSE_HEADERS)
    return Reply(headers=headers, body=tuple(events), framing=Framing.CHUNKED)


def test_a_plain_chat(stage: Stage) -> None:
    client, messages = stage.client(), prompt()
    tokens = wire.usage(300, 17, cached=256)
    stage.upstream.script(reply(wire.chat("Grüezi 世界", "Ciao", tokens=tokens)))
    answer = same_twice(
        stage.upstream,
        stage.heard,
        lambda: client.chat.completions.create(model="gpt-4o", messages=messages, n=2),
    )
    assert [choice.message.content for choice in answer.choices] == ["Grüezi 世界", "Ciao"]
    assert answer._request_id == "req_5a1b2c3d4e5f60718293a4b5c6d7e8f9"
    (call,) = stage.upstream.calls[-1:]
    assert call.request.target == "/v1/chat/completions"
    assert call.request.header("authorization") == "Bearer sk-test"


@pytest.mark.parametrize("usage", [True, False])
def test_bar_14_and_20_a_streamed_chat_is_replayed_whole_and_chunk_by_chunk(
    stage: Stage, usage: bool
) -> None:
    client, messages = stage.client(), prompt()
    tokens = wire.usage(11, 7) if usage else None
    stage.upstream.script(stream(wire.chat_stream("Hello, wörld", "Good day", tokens=tokens)))

    def ask() -> list[Any]:
        return list(
            client.chat.completions.create(
                model="gpt-4o",
                messages=messages,
                stream=True,
                stream_options={"include_usage": usage},
            )
        )

    chunks = same_twice(stage.upstream, stage.heard, ask)
    for index, text in enumerate(("Hello, wörld", "Good day")):
        own = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert "".join(choice.delta.content or "" for choice in own) == text
        assert own[0].delta.role == "assistant"
        assert own[-1].finish_reason == "stop"
    assert all(chunk.id == chunks[0].id for chunk in chunks)
    assert (chunks[-1].usage is not None) is usage


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(stage: Stage, streamed: bool) -> None:
    client, messages = stage.client(), prompt()
    calls = [
        wire.tool_call("get_weather", {"city": "Zürich"}, "call_1"),
        wire.tool_call("get_time", {"zone": "CET"}, "call_2"),
    ]
    tools: list[Any] = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
        for name in ("get_weather", "get_time")
    ]

    def ask() -> Any:
        with client.chat.completions.stream(
            model="gpt-4o", messages=messages, tools=tools
        ) as events:
            return [event.to_dict() for event in events], events.get_final_completion()

    def ask_plain() -> Any:
        return None, client.chat.completions.create(model="gpt-4o", messages=messages, tools=tools)

    stage.upstream.script(
        stream(wire.chat_stream(calls=calls)) if streamed else reply(wire.chat(calls=calls))
    )
    _, answer = same_twice(stage.upstream, stage.heard, ask if streamed else ask_plain)
    made = answer.choices[0].message.tool_calls
    assert [(call.id, call.function.name, call.function.arguments) for call in made] == [
        ("call_1", "get_weather", '{"city": "Z\\u00fcrich"}'),
        ("call_2", "get_time", '{"zone": "CET"}'),
    ]
    assert answer.choices[0].finish_reason == "tool_calls"


def test_logprobs_refusals_and_audio_are_replayed(stage: Stage) -> None:
    client, messages = stage.client(), prompt()
    audio = {"id": "a", "data": "UklGRg==", "expires_at": 1, "transcript": "Hi"}
    stage.upstream.script(reply(wire.chat("", refusal="No.", audio=audio)))
    answer = same_twice(
        stage.upstream,
        stage.heard,
        lambda: client.chat.completions.create(
            model="gpt-4o", messages=messages, logprobs=True, top_logprobs=2
        ),
    )
    assert answer.choices[0].message.refusal == "No."
    assert answer.choices[0].message.audio is not None
    assert answer.choices[0].message.audio.transcript == "Hi"


def test_completions_and_moderations(stage: Stage) -> None:
    client = stage.client()
    choices = [{"index": 0, "text": " time", "finish_reason": "length", "logprobs": None}]
    whole = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    stage.upstream.script(reply(wire.dump({**whole, "choices": choices})))
    text = same_twice(
        stage.upstream,
        stage.heard,
        lambda: client.completions.create(model="m", prompt="Once upon a"),
    )
    assert text.choices[0].text == " time"
    flags = {"id": "modr-1", "model": "m", "results": [{"flagged": False}]}
    stage.upstream.script(reply(wire.dump(flags)))
    judged = same_twice(
        stage.upstream, stage.heard, lambda: client.moderations.create(input="Once upon a")
    )
    assert judged.results[0].flagged is False


def test_embeddings(stage: Stage) -> None:
    client = stage.client()
    stage.upstream.script(reply(wire.embeddings("AAAAPwAAgL8=", "AAAAAAAAAD8=")))
    answer = same_twice(
        stage.upstream,
        stage.heard,
        lambda: client.embeddings.create(model="text-embedding-3-small", input=["a", "b"]),
    )
    assert [item.embedding for item in answer.data] == [[0.5, -1.0], [0.0, 0.5]]


def test_a_plain_response_and_its_follow_up(stage: Stage) -> None:
    client = stage.client()
    first = wire.response_document("Paris", response_id="resp_1")
    stage.upstream.script(reply(wire.dump(first)))
    asked = f"Capital of France? {next(_NUMBERS)}"
    answer = same_twice(
        stage.upstream,
        stage.heard,
        lambda: client.responses.create(model="gpt-4o", input=asked, instructions="One word."),
    )
    assert (answer.id, answer.output_text) == ("resp_1", "Paris")

    def follow(on: str) -> Any:
        return client.responses.create(model="gpt-4o", input=asked, previous_response_id=on)

    stage.upstream.script(reply(wire.dump(wire.response_document("Lyon"))))
    second = same_twice(stage.upstream, stage.heard, lambda: follow(answer.id))
    assert second.output_text == "Lyon"
    stage.upstream.script(reply(wire.dump(wire.response_document("Nice"))))
    assert follow("resp_2").output_text == "Nice"  # other state, other answer


def test_a_streamed_response(stage: Stage) -> None:
    client, asked = stage.client(), f"Hello {next(_NUMBERS)}"
    stage.upstream.script(stream(wire.response_stream("Hello, wörld")))
    events = same_twice(
        stage.upstream,
        stage.heard,
        lambda: list(client.responses.create(model="gpt-4o", input=asked, stream=True)),
    )
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "Hello, wörld"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "Hello, wörld"


def test_background_and_conversation_responses_always_go_up(stage: Stage) -> None:
    client = stage.client()
    queued = wire.response_document(status="queued", background=True, output=[])
    talking = wire.response_document(conversation={"id": "conv_1"})
    for number in range(2):
        stage.upstream.script(reply(wire.dump({**queued, "id": f"resp_{number}"})))
        answer = client.responses.create(model="gpt-4o", input="wait", background=True)
        assert (answer.id, answer.status) == (f"resp_{number}", "queued")
        stage.upstream.script(reply(wire.dump({**talking, "id": f"resp_t{number}"})))
        answer = client.responses.create(model="gpt-4o", input="and?", conversation="conv_1")
        assert answer.id == f"resp_t{number}"
    assert stage.heard.labels == ["MISS"] * 4


def test_a_stored_response_is_fetched_and_deleted_upstream(stage: Stage) -> None:
    client = stage.client()
    for status in ("in_progress", "completed"):
        stage.upstream.script(reply(wire.dump(wire.response_document(status=status))))
        assert client.responses.retrieve("resp_1").status == status
    stage.upstream.script(reply(wire.dump({"id": "resp_1", "deleted": True})))
    client.responses.delete("resp_1")
    stage.upstream.script(reply(wire.dump({"object": "list", "data": []})))
    assert client.models.list().data == []
    assert stage.heard.labels == ["PASS"] * 4
    targets = [call.request.target for call in stage.upstream.calls[-4:]]
    assert targets == ["/v1/responses/resp_1"] * 3 + ["/v1/models"]


def test_an_error_reaches_the_client_and_is_not_kept(stage: Stage) -> None:
    client, messages = stage.client(), prompt()
    limit = reply(wire.error("requests", "Rate limit reached", "rate_limit_exceeded"), 429)
    for _ in range(2):
        stage.upstream.script(limit.with_header("retry-after", "7"))
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="gpt-4o", messages=messages)
        assert caught.value.code == "rate_limit_exceeded"
        assert caught.value.response.headers["retry-after"] == "7"
        assert caught.value.request_id == "req_5a1b2c3d4e5f60718293a4b5c6d7e8f9"
    stage.upstream.script(reply(wire.chat("At last")))
    answer = client.chat.completions.create(model="gpt-4o", messages=messages)
    assert answer.choices[0].message.content == "At last"


def test_an_error_inside_a_200_stream_reaches_the_client_and_is_not_kept(stage: Stage) -> None:
    client, messages = stage.client(), prompt()
    error = wire.data({"error": {"type": "server_error", "message": "[DONE]", "code": None}})

    def ask() -> list[Any]:
        return list(client.chat.completions.create(model="gpt-4o", messages=messages, stream=True))

    for _ in range(2):
        stage.upstream.script(stream([*wire.chat_stream("Half")[:-2], error]))
        with pytest.raises(openai.APIError, match="DONE"):
            ask()
    stage.upstream.script(stream(wire.chat_stream("Whole")))
    assert ask()[-1].choices[0].finish_reason == "stop"
    assert stage.heard.labels == ["MISS"] * 3


def test_the_proxys_own_errors_have_openais_shape(stage: Stage) -> None:
    client = stage.client(default_headers={"x-cache-mode": "replay"})
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=prompt())
    assert caught.value.status_code == 504
    assert caught.value.type == "cache_miss"


def test_bar_15_another_parameter_is_another_request(stage: Stage) -> None:
    client = stage.client()
    hello: Any = {"role": "user", "content": f"Hello {next(_NUMBERS)}"}
    for number, (system, fields) in enumerate(
        [
            ("be nice", {}),
            ("be evil", {}),
            ("be nice", {"n": 2}),
            ("be nice", {"logit_bias": {"50256": -100}}),
            ("be nice", {"seed": 1}),
            ("be nice", {"stop": ["x"]}),
            ("be nice", {"extra_headers": {"OpenAI-Organization": "other"}}),
            ("be nice", {"extra_query": {"a": "b"}}),
        ]
    ):
        stage.upstream.script(reply(wire.chat(f"answer {number}")))
        messages: list[Any] = [{"role": "system", "content": system}, hello]
        answer = client.chat.completions.create(model="gpt-4o", messages=messages, **fields)
        assert answer.choices[0].message.content == f"answer {number}"
    assert set(stage.heard.labels) == {"MISS"}


def test_bar_16_another_key_never_gets_the_answer(stage: Stage) -> None:
    messages = prompt()
    for key in ("sk-ann", "sk-ben"):
        client = stage.client().with_options(api_key=key)
        stage.upstream.script(reply(wire.chat(f"for {key}")))
        answer = client.chat.completions.create(model="gpt-4o", messages=messages)
        assert answer.choices[0].message.content == f"for {key}"
    assert stage.heard.labels == ["MISS"] * 2
    logged = stage.proxy.log() + stage.proxy.output()
    assert "sk-ann" not in logged


def test_bar_16_a_chunk_is_with_the_client_before_the_next_is_sent(stage: Stage) -> None:
    client, gate = stage.client(), Gate()
    first, *rest = wire.chat_stream("Hello")
    stage.upstream.script(
        Reply(headers=wire.SSE, body=(first, gate, *rest), framing=Framing.CHUNKED)
    )
    chunks = client.chat.completions.create(model="gpt-4o", messages=prompt(), stream=True)
    assert next(chunks).choices[0].delta.role == "assistant"
    gate.release()
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"model":"no/such-model"}', b"", b"{"])
def test_bar_17_a_body_that_asks_nothing_gets_the_providers_own_error(
    stage: Stage, body: bytes
) -> None:
    for _ in range(2):
        stage.upstream.script(reply(wire.error(), 400))
        answer = stage.proxy.post("/v1/chat/completions", body)
        assert (answer.status_code, answer.content) == (400, wire.error())
    assert stage.upstream.calls[-1].request.body == body


def test_bar_20_seed_n_and_stop_go_up_as_they_are(stage: Stage) -> None:
    client = stage.client()
    stage.upstream.script(reply(wire.chat("a")))
    client.chat.completions.create(
        model="gpt-4o", messages=prompt(), seed=7, n=1, stop=["\n"], temperature=0
    )
    sent = stage.upstream.calls[-1].request.body
    for parameter in (b'"seed":7', b'"n":1', b'"stop":["\\n"]', b'"temperature":0'):
        assert parameter in sent


def test_bar_20_a_streamed_429_stays_a_429_with_its_body(stage: Stage) -> None:
    client = stage.client()
    stage.upstream.script(reply(wire.error("requests", "Slow down"), 429))
    with pytest.raises(openai.RateLimitError, match="Slow down"):
        client.chat.completions.create(model="gpt-4o", messages=prompt(), stream=True)


def test_who_asks_differs_and_the_answer_is_the_same(stage: Stage) -> None:
    client, messages = stage.client(), prompt()
    stage.upstream.script(reply(wire.chat("one answer")))
    answers = [
        client.chat.completions.create(
            model="gpt-4o", messages=messages, user=who, prompt_cache_key=who
        )
        for who in ("ann", "ben")
    ]
    assert answers[0] == answers[1]
    assert stage.heard.labels == ["MISS", "HIT-NORM"]
    assert b'"user":"ann"' in stage.upstream.calls[-1].request.body


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/openai/v1", "/v1/chat/completions"),
        ("/groq/openai/v1", "/openai/v1/chat/completions"),
        ("", "/chat/completions"),
    ],
)
def test_a_base_url_may_name_its_provider(stage: Stage, path: str, target: str) -> None:
    client, messages = stage.client(path), prompt()
    stage.upstream.script(reply(wire.chat("Hello")))
    same_twice(
        stage.upstream,
        stage.heard,
        lambda: client.chat.completions.create(model="gpt-4o", messages=messages),
    )
    assert stage.upstream.calls[-1].request.target == target


def test_the_azure_client(stage: Stage) -> None:
    client, messages = stage.azure(), prompt()
    tokens = wire.usage()
    stage.upstream.script(stream(wire.chat_stream("Hello, Azure", tokens=tokens)))
    same_twice(
        stage.upstream,
        stage.heard,
        lambda: list(
            client.chat.completions.create(model="my-gpt", messages=messages, stream=True)
        ),
    )
    request = stage.upstream.calls[-1].request
    path = "/openai/deployments/my-gpt/chat/completions"
    assert request.target == f"{path}?api-version=2024-10-21"
    assert request.header("api-key") == "sk-test"
    newer = client.with_options(default_query={"api-version": "2025-01-01"})
    stage.upstream.script(reply(wire.chat("Another version")))
    newer.chat.completions.create(model="my-gpt", messages=messages)
    assert stage.heard.labels[-1] == "MISS"


def test_usage_and_price_are_counted_by_provider(stage: Stage) -> None:
    before = stage.proxy.stats()
    client, messages = stage.client(), prompt()
    stage.upstream.script(reply(wire.chat("Hello", tokens=wire.usage(1000, 100, cached=400))))
    same_twice(
        stage.upstream,
        stage.heard,
        lambda: client.chat.completions.create(model="gpt-4o", messages=messages),
    )
    after = stage.proxy.stats()
    assert after["tokens_saved_in"] - before["tokens_saved_in"] == 1000
    assert after["tokens_saved_out"] - before["tokens_saved_out"] == 100
    # gpt-4o: $2.50 per million in, $1.25 for cached ones, $10 out
    cost = 600 * 2.5e-6 + 400 * 1.25e-6 + 100 * 10e-6
    assert after["usd_saved"] - before["usd_saved"] == pytest.approx(cost, abs=2e-6)
