"""Content codings: what was compressed upstream stays so for who reads it, and is undone for who
doesn't; what can't be read to its end isn't stored."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import zstandard
from support import anthropic_wire as wire
from support.cache import Received
from support.proxy import anthropic_headers
from support.replies import Framing, Gate, Reply, json_reply
from support.stage import InnerStage, assert_same, inner_stage, shown

pytestmark = pytest.mark.usefixtures("home")

TEXT = "Grüezi 世界 🌍 " * 40
DOCUMENT = wire.message(TEXT)
EVENTS = wire.stream(TEXT, piece=40)
STREAM = b"".join(EVENTS)
ALL = {"accept-encoding": "gzip, deflate, br, zstd"}
NONE = {"accept-encoding": "identity"}


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def two_members(data: bytes) -> bytes:
    return gzip.compress(data[:99], mtime=0) + gzip.compress(data[99:], mtime=0)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", lambda data: gzip.compress(data, mtime=0)),
    "gzip in members": ("gzip", two_members),
    "x-gzip": ("x-gzip", lambda data: gzip.compress(data, mtime=0)),
    "deflate": ("deflate", zlib.compress),
    "deflate without its frame": ("deflate", bare_deflate),
    "zstd": ("zstd", zstd),
    "two codings": ("gzip, zstd", lambda data: zstd(gzip.compress(data, mtime=0))),
}
SHAPES = {
    "plain": ("application/json", DOCUMENT, Framing.LENGTH),
    "streamed": ("text/event-stream", STREAM, Framing.CHUNKED),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InnerStage]:
    with inner_stage(tmp_path_factory.mktemp("gzip")) as running:
        yield running
        running.wait_idle()


def encoded(shape: str, coding: str, data: bytes | None = None) -> Reply:
    """An answer of this shape in this coding, in pieces; `data` stands in for the coded body."""
    content_type, plain, framing = SHAPES[shape]
    label, encode = CODINGS.get(coding, (coding, lambda given: given))
    packed = encode(plain) if data is None else data
    return Reply(
        headers=(("content-type", content_type), ("content-encoding", label), ("vary", "x")),
        body=tuple(packed[at : at + 100] for at in range(0, len(packed), 100)),
        framing=framing,
    )


def body_of(reply: Reply) -> bytes:
    return b"".join(step for step in reply.body if isinstance(step, bytes))


def without(names: tuple[str, ...], response: Received) -> list[tuple[str, str]]:
    return [header for header in shown(response) if header[0] not in names]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("coding", CODINGS)
def test_client_that_accepts_a_coding_gets_the_same_bytes(
    stage: InnerStage, coding: str, shape: str
) -> None:
    """BAR 12: a hit is compressed as its miss was, not anew."""
    reply = encoded(shape, coding)
    miss, hit = stage.twice(reply, ALL)
    assert_same(miss, hit)
    assert miss.body == body_of(reply)
    assert hit.header("content-encoding") == CODINGS[coding][0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("coding", CODINGS)
def test_client_that_does_not_accept_it_gets_it_decoded(
    stage: InnerStage, coding: str, shape: str
) -> None:
    """One entry serves both kinds of clients; what it serves is decoded whole."""
    body = stage.body()
    miss, _ = stage.twice(encoded(shape, coding), ALL, body)
    for accepted in ("identity", "br", "", "gzip;q=0, deflate;q=0, zstd;q=0", "*;q=0, identity"):
        response = stage.cache.ask(body, {"accept-encoding": accepted})
        assert response.header("x-cache") == "HIT"
        assert (response.body, response.complete) == (SHAPES[shape][1], True)
        assert response.header("content-encoding") is None
        own = ("content-encoding", "content-length", "transfer-encoding")
        assert without(own, response) == without(own, miss)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("coding", CODINGS)
def test_upstream_that_compresses_unasked_is_decoded_on_the_miss_as_well(
    stage: InnerStage, coding: str, shape: str
) -> None:
    """A client is never given what it said it can't read, and its hit equals its miss."""
    miss, hit = stage.twice(encoded(shape, coding), NONE)
    assert miss.body == SHAPES[shape][1]
    assert miss.header("content-encoding") is None
    assert_same(miss, hit)


