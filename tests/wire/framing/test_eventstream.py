"""AWS event streams: what the bytes say wherever they are split, nothing once they are wrong."""

from __future__ import annotations

from itertools import pairwise
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.wire.framing.eventstream import Message, MessageParser


def string(name: str, value: str) -> bytes:
    """One string header (value type 7)."""
    raw = value.encode()
    return bytes((len(name.encode()),)) + name.encode() + b"\x07" + len(raw).to_bytes(2) + raw


def framed(headers: bytes, payload: bytes = b"") -> bytes:
    """One message around a ready block of headers."""
    prelude = (16 + len(headers) + len(payload)).to_bytes(4) + len(headers).to_bytes(4)
    start = prelude + crc32(prelude).to_bytes(4) + headers + payload
    return start + crc32(start).to_bytes(4)


def event(name: str, payload: bytes) -> bytes:
    return framed(string(":event-type", name) + string(":message-type", "event"), payload)


STREAM = (
    event("messageStart", b'{"role":"assistant"}') + event("x", b"") + event("y", b"\x00" * 300)
)


def read(*pieces: bytes) -> tuple[list[Message], str, bool]:
    parser = MessageParser()
    messages = [message for piece in pieces for message in parser.feed(piece)]
    return messages, parser.broken, parser.unfinished


def test_messages_have_their_headers_and_payload() -> None:
    messages, broken, unfinished = read(STREAM)
    assert [(m.kind, m.name, m.payload) for m in messages] == [
        ("event", "messageStart", b'{"role":"assistant"}'),
        ("event", "x", b""),
        ("event", "y", b"\x00" * 300),
    ]
    assert (broken, unfinished) == ("", False)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_how_a_stream_is_split_changes_no_message(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert read(*(STREAM[a:b] for a, b in pairwise(edges))) == read(STREAM)


def test_a_stream_cut_inside_a_message_is_unfinished() -> None:
    ends = {0, len(event("messageStart", b'{"role":"assistant"}'))}
    ends |= {max(ends) + len(event("x", b"")), len(STREAM)}
    for length in range(len(STREAM) + 1):
        _, broken, unfinished = read(STREAM[:length])
        assert (broken, unfinished) == ("", length not in ends), length


@given(st.integers(0, len(STREAM) * 8 - 1))
def test_a_flipped_bit_is_never_a_message(bit: int) -> None:
    altered = bytearray(STREAM)
    altered[bit // 8] ^= 1 << bit % 8
    whole, _, _ = read(STREAM)
    messages, broken, unfinished = read(bytes(altered))
    assert messages == whole[: len(messages)]
    assert len(messages) < len(whole)
    assert broken
    assert not unfinished


def test_nothing_comes_after_a_broken_message() -> None:
    parser = MessageParser()
    assert parser.feed(b"data: {}\n\n" + STREAM) == []
    assert parser.broken == "wrong checksum of a prelude"
    assert parser.feed(STREAM) == []


@pytest.mark.parametrize(
    ("total", "headers"), [(15, 0), (16, 1), (0, 0), (2**32 - 1, 0), (200 << 10, 129 << 10)]
)
def test_impossible_lengths_are_refused_before_anything_is_awaited(
    total: int, headers: int
) -> None:
    prelude = total.to_bytes(4) + headers.to_bytes(4)
    assert read(prelude + crc32(prelude).to_bytes(4)) == (
        [],
        "a message of an impossible length",
        False,
    )


def test_every_type_of_header_is_passed_over() -> None:
    others = b"".join(
        b"\x01" + bytes((65 + kind, kind)) + value
        for kind, value in [
            (0, b""), (1, b""), (2, b"\x07"), (3, b"\x00\x01"), (4, b"\x00" * 4),
            (5, b"\x00" * 8), (6, b"\x00\x02hi"), (8, b"\x00" * 8), (9, b"\x00" * 16),
        ]
    )  # fmt: skip
    messages, broken, _ = read(framed(others + string(":event-type", "é"), b"p"))
    assert (messages, broken) == ([Message({":event-type": "é"}, b"p")], "")


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"\x05ab", "a header is cut short"),
        (b"\x01a", "a header is cut short"),
        (b"\x01a\x07\x00\x05ab", "a header is cut short"),
        (b"\x01a\x07\x00", "a header is cut short"),
        (b"\x01a\x05\x00", "a header is cut short"),
        (b"\x01a\x0a", "a header of an unknown type"),
        (b"\x01a\x07\x00\x01\xff", "a header isn't UTF-8"),
    ],
)
def test_headers_that_do_not_add_up_break_the_stream(block: bytes, why: str) -> None:
    assert read(framed(block, b"payload")) == ([], why, False)


names = st.text(min_size=1, max_size=20)
messages = st.tuples(
    st.dictionaries(names, st.text(max_size=40), max_size=5), st.binary(max_size=80)
)


@given(st.lists(messages, max_size=4), st.data())
def test_botocore_reads_the_same_messages(
    given_: list[tuple[dict[str, str], bytes]], data: st.DataObject
) -> None:
    stream = b"".join(
        framed(b"".join(string(name, value) for name, value in headers.items()), payload)
        for headers, payload in given_
    )
    cut = data.draw(st.integers(0, len(stream)))
    theirs = EventStreamBuffer()
    theirs.add_data(stream)
    assert [(m.headers, m.payload) for m in theirs] == given_
    ours, broken, unfinished = read(stream[:cut], stream[cut:])
    assert [(m.headers, m.payload) for m in ours] == given_
    assert (broken, unfinished) == ("", False)
