"""A miss streams: every piece reaches the client while the upstream still holds the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import anthropic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import anthropic_wire as wire
from support.proxy import anthropic_headers
from support.raw import RawConnection, Response
from support.replies import Framing, Gate, Reply, Step, gzip_reply, json_reply, sse_reply
from support.stage import Stage, assert_same, running_stage

pytestmark = pytest.mark.usefixtures("home")

BLOCKS = [wire.thinking_block("Hm… 🤔"), wire.text_block("Grüezi 世界 🌍")]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_stage(tmp_path_factory.mktemp("streaming")) as running:
        yield running
        running.wait_idle()


@contextmanager
def asking(stage: Stage, body: bytes) -> Iterator[tuple[RawConnection, Response]]:
    """A request whose answer is read as far as the test wants."""
    with stage.proxy.connect() as connection:
        yield connection, connection.request("POST", "/v1/messages", anthropic_headers(), body)


def gated(pieces: list[bytes]) -> tuple[list[Gate], tuple[Step, ...]]:
    """A gate before every piece and one before the end."""
    gates = [Gate() for _ in range(len(pieces) + 1)]
    steps: list[Step] = []
    for gate, piece in zip(gates, pieces, strict=False):
        steps += [gate, piece]
    return gates, (*steps, gates[-1])


@pytest.mark.parametrize("framing", [Framing.CHUNKED, Framing.CLOSE], ids=lambda f: f.value)
def test_each_event_passes_while_upstream_holds_the_next(stage: Stage, framing: Framing) -> None:
    """BAR 16: head before the first byte, each event before the next, nothing collected."""
    events = wire.stream(BLOCKS)
    gates, steps = gated(events)
    headers = (("content-type", "text/event-stream"),)
    stage.upstream.script(Reply(headers=headers, body=steps, framing=framing))
    with asking(stage, stage.body(stream=True)) as (connection, response):
        assert response.status == 200
        assert response.header("x-cache") == "MISS"
        assert connection.is_quiet()
        arrived = b""
        for gate, event in zip(gates, events, strict=False):
            gate.wait_reached()
            gate.release()
            arrived += event
            assert response.read(len(arrived)) == arrived
        assert not response.complete
        gates[-1].release()
        assert response.read_all() == arrived
        assert response.complete


def test_each_piece_of_an_event_passes_as_it_arrives(stage: Stage) -> None:
    """Pieces need not be events: a half one passes, and half a character."""
    whole = b"".join(wire.stream("é世🌍"))
    cuts = [5, whole.index("é".encode()) + 1, whole.index("🌍".encode()) + 2, len(whole) - 1]
    bounds = zip([0, *cuts], [*cuts, len(whole)], strict=True)
    pieces = [whole[begin:end] for begin, end in bounds]
    gates, steps = gated(pieces)
    stage.upstream.script(sse_reply(steps))
    body = stage.body(stream=True)
    with asking(stage, body) as (_, response):
        count = 0
        for gate, piece in zip(gates, pieces, strict=False):
            gate.wait_reached()
            gate.release()
            count += len(piece)
            assert response.read(count) == whole[:count]
        gates[-1].release()
        response.read_all()
    assert stage.proxy.ask(body).body == whole


def test_each_piece_of_gzip_passes_as_it_arrives(stage: Stage) -> None:
    """What is compressed is passed on undecoded and unbuffered."""
    packed = gzip_reply(sse_reply(wire.stream(BLOCKS)))
    pieces = [piece for piece in packed.body if isinstance(piece, bytes)]
    gates, steps = gated(pieces)
    stage.upstream.script(replace(packed, body=steps))
    body = stage.body(stream=True)
    with stage.proxy.connect() as connection:
        headers = [*anthropic_headers(), ("accept-encoding", "gzip")]
        response = connection.request("POST", "/v1/messages", headers, body)
        count = 0
        for gate, piece in zip(gates, pieces, strict=False):
            gate.wait_reached()
            gate.release()
            count += len(piece)
            assert response.read(count) == b"".join(pieces)[:count]
        gates[-1].release()
        assert (response.read_all(), response.complete) == (b"".join(pieces), True)
    assert stage.proxy.ask(body, {"accept-encoding": "gzip"}).header("x-cache") == "HIT"


def test_a_plain_answer_passes_as_it_arrives(stage: Stage) -> None:
    """BAR 16: an answer that isn't an event stream isn't collected either."""
    document = wire.message("in two pieces")
    gate = Gate()
    stage.upstream.script(replace(json_reply(document), body=(document[:50], gate, document[50:])))
    body = stage.body()
    with asking(stage, body) as (_, response):
        gate.wait_reached()
        assert response.read(50) == document[:50]
        assert not response.complete
        gate.release()
        assert (response.read_all(), response.complete) == (document, True)
    assert stage.proxy.ask(body).header("x-cache") == "HIT"


def test_uncached_paths_stream_as_well(stage: Stage) -> None:
    """What passes through uncached passes as it arrives."""
    gate = Gate()
    stage.upstream.script(sse_reply([b"first", gate, b"second"]))
    with stage.proxy.connect() as connection:
        response = connection.request("POST", "/v1/messages/batches", anthropic_headers(), b"{}")
        gate.wait_reached()
        assert response.read(5) == b"first"
        gate.release()
        assert response.read_all() == b"firstsecond"
    assert response.header("x-cache") == "PASS"


def test_official_client_gets_text_while_upstream_holds_the_rest(stage: Stage) -> None:
    """BAR 16: time to the first token is the upstream's."""
    events = wire.stream("one two three", piece=4)
    first_text = next(at for at, event in enumerate(events) if b"text_delta" in event)
    gate = Gate()
    stage.upstream.script(sse_reply([*events[: first_text + 1], gate, *events[first_text + 1 :]]))
    with (
        anthropic.Anthropic(base_url=stage.proxy.url, api_key="k", max_retries=0) as client,
        client.messages.stream(
            model=wire.MODEL,
            max_tokens=10,
            messages=[{"role": "user", "content": stage.prompt()}],
        ) as stream,
    ):
        texts = stream.text_stream
        assert next(texts) == "one "
        gate.release()
        assert "".join(texts) == "two three"


