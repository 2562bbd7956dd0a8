"""An upstream that fails, at every place where it can: the client is told, and nothing stays.

Each case asks three times with one body. The first call meets the fault: the client gets a 502
with an error in Anthropic's shape when no whole head came, else a cut, never a clean end. The
second is a miss and the third a hit, so the fault stored nothing and left nothing in flight.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import anthropic
import pytest
from support import anthropic_wire as wire
from support.proxy import anthropic_headers
from support.raw import Ending, Response
from support.replies import (
    Cut,
    Framing,
    Gate,
    Raw,
    Reply,
    Reset,
    Stall,
    Step,
    framed,
    json_reply,
    sse_reply,
    wire_bytes,
    wire_reply,
)
from support.stage import Stage, running_stage
from support.upstream import wait_until

pytestmark = pytest.mark.usefixtures("home")

TEXT = "Grüezi 世界 🌍!"
TOOL = wire.tool_use_block("find", {"name": "Zoë 🌍"})
PLAIN = json_reply(wire.message([wire.text_block(TEXT), TOOL]))
STREAM = sse_reply(wire.stream([wire.text_block(TEXT), TOOL]))
REPLIES = {"plain": PLAIN, "streamed": STREAM}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Its upstream may be silent for a second only, so that stalls don't take long."""
    folder = tmp_path_factory.mktemp("faults")
    with running_stage(folder, {"CACHE_UPSTREAM_TIMEOUT_SEC": "1"}) as running:
        yield running
        running.wait_idle()
        drafts = running.proxy.home / "store" / "tmp"
        wait_until(lambda: not list(drafts.iterdir()), "no draft of a request is left behind")


@dataclass(frozen=True, slots=True)
class Broken:
    """An answer cut after `count` bytes of the wire. `delivered`: the bytes of body among them,
    None while the head isn't whole."""

    count: int
    sent: bytes
    delivered: bytes | None


def broken_at(reply: Reply, count: int) -> Broken:
    """`reply` as far as its first `count` bytes on the wire go."""
    sent = wire_bytes(reply)[:count]
    position = len(reply.head())
    if count < position:
        return Broken(count, sent, None)
    delivered = b""
    for piece in reply.body:
        assert isinstance(piece, bytes)
        on_wire = framed(piece, reply.framing)
        begin = position + on_wire.index(piece)
        delivered += piece[: max(0, count - begin)]
        position += len(on_wire)
    return Broken(count, sent, delivered)


def boundaries(reply: Reply) -> list[int]:
    """Every place on the wire where a fault could be taken for something else: around each line of
    the head, each chunk and each event, inside characters and line ends, before the last byte."""
    head, whole = reply.head(), wire_bytes(reply)
    places = {0, 1, 8, 9, 12, len(head) - 3, len(head) - 2, len(head) - 1, len(head), len(head) + 1}
    for at in range(len(head)):
        if head[at : at + 2] == b"\r\n":
            places |= {at, at + 1, at + 2}
    position = len(head)
    for piece in reply.body:
        assert isinstance(piece, bytes)
        on_wire = framed(piece, reply.framing)
        begin = position + on_wire.index(piece)
        end = begin + len(piece)
        position += len(on_wire)
        places |= {begin - 2, begin - 1, begin, begin + 1, end - 2, end - 1, end, end + 1, position}
        places |= {begin + piece.index(b"\n") for _ in [0] if b"\n" in piece}
    places |= {at for at in range(len(head), len(whole)) if whole[at] & 0xC0 == 0x80}
    places |= {len(whole) - count for count in range(1, 7)}
    return sorted(at for at in places if 0 <= at < len(whole))


def ask(stage: Stage, body: bytes) -> Response:
    """One request on a connection of its own; the answer read to whatever end it has."""
    return stage.proxy.ask(body)


