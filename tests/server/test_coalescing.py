"""Identical requests in flight share one upstream call (SPEC 5.6, 5.7), on the running proxy.

The upstream stops at gates, so every moment named here is a fact and not a guess of time. A
request is known to have reached its flight when requests sent after it were answered (`settle`).
Here is what is about connections and memory; the rest is in `tests/exchange/test_coalescing.py`.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import anthropic_wire as wire
from support.leaks import forget_peak, peak_memory
from support.proxy import Proxy, anthropic_headers
from support.raw import RawConnection, Response, exchange, request_bytes
from support.replies import (
    Framing,
    Gate,
    Reply,
    Step,
    gzip_reply,
    sse_reply,
)
from support.upstream import Upstream, wait_until

MIB = 1 << 20
STREAM = wire.stream("The tide comes in, the tide goes out, and nobody asked it to.")

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is measured in /proc"
)


def begin(
    proxy: Proxy,
    body: bytes,
    headers: Sequence[tuple[str, str]] = (),
    key: str = "sk-ant-test-key",
) -> RawConnection:
    """Send a request and read nothing of its answer yet."""
    connection = proxy.connect(deadline=30)
    fields = [*anthropic_headers(key), *headers]
    connection.send(request_bytes("POST", "/v1/messages", "localhost", fields, body))
    return connection


def settle(proxy: Proxy) -> None:
    """Return when everything sent to the proxy before has been taken in: its loop has gone round
    for three requests that came later."""
    for _ in range(3):
        assert exchange(proxy.port, "GET", "/health").status == 200


def answer(connection: RawConnection) -> Response:
    """The whole answer to the request sent on `connection`, which is closed then."""
    with connection:
        response = connection.response("POST")
        response.read_all()
        return response


def labels(responses: Sequence[Response]) -> list[str]:
    return sorted(response.header("x-cache") or "" for response in responses)


def in_flight(proxy: Proxy) -> int:
    return int(proxy.stats()["in_flight"])


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


@pytest.mark.parametrize("streamed", [False, True])
def test_two_hundred_identical_requests_make_one_upstream_call(
    upstream: Upstream, proxy: Any, streamed: bool
) -> None:
    one: Proxy = proxy()
    gate = Gate()
    expected = b"".join(STREAM) if streamed else wire.message("one answer for all")
    reply = gated(STREAM, 4, gate) if streamed else Reply(body=(expected,), before=(gate,))
    upstream.script(reply)
    body = wire.request(stream=streamed)
    clients = [begin(one, body) for _ in range(200)]
    gate.wait_reached()
    settle(one)
    gate.release()
    answers = [answer(client) for client in clients]
    assert upstream.call_count == 1
    assert {response.body for response in answers} == {expected}
    assert {(r.status, r.complete) for r in answers} == {(200, True)}
    assert labels(answers) == ["HIT-COALESCED"] * 199 + ["MISS"]
    assert len({response.header("x-cache-key") for response in answers}) == 1
    heads = {tuple(h for h in r.headers if h[0] != "x-cache") for r in answers}
    assert len(heads) == 1
    stats = one.stats()
    assert [stats[n] for n in ("calls", "hits", "coalesced", "misses")] == [200, 199, 199, 1]
    assert stats["tokens_saved"] == 199 * stats["tokens_spent"] > 0
    assert stats["in_flight"] == 0
    assert one.ask(body).header("x-cache") == "HIT"


def test_a_late_joiner_gets_what_has_arrived_and_then_follows_live(
    upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy()
    gates = [Gate(), Gate()]
    pieces = [b"".join(STREAM[:4]), b"".join(STREAM[4:7]), b"".join(STREAM[7:])]
    upstream.script(sse_reply([pieces[0], gates[0], pieces[1], gates[1], pieces[2]]))
    body = wire.request(stream=True)
    with begin(one, body) as first, begin(one, body) as second:
        leader = first.response("POST")
        assert leader.read(len(pieces[0])) == pieces[0]
        joiner = second.response("POST")
        assert joiner.read(len(pieces[0])) == pieces[0]
        gates[0].wait_reached()
        assert first.is_quiet()
        assert second.is_quiet()
        gates[0].release()
        with begin(one, body) as third:
            latest = third.response("POST")
            live = pieces[0] + pieces[1]
            for response in (leader, joiner, latest):
                assert response.read(len(live)) == live
            gates[1].wait_reached()
            gates[1].release()
            for response in (leader, joiner, latest):
                assert response.read_all() == b"".join(STREAM)
                assert response.complete
    assert labels([leader, joiner, latest]) == ["HIT-COALESCED", "HIT-COALESCED", "MISS"]
    assert upstream.call_count == 1


@pytest.mark.parametrize("seed", range(3))
def test_the_others_get_the_whole_answer_when_the_leader_aborts_at_any_moment(
    upstream: Upstream, proxy: Any, seed: int
) -> None:
    """BAR fault 4: the first client goes away and each of its waiters calls upstream."""
    dice = random.Random(seed)
    one: Proxy = proxy()
    for turn, at in enumerate([-1, len(STREAM), *dice.sample(range(len(STREAM)), 3)]):
        body = wire.request(f"seed {seed} turn {turn}", stream=True)
        gate = Gate()
        upstream.script(gated(STREAM, at, gate))
        leader = begin(one, body)
        gate.wait_reached()
        joiners = [begin(one, body) for _ in range(6)]
        if dice.random() < 0.5:
            settle(one)
        leaving = [leader, joiners.pop(dice.randrange(6))]
        dice.shuffle(leaving)
        settle(one)
        for connection in leaving:
            connection.reset() if dice.random() < 0.5 else connection.close()
        settle(one)
        gate.release()
        answers = [answer(joiner) for joiner in joiners]
        assert {response.body for response in answers} == {b"".join(STREAM)}
        assert {response.header("x-cache") for response in answers} == {"HIT-COALESCED"}
        assert upstream.call_count == turn + 1
        assert not upstream.calls[-1].aborted
        assert one.ask(body).header("x-cache") == "HIT"


@pytest.mark.parametrize("at", [-1, 3, len(STREAM)], ids=["no head yet", "mid stream", "no end"])
def test_when_all_clients_leave_the_upstream_call_ends_and_the_next_one_starts_anew(
    upstream: Upstream, proxy: Any, at: int
) -> None:
    one: Proxy = proxy()
    body = wire.request(stream=True)
    gate = Gate()
    upstream.script(gated(STREAM, at, gate), sse_reply(STREAM))
    clients = [begin(one, body) for _ in range(4)]
    gate.wait_reached()
    settle(one)
    for client in clients:
        assert not upstream.calls[0].closed
        client.close()
    upstream.calls[0].wait_closed()
    assert upstream.calls[0].aborted
    again = one.ask(body)
    assert (again.header("x-cache"), again.body) == ("MISS", b"".join(STREAM))
    assert upstream.call_count == 2
    assert in_flight(one) == 0
    assert one.ask(body).header("x-cache") == "HIT"


def test_clients_that_come_and_go_never_leave_a_flight_behind(
    upstream: Upstream, proxy: Any
) -> None:
    """A request is always answered whole, whatever the ones before it did to the same key."""
    one: Proxy = proxy()
    dice = random.Random(1)
    upstream.default = lambda request: sse_reply(STREAM)
    for turn in range(40):
        body = wire.request(f"prompt {turn // 4}", stream=True)
        mode = [("x-cache-mode", dice.choice(["cache", "fresh"]))]
        clients = [begin(one, body, mode) for _ in range(dice.randrange(1, 5))]
        for client in clients:
            if dice.random() < 0.3:
                client.response("POST")
            client.reset() if dice.random() < 0.5 else client.close()
        assert answer(begin(one, body)).body == b"".join(STREAM)
    wait_until(lambda: in_flight(one) == 0, "no flight left")


def test_a_slow_reader_does_not_slow_another(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    body = wire.request(stream=True)
    pieces = wire.stream("x" * 8 * MIB, piece=64 << 10)
    gate = Gate()
    upstream.script(gated(pieces, 1, gate))
    with begin(one, body) as slow:
        begun = slow.response("POST")
        with begin(one, body) as fast:
            gate.wait_reached()
            settle(one)
            gate.release()
            quick = fast.response("POST")
            assert quick.read_all() == b"".join(pieces)
        assert (begun.header("x-cache"), quick.header("x-cache")) == ("MISS", "HIT-COALESCED")
        assert one.ask(body).header("x-cache") == "HIT"
        assert begun.read_all() == b"".join(pieces)


# Answers above CACHE_MAX_ENTRY_BYTES


def large_json(size: int) -> Reply:
    data = wire.message_of_size(size)
    return Reply(body=tuple(data[i : i + (64 << 10)] for i in range(0, size, 64 << 10)))


def large_stream(size: int) -> Reply:
    return sse_reply(wire.stream("x" * size, piece=64 << 10))


def sha256_of(pieces: Sequence[Step]) -> str:
    return hashlib.sha256(b"".join(p for p in pieces if isinstance(p, bytes))).hexdigest()


def hashed(proxy: Proxy, body: bytes, mode: str) -> tuple[str, str]:
    """Ask and keep nothing of the answer: its SHA-256 and its label."""
    fields = [*anthropic_headers(), ("x-cache-mode", mode), ("accept-encoding", "identity")]
    digest = hashlib.sha256()
    with httpx.Client(trust_env=False, timeout=30) as client:
        url = f"{proxy.url}/v1/messages"
        with client.stream("POST", url, content=body, headers=fields) as response:
            for piece in response.iter_raw():
                digest.update(piece)
    return digest.hexdigest(), response.headers["x-cache"]


@needs_proc
@pytest.mark.parametrize("mode", ["cache", "bypass"])
@pytest.mark.parametrize("make", [large_json, large_stream])
def test_a_huge_answer_passes_whole_unstored_and_in_bounded_memory(
    upstream: Upstream, proxy: Any, make: Any, mode: str
) -> None:
    one: Proxy = proxy(CACHE_MAX_ENTRY_BYTES=str(MIB))
    upstream.script(make(2 * MIB))
    hashed(one, wire.request("warm up"), mode)
    upstream.default = reply = make(24 * MIB)
    before = forget_peak(one)
    expected = sha256_of(reply.body)
    label = {"cache": "MISS", "bypass": "BYPASS"}[mode]
    for _ in range(2):
        assert hashed(one, wire.request("long"), mode) == (expected, label)
    grown = peak_memory(one) - before
    print(f"memory grew by {grown / MIB:.1f} MiB")
    assert grown < 12 * MIB
    stats = one.stats()
    assert (stats["entries"], stats["in_flight"]) == (0, 0)


@needs_proc
def test_a_small_answer_that_decodes_to_a_huge_one_passes_in_bounded_memory(
    upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy(CACHE_MAX_ENTRY_BYTES=str(MIB))
    packed = gzip_reply(large_json(24 * MIB))
    upstream.default = packed
    before = forget_peak(one)
    fields = {"accept-encoding": "gzip"}
    for _ in range(2):
        response = one.ask(wire.request(), fields)
        assert (response.header("x-cache"), response.header("content-encoding")) == ("MISS", "gzip")
        assert response.body == b"".join(step for step in packed.body if isinstance(step, bytes))
    assert peak_memory(one) - before < 12 * MIB


def test_an_answer_is_joinable_up_to_the_limit_and_no_longer_above_it(
    upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy(CACHE_MAX_ENTRY_BYTES=str(64 << 10))
    below, above = Gate(), Gate()
    pieces = wire.stream("x" * (256 << 10), piece=32 << 10)
    whole = b"".join(pieces)
    upstream.script(sse_reply([*pieces[:3], below, *pieces[3:-2], above, *pieces[-2:]]))
    body = wire.request(stream=True)
    first = begin(one, body)
    below.wait_reached()
    joiner = begin(one, body)
    settle(one)
    below.release()
    above.wait_reached()
    settle(one)
    upstream.script(sse_reply(pieces))
    alone = answer(begin(one, body))
    assert (alone.header("x-cache"), alone.body) == ("MISS", whole)
    assert upstream.call_count == 2
    above.release()
    answers = [answer(first), answer(joiner)]
    assert [response.body for response in answers] == [whole, whole]
    assert labels(answers) == ["HIT-COALESCED", "MISS"]
    assert "larger than 65536 bytes" in one.wait_logged("larger than")


@needs_proc
def test_a_reader_that_stops_holds_a_huge_answer_back_instead_of_filling_memory(
    upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy(CACHE_MAX_ENTRY_BYTES=str(MIB))
    upstream.default = reply = large_stream(24 * MIB)
    whole = sum(len(step) for step in reply.body if isinstance(step, bytes))
    before = forget_peak(one)
    with begin(one, wire.request(stream=True)) as client:
        begun = client.response("POST")
        begun.read(MIB)
        settle(one)
        call = upstream.calls[0]
        others = [threading.Thread(target=settle, args=(one,)) for _ in range(4)]
        for other in others:
            other.start()
        for other in others:
            other.join()
        assert call.sent < whole
        assert peak_memory(one) - before < 12 * MIB
    call.wait_closed()
    assert call.aborted
