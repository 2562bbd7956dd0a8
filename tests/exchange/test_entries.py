"""The meta of an entry: what is written is read again, also what earlier versions wrote."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.exchange.entries import MOST_CHUNKS, VERSION, AskedAs, Meta, packed
from llm_cache.wire.provider import Usage

OLD = {
    "status": 200,
    "headers": [["content-type", "application/json"], ["request-id", "r\u00e9"]],
    "provider": "anthropic",
    "endpoint": "messages",
    "model": "m",
    "usage": {"input_tokens": 3, "output_tokens": 4, "a later counter": 5},
    "nano_usd": 12,
    "snippet": "Hello",
    "prompt": "hello",
}
"""As version 1 wrote it, which named no version."""

words = st.text(max_size=20)
latin = st.text(st.characters(max_codepoint=255), max_size=20)
whole = st.integers(0, 1 << 40)
requests = st.builds(
    AskedAs,
    method=words,
    target=words,
    upstream=words,
    headers=st.lists(st.tuples(words, words), max_size=3).map(tuple),
    withheld=st.lists(words, max_size=3).map(tuple),
    namespace=words,
    sample=words,
    credential=st.sampled_from(["client", "own", "shared"]),
)
chunk_lists = st.lists(st.tuples(whole, whole), max_size=40)
metas = st.builds(
    Meta,
    status=st.integers(100, 599),
    headers=st.lists(st.tuples(latin, latin), max_size=4).map(
        lambda found: [(n.encode("latin-1"), v.encode("latin-1")) for n, v in found]
    ),
    provider=words,
    endpoint=words,
    model=st.none() | words,
    usage=st.none() | st.builds(Usage, input_tokens=whole, output_tokens=whole),
    nano_usd=st.none() | whole,
    snippet=words,
    prompt=words,
    reason=latin,
    request=st.none() | requests,
    first_ms=st.none() | whole,
    packed_chunks=chunk_lists.map(packed),
)


@given(metas)
def test_what_is_written_is_read_again(meta: Meta) -> None:
    assert Meta.decode(meta.encode()) == meta


@given(chunk_lists)
def test_chunks_are_kept_but_for_an_answer_in_one_piece(chunks: list[tuple[int, int]]) -> None:
    meta = Meta(200, [], "p", "e", None, None, None, "", packed_chunks=packed(chunks))
    assert meta.chunks == (chunks if len(chunks) > 1 else [])


def test_a_long_stream_takes_little_room() -> None:
    chunks = [(120 + number % 7, 30 + number % 11) for number in range(MOST_CHUNKS)]
    text = packed(chunks)
    assert len(text) < MOST_CHUNKS
    assert Meta(200, [], "p", "e", None, None, None, "", packed_chunks=text).chunks == chunks


def test_a_meta_of_the_first_version_stays_readable() -> None:
    meta = Meta.decode(json.dumps(OLD).encode())
    assert (meta.status, meta.model, meta.snippet, meta.prompt) == (200, "m", "Hello", "hello")
    assert meta.headers[1] == (b"request-id", b"r\xe9")
    assert meta.usage == Usage(input_tokens=3, output_tokens=4)
    assert (meta.reason, meta.request, meta.chunks, meta.first_ms) == ("", None, [], None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        json.dumps({**OLD, "v": VERSION + 1}).encode(),
        json.dumps({**OLD, "headers": [["a"]]}).encode(),
        json.dumps({**OLD, "usage": 3}).encode(),
        json.dumps({**OLD, "request": {"headers": 3}}).encode(),
    ],
)
def test_what_is_no_meta_of_ours_is_told_as_such(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # RecursionError and others would get out
        Meta.decode(data)


@given(st.text(max_size=60))
def test_chunks_that_are_damaged_are_none(text: str) -> None:
    meta = Meta(200, [], "p", "e", None, None, None, "", packed_chunks=text)
    assert isinstance(meta.chunks, list)
