"""A hit is its miss: for the official client in every way it can ask, and on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import anthropic
import pytest
from support import anthropic_wire as wire
from support.proxy import Proxy, anthropic_headers
from support.replies import Framing, Gate, Reply, json_reply, sse_reply
from support.stage import Stage, assert_same, running_stage, shown
from support.upstream import Upstream

pytestmark = pytest.mark.usefixtures("home")

TOOL = wire.tool_use_block(
    "get_weather",
    {"city": "Zürich", "days": 3, "note": 'say "hi"\n\\ 🌍', "list": [1, [2.5, None]]},
)
BLOCKS = [wire.thinking_block("Let me think. 🤔"), wire.text_block("Grüezi 世界 🌍 \u2028"), TOOL]
FRAMINGS = (Framing.LENGTH, Framing.CHUNKED, Framing.CLOSE)
HEADERS = anthropic_headers()
TOKENS = wire.usage(7, 9, cache_read=100, cache_write_5m=20, cache_write_1h=3)
ANSWERS: dict[str, list[wire.Json] | str] = {
    "text": "Hello!",
    "tool use": [TOOL],
    "thinking": BLOCKS,
    "several texts": [wire.text_block("one"), wire.text_block(""), wire.text_block("three")],
    "unicode": "🤷🏽‍♀️ e\u0301 \u0000 \ufeff \U0010ffff \u202e עברית",
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(tmp_path_factory.mktemp("fidelity")) as running:
        yield running


@pytest.fixture
def client(stage: Stage) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=stage.proxy.url, api_key="sk-ant-test", max_retries=0
    ) as official:
        yield official


@pytest.fixture
async def async_client(stage: Stage) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=stage.proxy.url, api_key="sk-ant-test", max_retries=0
    ) as official:
        yield official


def question(stage: Stage) -> dict[str, Any]:
    return {
        "model": wire.MODEL,
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": stage.prompt()}],
    }


def label(response: Any) -> str:
    labels: str = response.headers["x-cache"]
    return labels


def told(response: Any) -> list[tuple[str, str]]:
    """The headers a client of the official package sees, without those that tell hit from miss."""
    names = ("x-cache", "x-cache-key", "age", "date")
    return [(name, value) for name, value in response.headers.multi_items() if name not in names]


# The official client


@pytest.mark.parametrize("blocks", ANSWERS.values(), ids=ANSWERS.keys())
def test_hit_parses_to_the_same_message(
    stage: Stage, client: anthropic.Anthropic, blocks: list[wire.Json] | str
) -> None:
    stage.upstream.script(
        json_reply(wire.message(blocks, tokens=TOKENS), headers=wire.RESPONSE_HEADERS)
    )
    asked = question(stage)
    miss = client.messages.with_raw_response.create(**asked)
    hit = client.messages.with_raw_response.create(**asked)
    assert (label(miss), label(hit)) == ("MISS", "HIT")
    assert hit.parse() == miss.parse()
    assert hit.parse().to_dict() == wire.message_document(blocks, tokens=TOKENS)
    assert hit.http_response.content == miss.http_response.content
    assert hit.status_code == miss.status_code == 200
    assert hit.parse()._request_id == miss.parse()._request_id == "req_011CSHoEeqs5C35K2UUqR7Fy"
    assert told(hit) == told(miss)


async def test_async_client_gets_the_same_message(
    stage: Stage, async_client: anthropic.AsyncAnthropic
) -> None:
    stage.upstream.script(json_reply(wire.message(BLOCKS, tokens=TOKENS)))
    asked = question(stage)
    miss = await async_client.messages.with_raw_response.create(**asked)
    hit = await async_client.messages.with_raw_response.create(**asked)
    assert (label(miss), label(hit)) == ("MISS", "HIT")
    assert await hit.parse() == await miss.parse()
    assert told(hit) == told(miss)


@pytest.mark.parametrize("blocks", ANSWERS.values(), ids=ANSWERS.keys())
def test_stream_helper_sees_the_same_events(
    stage: Stage, client: anthropic.Anthropic, blocks: list[wire.Json] | str
) -> None:
    """Partial tool JSON, thinking and its signature included: the helper accumulates them."""
    stage.upstream.script(
        sse_reply(wire.stream(blocks, tokens=TOKENS), headers=wire.RESPONSE_HEADERS)
    )
    asked = question(stage)
    seen = []
    for expected in ("MISS", "HIT"):
        with client.messages.stream(**asked) as stream:
            events = [event.to_dict() for event in stream]
            assert label(stream.response) == expected
            assert stream.request_id == "req_011CSHoEeqs5C35K2UUqR7Fy"
            seen.append((events, stream.get_final_message().to_dict(), told(stream.response)))
    assert seen[1] == seen[0]
    content = [wire.text_block(blocks)] if isinstance(blocks, str) else blocks
    got: Any = seen[0][1]["content"]
    assert [
        {key: block[key] for key in want} for block, want in zip(got, content, strict=True)
    ] == (content)


async def test_async_stream_helper_sees_the_same_events(
    stage: Stage, async_client: anthropic.AsyncAnthropic
) -> None:
    stage.upstream.script(sse_reply(wire.stream(BLOCKS, tokens=TOKENS)))
    asked = question(stage)
    seen = []
    for expected in ("MISS", "HIT"):
        async with async_client.messages.stream(**asked) as stream:
            events = [event.to_dict() async for event in stream]
            assert label(stream.response) == expected
            seen.append((events, (await stream.get_final_message()).to_dict()))
    assert seen[1] == seen[0]


def test_raw_stream_sees_the_same_events(stage: Stage, client: anthropic.Anthropic) -> None:
    events = wire.stream(BLOCKS, tokens=TOKENS)
    stage.upstream.script(sse_reply(events))
    asked = question(stage)
    seen = []
    for expected in ("MISS", "HIT"):
        with client.messages.create(**asked, stream=True) as stream:
            assert label(stream.response) == expected
            seen.append([event.to_dict() for event in stream])
    assert seen[1] == seen[0]
    assert len(seen[0]) == len(events) - 1  # the client keeps the ping to itself


async def test_async_raw_stream_sees_the_same_events(
    stage: Stage, async_client: anthropic.AsyncAnthropic
) -> None:
    stage.upstream.script(sse_reply(wire.stream(BLOCKS, tokens=TOKENS)))
    asked = question(stage)
    seen = []
    for expected in ("MISS", "HIT"):
        async with await async_client.messages.create(**asked, stream=True) as stream:
            assert label(stream.response) == expected
            seen.append([event.to_dict() async for event in stream])
    assert seen[1] == seen[0]


def test_sync_and_async_clients_share_an_entry(stage: Stage, client: anthropic.Anthropic) -> None:
    """What differs between the clients' headers (x-stainless-*, user-agent) is in no key."""
    stage.upstream.script(json_reply(wire.message()))
    asked = question(stage)
    client.messages.create(**asked)
    other = client.with_options(
        timeout=17, default_headers={"user-agent": "another", "x-stainless-lang": "none"}
    )
    assert label(other.messages.with_raw_response.create(**asked)) == "HIT"