def test_client_without_the_header_is_never_given_a_coding(stage: InnerStage) -> None:
    """Neither by an upstream that compresses unasked, nor by another client's stored answer."""
    miss, hit = stage.twice(encoded("plain", "gzip"))
    assert_same(miss, hit)
    assert (hit.header("content-encoding"), hit.body) == (None, DOCUMENT)
    body = stage.body()
    packed, _ = stage.twice(encoded("plain", "gzip"), ALL, body)
    plain = stage.cache.send(body, anthropic_headers(), "/v1/messages")
    assert (packed.header("content-encoding"), packed.body) == (
        "gzip",
        body_of(encoded("plain", "gzip")),
    )
    assert (plain.header("x-cache"), plain.header("content-encoding")) == ("HIT", None)
    assert plain.body == DOCUMENT


@pytest.mark.parametrize("shape", SHAPES)
def test_joiner_that_does_not_accept_the_coding_gets_it_decoded_live(
    stage: InnerStage, shape: str
) -> None:
    """BAR 4: two clients of one call, each in a form it can read, while it runs."""
    gate = Gate()
    if shape == "streamed":  # flushed after the first events, as a server does
        packer = zlib.compressobj(wbits=31)
        first = packer.compress(b"".join(EVENTS[:5])) + packer.flush(zlib.Z_SYNC_FLUSH)
        rest = packer.compress(b"".join(EVENTS[5:])) + packer.flush()
        readable = b"".join(EVENTS[:5])
    else:
        packed = body_of(encoded("plain", "gzip"))
        first, rest, readable = packed[:-30], packed[-30:], b""
    whole = SHAPES[shape][1]
    reply = encoded(shape, "gzip", first + rest)
    stage.upstream.script(replace(reply, body=(first, gate, rest)))
    body = stage.body()
    before = stage.upstream.call_count
    leader = stage.cache.begin(body, [*anthropic_headers(), *ALL.items()])
    assert leader.read(len(first)) == first
    joiner = stage.cache.begin(body, [*anthropic_headers(), *NONE.items()])
    assert joiner.read(len(readable))[: len(readable)] == readable
    gate.release()
    assert (leader.read_all(), leader.complete) == (first + rest, True)
    assert (joiner.read_all(), joiner.complete) == (whole, True)
    assert joiner.header("x-cache") == "HIT-COALESCED"
    assert joiner.header("content-encoding") is None
    assert stage.upstream.call_count == before + 1


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in its trailer": lambda data: data[:-1],
    "cut before its trailer": lambda data: data[:-8],
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut after its head": lambda data: data[:10],
    "empty": lambda data: b"",
    "altered in its head": lambda data: flipped(data, 0),
    "altered in the middle": lambda data: flipped(data, len(data) // 2),
    "altered in its checksum": lambda data: flipped(
        data, len(data) - 6 if data[:1] == b"\x1f" else len(data) - 2
    ),
    "followed by garbage": lambda data: data + b"garbage!",
    "not compressed at all": lambda data: DOCUMENT,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_compression_passes_and_is_not_stored(
    stage: InnerStage, damage: str, coding: str, shape: str
) -> None:
    """BAR 3, 9: its framing is whole, its content isn't: no entry."""
    packed = body_of(encoded(shape, coding))
    reply = encoded(shape, coding, DAMAGES[damage](packed))
    body = stage.body()
    logged = len(stage.cache.log())
    stage.upstream.script(reply, reply)
    for _ in range(2):
        response = stage.cache.ask(body, ALL)
        assert (response.header("x-cache"), response.complete) == ("MISS", True)
        assert response.body == body_of(reply)
    stage.wait_idle()  # an empty answer is over for the client before its flight is
    lines = stage.cache.log()[logged:].splitlines()
    notes = [line.partition("ms [")[2] for line in lines if " MISS " in line]
    assert [bool(note) and "cached]" not in note for note in notes] == [True, True], lines


@pytest.mark.parametrize("shape", SHAPES)
def test_damaged_compression_is_cut_for_who_needs_it_decoded(stage: InnerStage, shape: str) -> None:
    """A decoded part is never ended as if it were whole."""
    packed = body_of(encoded(shape, "gzip"))
    for damage in ("cut in the middle", "altered in its checksum", "not compressed at all"):
        reply = encoded(shape, "gzip", DAMAGES[damage](packed))
        body = stage.body()
        stage.upstream.script(reply, reply)
        for _ in range(2):
            response = stage.cache.ask(body, NONE)
            assert not response.complete
            assert SHAPES[shape][1].startswith(response.body)
            stage.wait_idle()  # cut here at once, while the upstream may still be sending


def test_compressed_answer_that_breaks_off_is_cut_and_not_stored(stage: InnerStage) -> None:
    """BAR 1: short of its announced length, in a coding."""
    reply = encoded("plain", "gzip")
    packed = body_of(reply)
    for headers in (ALL, NONE):
        body = stage.body()
        stage.upstream.script(
            replace(
                reply,
                body=(packed[:-1],),
                announced=len(packed),
                framing=Framing.LENGTH,
                after=(),
                keep_alive=False,
            )
        )
        assert not stage.cache.ask(body, headers).complete
        miss, hit = stage.twice(reply, headers, body)
        assert_same(miss, hit)


# Codings that can't be read here

ASKED = [
    ("gzip, deflate, br, zstd", "gzip, deflate, zstd"),
    ("br", "identity"),
    ("br;q=1.0, gzip;q=0.5", "gzip;q=0.5"),
    ("GZIP, Br", "GZIP"),
    ("compress, identity;q=0.1", "identity;q=0.1"),
    ("", "identity"),
    ("identity", "identity"),
]


@pytest.mark.parametrize(("sent", "asked"), ASKED)
def test_unreadable_codings_are_not_asked_of_upstream(
    stage: InnerStage, sent: str, asked: str
) -> None:
    """An answer in a coding unknown here could never be judged, so it isn't asked for."""
    stage.upstream.script(json_reply(DOCUMENT))
    stage.cache.ask(stage.body(), {"accept-encoding": sent})
    assert stage.upstream.calls[-1].request.header("accept-encoding") == asked


def test_any_coding_becomes_the_readable_ones(stage: InnerStage) -> None:
    stage.upstream.script(json_reply(DOCUMENT))
    stage.cache.ask(stage.body(), {"accept-encoding": "*"})
    asked = stage.upstream.calls[-1].request.header("accept-encoding") or ""
    assert {part.strip() for part in asked.split(",")} == {"gzip", "deflate", "zstd"}


def test_uncached_paths_keep_what_the_client_accepts(stage: InnerStage) -> None:
    """What isn't read along needn't be readable."""
    stage.upstream.script(encoded("plain", "br", b"opaque"))
    headers = [*anthropic_headers(), ("accept-encoding", "br, gzip")]
    response = stage.cache.send(b"", headers, "/v1/models", "GET")
    assert response.body == b"opaque"
    assert (response.header("x-cache"), response.header("content-encoding")) == ("PASS", "br")
    assert stage.upstream.calls[-1].request.header("accept-encoding") == "br, gzip"


@pytest.mark.parametrize("headers", [ALL, NONE, {}], ids=["accepted", "not accepted", "any"])
@pytest.mark.parametrize("coding", ["br", "compress", "gzip, br", "nonsense"])
def test_unknown_coding_passes_unstored(
    stage: InnerStage, coding: str, headers: dict[str, str]
) -> None:
    """Sent unasked, it goes to the client as it is, and the log says why it isn't kept."""
    reply = encoded("plain", coding, b"\x8b\x02\x80opaque")
    body = stage.body()
    logged = len(stage.cache.log())
    stage.upstream.script(reply, reply)
    for _ in range(2):
        response = stage.cache.ask(body, headers)
        assert (response.body, response.complete) == (b"\x8b\x02\x80opaque", True)
        assert response.header("x-cache") == "MISS"
        assert response.header("content-encoding") == coding
    stage.wait_idle()
    assert stage.cache.log()[logged:].count("can't be read]") == 2


def test_identity_named_as_a_coding_is_none(stage: InnerStage) -> None:
    """RFC 9110 8.4.1: some servers send it; it changes nothing."""
    assert_same(*stage.twice(encoded("plain", "identity", DOCUMENT), NONE))
