"""Content codings: read whole bodies from any pieces, and tell damaged ones."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.wire.framing.encoding import (
    MAX_FEED_BYTES,
    acceptable,
    decode_all,
    decoder,
    readable_accept_encoding,
)


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


ENCODE: dict[bytes, Callable[[bytes], bytes]] = {
    b"": bytes,
    b"identity": bytes,
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"Deflate": bare_deflate,  # names are case-insensitive
    b"zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    b"gzip, zstd": lambda data: zstandard.compress(gzip.compress(data)),
    b"identity, deflate , gzip": lambda data: gzip.compress(zlib.compress(data)),
}
CODED = [name for name in ENCODE if name not in (b"", b"identity")]


def decode(coding: bytes, pieces: list[bytes]) -> bytes:
    body = decoder(coding)
    assert body is not None
    decoded = b"".join([body.feed(piece) for piece in pieces])
    body.close()
    return decoded


@given(st.sampled_from(list(ENCODE)), st.binary(max_size=3000), st.integers(1, 40))
def test_any_split_decodes_to_the_same_bytes(coding: bytes, data: bytes, size: int) -> None:
    encoded = ENCODE[coding](data)
    pieces = [encoded[at : at + size] for at in range(0, len(encoded), size)]
    assert decode(coding, pieces) == data
    assert decode_all(coding, encoded, len(data)) == data


@pytest.mark.parametrize("coding", list(ENCODE))
@pytest.mark.parametrize("unit", [b"\0", b"0123456789abcdef" * 16])
@pytest.mark.parametrize("size", [65535, 65536, 65537, 300_000])
def test_bodies_around_and_beyond_one_piece_are_whole(
    coding: bytes, unit: bytes, size: int
) -> None:
    data = (unit * size)[:size]
    encoded = ENCODE[coding](data)
    assert decode(coding, [encoded]) == data
    assert decode_all(coding, encoded, size) == data


@pytest.mark.parametrize("wbits", [31, 15, -15])
@pytest.mark.parametrize("size", [65_536, 65_700, 131_072, 131_200])
def test_every_byte_that_can_be_decoded_is_given_at_once(wbits: int, size: int) -> None:
    packer = zlib.compressobj(wbits=wbits)
    encoded = packer.compress(b"x" * size) + packer.flush()
    for cut in range(2, len(encoded)):
        body = decoder(b"gzip" if wbits == 31 else b"deflate")
        assert body is not None
        expected = zlib.decompressobj(wbits=wbits).decompress(encoded[:cut])
        assert body.feed(encoded[:cut]) == expected


@pytest.mark.parametrize("coding", CODED)
def test_a_body_cut_anywhere_is_damaged(coding: bytes) -> None:
    encoded = ENCODE[coding](b"The answer is 42. " * 20)
    for length in range(len(encoded)):
        with pytest.raises(ValueError, match="ends early"):
            decode(coding, [encoded[:length]])
        assert decode_all(coding, encoded[:length], 10_000) is None


@pytest.mark.parametrize("coding", CODED)
def test_what_follows_the_end_is_damage(coding: bytes) -> None:
    encoded = ENCODE[coding](b"The answer is 42.")
    with pytest.raises(ValueError, match=r"not gzip|after the end|not zstd"):
        decode(coding, [encoded, b"trailing words"])


@pytest.mark.parametrize("coding", CODED)
def test_another_format_is_damage(coding: bytes) -> None:
    assert decode_all(coding, b'{"type":"message"}', 10_000) is None


@pytest.mark.parametrize("coding", [b"gzip", b"zstd"])
def test_an_altered_byte_is_damage_or_changes_nothing(coding: bytes) -> None:
    data = b"The answer is 42. " * 20
    encoded = ENCODE[coding](data)
    for at in range(len(encoded)):
        altered = bytearray(encoded)
        altered[at] ^= 0x10
        assert decode_all(coding, bytes(altered), 10_000) in (None, data)


@pytest.mark.parametrize("coding", [b"gzip", b"zstd"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_several_members_are_one_body(coding: bytes, size: int) -> None:
    encoded = b"".join(ENCODE[coding](part) for part in (b"one ", b"", b"two ", b"three"))
    pieces = [encoded[at : at + size] for at in range(0, len(encoded), size)]
    assert decode(coding, pieces) == b"one two three"


def test_a_skippable_zstd_frame_is_skipped() -> None:
    frame = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    assert decode_all(b"zstd", frame + ENCODE[b"zstd"](b"words"), 100) == b"words"


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"zstd", b"gzip, zstd"])
def test_a_bomb_is_refused_within_one_feed(coding: bytes) -> None:
    bomb = ENCODE[coding](bytes(MAX_FEED_BYTES * 4))
    assert len(bomb) < 100_000
    body = decoder(coding)
    assert body is not None
    with pytest.raises(ValueError, match="decode to more than"):
        body.feed(bomb)
    assert decode_all(coding, bomb, 1_000_000) is None


@pytest.mark.parametrize("coding", list(ENCODE))
def test_decode_all_takes_exactly_its_limit(coding: bytes) -> None:
    encoded = ENCODE[coding](b"x" * 1000)
    assert decode_all(coding, encoded, 1000) == b"x" * 1000
    assert decode_all(coding, encoded, 999) is None


@pytest.mark.parametrize("coding", [b"br", b"compress", b"gzip, br", b"gzip,gzip,gzip,gzip,gzip"])
def test_an_unknown_coding_has_no_decoder(coding: bytes) -> None:
    assert decoder(coding) is None
    assert decode_all(coding, b"data", 100) is None


@pytest.mark.parametrize(
    ("accept", "coding", "answer"),
    [
        (None, b"gzip", True),
        (None, b"", True),
        (b"", b"", True),
        (b"", b"gzip", False),
        (b"gzip", b"gzip", True),
        (b"gzip", b"x-gzip", True),
        (b"X-GZIP", b"gzip", True),
        (b"gzip, deflate, br", b"deflate", True),
        (b"gzip;q=0", b"gzip", False),
        (b"gzip;q=0.000", b"gzip", False),
        (b"gzip;q=0.001", b"gzip", True),
        (b"gzip ; Q = 1", b"gzip", True),
        (b"gzip;q=no", b"gzip", False),
        (b"*", b"zstd", True),
        (b"*;q=0", b"zstd", False),
        (b"zstd, *;q=0", b"zstd", True),
        (b"zstd;q=0, *", b"zstd", False),
        (b"gzip", b"identity", True),
        (b"identity;q=0", b"", False),
        (b"*;q=0", b"", False),
        (b"identity, *;q=0", b"", True),
        (b"gzip", b"gzip, zstd", False),
        (b"gzip, zstd", b"gzip, zstd", True),
    ],
)
def test_acceptable_follows_the_rfc(accept: bytes | None, coding: bytes, answer: bool) -> None:
    assert acceptable(accept, coding) is answer


@pytest.mark.parametrize(
    ("value", "reduced"),
    [
        (None, None),
        (b"gzip, deflate, br, zstd", b"gzip, deflate, zstd"),
        (b"br", b"identity"),
        (b"", b"identity"),
        (b"br;q=1.0, gzip;q=0.8", b"gzip;q=0.8"),
        (b"*", b"gzip, deflate, zstd"),
        (b"gzip;q=0, *;q=0.5", b"gzip;q=0, deflate;q=0.5, zstd;q=0.5"),
        (b"br, *;q=0", b"*;q=0"),
        (b"identity;q=0, gzip", b"identity;q=0, gzip"),
        (b"x-gzip", b"x-gzip"),
    ],
)
def test_the_upstream_is_offered_only_codings_that_can_be_read(
    value: bytes | None, reduced: bytes | None
) -> None:
    assert readable_accept_encoding(value) == reduced