def test_count_tokens_is_cached_apart_from_messages(
    stage: Stage, client: anthropic.Anthropic
) -> None:
    """BAR 2: one body asked at two endpoints has two answers."""
    asked = question(stage)
    counted = {key: value for key, value in asked.items() if key != "max_tokens"}
    stage.upstream.script(json_reply(wire.count_tokens(41)), json_reply(wire.message("no count")))
    miss = client.messages.with_raw_response.count_tokens(**counted)
    hit = client.messages.with_raw_response.count_tokens(**counted)
    assert (label(miss), label(hit)) == ("MISS", "HIT")
    assert hit.parse() == miss.parse()
    assert hit.parse().input_tokens == 41
    body = hit.http_request.content
    assert stage.proxy.ask(body).header("x-cache") == "MISS"
    assert stage.proxy.ask(body).body == wire.message("no count")


ERRORS: dict[int, tuple[str, type[anthropic.APIStatusError]]] = {
    400: ("invalid_request_error", anthropic.BadRequestError),
    401: ("authentication_error", anthropic.AuthenticationError),
    403: ("permission_error", anthropic.PermissionDeniedError),
    404: ("not_found_error", anthropic.NotFoundError),
    413: ("request_too_large", anthropic.APIStatusError),
    429: ("rate_limit_error", anthropic.RateLimitError),
    500: ("api_error", anthropic.InternalServerError),
    529: ("overloaded_error", anthropic.InternalServerError),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("status", ERRORS)
def test_error_raises_the_same_exception_as_without_the_proxy(
    stage: Stage, client: anthropic.Anthropic, status: int, streamed: bool
) -> None:
    """BAR 10, 20: errors come through with status and body, are counted as errors, never stored."""
    kind, _ = ERRORS[status]
    headers = (*wire.RESPONSE_HEADERS, ("retry-after", "17"), ("x-should-retry", "false"))
    reply = json_reply(wire.error(kind, f"It is a {kind}."), status, headers)
    stage.upstream.script(reply, reply, reply)
    asked = question(stage)
    before = stage.proxy.stats()
    caught: list[anthropic.APIStatusError] = []
    for base_url in (stage.upstream.url, stage.proxy.url, stage.proxy.url):
        with pytest.raises(ERRORS[status][1]) as raised:
            client.with_options(base_url=base_url).messages.create(**asked, stream=streamed)
        caught.append(raised.value)
    direct, first, second = caught
    for error in (first, second):
        assert type(error) is type(direct)
        assert error.message == direct.message
        assert error.body == direct.body
        assert error.status_code == direct.status_code == status
        assert error.request_id == direct.request_id == "req_011CSHoEeqs5C35K2UUqR7Fy"
        assert error.response.content == direct.response.content
        assert error.response.headers["retry-after"] == "17"
        assert label(error.response) == "MISS"
    after = stage.proxy.stats()
    assert after["errors"] == before["errors"] + 2
    assert after["misses"] == before["misses"]
    assert after["entries"] == before["entries"]


def test_client_that_retries_gets_the_answer_after_an_error(
    stage: Stage, client: anthropic.Anthropic
) -> None:
    """An error that passed isn't in the way of the retry."""
    overloaded = json_reply(wire.error("overloaded_error"), 529, (("retry-after-ms", "1"),))
    stage.upstream.script(overloaded, json_reply(wire.message("at last")))
    asked = question(stage)
    message = client.with_options(max_retries=1).messages.with_raw_response.create(**asked)
    assert (label(message), message.parse().content[0].to_dict()["text"]) == ("MISS", "at last")
    assert label(client.messages.with_raw_response.create(**asked)) == "HIT"


# On the wire

REAL_HEADERS = (
    ("date", "Tue, 01 Jul 2025 10:00:00 GMT"),
    ("cf-ray", "9581b3a0fc1f3d2c-ZRH"),
    ("anthropic-ratelimit-requests-reset", "2025-07-01T10:00:00Z"),
    ("request-id", "req_011CSHoEeqs5C35K2UUqR7Fy"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
    ("anthropic-organization-id", "5e7c1f0a-3a52-4c8e-9a54-0f7a9d1f2b11"),
    ("server-timing", "x-originResponse;dur=1202"),
    ("alt-svc", 'h3=":443"; ma=86400'),
    ("via", "1.1 google"),
    ("via", "1.1 another"),
    ("cf-cache-status", "DYNAMIC"),
    ("x-robots-tag", "none"),
    ("server", "cloudflare"),
    ("x-empty", ""),
    ("x-latin", "caf\xe9"),
)
"""An answer's headers as the real API sends them, with a few odd ones."""


def jsons() -> dict[str, bytes]:
    spaced = b' {\n  "type": "message",\n "stop_reason": "end_turn", "content": []}\r\n '
    return {
        "small": wire.message(),
        "blocks": wire.message(BLOCKS, tokens=TOKENS),
        "escapes and spaces": spaced,
        "large": wire.message_of_size(1 << 20),
    }


@pytest.mark.parametrize("framing", FRAMINGS, ids=lambda f: f.value)
@pytest.mark.parametrize("document", jsons().values(), ids=jsons().keys())
def test_json_hit_equals_its_miss_on_the_wire(
    stage: Stage, document: bytes, framing: Framing
) -> None:
    """BAR 12: a hit keeps every end-to-end header, in order."""
    headers = (("content-type", "application/json"), *REAL_HEADERS)
    miss, hit = stage.twice(Reply(headers=headers, body=(document,), framing=framing))
    assert_same(miss, hit)
    assert miss.body == document
    names = [name for name, _ in shown(miss) if name not in ("content-length", "transfer-encoding")]
    assert names == [name for name, _ in headers if name != "date"]
    sized = framing is Framing.LENGTH
    assert hit.header("content-length") == (str(len(document)) if sized else None)
    assert hit.header("transfer-encoding") == (None if sized else "chunked")


@pytest.mark.parametrize("framing", FRAMINGS, ids=lambda f: f.value)
@pytest.mark.parametrize("blocks", ANSWERS.values(), ids=ANSWERS.keys())
def test_streamed_hit_equals_its_miss_on_the_wire(
    stage: Stage, blocks: list[wire.Json] | str, framing: Framing
) -> None:
    """BAR 12, 14: a streamed answer is replayed whole, as the stream it was."""
    events = wire.stream(blocks, tokens=TOKENS)
    headers = (("content-type", "text/event-stream; charset=utf-8"), *REAL_HEADERS)
    miss, hit = stage.twice(
        Reply(headers=headers, body=tuple(events), framing=framing), body=stage.body(stream=True)
    )
    assert_same(miss, hit)
    assert miss.body == b"".join(events)


def test_line_ends_and_comments_of_a_stream_are_kept(stage: Stage) -> None:
    """What a client may not see is replayed as well: CRLF, CR, comments, ids, a byte order mark."""
    events = b"".join(wire.stream("Hi")).replace(b"\n", b"\r\n")
    odd = b"\xef\xbb\xbf: hello\r\n\r\n" + events + b": bye\r\r"
    miss, hit = stage.twice(sse_reply([odd]), body=stage.body(stream=True))
    assert_same(miss, hit)
    assert hit.body == odd


def test_cookies_and_hop_headers_are_not_replayed(stage: Stage) -> None:
    """RFC 9110 7.6.1: what one connection needs stays on it; a cookie is for its first receiver."""
    reply = json_reply(
        wire.message(),
        headers=(
            ("set-cookie", "session=first"),
            ("connection", "x-private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("age", "300"),
            ("x-cache", "HIT from elsewhere"),
            ("x-cache-key", "0"),
            ("x-cache-hits", "3"),
        ),
    )
    miss, hit = stage.twice(reply)
    assert miss.header("set-cookie") == "session=first"
    assert hit.header("set-cookie") is None
    for response in (miss, hit):
        names = {name for name, _ in response.headers}
        assert not names & {"x-private", "keep-alive", "proxy-authenticate", "x-cache-hits"}
    assert int(hit.header("age") or "-1") < 60


def test_both_lengths_from_upstream_leave_one(stage: Stage) -> None:
    """RFC 9112 6.3: Transfer-Encoding overrides Content-Length, which must not be passed on."""
    document = wire.message()
    reply = Reply(
        headers=(("content-type", "application/json"), ("content-length", "7")),
        body=(document,),
        framing=Framing.CHUNKED,
    )
    miss, hit = stage.twice(reply)
    assert_same(miss, hit)
    assert miss.body == document
    assert miss.header("content-length") is None


def test_repeated_equal_lengths_from_upstream_are_one(stage: Stage) -> None:
    """RFC 9110 8.6: a repeated equal Content-Length counts as one."""
    document = wire.message()
    length = ("content-length", str(len(document)))
    reply = replace(json_reply(document), headers=(("content-type", "application/json"), length))
    miss, hit = stage.twice(reply)
    assert_same(miss, hit)
    assert miss.header("content-length") == str(len(document))


def test_hit_after_a_restart_equals_its_miss(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From the disk and from memory: the same."""
    folder = tmp_path_factory.mktemp("restart")
    headers = (("content-type", "text/event-stream"), *REAL_HEADERS)
    with running_stage(folder) as own:
        body = own.body(stream=True)
        reply = Reply(headers=headers, body=tuple(wire.stream(BLOCKS)), framing=Framing.CHUNKED)
        miss, hit = own.twice(reply, body=body)
        own.proxy.stop()
        own.proxy.start()
        from_disk, from_memory = own.proxy.ask(body), own.proxy.ask(body)
        assert own.upstream.call_count == 1
    for later in (hit, from_disk, from_memory):
        assert_same(miss, later)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_repeat_after_the_last_byte_never_calls_upstream_again(
    stage: Stage, streamed: bool
) -> None:
    """BAR 1: 200 times, on one connection, without a pause: storing comes before the end."""
    with stage.proxy.connect(deadline=60) as connection:
        for _ in range(200):
            body = stage.body(stream=streamed)
            stage.upstream.script(
                sse_reply(wire.stream()) if streamed else json_reply(wire.message())
            )
            before = stage.upstream.call_count
            first = connection.request("POST", "/v1/messages", HEADERS, body)
            first.read_all()
            second = connection.request("POST", "/v1/messages", HEADERS, body)
            assert second.read_all() == first.body
            assert second.header("x-cache") in ("HIT", "HIT-COALESCED")
            assert stage.upstream.call_count == before + 1


@pytest.mark.parametrize("made", ["plain", "streamed"])
def test_repeat_before_the_upstreams_end_joins_the_call(stage: Stage, made: str) -> None:
    """BAR 1, 4: every byte has come, only the upstream's end hasn't: a repeat joins, live."""
    gate = Gate()
    pieces = wire.stream() if made == "streamed" else [wire.message()]
    kind = "text/event-stream" if made == "streamed" else "application/json"
    stage.upstream.script(
        Reply(headers=(("content-type", kind),), body=(*pieces, gate), framing=Framing.CHUNKED)
    )
    body = stage.body(stream=made == "streamed")
    before = stage.upstream.call_count
    whole = b"".join(pieces)
    with stage.proxy.connect() as one, stage.proxy.connect() as two:
        first = one.request("POST", "/v1/messages", HEADERS, body)
        assert first.read(len(whole)) == whole
        second = two.request("POST", "/v1/messages", HEADERS, body)
        assert second.read(len(whole)) == whole
        gate.release()
        assert (first.read_all(), first.complete) == (whole, True)
        assert (second.read_all(), second.complete) == (whole, True)
    assert second.header("x-cache") == "HIT-COALESCED"
    assert stage.upstream.call_count == before + 1
    assert stage.proxy.ask(body).header("x-cache") == "HIT"


def test_the_reason_phrase_of_the_upstream_reaches_the_client_and_is_replayed(
    upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy()

    def status_line(target: str = "/v1/messages") -> bytes:
        with one.connect() as connection:
            answer = connection.request("POST", target, anthropic_headers(), wire.request())
            answer.read_all()
        return answer.head.split(b"\r\n")[0]

    upstream.script(
        replace(json_reply(wire.error(), 400), reason="Bad Request"),
        replace(json_reply(wire.message()), reason="Quite Fine"),
    )
    assert status_line() == b"HTTP/1.1 400 Bad Request"
    assert [status_line() for _ in range(3)] == [b"HTTP/1.1 200 Quite Fine"] * 3
    assert status_line("/v1/./messages") == b"HTTP/1.1 400 Bad Request"  # our own
    assert upstream.call_count == 2
