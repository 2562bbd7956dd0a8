"""Content codings: reading an encoded answer as it passes, and who accepts which coding.

gzip, deflate and zstd, alone or stacked. A decoder never raises and never returns more than
`PIECE_BYTES` at once: a small body that decodes to a huge one (a bomb) costs time up to
`max_bytes` of output and then counts as damaged. Cut, altered and continued bodies are told from
whole ones.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final, Protocol

import zstandard

PIECE_BYTES: Final = 64 << 10
MAX_BYTES: Final = 256 << 20
_MAX_STACKED: Final = 4
_MAX_WINDOW: Final = 8 << 20  # of a zstd frame sent over HTTP (RFC 9659, section 3)
_ZSTD_SLICE: Final = 512  # input bytes at a time: at most 128 KiB of output for each 4 of them

_ALIASES: Final = {b"x-gzip": b"gzip"}  # RFC 9110, 8.4.1.3
_READABLE: Final = (b"gzip", b"deflate", b"zstd")


class ContentDecoder(Protocol):
    """Undoes the content coding of one body."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` decodes to, in pieces of at most PIECE_BYTES. To be iterated to its end.

        Nothing more comes after the first damaged byte.
        """

    def close(self) -> str:
        """Why the decoded bytes are not the whole body, or "" when they are."""


def decoder(content_encoding: bytes, max_bytes: int = MAX_BYTES) -> ContentDecoder | None:
    """A decoder for a `content-encoding` value (b"" for none), or None: a coding not known here.

    Codings are listed in the order they were applied (RFC 9110, 8.4).
    """
    names = _codings(content_encoding)
    if len(names) > _MAX_STACKED:
        return None
    stages: list[ContentDecoder] = []
    for name in reversed(names):
        match name:
            case b"gzip":
                stages.append(_Gzip())
            case b"deflate":
                stages.append(_Deflate())
            case b"zstd":
                stages.append(_Zstd())
            case _:
                return None
    return _Stacked(stages, max_bytes)


def decode_all(content_encoding: bytes, data: bytes, max_bytes: int) -> bytes | None:
    """`data` decoded, or None: unknown coding, damaged, cut, or longer than `max_bytes`."""
    stack = decoder(content_encoding, max_bytes)
    if stack is None:
        return None
    decoded = b"".join(stack.feed(data))
    return None if stack.close() else decoded


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
            kept += [coding + parameters for coding in _READABLE if coding not in named]
        elif name in (b"identity", b"*") or _canonical(name) in _READABLE:
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


class _Stacked:
    """Decoders one behind the other, the outermost coding first; none is the identity."""

    def __init__(self, stages: list[ContentDecoder], max_bytes: int) -> None:
        self._stages = stages
        self._left = max_bytes
        self._max = max_bytes

    def feed(self, data: bytes) -> Iterator[bytes]:
        for piece in self._through(data, 0):
            self._left -= len(piece)
            if self._left < 0:
                return
            yield piece

    def close(self) -> str:
        if self._left < 0:
            return f"decodes to more than {self._max} bytes"
        return next((reason for stage in self._stages if (reason := stage.close())), "")

    def _through(self, data: bytes, depth: int) -> Iterator[bytes]:
        if self._left < 0 or not data:
            return
        if depth == len(self._stages):
            for start in range(0, len(data), PIECE_BYTES):
                yield data[start : start + PIECE_BYTES]
            return
        for piece in self._stages[depth].feed(data):
            yield from self._through(piece, depth + 1)


class _Gzip:
    """RFC 1952; several members after one another are one body (section 2.2)."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)
        self._begun = False  # inside a member
        self._empty = True
        self._damage = ""

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data and not self._damage:
            self._begun, self._empty = True, False
            try:
                piece = self._inflate.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                self._damage = f"not gzip: {error}"
                return
            data = self._inflate.unconsumed_tail
            if self._inflate.eof:
                data = self._inflate.unused_data
                self._inflate = zlib.decompressobj(wbits=31)
                self._begun = False
            if piece:
                yield piece

    def close(self) -> str:
        if self._damage:
            return self._damage
        return "gzip data ends early" if self._begun or self._empty else ""


class _Deflate:
    """RFC 9110, 8.4.1.2: the zlib format. Some servers send the bare deflate data instead."""

    def __init__(self) -> None:
        self._inflate: zlib._Decompress | None = None
        self._head = b""
        self._damage = ""

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inflate is None:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return
            # RFC 1950, 2.2: method 8 and a header that is a multiple of 31
            zlib_format = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._inflate = zlib.decompressobj(wbits=15 if zlib_format else -15)
        while data and not self._damage:
            if self._inflate.eof:
                self._damage = "data after the end of the deflate data"
                return
            try:
                piece = self._inflate.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                self._damage = f"not deflate: {error}"
                return
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            if piece:
                yield piece

    def close(self) -> str:
        if self._damage:
            return self._damage
        return "" if self._inflate and self._inflate.eof else "deflate data ends early"


class _Zstd:
    """RFC 8878; several frames after one another are one body (section 3)."""

    def __init__(self) -> None:
        self._context = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._frame = self._context.decompressobj()
        self._begun = False  # inside a frame
        self._empty = True
        self._damage = ""

    def feed(self, data: bytes) -> Iterator[bytes]:
        # decompressobj has no limit on its output, so its input is rationed.
        for start in range(0, len(data), _ZSTD_SLICE):
            rest = data[start : start + _ZSTD_SLICE]
            while rest and not self._damage:
                self._begun, self._empty = True, False
                try:
                    decoded = self._frame.decompress(rest)
                except zstandard.ZstdError as error:
                    self._damage = f"not zstd: {error}"
                    return
                rest = b""
                if self._frame.eof:
                    rest = self._frame.unused_data
                    self._frame = self._context.decompressobj()
                    self._begun = False
                for at in range(0, len(decoded), PIECE_BYTES):
                    yield decoded[at : at + PIECE_BYTES]

    def close(self) -> str:
        if self._damage:
            return self._damage
        return "zstd data ends early" if self._begun or self._empty else ""
