"""Content codings: reading an encoded answer as it passes, and who accepts which coding.

gzip, deflate and zstd, alone or stacked. Cut, altered and continued bodies are told from whole
ones, by ValueError and no other exception. A small body that decodes to a huge one (a bomb) is
damage as well: no `feed` ever holds more than `MAX_FEED_BYTES` of output.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import zstandard

MAX_FEED_BYTES: Final = 16 << 20
_PIECE: Final = 64 << 10  # bytes that a coding is undone by at once
_MAX_STACKED: Final = 4
_MAX_WINDOW: Final = 8 << 20  # of a zstd frame sent over HTTP (RFC 9659, section 3)
_ZSTD_SLICE: Final = 512  # input bytes at a time: at most 128 KiB of output for each 4 of them

_ALIASES: Final = {b"x-gzip": b"gzip"}  # RFC 9110, 8.4.1.3


class ContentDecoder:
    """Undoes the content codings of one body. After a ValueError it is of no further use."""

    def __init__(self, stages: Sequence[_Coding]) -> None:
        self._stages = stages  # the outermost coding first; none is the identity

    def feed(self, data: bytes) -> bytes:
        """What `data`, the next bytes of the body, decodes to.

        ValueError: damaged, something follows the end, or more than MAX_FEED_BYTES at once.
        """
        if not self._stages:
            return data
        pieces: list[bytes] = []
        size = 0
        for piece in self.pieces(data):
            size += len(piece)
            if size > MAX_FEED_BYTES:
                raise ValueError(f"{len(data)} bytes decode to more than {MAX_FEED_BYTES}")
            pieces.append(piece)
        return b"".join(pieces)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The same in pieces, decoded as they are asked for. To be iterated to its end."""
        for start in range(0, len(data), _PIECE):
            yield from self._through(data[start : start + _PIECE], 0)

    def close(self) -> None:
        """Say that the body ended. ValueError: it was cut short."""
        for stage in self._stages:
            stage.close()

    def _through(self, data: bytes, depth: int) -> Iterator[bytes]:
        if depth == len(self._stages):
            yield data
            return
        for piece in self._stages[depth].feed(data):
            yield from self._through(piece, depth + 1)


def decoder(content_encoding: bytes) -> ContentDecoder | None:
    """A decoder for a `content-encoding` value (b"" for none), or None: a coding not known here.

    Codings are listed in the order they were applied (RFC 9110, 8.4).
    """
    names = _codings(content_encoding)
    if len(names) > _MAX_STACKED or any(name not in _DECODERS for name in names):
        return None
    return ContentDecoder([_DECODERS[name]() for name in reversed(names)])


def decode_all(content_encoding: bytes, data: bytes, max_bytes: int) -> bytes | None:
    """`data` decoded, or None: unknown coding, damaged, cut, or longer than `max_bytes`."""
    body = decoder(content_encoding)
    if body is None:
        return None
    decoded: list[bytes] = []
    left = max_bytes
    try:
        for piece in body.pieces(data):
            left -= len(piece)
            if left < 0:
                return None
            decoded.append(piece)
        body.close()
    except ValueError:
        return None
    return b"".join(decoded)


def acceptable(accept_encoding: bytes | None, content_encoding: bytes) -> bool:
    """Whether a client that sent `accept_encoding` (None: no such field) takes this coding.

    Source: RFC 9110, section 12.5.3.
    """
    if accept_encoding is None:
        return True
    weights = {_canonical(name): weight for name, weight, _ in _members(accept_encoding)}
    names = _codings(content_encoding)
    if not names:  # "identity" is acceptable unless it, or "*" without it, is excluded
        return weights.get(b"identity", weights.get(b"*", 1.0)) > 0
    return all(weights.get(name, weights.get(b"*", 0.0)) > 0 for name in names)


def readable_accept_encoding(value: bytes | None) -> bytes | None:
    """The client's `accept-encoding` reduced to codings that `decoder` can read.

    None (no such field) stays None. The result never lets the upstream choose another coding:
    `*` becomes the readable ones the client didn't name, nothing left becomes `identity`.
    """
    if value is None:
        return None
    members = _members(value)
    named = {_canonical(name) for name, _, _ in members}
    kept: list[bytes] = []
    for name, weight, text in members:
        if name == b"*" and weight > 0:
            parameters = text[1:]
            kept += [coding + parameters for coding in _DECODERS if coding not in named]
        elif name in (b"identity", b"*") or _canonical(name) in _DECODERS:
            kept.append(text)
    return b", ".join(kept) or b"identity"