def test_last_event_is_not_held_while_upstream_stays_open(stage: Stage) -> None:
    """An upstream that is slow to end costs the last event a moment, not its own time."""
    gate = Gate()
    events = wire.stream()
    stage.upstream.script(sse_reply([*events, gate]))
    body = stage.body(stream=True)
    with stage.proxy.connect(deadline=3) as connection:
        response = connection.request("POST", "/v1/messages", anthropic_headers(), body)
        assert response.read_until(b'{"type":"message_stop"}\n\n') == b"".join(events)
        assert not response.complete
        gate.release()
        response.read_all()
        assert response.complete
    assert stage.proxy.ask(body).header("x-cache") == "HIT"


def test_last_bytes_go_out_only_when_stored(stage: Stage) -> None:
    """The entry is there by the time the client can know that the answer is whole."""
    for reply in (sse_reply(wire.stream()), json_reply(wire.message())):
        body = stage.body()
        before = stage.proxy.stats()["entries"]
        stage.upstream.script(reply)
        with asking(stage, body) as (_, response):
            response.read(sum(len(step) for step in reply.body if isinstance(step, bytes)))
            assert stage.proxy.stats()["entries"] == before + 1
            response.read_all()


AFTER_STOP: dict[str, tuple[bytes, bool]] = {
    "a comment": (b": bye\n\n", True),
    "an empty line": (b"\n", True),
    "a ping": (wire.PING, True),
    "another event": (wire.event("content_block_stop", {"type": "content_block_stop"}), False),
    "another message": (b"".join(wire.stream("more")), False),
    "an error": (wire.error_event(), False),
    "half an event": (b"event: ping\ndata: {", False),
    "HTML": (b"<html>oops</html>\n", False),
}


@pytest.mark.parametrize("apart", [False, True], ids=["in one piece", "a piece later"])
@pytest.mark.parametrize(("extra", "whole"), AFTER_STOP.values(), ids=AFTER_STOP.keys())
def test_bytes_after_message_stop_pass_and_are_judged(
    stage: Stage, extra: bytes, whole: bool, apart: bool
) -> None:
    """BAR 3: what follows the stop reaches the client; what doesn't belong there isn't stored."""
    events = wire.stream()
    pieces = [*events, extra] if apart else [*events[:-1], events[-1] + extra]
    body = stage.body(stream=True)
    stage.upstream.script(sse_reply(pieces))
    first = stage.proxy.ask(body)
    assert (first.body, first.complete) == (b"".join(events) + extra, True)
    if whole:
        assert_same(first, stage.proxy.ask(body))
    else:
        stage.upstream.script(sse_reply(events))
        assert stage.proxy.ask(body).header("x-cache") == "MISS"


def test_extra_bytes_long_after_the_stop_reach_the_client(stage: Stage) -> None:
    """The last event went out after a moment; what comes later follows it."""
    gate = Gate()
    events = wire.stream()
    stage.upstream.script(sse_reply([*events, gate, b": late\n\n"]))
    body = stage.body(stream=True)
    whole = b"".join(events)
    with asking(stage, body) as (_, response):
        assert response.read(len(whole)) == whole
        gate.release()
        assert response.read_all() == whole + b": late\n\n"
    assert stage.proxy.ask(body).body == whole + b": late\n\n"


STREAM = b"".join(wire.stream(BLOCKS, tokens=wire.usage(cache_read=5)))


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    cuts=st.sets(st.integers(1, len(STREAM) - 1), max_size=40),
    framing=st.sampled_from([Framing.LENGTH, Framing.CHUNKED, Framing.CLOSE]),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_pieces_of_any_size_are_passed_on_and_replayed(
    stage: Stage, cuts: set[int], framing: Framing, line_end: bytes
) -> None:
    """However the network cuts the stream: hit = miss = what the upstream sent."""
    whole = STREAM.replace(b"\n", line_end)
    bounds = zip([0, *sorted(cuts)], [*sorted(cuts), len(whole)], strict=True)
    pieces = tuple(whole[begin:end] for begin, end in bounds)
    reply = Reply(headers=(("content-type", "text/event-stream"),), body=pieces, framing=framing)
    miss, hit = stage.twice(reply, body=stage.body(stream=True))
    assert_same(miss, hit)
    assert miss.body == whole


def test_every_single_byte_may_be_a_piece(stage: Stage) -> None:
    """The extreme of it."""
    pieces = [STREAM[at : at + 1] for at in range(len(STREAM))]
    miss, hit = stage.twice(sse_reply(pieces), body=stage.body(stream=True))
    assert_same(miss, hit)
    assert miss.body == STREAM
