"""Identical requests in flight share one upstream call (SPEC 5.6, 5.7), in process.

The upstream stops at gates, so every moment named here is a fact and not a guess of time. What is
about clients' connections is in `tests/server/test_coalescing.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import anthropic_wire as wire
from support.cache import Cache, CacheFactory, Received
from support.proxy import anthropic_headers
from support.replies import (
    Cut,
    Framing,
    Gate,
    Reply,
    Reset,
    Step,
    gzip_reply,
    json_reply,
    sse_reply,
)
from support.upstream import Request, Upstream, wait_until

STREAM = wire.stream("The tide comes in, the tide goes out, and nobody asked it to.")


def begin(
    one: Cache,
    body: bytes,
    headers: Sequence[tuple[str, str]] = (),
    key: str = "sk-ant-test-key",
) -> Received:
    """Ask and read nothing of the answer yet; the request has reached its flight."""
    return one.begin(body, [*anthropic_headers(key), *headers])


def answer(received: Received) -> Received:
    """The same answer, read to its end."""
    received.read_all()
    return received


def labels(responses: Sequence[Received]) -> list[str]:
    return sorted(response.header("x-cache") or "" for response in responses)


def in_flight(one: Cache) -> int:
    return int(one.stats()["in_flight"])


def gated(pieces: Sequence[bytes], at: int, gate: Step, *then: Step) -> Reply:
    """A stream that stands still before its piece number `at`; -1: before the head."""
    if at < 0:
        return Reply(
            headers=(("content-type", "text/event-stream"),),
            framing=Framing.CHUNKED,
            before=(gate,),
            body=tuple(pieces),
        )
    return sse_reply([*pieces[:at], gate, *then, *pieces[at:]])


def test_an_error_of_the_leader_is_everybodys_error(
    upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    gate = Gate()
    refusal = wire.error("rate_limit_error", "slow down")
    upstream.script(
        Reply(
            status=429,
            headers=(("content-type", "application/json"), ("retry-after", "7")),
            before=(gate,),
            body=(refusal,),
        ),
        json_reply(wire.message()),
    )
    body = wire.request()
    clients = [begin(one, body) for _ in range(5)]
    gate.wait_reached()
    gate.release()
    answers = [answer(client) for client in clients]
    assert {(r.status, r.body, r.header("retry-after")) for r in answers} == {(429, refusal, "7")}
    assert labels(answers) == ["MISS"] + ["MISS-COALESCED"] * 4
    assert upstream.call_count == 1
    stats = one.stats()
    assert [stats[name] for name in ("calls", "hits", "coalesced", "errors")] == [5, 0, 0, 5]
    assert one.ask(body).header("x-cache") == "MISS"
    assert upstream.call_count == 2


@pytest.mark.parametrize("fault", [Cut(), Reset()])
def test_an_upstream_that_gives_no_answer_fails_joiners_as_it_fails_the_leader(
    upstream: Upstream, cache: CacheFactory, fault: Step
) -> None:
    one = cache()
    gate = Gate()
    upstream.script(Reply(before=(gate, fault)))
    body = wire.request()
    clients = [begin(one, body) for _ in range(4)]
    gate.wait_reached()
    gate.release()
    answers = [answer(client) for client in clients]
    assert {r.status for r in answers} == {502}
    assert len({r.body for r in answers}) == 1
    error = json.loads(answers[0].body)
    assert (error["type"], error["error"]["type"]) == ("error", "upstream_error")
    assert labels(answers) == ["ERROR"] + ["MISS-COALESCED"] * 3
    assert upstream.call_count == 1
    assert one.stats()["errors"] == 4
    assert in_flight(one) == 0


@pytest.mark.parametrize("fault", [Cut(), Reset()])
def test_an_answer_cut_for_the_leader_is_cut_for_its_joiners_and_not_stored(
    upstream: Upstream, cache: CacheFactory, fault: Step
) -> None:
    one = cache()
    gate = Gate()
    upstream.script(gated(STREAM, 5, gate, fault), sse_reply(STREAM))
    body = wire.request(stream=True)
    clients = [begin(one, body) for _ in range(4)]
    gate.wait_reached()
    gate.release()
    answers = [answer(client) for client in clients]
    assert {r.body for r in answers} == {b"".join(STREAM[:5])}
    assert not any(r.complete for r in answers)
    assert upstream.call_count == 1
    wait_until(lambda: one.stats()["calls"] == 4, "every call is counted")
    stats = one.stats()
    assert [stats[name] for name in ("hits", "errors", "in_flight")] == [0, 4, 0]
    again = one.ask(body)
    assert (again.header("x-cache"), again.body) == ("MISS", b"".join(STREAM))


def test_who_asks_again_after_an_error_in_the_stream_gets_a_call_of_its_own(
    upstream: Upstream, cache: CacheFactory
) -> None:
    """Though the upstream hasn't ended the failed stream, and somebody still reads it."""
    one = cache()
    gate = Gate()
    failing = [*STREAM[:4], wire.error_event()]
    upstream.script(sse_reply([*failing, gate]), sse_reply(STREAM))
    body = wire.request(stream=True)
    with begin(one, body) as first:
        first.read_until(failing[-1])
        again = one.ask(body)
        assert (again.header("x-cache"), again.body) == ("MISS", b"".join(STREAM))
        gate.release()
        assert first.read_all() == b"".join(failing)
    assert upstream.call_count == 2
    assert one.ask(body).header("x-cache") == "HIT"


