"""A request whose body has a content coding (Codex sends zstd): understood without it, forwarded
as it came."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from support import anthropic_wire as wire
from support.inside import inside
from support.replies import json_reply
from support.upstream import Upstream

ASKED = wire.request("hello")
RESPELLED = json.dumps(json.loads(ASKED), indent=1).encode()

Coder = Callable[[bytes], bytes]
CODERS: dict[str, Coder] = {
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "deflate": zlib.compress,
}


@pytest.mark.parametrize("coding", CODERS)
async def test_a_coded_request_is_the_question_that_it_is_without_its_coding(
    home: Path, upstream: Upstream, coding: str
) -> None:
    upstream.default = json_reply(wire.message("Hello!"))
    fields = {"content-encoding": coding}
    code = CODERS[coding]
    async with inside(home, upstream.url) as cache:
        assert (await cache.ask(code(ASKED), fields)).label == "MISS"
        assert (await cache.ask(code(ASKED), fields)).label == "HIT"
        assert (await cache.ask(ASKED)).label == "HIT"
        assert (await cache.ask(code(RESPELLED), fields)).label == "HIT-NORM"
        [(_, entry)] = await asyncio.to_thread(lambda: list(cache.store.entries()))
        assert await asyncio.to_thread(cache.store.request_body, entry) == ASKED
    [call] = upstream.calls
    assert call.request.body == code(ASKED)
    assert call.request.header("content-encoding") == coding


async def test_a_bypass_inside_a_coded_body_is_seen_and_taken_out(
    home: Path, upstream: Upstream
) -> None:
    upstream.default = json_reply(wire.message("Hello!"))
    asked = ASKED[:-1] + b',"_cache_bypass":true}'
    async with inside(home, upstream.url) as cache:
        answer = await cache.ask(CODERS["zstd"](asked), {"content-encoding": "zstd"})
        assert answer.label == "BYPASS"
    [call] = upstream.calls
    assert call.request.body == ASKED
    assert call.request.header("content-encoding") is None


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("zstd", b"not zstd at all"),
        ("gzip", CODERS["gzip"](ASKED)[:-9]),
        ("unheard-of", ASKED),
    ],
)
async def test_a_coding_that_can_not_be_undone_passes_as_it_came_and_is_a_part_of_the_key(
    home: Path, upstream: Upstream, coding: str, body: bytes
) -> None:
    upstream.default = json_reply(wire.message("Hello!"))
    fields = {"content-encoding": coding}
    async with inside(home, upstream.url) as cache:
        assert [(await cache.ask(body, fields)).label for _ in range(2)] == ["MISS", "HIT"]
        assert (await cache.ask(body)).label == "MISS"
    assert [call.request.body for call in upstream.calls] == [body, body]
    assert upstream.calls[0].request.header("content-encoding") == coding


async def test_where_a_coding_s_name_ends_and_the_body_begins_is_in_the_key(
    home: Path, upstream: Upstream
) -> None:
    upstream.default = json_reply(wire.message("Hello!"))
    asked = [("ab", b"c"), ("a", b"bc"), (None, b"content-encodingabc"), (None, b"abc")]
    async with inside(home, upstream.url) as cache:
        keys = set()
        for coding, body in asked:
            answer = await cache.ask(body, {"content-encoding": coding} if coding else {})
            assert answer.label == "MISS"
            keys.add(answer.header("x-cache-key"))
    assert len(keys) == len(asked)


async def test_a_bomb_is_not_unpacked(home: Path, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message("Hello!"))
    bomb = CODERS["zstd"](b"[" * (200 << 20))
    limit = 1 << 20
    async with inside(home, upstream.url, CACHE_MAX_REQUEST_BYTES=str(limit)) as cache:
        tracemalloc.start()
        try:
            answer = await cache.ask(bomb, {"content-encoding": "zstd"})
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert answer.status == 200
        assert peak < 16 * limit
    assert upstream.calls[0].request.body == bomb
