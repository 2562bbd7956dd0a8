"""One request and its answer, in process: no server, no process of ours, a real upstream."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import anthropic_wire as wire
from support import gemini_wire, openai_wire
from support.inside import Inside, inside, taken
from support.replies import Cut, Framing, Gate, Reply, at_byte, json_reply, sse_reply
from support.upstream import Upstream

from llm_cache.errors import StoreError
from llm_cache.exchange import landing
from llm_cache.exchange.bodies import ClientGone
from llm_cache.exchange.calls import Kind
from llm_cache.exchange.entries import AskedAs, Meta
from llm_cache.exchange.flights import FlightFailed
from llm_cache.exchange.heads import Refused
from llm_cache.wire.framing import strict_json

ASKED = wire.request("hello")


def normalizing(home: Path, rules: object) -> None:
    """Make the home's normalize.json."""
    home.mkdir()
    (home / "normalize.json").write_text(json.dumps(rules))


async def none_in_flight(cache: Inside) -> None:
    """Wait until every flight has ended."""
    async with asyncio.timeout(10):
        while len(cache.exchange.flights):  # noqa: ASYNC110  # flights tell nobody of their end
            await asyncio.sleep(0)


async def test_a_repeat_is_a_hit_with_the_same_bytes_and_no_call(
    home: Path, upstream: Upstream
) -> None:
    upstream.default = json_reply(wire.message("Hello!"), headers=(("request-id", "r1"),))
    async with inside(home, upstream.url) as cache:
        miss = await cache.ask(ASKED)
        hit = await cache.ask(ASKED)
        assert (miss.label, hit.label) == ("MISS", "HIT")
        assert (hit.status, hit.body) == (200, miss.body)
        assert hit.header("request-id") == "r1"
        assert hit.header("x-cache-key") == miss.header("x-cache-key")
        assert hit.header("age") == "0"
        figures = await cache.figures()
        assert (figures["calls"], figures["hits"], figures["misses"]) == (2, 1, 1)
        assert figures["tokens_saved"] == figures["tokens_spent"] > 0
        assert figures["usd_saved"] == figures["usd_spent"] > 0
    assert upstream.call_count == 1


async def test_what_was_stored_is_found_by_the_next_one_who_opens_the_store(
    home: Path, upstream: Upstream
) -> None:
    upstream.default = sse_reply(wire.stream("Hello, how are you?"))
    streamed = wire.request("hello", stream=True)
    async with inside(home, upstream.url) as cache:
        miss = await cache.ask(streamed)
    async with inside(home, upstream.url) as cache:
        hit = await cache.ask(streamed)
    assert (hit.label, hit.body) == ("HIT", miss.body)
    assert upstream.call_count == 1


async def test_every_tier_finds_what_it_ignores_the_difference_to(
    home: Path, upstream: Upstream
) -> None:
    rules = {"message_strip": ["id=[0-9]+"], "suffix_only": True, "suffix_turns": 1}
    normalizing(home, rules)
    upstream.default = json_reply(wire.message("Hello!"))
    talk = [
        {"role": "user", "content": "id=1 What is up?"},
        {"role": "assistant", "content": "Not much."},
        {"role": "user", "content": "Say hello."},
    ]
    doc = json.loads(wire.request("x"))
    asked = wire.dump({**doc, "messages": talk})
    spelled = json.dumps(json.loads(asked), indent=2).encode()
    stripped = asked.replace(b"id=1", b"id=22")
    suffix = wire.dump({**doc, "messages": talk[-1:]})
    other = wire.dump({**doc, "messages": [{"role": "user", "content": "Say bye."}]})
    async with inside(home, upstream.url) as cache:
        assert (await cache.ask(asked)).label == "MISS"
        labels = [(await cache.ask(body)).label for body in (asked, spelled, stripped, suffix)]
        assert labels == ["HIT", "HIT-NORM", "HIT-NORM", "HIT-SUFFIX"]
        assert (await cache.ask(other)).label == "MISS"
    assert upstream.call_count == 2


