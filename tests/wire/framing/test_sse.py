"""Event stream framing: the events depend on the bytes, never on how they were split."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.wire.framing.sse import Event, EventParser


def parse(*pieces: bytes) -> list[Event]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


FRAGMENTS = st.sampled_from(
    [
        b"\n", b"\r", b"\r\n", b"\n\n", b"data", b"data:", b"data: x", b"event: ping", b"id: 7",
        b": note", b":", b" ", b"\xef\xbb\xbf", b"\xef", b"\xff", b"retry: 1", b"odd: line", b"{}",
    ]
)  # fmt: skip
STREAMS = st.lists(FRAGMENTS | st.binary(max_size=4), max_size=30).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 500), max_size=12))
def test_any_split_gives_the_same_events_and_the_same_end(data: bytes, cuts: list[int]) -> None:
    whole, split = EventParser(), EventParser()
    expected = whole.feed(data)
    got = [event for piece in in_pieces(data, cuts) for event in split.feed(piece)]
    assert got == expected
    assert (split.unfinished, split.stray) == (whole.unfinished, whole.stray)


@given(STREAMS)
def test_byte_by_byte_gives_the_same_events(data: bytes) -> None:
    assert parse(*[data[at : at + 1] for at in range(len(data))]) == parse(data)


LINES = st.binary(max_size=9).map(lambda raw: raw.translate(None, b"\r\n"))
NAMES = st.sampled_from([b"", b"ping", b"content_block_delta"])


@given(
    st.lists(st.tuples(NAMES, st.lists(LINES, min_size=1, max_size=3)), max_size=6),
    st.sampled_from([b"\n", b"\r", b"\r\n"]),
)
def test_written_events_are_read_back_with_every_line_ending(
    events: list[tuple[bytes, list[bytes]]], end: bytes
) -> None:
    written = b""
    for name, lines in events:
        written += b"event: " + name + end if name else b""
        written += b"".join(b"data: " + line + end for line in lines) + end
    expected = [Event(name, b"\n".join(lines)) for name, lines in events]
    assert parse(written) == expected
    assert parse(*[written[at : at + 1] for at in range(len(written))]) == expected


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [Event(b"", b"a")]),
        (b"data:a\n\n", [Event(b"", b"a")]),
        (b"data:  a\n\n", [Event(b"", b" a")]),
        (b"data: a\ndata: b\n\n", [Event(b"", b"a\nb")]),
        (b"data\n\n", [Event(b"", b"")]),
        (b"data\ndata\n\n", [Event(b"", b"\n")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event(b"", b"a")]),
        (b"data: \xef\xbb\xbf\n\n", [Event(b"", b"\xef\xbb\xbf")]),
        (b": note\n\ndata: a\n\n", [Event(b"", b"a")]),
        (b"event: x\n\ndata: a\n\n", [Event(b"", b"a")]),  # a name without data is forgotten
        (b"event: x\nevent: y\ndata: a\n\n", [Event(b"y", b"a")]),
        (b"data: a\n", []),  # no blank line: never dispatched
        (b"data: a", []),
        (b"data: a:b\n\n", [Event(b"", b"a:b")]),
    ],
)
def test_streams_are_read_as_the_standard_says(stream: bytes, events: list[Event]) -> None:
    assert parse(stream) == events


def test_a_line_of_no_known_field_is_told() -> None:
    parser = EventParser()
    parser.feed(b": comment\nid: 1\nretry: 5\nevent: e\ndata: d\n\n")
    assert not parser.stray
    parser.feed(b"<html>\n")
    assert parser.stray


def test_an_event_that_has_begun_is_unfinished_until_its_blank_line() -> None:
    parser = EventParser()
    for piece, unfinished in [
        (b"", False), (b": comm", False), (b"ent\n", False), (b"da", True), (b"ta: x", True),
        (b"\n", True), (b"\n", False), (b"event: y\n", True), (b"\n", False),
    ]:  # fmt: skip
        parser.feed(piece)
        assert parser.unfinished == unfinished, piece


@pytest.mark.parametrize("unit", [b"x", b"data: x\n", b"data: " + b"x" * 50])
def test_an_endless_event_is_dropped_at_the_limit(unit: bytes) -> None:
    parser = EventParser(max_event_bytes=1000)
    parser.feed(b"data: ")
    for _ in range(2000):
        assert parser.feed(unit) == []
    assert parser.overflowed
    assert parser.feed(b"\n\ndata: later\n\n") == []


def test_a_long_stream_of_small_events_is_no_overflow() -> None:
    parser = EventParser(max_event_bytes=100)
    assert sum(len(parser.feed(b"data: 0123456789\n\n")) for _ in range(1000)) == 1000
    assert not parser.overflowed
