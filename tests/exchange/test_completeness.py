"""What is stored is whole by the provider's own format, read from structure; the rest only passes.

An answer that isn't stored reaches the client byte for byte all the same, is a miss again when
asked again, and the log says why.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import anthropic_wire as wire
from support.replies import Framing, Reply, json_reply, sse_reply
from support.stage import InnerStage, assert_same, inner_stage

pytestmark = pytest.mark.usefixtures("home")

EVENTS = wire.stream("message_stop")
MENTIONS = 'event: message_stop\ndata: {"type": "message_stop"}\n\n'
"""A text that holds, word for word, what ends a stream."""
JSON = (("content-type", "application/json"),)
SSE = (("content-type", "text/event-stream; charset=utf-8"),)
HTML = b"<!doctype html><title>message_stop</title><p>Checking your browser</p>"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InnerStage]:
    with inner_stage(tmp_path_factory.mktemp("completeness")) as running:
        yield running
        running.wait_idle()


def plain(body: bytes, headers: tuple[tuple[str, str], ...] = JSON) -> Reply:
    """A 200 with a content-length."""
    return Reply(headers=headers, body=(body,))


def typed(**fields: object) -> bytes:
    return wire.dump(fields)


def tool_events(partial: str) -> list[bytes]:
    """A stream whose tool input ends in `partial`."""
    tool = wire.tool_use_block("x", {})
    start, *_, delta, stop = wire.stream([tool])
    block = {"type": "content_block_start", "index": 0, "content_block": tool}
    arguments = {"type": "input_json_delta", "partial_json": partial}
    step = {"type": "content_block_delta", "index": 0, "delta": arguments}
    return [start, wire.event("content_block_start", block),
            wire.event("content_block_delta", step), delta, stop]  # fmt: skip


NOT_STORED: dict[str, tuple[Reply, str]] = {
    # streams
    "stream without message_stop": (sse_reply(EVENTS[:-1]), "no message_stop"),
    "stream that only says message_stop in its text": (
        sse_reply(wire.stream(MENTIONS, piece=1000)[:-1]),
        "no message_stop",
    ),
    "stream that says it in its tool's input": (
        sse_reply(tool_events(MENTIONS)[:-1]),
        "no message_stop",
    ),
    "stream that ends with its head": (sse_reply(EVENTS[:1]), "no message_stop"),
    "stream of nothing": (sse_reply([]), "no message_start"),
    "stream of pings": (sse_reply([wire.PING] * 3), "no message_start"),
    "stop without its blank line": (
        sse_reply([*EVENTS[:-1], EVENTS[-1].removesuffix(b"\n")]),
        "no message_stop",
    ),
    "stop in the event's name only": (
        sse_reply([*EVENTS[:-1], b'event: message_stop\ndata: {"type":"ping"}\n\n']),
        "no message_stop",
    ),
    "stop in a comment": (
        sse_reply([*EVENTS[:-1], b": " + EVENTS[-1].replace(b"\n", b" ") + b"\n\n"]),
        "no message_stop",
    ),
    "stop with no start": (sse_reply(EVENTS[-1:]), "message_stop before message_start"),
    "error event at the end": (
        sse_reply([*EVENTS[:-1], wire.error_event()]),
        "error event: overloaded_error",
    ),
    "error event whose text says message_stop": (
        sse_reply([*EVENTS[:3], wire.error_event("api_error", MENTIONS)]),
        "error event: api_error",
    ),
    "error event, then message_stop": (
        sse_reply([*EVENTS[:-1], wire.error_event(), EVENTS[-1]]),
        "error event: overloaded_error",
    ),
    "error event at the start": (
        sse_reply([wire.error_event("rate_limit_error")]),
        "error event: rate_limit_error",
    ),
    "error in an event of another name": (
        sse_reply([*EVENTS[:2], wire.error_event().replace(b"event: error\n", b""), *EVENTS[2:]]),
        "error event: overloaded_error",
    ),
    "error event that isn't JSON": (
        sse_reply([*EVENTS[:2], b"event: error\ndata: oops\n\n", *EVENTS[2:]]),
        "error event",
    ),
    "event that isn't JSON": (
        sse_reply([*EVENTS[:2], b"event: message_delta\ndata: {oops\n\n", *EVENTS[2:]]),
        "an event is not JSON",
    ),
    "event that isn't UTF-8": (
        sse_reply([*EVENTS[:2], EVENTS[3].replace(b"mess", b"\xff"), *EVENTS[3:]]),
        "an event is not JSON",
    ),
    "two messages": (sse_reply([*EVENTS, *EVENTS]), "data after message_stop"),
    "stream cut where its connection ends": (
        Reply(headers=SSE, body=tuple(EVENTS[:-1]), framing=Framing.CLOSE),
        "no message_stop",
    ),
    # JSON
    "JSON that is cut": (plain(wire.message()[:-1]), "not JSON, or cut short"),
    "JSON cut where its connection ends": (
        Reply(headers=JSON, body=(wire.message()[:-2],), framing=Framing.CLOSE),
        "not JSON, or cut short",
    ),
    "JSON followed by more": (plain(wire.message() + b"{}"), "not JSON, or cut short"),
    "JSON that isn't UTF-8": (plain(wire.message().replace(b"Hello", b"\xff\xfe")), "not JSON"),
    "empty body": (plain(b""), "not JSON, or cut short"),
    "a list": (plain(b"[" + wire.message() + b"]"), "not a JSON object"),
    "null": (plain(b"null"), "not a JSON object"),
    "a string": (plain(b'"message_stop"'), "not a JSON object"),
    "an error in a 200": (plain(wire.error("overloaded_error")), "error: overloaded_error"),
    "another kind of object": (plain(typed(type="completion", completion="x")), "not a message"),
    "a count of tokens": (plain(wire.count_tokens()), "not a message"),
    "an object without a type": (plain(b"{}"), "not a message"),
    "JSON nested without end": (plain(b"[" * 100_000), "not JSON, or cut short"),
    # other contents
    "HTML": (plain(HTML, (("content-type", "text/html"),)), "content type text/html"),
    "HTML said to be JSON": (plain(HTML), "not JSON, or cut short"),
    "HTML said to be a stream": (plain(HTML + b"\n", SSE), "not an event stream"),
    "JSON said to be a stream": (plain(wire.message(), SSE), "no message_start"),
    "stream said to be JSON": (plain(b"".join(EVENTS)), "not JSON"),
    "JSON said to be text": (
        plain(wire.message(), (("content-type", "text/plain"),)),
        "content type text/plain",
    ),
    "no content type": (plain(wire.message(), ()), "content type missing"),
    # statuses
    "another success": (json_reply(wire.message(), 201), "status 201"),
    "no content": (Reply(status=204, headers=()), "status 204"),
    "a redirect": (
        json_reply(wire.message(), 302, (("location", "/v1/messages?again"),)),
        "status 302",
    ),
    "a message with an error's status": (json_reply(wire.message(), 500), "status 500"),
    "a stream with an error's status": (sse_reply(EVENTS, 529), "status 529"),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["asked plain", "asked streamed"])
@pytest.mark.parametrize(("reply", "reason"), NOT_STORED.values(), ids=NOT_STORED.keys())
def test_answer_that_is_not_whole_passes_and_is_not_stored(
    stage: InnerStage, reply: Reply, reason: str, streamed: bool
) -> None:
    """BAR 3: completeness is read from structure, never from words."""
    body = stage.body(stream=streamed)
    sent = b"".join(step for step in reply.body if isinstance(step, bytes))
    entries = stage.cache.stats()["entries"]
    logged = len(stage.cache.log())
    stage.upstream.script(reply, reply)
    before = stage.upstream.call_count
    for _ in range(2):
        response = stage.cache.ask(body)
        assert (response.status, response.body) == (reply.status, sent)
        assert response.header("x-cache") == "MISS"
        assert response.complete
    assert stage.upstream.call_count == before + 2
    figures = stage.cache.stats()
    assert figures["entries"] == entries
    stage.wait_idle()  # an answer without a body is over before its flight is
    lines = [line for line in stage.cache.log()[logged:].splitlines() if " HIT " not in line]
    assert [f"[{reason}" in line for line in lines] == [True, True], lines


STORED: dict[str, Reply] = {
    "text that says message_stop": sse_reply(wire.stream(MENTIONS)),
    "text that says error": sse_reply(wire.stream('event: error\ndata: {"type":"error"}\n\n')),
    "tool input that says both": sse_reply(
        wire.stream([wire.tool_use_block("x", {"a": MENTIONS, "type": "error"})])
    ),
    "tool input that is cut": sse_reply(tool_events('{"path": "/tm')),
    "stopped for length": sse_reply(wire.stream("too lo", stop_reason="max_tokens")),
    "refused by the model": sse_reply(wire.stream("", stop_reason="refusal")),
    "events without names": sse_reply(
        [event.split(b"\n", 1)[1] for event in EVENTS if event != wire.PING]
    ),
    "events of a kind to come": sse_reply(
        [*EVENTS[:2], wire.event("hologram_delta", {"type": "hologram_delta"}), *EVENTS[2:]]
    ),
    "data in several lines": sse_reply(
        [event.replace(b'{"type"', b'{\ndata: "type"') for event in EVENTS]
    ),
    "stream ended by its connection": Reply(headers=SSE, body=tuple(EVENTS), framing=Framing.CLOSE),
    "stream with a length": Reply(headers=SSE, body=tuple(EVENTS)),
    "JSON in chunks": Reply(
        headers=JSON, body=(wire.message()[:9], wire.message()[9:]), framing=Framing.CHUNKED
    ),
    "JSON ended by its connection": Reply(
        headers=JSON, body=(wire.message(),), framing=Framing.CLOSE
    ),
    "JSON that says error": plain(wire.message('{"type":"error"}')),
    "JSON whose text is cut JSON": plain(wire.message('{"type":"mess')),
    "content type in capitals": plain(
        wire.message(), (("content-type", "Application/JSON ; charset=UTF-8"),)
    ),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["asked plain", "asked streamed"])
@pytest.mark.parametrize("reply", STORED.values(), ids=STORED.keys())
def test_whole_answer_is_stored_whatever_its_text_says(
    stage: InnerStage, reply: Reply, streamed: bool
) -> None:
    """BAR 3. JSON to a request for a stream, and the reverse, is judged by what it is."""
    miss, hit = stage.twice(reply, body=stage.body(stream=streamed))
    assert_same(miss, hit)


def test_count_of_tokens_is_judged_as_such(stage: InnerStage) -> None:
    """BAR 2: each endpoint has its own idea of a whole answer."""

    def ask(body: bytes) -> str:
        return stage.cache.send(body, path="/v1/messages/count_tokens").header("x-cache") or ""

    for reply in (
        plain(wire.message()),
        plain(b"{}"),
        plain(b'{"input_tokens":"many"}'),
        plain(b'{"input_tokens":true}'),
        plain(wire.count_tokens()[:-1]),
        sse_reply(EVENTS),
    ):
        body = stage.body()
        stage.upstream.script(reply, reply)
        assert [ask(body), ask(body)] == ["MISS", "MISS"]
    stage.upstream.script(plain(wire.count_tokens()))
    body = stage.body()
    assert [ask(body), ask(body)] == ["MISS", "HIT"]


def test_answers_not_stored_are_counted_as_what_they_are(stage: InnerStage) -> None:
    """BAR 10: an unfinished 200 is a miss, an error's status is an error; tokens count as spent."""
    before = stage.cache.stats()
    tokens = wire.usage(100, 20)
    stage.upstream.script(sse_reply(wire.stream(tokens=tokens)[:-1]), json_reply(wire.error(), 400))
    stage.cache.ask(stage.body(stream=True))
    stage.cache.ask(stage.body())
    after = stage.cache.stats()
    assert after["misses"] - before["misses"] == 1
    assert after["errors"] - before["errors"] == 1
    assert after["hits"] == before["hits"]
    assert after["tokens_spent"] - before["tokens_spent"] == 120


def test_answer_above_the_limit_passes_unstored(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """CACHE_MAX_ENTRY_BYTES: the last byte within it is stored, the next isn't."""
    folder = tmp_path_factory.mktemp("limit")
    with inner_stage(folder, {"CACHE_MAX_ENTRY_BYTES": "5000"}) as own:
        assert_same(*own.twice(json_reply(wire.message_of_size(5000))))
        large = wire.message_of_size(5001)
        own.upstream.script(json_reply(large), json_reply(large))
        body = own.body()
        for _ in range(2):
            response = own.cache.ask(body)
            assert (response.body, response.header("x-cache")) == (large, "MISS")
        assert "[larger than 5000 bytes]" in own.cache.log()
        events = list(wire.stream("word " * 3000))
        own.upstream.script(sse_reply(events))
        assert own.cache.ask(own.body(stream=True)).body == b"".join(events)
        assert own.cache.stats()["entries"] == 1