async def test_an_answer_is_found_in_either_form_when_that_is_wanted(
    home: Path, upstream: Upstream
) -> None:
    upstream.default = sse_reply(wire.stream("Hello, how are you?"))
    async with inside(home, upstream.url, CACHE_CROSS_STREAM="1") as cache:
        assert (await cache.ask(wire.request("hello", stream=True))).label == "MISS"
        plain = await cache.ask(ASKED)
        assert plain.label == "HIT-NORM"
        assert json.loads(plain.body)["content"][0]["text"] == "Hello, how are you?"
    assert upstream.call_count == 1


async def test_who_joins_a_stream_gets_what_has_come_at_once_and_then_follows_it_live(
    home: Path, upstream: Upstream
) -> None:
    gate = Gate()
    pieces = wire.stream("Hello, how are you?")
    upstream.default = sse_reply([*pieces[:3], gate, *pieces[3:]])
    streamed = wire.request("hello", stream=True)
    async with inside(home, upstream.url) as cache:
        first = await cache.begin(streamed)
        await first.begin()
        await asyncio.to_thread(gate.wait_reached)
        joined = await cache.begin(streamed)
        await joined.begin()
        seen = b""
        while len(seen) < len(b"".join(pieces[:3])):
            seen += await joined.next()
        assert seen == b"".join(pieces[:3])
        gate.release()
        whole = await taken(first)
        rest = await taken(joined)
        assert dict(joined.headers)[b"x-cache"] == b"HIT-COALESCED"
        assert seen + rest.body == whole.body == b"".join(pieces)
        figures = await cache.figures()
        assert (figures["hits"], figures["coalesced"], figures["misses"]) == (1, 1, 1)
    assert upstream.call_count == 1