def problem_of(response: Response, broken: Broken, *, exact: bool) -> str:
    """What is wrong with the first answer; empty when it is right. With `exact` the client must
    have got every byte that the upstream sent; after an RST some may be lost on the way."""
    if response.status == 502:
        if broken.delivered is not None and exact:
            return "502 though the head came"
        return problem_of_502(response)
    if broken.delivered is None:
        return f"status {response.status} though the head never came whole"
    if response.status != 200 or response.header("x-cache") != "MISS":
        return f"status {response.status}, x-cache {response.header('x-cache')}"
    if response.complete:
        return f"ends as if it were whole: {response.body!r}"
    if exact and response.body != broken.delivered:
        return f"delivered {response.body!r}, not {broken.delivered!r}"
    if not broken.delivered.startswith(response.body):
        return f"delivered {response.body!r}, which was never sent"
    return ""


def problem_of_502(response: Response) -> str:
    if not response.complete or response.header("x-cache") != "ERROR":
        return f"a 502 that ends {response.ending}, x-cache {response.header('x-cache')}"
    document = json.loads(response.body)
    if document["type"] != "error" or document["error"]["type"] != "upstream_error":
        return f"a 502 of another shape: {response.body!r}"
    return "" if "upstream http://127.0.0.1:" in document["error"]["message"] else "no reason given"


def afterwards(stage: Stage, reply: Reply, body: bytes) -> str:
    """What is wrong with the next two requests; empty when they are a miss and a hit."""
    stage.upstream.script(reply)
    calls = stage.upstream.call_count
    miss, hit = ask(stage, body), ask(stage, body)
    labels = (miss.header("x-cache"), hit.header("x-cache"))
    if labels != ("MISS", "HIT") or stage.upstream.call_count != calls + 1:
        return f"then {labels} with {stage.upstream.call_count - calls} calls"
    whole = b"".join(step for step in reply.body if isinstance(step, bytes))
    if (miss.body, hit.body) != (whole, whole) or not (miss.complete and hit.complete):
        return f"then {miss.body!r}, {hit.body!r}"
    return ""


def test_boundaries_are_where_they_are_said_to_be() -> None:
    """The table is right: what is delivered grows from nothing to the whole body."""
    for reply in REPLIES.values():
        whole = b"".join(step for step in reply.body if isinstance(step, bytes))
        for at in boundaries(reply):
            broken = broken_at(reply, at)
            assert (broken.delivered is None) == (at < len(reply.head()))
            assert whole.startswith(broken.delivered or b"")
        assert broken_at(reply, len(wire_bytes(reply))).delivered == whole
    assert len(boundaries(PLAIN)) > 30
    assert len(boundaries(STREAM)) > 100


@pytest.mark.parametrize("fault", [Cut(), Reset()], ids=["cut", "reset"])
@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES.keys())
def test_answer_that_breaks_off_is_cut_and_not_stored(
    stage: Stage, reply: Reply, fault: Step
) -> None:
    """BAR 1, 3: FIN and RST at every boundary; no hang, no leak, nothing stored."""
    problems = []
    for at in boundaries(reply):
        broken = broken_at(reply, at)
        body = stage.body(stream=reply is STREAM)
        stage.upstream.script(wire_reply(broken.sent, fault))
        problem = problem_of(ask(stage, body), broken, exact=isinstance(fault, Cut))
        problem = problem or afterwards(stage, reply, body)
        if problem:
            problems.append(f"after {broken.sent[-30:]!r} ({at} bytes): {problem}")
    stage.wait_idle()
    assert not problems, "\n".join(problems)


