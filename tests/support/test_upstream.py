"""The upstream does what its script says, to the byte, and sees what the other side does."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace

import anthropic
import pytest

from support import anthropic_wire as wire
from support.raw import BadFraming, Ending, RawConnection, exchange
from support.replies import (
    Cut,
    Framing,
    Gate,
    Made,
    Raw,
    Reply,
    Reset,
    Stall,
    Step,
    at_byte,
    gzip_reply,
    json_reply,
    sse_reply,
    wire_bytes,
    wire_reply,
)
from support.upstream import Upstream

BODY = b'{"answer":42}'


def test_request_is_recorded_as_received(upstream: Upstream) -> None:
    upstream.default = json_reply(BODY)
    head = b"POST /v1/x?a=%2f HTTP/1.1\r\nHOST: a\r\nX-Odd:  two  words \r\n"
    sent = head + b"content-length: 3\r\n\r\nabc"
    with RawConnection(upstream.port) as connection:
        connection.send(sent)
        assert connection.response("POST").read_all() == BODY
    request = upstream.calls[0].request
    assert request.head + request.raw_body == sent
    assert (request.method, request.target, request.body) == ("POST", "/v1/x?a=%2f", b"abc")
    assert request.header("x-odd") == "two  words"


def test_chunked_request_is_decoded_and_kept_raw(upstream: Upstream) -> None:
    upstream.default = json_reply(BODY)
    chunks = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    with RawConnection(upstream.port) as connection:
        connection.send(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + chunks
        )
        connection.response("POST").read_all()
        connection.send(b"GET /again HTTP/1.1\r\nhost: a\r\n\r\n")
        connection.response().read_all()
    first, second = upstream.calls
    assert (first.request.body, first.request.raw_body) == (b"abcde", chunks)
    assert (second.request.target, second.request.connection) == ("/again", 1)


@pytest.mark.parametrize("framing", [Framing.LENGTH, Framing.CHUNKED, Framing.CLOSE])
def test_each_framing_carries_the_body(upstream: Upstream, framing: Framing) -> None:
    upstream.script(Reply(body=(BODY[:5], BODY[5:]), framing=framing))
    response = exchange(upstream.port, "GET", "/")
    assert (response.body, response.complete) == (BODY, True)
    assert response.chunks == ([5, len(BODY) - 5] if framing is Framing.CHUNKED else [])


@pytest.mark.parametrize("framing", [Framing.LENGTH, Framing.CHUNKED])
@pytest.mark.parametrize(("fault", "ending"), [(Cut(), Ending.CUT), (Reset(), Ending.RESET)])
@pytest.mark.parametrize("count", [0, 1, 5, len(BODY)])
def test_fault_comes_after_exactly_n_bytes(
    upstream: Upstream, framing: Framing, fault: Step, ending: Ending, count: int
) -> None:
    gate = Gate()
    body = at_byte((BODY[:5], BODY[5:]), count, gate, fault)
    upstream.script(Reply(body=body, framing=framing, announced=len(BODY) + 1))
    with RawConnection(upstream.port) as connection:
        response = connection.request("GET", "/")
        gate.wait_reached()
        assert response.read(count) == BODY[:count]
        assert not response.complete
        gate.release()
        response.read_all()
    assert response.body == BODY[:count]
    assert response.ending is ending


def test_answer_can_be_cut_at_every_byte_of_the_wire(upstream: Upstream) -> None:
    whole = wire_bytes(Reply(body=(b"ab", b"c"), framing=Framing.CHUNKED))
    for count in range(len(whole) + 1):
        upstream.script(wire_reply(whole[:count], Cut()))
        with RawConnection(upstream.port) as connection:
            connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert connection.take_all() == whole[:count]


def test_length_longer_than_the_body_is_a_cut(upstream: Upstream) -> None:
    upstream.script(Reply(body=(BODY, Cut()), announced=len(BODY) + 10))
    assert exchange(upstream.port, "GET", "/").ending is Ending.CUT


def test_bad_chunk_header_is_sent_as_scripted(upstream: Upstream) -> None:
    upstream.script(Reply(body=(BODY, Raw(b"zz\r\noops\r\n")), framing=Framing.CHUNKED))
    with pytest.raises(BadFraming, match="zz"):
        exchange(upstream.port, "GET", "/")


def test_garbage_after_the_answer_is_sent_as_scripted(upstream: Upstream) -> None:
    upstream.script(Reply(body=(BODY,), after=(Raw(b"garbage"), Cut())))
    with RawConnection(upstream.port) as connection:
        assert connection.request("GET", "/").read_all() == BODY
        assert connection.take_all() == b"garbage"


def test_interim_responses_come_first(upstream: Upstream) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    upstream.script(Reply(before=(Raw(hint), Raw(hint)), body=(BODY,)))
    response = exchange(upstream.port, "GET", "/")
    assert (response.interim, response.status, response.body) == ([hint, hint], 200, BODY)


def test_gate_holds_the_rest_until_released(upstream: Upstream) -> None:
    gate = Gate()
    upstream.script(sse_reply([b"first", gate, b"second"]))
    with RawConnection(upstream.port) as connection:
        response = connection.request("GET", "/")
        gate.wait_reached()
        assert response.read(5) == b"first"
        assert connection.is_quiet()
        assert upstream.calls[0].sent == 5
        gate.release()
        assert response.read_all() == b"firstsecond"
    upstream.calls[0].wait_finished()


def test_slow_first_byte_is_a_gate_before_the_head(upstream: Upstream) -> None:
    gate = Gate()
    upstream.script(replace(json_reply(BODY), before=(gate,)))
    with RawConnection(upstream.port) as connection:
        connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        gate.wait_reached()
        assert connection.is_quiet()
        gate.release()
        assert connection.response().read_all() == BODY


@pytest.mark.parametrize(
    "reply",
    [
        Reply(before=(Stall(),)),
        Reply(body=(b"x", Stall()), framing=Framing.CHUNKED),
        sse_reply([b"x", Gate(), b"y"]),
    ],
    ids=["no answer", "stall", "gate"],
)
@pytest.mark.parametrize("leave", [RawConnection.close, RawConnection.reset])
def test_call_knows_that_the_client_went_away(
    upstream: Upstream, reply: Reply, leave: Callable[[RawConnection], None]
) -> None:
    upstream.script(reply)
    connection = RawConnection(upstream.port)
    connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    (call,) = upstream.wait_for_calls(1)
    assert not call.closed
    leave(connection)
    call.wait_closed()
    assert call.aborted
    upstream.wait_all_closed()


def test_finished_call_is_not_aborted_when_its_connection_ends(upstream: Upstream) -> None:
    upstream.script(json_reply(BODY))
    exchange(upstream.port, "GET", "/")
    upstream.calls[0].wait_closed()
    assert not upstream.calls[0].aborted


def test_refused_connections_and_listening_again(upstream: Upstream) -> None:
    upstream.default = json_reply(BODY)
    upstream.refuse()
    with pytest.raises(ConnectionRefusedError):
        RawConnection(upstream.port)
    upstream.listen()
    assert exchange(upstream.port, "GET", "/").body == BODY


def test_idle_connections_can_be_dropped(upstream: Upstream) -> None:
    upstream.default = json_reply(BODY)
    with RawConnection(upstream.port) as connection:
        connection.request("GET", "/").read_all()
        upstream.drop_connections()
        assert connection.wait_closed() == b""


def test_gzip_reply_unpacks_to_the_same_body(upstream: Upstream) -> None:
    upstream.script(gzip_reply(sse_reply(wire.stream())))
    response = exchange(upstream.port, "GET", "/")
    assert response.header("content-encoding") == "gzip"
    assert gzip.decompress(response.body) == b"".join(wire.stream())
    assert len(response.chunks) > 1


def test_made_pieces_are_made_when_sent(upstream: Upstream) -> None:
    gate, when = Gate(), ["early"]
    upstream.script(sse_reply([gate, Made(lambda: when[0].encode())]))
    with RawConnection(upstream.port) as connection:
        connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        gate.wait_reached()
        when[0] = "late"
        gate.release()
        assert connection.response().read_all() == b"late"


def test_default_may_depend_on_the_request(upstream: Upstream) -> None:
    upstream.default = lambda request: json_reply(request.target.encode())
    upstream.script(json_reply(b"scripted"))
    bodies = [exchange(upstream.port, "GET", path).body for path in ("/a", "/b")]
    assert bodies == [b"scripted", b"/b"]


def test_fault_in_a_script_is_reported() -> None:
    with Upstream() as server:
        with pytest.raises((EOFError, ConnectionResetError)):
            exchange(server.port, "GET", "/")
        assert "no reply scripted" in str(server.errors[0])


def test_stop_ends_connections_that_stall() -> None:
    server = Upstream(Reply(before=(Stall(),))).start()
    with RawConnection(server.port) as connection:
        connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        server.wait_for_calls(1)
        server.stop()
        assert connection.wait_closed() == b""


TOOL = wire.tool_use_block("get_weather", {"city": "Zürich", "days": 3})
BLOCKS = [wire.thinking_block("Let me think. 🤔"), wire.text_block("Grüezi 世界 🌍"), TOOL]


def official(upstream: Upstream) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=upstream.url, api_key="sk-ant-test", max_retries=0)


def ask(client: anthropic.Anthropic) -> anthropic.types.Message:
    return client.messages.create(
        model=wire.MODEL, max_tokens=100, messages=[{"role": "user", "content": "hi"}]
    )


def test_official_client_reads_our_messages(upstream: Upstream, home: object) -> None:
    tokens = wire.usage(7, 9, cache_read=100, cache_write_5m=20, cache_write_1h=3)
    upstream.script(json_reply(wire.message(BLOCKS, tokens=tokens), headers=wire.RESPONSE_HEADERS))
    with official(upstream) as client:
        message = ask(client)
    assert message.to_dict() == wire.message_document(BLOCKS, tokens=tokens)
    assert message.usage.cache_creation_input_tokens == 23
    assert message.stop_reason == "tool_use"


def test_official_client_reads_our_streams(upstream: Upstream, home: object) -> None:
    upstream.script(sse_reply(wire.stream(BLOCKS)))
    with (
        official(upstream) as client,
        client.messages.stream(
            model=wire.MODEL, max_tokens=100, messages=[{"role": "user", "content": "hi"}]
        ) as stream,
    ):
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert [block.to_dict() for block in message.content] == BLOCKS
    assert message.usage.output_tokens == 34


def test_official_client_reads_our_errors(upstream: Upstream, home: object) -> None:
    upstream.script(json_reply(wire.error(), status=400), sse_reply([wire.error_event()]))
    with official(upstream) as client:
        with pytest.raises(anthropic.BadRequestError, match="field required"):
            ask(client)
        stream = client.messages.create(
            model=wire.MODEL,
            max_tokens=100,
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
        )
        with stream, pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            list(stream)


def test_message_has_exactly_the_size_asked_for() -> None:
    assert [len(wire.message_of_size(size)) for size in (1400, 100_000)] == [1400, 100_000]
