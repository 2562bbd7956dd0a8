"""Header fields: what ends at the proxy stays there, what is end to end crosses."""

from __future__ import annotations

from llm_cache.wire.framing.headers import (
    HOP_BY_HOP,
    NOT_REPLAYED,
    end_to_end,
    forwardable,
    replayable,
)

KEPT_REQUEST = [
    (b"x-api-key", b"k"),
    (b"authorization", b"Bearer t"),
    (b"anthropic-version", b"2023-06-01"),
    (b"anthropic-beta", b"a"),
    (b"anthropic-beta", b"b"),
    (b"content-type", b"application/json"),
    (b"user-agent", b"claude-cli/2"),
    (b"x-cached-elsewhere", b"kept: it only begins alike"),
]
KEPT_RESPONSE = [
    (b"content-type", b"text/event-stream"),
    (b"content-encoding", b"gzip"),
    (b"content-length", b"310"),
    (b"request-id", b"req_1"),
    (b"server-timing", b"x;dur=1202"),
    (b"anthropic-ratelimit-requests-remaining", b"9"),
    (b"via", b"1.1 a"),
    (b"via", b"1.1 b"),
]


def test_nothing_of_one_hop_crosses() -> None:
    hop = [(name, b"v") for name in sorted(HOP_BY_HOP)] + [(b"proxy-anything", b"v")]
    assert end_to_end(hop) == []
    assert forwardable(KEPT_REQUEST + hop) == KEPT_REQUEST
    assert replayable(KEPT_RESPONSE + hop) == KEPT_RESPONSE


def test_what_connection_lists_does_not_cross() -> None:
    fields = [
        (b"connection", b"close, X-One ,x-two"),
        (b"x-one", b"1"),
        (b"connection", b"x-three,"),
        (b"x-two", b"2"),
        (b"x-three", b"3"),
        (b"x-four", b"4"),
    ]
    assert end_to_end(fields) == [(b"x-four", b"4")]


def test_the_proxys_own_request_fields_and_cookies_are_not_forwarded() -> None:
    own = [
        b"x-cache-auth", b"x-cache-mode", b"x-cache-bypass", b"x-cache", b"x-stasis-mode",
        b"cookie", b"host", b"content-length", b"expect", b"proxy-authorization", b"te",
    ]  # fmt: skip
    assert forwardable([(name, b"secret") for name in own] + KEPT_REQUEST) == KEPT_REQUEST


def test_what_belongs_to_the_first_answer_is_not_replayed() -> None:
    first = [(name, b"v") for name in sorted(NOT_REPLAYED)]
    first += [(b"x-cache", b"HIT"), (b"x-cache-key", b"00")]
    assert {b"date", b"set-cookie", b"age"} <= NOT_REPLAYED
    assert replayable(first + KEPT_RESPONSE) == KEPT_RESPONSE
