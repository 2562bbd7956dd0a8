"""Comments to the client of a stream whose upstream is silent."""

from __future__ import annotations

from typing import Any

from support import anthropic_wire as wire
from support.proxy import Proxy, anthropic_headers
from support.replies import Gate, sse_reply
from support.upstream import Upstream

from llm_cache.server.replies import KEEP_ALIVE


def test_a_silent_stream_is_kept_alive_by_comments_that_are_never_stored(
    upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy(CACHE_SSE_KEEPALIVE_SEC="1")
    pieces = wire.stream("Hello, how are you?")
    gate, middle = Gate(), Gate()
    torn = pieces[2]
    upstream.default = sse_reply([*pieces[:2], gate, torn[:9], middle, torn[9:], *pieces[3:]])
    asked = wire.request("hello", stream=True)
    with one.connect() as connection:
        answer = connection.request("POST", "/v1/messages", anthropic_headers(), asked)
        so_far = b"".join(pieces[:2])
        answer.read(len(so_far + KEEP_ALIVE * 2))
        assert answer.body == so_far + KEEP_ALIVE * 2
        gate.release()
        middle.wait_reached()
        middle.release()
        answer.read_all()
    assert answer.body == so_far + KEEP_ALIVE * answer.body.count(KEEP_ALIVE) + b"".join(pieces[2:])
    hit = one.ask(asked)
    assert (hit.header("x-cache"), hit.body) == ("HIT", b"".join(pieces))