async def test_no_chunk_waits_for_a_guess_about_the_end(
    home: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemini may put a `finishReason` into every chunk."""
    monkeypatch.setattr(landing, "END_WAIT_SEC", 3600.0)
    chunk = gemini_wire.document([gemini_wire.candidate([gemini_wire.text("Hi")])])
    pieces = gemini_wire.sse([chunk] * 3)
    gates = [Gate(), Gate(), Gate()]
    steps = [step for pair in zip(pieces, gates, strict=True) for step in pair]
    upstream.default = sse_reply(steps)
    path = "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse"
    async with inside(home, upstream.url, CACHE_UPSTREAM_GEMINI=upstream.url) as cache:
        reply = await cache.begin(gemini_wire.request(), path=path)
        await reply.begin()
        async with asyncio.timeout(20):
            for piece, gate in zip(pieces, gates, strict=True):
                assert await reply.next() == piece
                gate.release()
            assert await reply.next() == b""
        reply.close()
        assert (await cache.ask(gemini_wire.request(), path=path)).label == "HIT"


async def test_a_joiner_outlives_the_one_who_led(home: Path, upstream: Upstream) -> None:
    gate = Gate()
    upstream.default = Reply(
        body=(gate, wire.message("Hello!")),
        framing=Framing.CHUNKED,
        headers=(("content-type", "application/json"),),
    )
    async with inside(home, upstream.url) as cache:
        first = await cache.begin(ASKED)
        second = asyncio.ensure_future(cache.ask(ASKED))
        await asyncio.to_thread(gate.wait_reached)
        first.close()
        gate.release()
        assert (await second).body == wire.message("Hello!")
        assert (await cache.ask(ASKED)).label == "HIT"
    assert upstream.call_count == 1


async def test_when_everybody_has_left_the_upstream_call_ends(
    home: Path, upstream: Upstream
) -> None:
    gate = Gate()
    upstream.default = Reply(body=(b"x" * 10, gate), framing=Framing.CHUNKED)
    async with inside(home, upstream.url) as cache:
        reply = await cache.begin(ASKED)
        await reply.begin()
        assert await reply.next() == b"x" * 10
        reply.close()
        await asyncio.to_thread(upstream.calls[0].wait_closed)
        gate.release()
        await none_in_flight(cache)
        assert (await cache.figures())["misses"] == 1


async def test_an_answer_that_breaks_off_is_cut_and_not_stored(
    home: Path, upstream: Upstream
) -> None:
    whole = wire.message("Hello!")
    upstream.script(Reply(body=at_byte([whole], 20, Cut())))
    upstream.default = json_reply(whole)
    async with inside(home, upstream.url) as cache:
        reply = await cache.begin(ASKED)
        await reply.begin()
        with pytest.raises(FlightFailed):
            await taken(reply)
        assert (await cache.ask(ASKED)).label == "MISS"
        figures = await cache.figures()
        assert (figures["errors"], figures["misses"]) == (1, 1)


async def test_an_upstream_s_refusal_is_an_error_to_everybody_who_counts(
    home: Path, upstream: Upstream
) -> None:
    upstream.default = json_reply(wire.error("authentication_error", "no"), 401)
    async with inside(home, upstream.url) as cache:
        assert [(await cache.ask(ASKED)).status for _ in range(2)] == [401, 401]
        figures = await cache.figures()
        assert (figures["errors"], figures["misses"]) == (2, 0)
        assert cache.kinds == [Kind.ERROR, Kind.ERROR]
    assert upstream.call_count == 2


async def test_a_refusal_whose_body_nobody_takes_counts_as_the_error_it_was(
    home: Path, upstream: Upstream
) -> None:
    gate = Gate()
    upstream.default = Reply(status=429, body=(b"{", gate, b"}"), framing=Framing.CHUNKED)
    async with inside(home, upstream.url) as cache:
        reply = await cache.begin(ASKED)
        await reply.begin()
        assert reply.status == 429
        reply.close()
        await asyncio.to_thread(upstream.calls[0].wait_closed)
        gate.release()
        assert (await cache.figures())["errors"] == 1
        [call] = cache.heard.calls
        assert (call.kind, call.status) == (Kind.ERROR, 429)


async def test_each_mode_does_what_it_says(home: Path, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message("Hello!"))
    async with inside(home, upstream.url) as cache:

        async def labels(*modes: str) -> list[str | None]:
            return [(await cache.ask(ASKED, {"x-cache-mode": mode})).label for mode in modes]

        assert await labels("bypass", "cache", "cache", "fresh", "replay") == [
            *("BYPASS", "MISS", "HIT", "MISS", "HIT")
        ]
        missed = await cache.ask(wire.request("never asked"), {"x-cache-mode": "replay"})
        assert (missed.status, missed.label) == (504, "MISS")
        assert missed.header("x-should-retry") == "false"
        assert missed.header("x-cache-key") in missed.body.decode()
        cache.exchange.off = True
        assert await labels("cache", "replay") == ["BYPASS", "HIT"]
    assert upstream.call_count == 4


async def test_a_bypass_in_the_body_is_taken_out_before_forwarding(
    home: Path, upstream: Upstream
) -> None:
    upstream.default = json_reply(wire.message("Hello!"))
    asked = ASKED[:-1] + b',"_cache_bypass":true}'
    async with inside(home, upstream.url) as cache:
        assert (await cache.ask(asked)).label == "BYPASS"
    assert upstream.calls[0].request.body == ASKED


async def test_a_request_is_parsed_once_whatever_is_switched_on(
    home: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalizing(home, {"message_strip": ["x+"], "suffix_only": True})
    upstream.default = json_reply(wire.message("Hello!"))
    parsed: list[bytes] = []
    parse = strict_json.parse

    def counted(body: bytes) -> object:
        parsed.append(body)
        return parse(body)

    settings = {"CACHE_CROSS_STREAM": "1", "CACHE_TTL_DETERMINISTIC_SEC": "60"}
    async with inside(home, upstream.url, **settings) as cache:
        monkeypatch.setattr(strict_json, "parse", counted)
        assert (await cache.ask(ASKED)).label == "MISS"
    assert parsed == [ASKED]


@pytest.mark.parametrize(
    "state",
    [
        {"conversation": "conv_1"},
        {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
    ],
)
async def test_an_answer_that_leans_on_state_elsewhere_is_not_stored(
    home: Path, upstream: Upstream, state: dict[str, object]
) -> None:
    """Though nothing in the answer tells of it."""
    document = openai_wire.response_document("Hello!")
    upstream.default = json_reply(openai_wire.dump(document))
    asked = openai_wire.dump({"model": openai_wire.MODEL, "input": "hello", **state})
    async with inside(home, upstream.url) as cache:
        for _ in range(2):
            assert (await cache.ask(asked, path="/v1/responses")).label == "MISS"
        assert cache.heard.calls[0].note


class Upload:
    """A body that is made as it is read."""

    length = None

    def __init__(self, pieces: int, *, gone_after: int | None = None) -> None:
        self.read = 0
        self._pieces = pieces
        self._gone_after = gone_after

    async def whole(self, limit: int) -> bytes:
        raise AssertionError("what is never cached is not read whole")

    async def pieces(self) -> AsyncIterator[bytes]:
        for number in range(self._pieces):
            if number == self._gone_after:
                raise ClientGone
            self.read += 1
            yield b"x" * 1000


async def test_what_is_never_cached_goes_up_as_it_comes_and_has_no_key(
    home: Path, upstream: Upstream
) -> None:
    upstream.default = json_reply(b"{}")
    async with inside(home, upstream.url, CACHE_MAX_REQUEST_BYTES="1000") as cache:
        upload = Upload(50)
        answer = await cache.ask(upload, path="/v1/files")
        assert (answer.status, answer.label) == (200, "PASS")
        assert answer.header("x-cache-key") is None
        assert upload.read == 50
    assert upstream.calls[0].request.body == b"x" * 50_000


async def test_an_upload_whose_client_leaves_is_given_up(home: Path, upstream: Upstream) -> None:
    async with inside(home, upstream.url) as cache:
        with pytest.raises(Refused):
            await cache.ask(Upload(50, gone_after=3), path="/v1/files")
        await none_in_flight(cache)
        assert cache.heard.problems == []


async def test_a_failing_store_costs_a_line_and_never_the_answer(
    home: Path, upstream: Upstream
) -> None:
    upstream.default = json_reply(wire.message("Hello!"))
    async with inside(home, upstream.url) as cache:
        await asyncio.to_thread(cache.store.close)
        assert [(await cache.ask(ASKED)).label for _ in range(2)] == ["MISS", "MISS"]
        assert any(text.startswith("store: ") for text in cache.heard.problems)
        assert cache.exchange.journal.store_failures > 0
        with pytest.raises(StoreError):
            cache.store.totals()


async def test_an_entry_tells_what_its_keys_were_made_of_and_how_it_came_in(
    home: Path, upstream: Upstream
) -> None:
    pieces = wire.stream("Hello, how are you?")
    upstream.default = sse_reply(pieces)
    fields = {
        "anthropic-version": "2023-06-01",
        "x-portkey-api-key": "pk-secret",
        "x-cache-namespace": "suite",
        "x-cache-sample": "3",
    }
    async with inside(home, upstream.url) as cache:
        asked = wire.request("hello", stream=True)
        await cache.ask(asked, fields, path="/v1/messages?beta=true&api_key=secret")
        [(_, entry)] = await asyncio.to_thread(lambda: list(cache.store.entries()))
    meta = Meta.decode(entry.meta)
    assert meta.request == AskedAs(
        method="POST",
        target="/v1/messages?beta=true&api_key=...",
        upstream=upstream.url,
        headers=(("anthropic-version", "2023-06-01"),),
        withheld=("x-portkey-api-key",),
        namespace="suite",
        sample="3",
        credential="client",
    )
    assert b"secret" not in entry.meta
    assert b"sk-ant" not in entry.meta
    assert (meta.status, meta.reason) == (200, "OK")
    assert meta.first_ms is not None
    assert sum(size for size, _ in meta.chunks) == sum(map(len, pieces))


@pytest.mark.process
def test_it_needs_neither_a_server_nor_the_command_line(home: Path, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message("Hello!"))
    code = f"""
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from support.inside import inside
async def main():
    async with inside(Path({str(home)!r}), {upstream.url!r}) as cache:
        print(*[(await cache.ask({ASKED!r})).label for _ in range(2)])
asyncio.run(main())
print(*sorted({{name.partition('.')[0] for name in sys.modules}} & {{'hypercorn', 'typer'}}))
print(*sorted(n for n in sys.modules if n.startswith(('llm_cache.server', 'llm_cache.host'))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ["MISS HIT", "", ""]