def test_short_answer_cut_at_every_single_byte(stage: Stage) -> None:
    """BAR 1: an announced length that isn't reached, whatever is missing."""
    reply = Reply(body=(b'{"type":"message","content":[],"stop_reason":"end_turn"}',))
    problems = []
    for at in range(len(wire_bytes(reply))):
        broken = broken_at(reply, at)
        body = stage.body()
        stage.upstream.script(wire_reply(broken.sent, Cut()))
        problem = problem_of(ask(stage, body), broken, exact=True)
        if problem := problem or afterwards(stage, reply, body):
            problems.append(f"{at} bytes: {problem}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES.keys())
def test_upstream_that_falls_silent_is_given_up(stage: Stage, reply: Reply) -> None:
    """BAR 1: a stall costs CACHE_UPSTREAM_TIMEOUT_SEC and no more, wherever it is."""
    whole, head = wire_bytes(reply), reply.head()
    last_data = len(whole) - (7 if reply.framing is Framing.CHUNKED else 1)
    places = [0, 1, len(head) - 1, len(head), len(head) + 1, len(whole) // 2, last_data]
    places += [last_data + 2, len(whole) - 2, len(whole) - 1] if reply is STREAM else []
    cases = []
    for at in places:
        body = stage.body(stream=reply is STREAM)
        broken = broken_at(reply, at)
        connection = stage.proxy.connect()
        stage.upstream.script(wire_reply(broken.sent, Stall()))
        calls = stage.upstream.call_count
        connection.send(
            b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nx-api-key: k\r\n"
            b"content-length: %d\r\n\r\n%b" % (stage.proxy.port, len(body), body)
        )
        stage.upstream.wait_for_calls(calls + 1)  # so that the script's order is the cases'
        cases.append((broken, connection))
    problems = []
    for broken, connection in cases:
        with connection:
            response = connection.response("POST")
            response.read_all()
            if problem := problem_of(response, broken, exact=True):
                problems.append(f"{broken.count} bytes: {problem}")
    assert not problems, "\n".join(problems)
    stage.wait_idle()
    call = stage.upstream.calls[-1]
    call.wait_closed()
    assert call.aborted


def test_stalled_request_works_when_asked_again(stage: Stage) -> None:
    body = stage.body()
    stage.upstream.script(Reply(before=(Stall(),)))
    assert problem_of_502(ask(stage, body)) == ""
    assert afterwards(stage, PLAIN, body) == ""


HTML = b"<html><body>502 Bad Gateway</body></html>"
OPENING = STREAM.body[:4]

WITHOUT_A_HEAD: dict[str, Reply] = {
    "closed at once": Reply(before=(Cut(),)),
    "reset at once": Reply(before=(Reset(),)),
    "garbage": Reply(before=(Raw(b"\x16\x03\x01 garbage\r\n\r\n"), Cut())),
    "no status line": Reply(before=(Raw(b"content-type: text/plain\r\n\r\nhi"), Cut())),
    "another protocol": Reply(before=(Raw(b"SSH-2.0-OpenSSH_9.6\r\n"), Cut())),
    "HTTP/0.9": Reply(before=(Raw(HTML), Cut())),
    "HTTP/2": Reply(before=(Raw(b"HTTP/2 200 OK\r\ncontent-length: 2\r\n\r\n{}"), Cut())),
    "status of letters": Reply(before=(Raw(b"HTTP/1.1 abc OK\r\n\r\n"), Cut())),
    "broken field": Reply(before=(Raw(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), Cut())),
    "endless head": Reply(before=(Raw(b"HTTP/1.1 200 OK\r\nx: " + b"x" * 300_000), Cut())),
    "lengths that differ": Reply(
        before=(Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}"), Cut())
    ),
    "length of letters": Reply(
        before=(Raw(b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\n{}"), Cut())
    ),
    "unknown transfer coding": Reply(
        before=(Raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n{}"), Cut())
    ),
    "only interim": Reply(before=(Raw(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"), Cut())),
    "switching protocols": Reply(
        before=(
            Raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
            Cut(),
        )
    ),
}


@pytest.mark.parametrize("reply", WITHOUT_A_HEAD.values(), ids=WITHOUT_A_HEAD.keys())
def test_no_head_is_a_502_in_the_providers_shape(stage: Stage, reply: Reply) -> None:
    """BAR 1: whatever comes instead of an answer's head."""
    body = stage.body()
    before = stage.proxy.stats()
    stage.upstream.script(reply)
    response = ask(stage, body)
    assert response.status == 502
    assert problem_of_502(response) == ""
    after = stage.proxy.stats()
    assert (after["errors"], after["misses"]) == (before["errors"] + 1, before["misses"])
    assert after["recent_errors"]
    assert afterwards(stage, PLAIN, body) == ""


def broken_bodies() -> dict[str, Reply]:
    document = b"".join(step for step in PLAIN.body if isinstance(step, bytes))
    return {
        "shorter than announced": replace(
            PLAIN, body=(document, Cut()), announced=len(document) + 1
        ),
        "shorter by far": replace(PLAIN, body=(document[:9], Cut()), announced=len(document)),
        "chunk header of letters": replace(STREAM, body=(*OPENING, Raw(b"zz\r\n"), Cut())),
        "negative chunk": replace(STREAM, body=(*OPENING, Raw(b"-1\r\n"), Cut())),
        "endless chunk header": replace(STREAM, body=(*OPENING, Raw(b"0" * 200_000), Cut())),
        "chunk longer than said": replace(STREAM, body=(*OPENING, Raw(b"2\r\nabc\r\n"), Cut())),
        "answer that turns into HTML": replace(STREAM, body=(*OPENING, Raw(HTML), Cut())),
        "stop and no last chunk": replace(STREAM, body=(*STREAM.body, Cut())),
        "stop, then reset": replace(STREAM, body=(*STREAM.body, Reset())),
        "stop, then a broken chunk": replace(STREAM, body=(*STREAM.body, Raw(b"zz\r\n"), Cut())),
        "no last line end": replace(
            STREAM, framing=Framing.NONE, before=(Raw(wire_bytes(STREAM)[:-2]), Cut())
        ),
    }


@pytest.mark.parametrize("reply", broken_bodies().values(), ids=broken_bodies().keys())
def test_broken_body_is_cut_and_not_stored(stage: Stage, reply: Reply) -> None:
    """BAR 1: the client must not take a broken answer for a whole one."""
    streamed = "event-stream" in dict(reply.headers)["content-type"]
    body = stage.body(stream=streamed)
    stage.upstream.script(reply)
    response = ask(stage, body)
    assert (response.status, response.header("x-cache")) == (200, "MISS")
    assert response.ending in (Ending.CUT, Ending.RESET)
    assert afterwards(stage, STREAM if streamed else PLAIN, body) == ""
    stage.wait_idle()


@pytest.mark.parametrize(
    "extra",
    [b"x", b'{"more":1}', wire_bytes(json_reply(wire.message("for somebody else")))],
    ids=["a byte", "JSON", "a whole answer"],
)
def test_bytes_beyond_the_announced_length_reach_nobody(stage: Stage, extra: bytes) -> None:
    """They are no part of this answer, nor of the next one on that connection."""
    document = wire.message("whole")
    reply = json_reply(document)
    body, next_body = stage.body(), stage.body()
    stage.upstream.script(wire_reply(wire_bytes(reply) + extra))
    miss, hit = ask(stage, body), ask(stage, body)
    assert (miss.body, hit.body) == (document, document)
    assert (miss.complete, hit.header("x-cache")) == (True, "HIT")
    assert afterwards(stage, PLAIN, next_body) == ""


def test_document_longer_than_announced_is_not_stored(stage: Stage) -> None:
    """BAR 1: what was announced is passed on; it isn't JSON, so it isn't kept."""
    document = wire.message("too long")
    reply = replace(json_reply(document), announced=len(document) - 5, keep_alive=False)
    body = stage.body()
    stage.upstream.script(reply)
    first = ask(stage, body)
    assert (first.body, first.complete) == (document[:-5], True)
    assert afterwards(stage, PLAIN, body) == ""


def test_refused_connection_is_an_error_the_official_client_knows(stage: Stage) -> None:
    body = stage.body()
    asked = {
        "model": wire.MODEL,
        "max_tokens": 10,
        "messages": [{"role": "user", "content": stage.prompt()}],
    }
    stage.upstream.refuse()
    stage.upstream.drop_connections()
    try:
        assert problem_of_502(ask(stage, body)) == ""
        with anthropic.Anthropic(
            base_url=stage.proxy.url, api_key="sk-ant-test", max_retries=0
        ) as client:
            for streamed in (False, True):
                with pytest.raises(
                    anthropic.InternalServerError, match="can't be reached"
                ) as raised:
                    client.messages.create(**asked, stream=streamed)  # type: ignore[call-overload]
                assert raised.value.status_code == 502
                assert raised.value.response.headers["x-cache"] == "ERROR"
                assert raised.value.body["error"]["type"] == "upstream_error"  # type: ignore[index]
    finally:
        stage.upstream.listen()
    assert afterwards(stage, PLAIN, body) == ""


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_official_client_learns_of_a_cut(stage: Stage, streamed: bool) -> None:
    """BAR 1: it raises, instead of hanging or taking a part for the whole."""
    reply = STREAM if streamed else PLAIN
    cut = broken_at(reply, len(wire_bytes(reply)) - 60)
    stage.upstream.script(wire_reply(cut.sent, Cut()))

    def answer(client: anthropic.Anthropic) -> list[object]:
        return list(
            client.messages.create(
                model=wire.MODEL,
                max_tokens=10,
                messages=[{"role": "user", "content": stage.prompt()}],
                stream=streamed,
            )
        )

    with (
        anthropic.Anthropic(
            base_url=stage.proxy.url, api_key="sk-ant-test", max_retries=0, timeout=10
        ) as client,
        pytest.raises(Exception, match=r"closed connection|Connection error"),
    ):
        answer(client)


def test_idle_connection_that_upstream_closed_is_not_used_again(stage: Stage) -> None:
    """A keep-alive connection ends with the server that closes it, not with the next request."""
    stage.twice(PLAIN)
    stage.upstream.drop_connections()
    stage.upstream.wait_all_closed()
    stage.twice(PLAIN)


def test_whole_answers_share_a_connection(stage: Stage) -> None:
    """What guards against bytes left over doesn't cost a new connection for every call."""
    stage.twice(PLAIN)
    before = stage.upstream.connections
    for reply in (PLAIN, STREAM, json_reply(wire.error(), 400), PLAIN):
        body = stage.body()
        stage.upstream.script(reply)
        assert ask(stage, body).complete
    assert stage.upstream.connections == before


def test_client_that_leaves_during_the_last_wait_leaves_nothing_behind(stage: Stage) -> None:
    """BAR 4: the answer is complete by its events, its end is still waited for, nobody is there."""
    gate = Gate()
    body = stage.body(stream=True)
    stage.upstream.script(replace(STREAM, body=(*STREAM.body, gate)))
    connection = stage.proxy.connect()
    response = connection.request("POST", "/v1/messages", anthropic_headers(), body)
    gate.wait_reached()
    response.read_until(b"message_delta")
    connection.reset()
    stage.upstream.calls[-1].wait_closed()
    gate.release()
    stage.wait_idle()
    assert afterwards(stage, STREAM, body) == ""


def test_many_faults_at_once_leave_nothing_behind(stage: Stage) -> None:
    """BAR 1: the same, with 48 requests under way at a time."""
    cuts = [broken_at(STREAM, at) for at in boundaries(STREAM)][::3]
    stage.upstream.script(*(wire_reply(cut.sent, Cut()) for cut in cuts))
    with ThreadPoolExecutor(48) as threads:
        bodies = [stage.body(stream=True) for _ in cuts]
        answers = list(threads.map(lambda body: ask(stage, body), bodies))
    assert all(answer.status == 502 or not answer.complete for answer in answers)
    assert any(answer.status == 200 for answer in answers)
    stage.wait_idle()
    assert all(afterwards(stage, STREAM, body) == "" for body in bodies[:5])