def test_requests_that_differ_in_what_splits_the_cache_never_share_a_call(
    upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    gate = Gate()
    numbers = iter(range(100))

    def numbered(request: Request) -> Reply:
        return Reply(body=(wire.message(f"answer {next(numbers)}"),), before=(gate,))

    upstream.default = numbered
    body = wire.request()
    clients = [
        begin(one, body),
        begin(one, body, [("x-cache-sample", "1")]),
        begin(one, body, [("x-cache-sample", "2")]),
        begin(one, body, [("x-cache-namespace", "1")]),
        begin(one, body, [("x-cache-namespace", "1"), ("x-cache-sample", "1")]),
        begin(one, body, key="sk-ant-another"),
        begin(one, body, [("authorization", "Bearer token")]),
        begin(one, body, [("anthropic-beta", "b")]),
        begin(one, body, [("x-cache-mode", "fresh")]),
        begin(one, body, [("x-cache-mode", "fresh")]),
        begin(one, body, [("x-cache-mode", "bypass")]),
        begin(one, body, [("x-cache-mode", "bypass")]),
    ]
    upstream.wait_for_calls(len(clients))
    gate.release()
    answers = [answer(client) for client in clients]
    assert len({response.body for response in answers}) == len(clients)
    assert labels(answers) == ["BYPASS"] * 2 + ["MISS"] * 10


def test_a_joiner_that_cannot_read_the_leaders_coding_gets_the_answer_decoded(
    upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    gate = Gate()
    packed = gzip_reply(sse_reply(STREAM))
    half = len(packed.body) // 2
    pieces = (*packed.body[:half], gate, *packed.body[half:])
    upstream.script(Reply(200, packed.headers, pieces, Framing.CHUNKED))
    body = wire.request(stream=True)
    leader = begin(one, body, [("accept-encoding", "gzip")])
    gate.wait_reached()
    joiner = begin(one, body, [("accept-encoding", "identity")])
    gate.release()
    first, second = answer(leader), answer(joiner)
    assert first.header("content-encoding") == "gzip"
    assert first.body == b"".join(step for step in packed.body if isinstance(step, bytes))
    assert second.header("content-encoding") is None
    assert second.body == b"".join(STREAM)
    assert labels([first, second]) == ["HIT-COALESCED", "MISS"]
    assert upstream.call_count == 1


def test_a_joiner_of_a_coding_nobody_here_can_undo_gets_a_call_of_its_own(
    upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    gate = Gate()
    unknown = (("content-type", "application/json"), ("content-encoding", "br"))
    upstream.script(Reply(headers=unknown, body=(b"odd ", gate, b"bytes")))
    upstream.default = json_reply(wire.message())
    leader = begin(one, wire.request(), [("accept-encoding", "gzip")])
    gate.wait_reached()
    alone = answer(begin(one, wire.request(), [("accept-encoding", "identity")]))
    gate.release()
    assert (alone.body, alone.header("x-cache")) == (wire.message(), "MISS")
    assert answer(leader).body == b"odd bytes"
    assert upstream.call_count == 2


def test_a_joiner_that_goes_alone_does_not_keep_the_call_it_left(
    upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    never, alone = Gate(), Gate()
    unknown = (("content-type", "application/json"), ("content-encoding", "br"))
    upstream.script(Reply(headers=unknown, body=(b"odd ", never, b"bytes")))
    upstream.default = Reply(body=(wire.message(),), before=(alone,))
    leader = begin(one, wire.request(), [("accept-encoding", "br")])
    never.wait_reached()
    joiner = begin(one, wire.request(), [("accept-encoding", "identity")])
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(answer, joiner)  # which goes alone once it sees the coding
        alone.wait_reached()
        leader.close()
        upstream.calls[0].wait_closed(5)  # nobody reads it any more
        never.release()
        alone.release()
        assert answered.result().body == wire.message()