_WEIGHT: Final = re.compile(rb"[ \t]*q[ \t]*=[ \t]*([01](?:\.\d*)?)[ \t]*\Z", re.IGNORECASE)


def _members(accept_encoding: bytes) -> list[tuple[bytes, float, bytes]]:
    """(lower-case coding, weight, text as sent) of each list member; a bad weight counts as 0."""
    members = []
    for member in accept_encoding.split(b","):
        text = member.strip()
        name, semicolon, parameter = text.partition(b";")
        weight = 1.0
        if semicolon:
            match = _WEIGHT.match(parameter)
            weight = float(match[1]) if match else 0.0
        if name.strip():
            members.append((name.strip().lower(), weight, text))
    return members


def _codings(content_encoding: bytes) -> list[bytes]:
    names = [_canonical(name.strip().lower()) for name in content_encoding.split(b",")]
    return [name for name in names if name not in (b"", b"identity")]


def _canonical(name: bytes) -> bytes:
    return _ALIASES.get(name, name)


class _Coding(Protocol):
    """Undoes one coding. Both raise ValueError for damage."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class _Gzip:
    """RFC 1952; several members after one another are one body (section 2.2)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._ended = False  # at the end of a member

    def feed(self, data: bytes) -> Iterator[bytes]:
        left_behind = False  # a full piece may leave output inside the member
        while data or left_behind:
            self._ended = False
            try:
                piece = self._member.decompress(data, _PIECE)
            except zlib.error as error:
                raise ValueError(f"not gzip: {error}") from None
            data, left_behind = self._member.unconsumed_tail, len(piece) == _PIECE
            if self._member.eof:
                data, left_behind = self._member.unused_data, False
                self._member = zlib.decompressobj(wbits=31)
                self._ended = True
            if piece:
                yield piece

    def close(self) -> None:
        if not self._ended:
            raise ValueError("the gzip data ends early")


class _Deflate:
    """RFC 9110, 8.4.1.2: the zlib format. Some servers send the bare deflate data instead."""

    def __init__(self) -> None:
        self._inflate: zlib._Decompress | None = None
        self._head = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inflate is None:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return
            # RFC 1950, 2.2: method 8, and a header that is a multiple of 31
            zlib_format = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._inflate = zlib.decompressobj(wbits=15 if zlib_format else -15)
        left_behind = False  # a full piece may leave output inside
        while data or left_behind:
            if self._inflate.eof:
                raise ValueError("data after the end of the deflate data")
            try:
                piece = self._inflate.decompress(data, _PIECE)
            except zlib.error as error:
                raise ValueError(f"not deflate: {error}") from None
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            left_behind = len(piece) == _PIECE and not self._inflate.eof
            if piece:
                yield piece

    def close(self) -> None:
        if self._inflate is None or not self._inflate.eof:
            raise ValueError("the deflate data ends early")


class _Zstd:
    """RFC 8878; several frames after one another are one body (section 3)."""

    def __init__(self) -> None:
        self._context = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._frame = self._context.decompressobj()
        self._ended = False  # at the end of a frame

    def feed(self, data: bytes) -> Iterator[bytes]:
        # decompressobj has no limit on its output, so its input is rationed.
        for start in range(0, len(data), _ZSTD_SLICE):
            rest = data[start : start + _ZSTD_SLICE]
            while rest:
                self._ended = False
                try:
                    piece = self._frame.decompress(rest)
                except zstandard.ZstdError as error:
                    raise ValueError(f"not zstd: {error}") from None
                rest = b""
                if self._frame.eof:
                    rest = self._frame.unused_data
                    self._frame = self._context.decompressobj()
                    self._ended = True
                if piece:
                    yield piece

    def close(self) -> None:
        if not self._ended:
            raise ValueError("the zstd data ends early")


_DECODERS: Final[dict[bytes, Callable[[], _Coding]]] = {
    b"gzip": _Gzip,
    b"deflate": _Deflate,
    b"zstd": _Zstd,
}
