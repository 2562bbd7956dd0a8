"""One stored answer for a request and its streamed twin (CACHE_CROSS_STREAM): which request gets
it, and which doesn't. That official clients make equal messages of both is in
`tests/server/test_cross_stream.py`."""

from __future__ import annotations

import gzip
import json
from typing import Any

from support import anthropic_wire as claude
from support import openai_wire as gpt
from support.aging import age
from support.cache import CacheFactory
from support.replies import Framing, Reply, gzip_reply, json_reply, sse_reply
from support.upstream import Upstream

CLAUDE_STREAM = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    *claude.RESPONSE_HEADERS,
)
ASKED: dict[str, Any] = {
    "model": claude.MODEL,
    "max_tokens": 2000,
    "messages": [{"role": "user", "content": "What is the weather?"}],
}
ON = {"CACHE_CROSS_STREAM": "1"}


def streamed(events: list[bytes]) -> Reply:
    return Reply(headers=CLAUDE_STREAM, body=tuple(events), framing=Framing.CHUNKED)


def test_each_form_has_its_own_answer_when_both_are_stored(
    upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache(**ON)
    plain, stream = claude.dump(ASKED), claude.dump({**ASKED, "stream": True})
    no_stream = claude.dump({**ASKED, "stream": False})
    upstream.script(
        json_reply(claude.message("one")), streamed(claude.stream("two")), json_reply(b"{}", 500)
    )
    assert one.ask(plain).header("x-cache") == "MISS"
    assert one.ask(stream, {"x-cache-mode": "fresh"}).header("x-cache") == "MISS"
    for body, label, text in (
        (plain, "HIT", b"one"),
        (stream, "HIT", b"two"),
        (no_stream, "HIT-NORM", b"two"),  # the newest in either form
    ):
        answer = one.ask(body)
        assert (answer.header("x-cache"), text in answer.body) == (label, True)
    assert upstream.call_count == 2


def test_other_parameters_still_split_the_answers(upstream: Upstream, cache: CacheFactory) -> None:
    one = cache(**ON)
    upstream.default = json_reply(claude.message("one"))
    one.ask(claude.dump(ASKED))
    for changed in ({"temperature": 0.5}, {"max_tokens": 1}, {"system": "x"}, {"stream": "yes"}):
        body = claude.dump({**ASKED, "stream": True, **changed})
        assert one.ask(body).header("x-cache") == "MISS"
    assert (
        one.ask(claude.dump({**ASKED, "stream": True}), {"x-api-key": "other"}).header("x-cache")
        == "MISS"
    )


def test_what_is_not_understood_is_a_miss(upstream: Upstream, cache: CacheFactory) -> None:
    one = cache(**ON)
    upstream.script(
        json_reply(claude.message([{"type": "poem", "lines": 4}])),
        streamed(claude.stream("asked again")),
    )
    assert one.ask(claude.dump(ASKED)).header("x-cache") == "MISS"
    answer = one.ask(claude.dump({**ASKED, "stream": True}))
    assert answer.header("x-cache") == "MISS"
    assert b"asked again" in answer.body or b"asked " in answer.body


def test_a_compressed_answer_is_given_in_the_other_form_too(
    upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache(**ON)
    upstream.script(gzip_reply(json_reply(claude.message("Hello"))))
    first = one.ask(claude.dump(ASKED), {"accept-encoding": "gzip"})
    assert gzip.decompress(first.body) == claude.message("Hello")
    answer = one.ask(claude.dump({**ASKED, "stream": True}), {"accept-encoding": "gzip"})
    assert (answer.header("x-cache"), answer.header("content-encoding")) == ("HIT-NORM", None)
    assert answer.body.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


def test_ages_and_ttls_hold_for_the_other_form(upstream: Upstream, cache: CacheFactory) -> None:
    one = cache(**ON, CACHE_TTL_SEC="3600")
    upstream.script(json_reply(claude.message("Hello")), streamed(claude.stream("New")))
    one.ask(claude.dump(ASKED))
    stream = claude.dump({**ASKED, "stream": True})
    age(one, 1800)
    assert int(one.ask(stream).header("age") or 0) >= 1800
    age(one, 1800)
    assert one.ask(stream).header("x-cache") == "MISS"


def test_the_figures_count_it_as_a_hit_with_its_tokens(
    upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache(**ON)
    upstream.script(json_reply(claude.message("Hello", tokens=claude.usage(100, 20))))
    one.ask(claude.dump(ASKED))
    one.ask(claude.dump({**ASKED, "stream": True}))
    figures = one.stats()
    assert (figures["hits"], figures["misses"], figures["tokens_saved"]) == (1, 1, 120)


def test_by_default_the_forms_do_not_answer_for_each_other(
    upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    upstream.script(json_reply(claude.message("one")), streamed(claude.stream("two")))
    assert one.ask(claude.dump(ASKED)).header("x-cache") == "MISS"
    assert one.ask(claude.dump({**ASKED, "stream": True})).header("x-cache") == "MISS"


def test_hosts_that_only_resemble_openai_take_no_part(
    upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache(CACHE_UPSTREAM_GROQ=upstream.url, **ON)
    upstream.script(json_reply(gpt.chat("one")), sse_reply(gpt.chat_stream("two")))
    for body in (gpt.request(), gpt.request(stream=True)):
        answer = one.send(body, path="/groq/openai/v1/chat/completions")
        assert answer.header("x-cache") == "MISS"
    assert json.loads(upstream.calls[1].request.body)["stream"] is True
