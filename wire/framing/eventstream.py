"""AWS event streams (`application/vnd.amazon.eventstream`), from bytes that arrive in any pieces.

A message is a prelude (total length, headers length, CRC-32 of these eight bytes), headers, a
payload, and the CRC-32 of everything before it; numbers are big-endian. Both checksums are
checked; a message whose lengths or headers don't add up ends the stream as `broken`. How the
bytes are split never changes the messages. Memory is bounded by the largest message AWS allows.
Source: https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html and the SDKs' limits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final
from zlib import crc32

_PRELUDE: Final = struct.Struct(">III")
_CRC: Final = struct.Struct(">I")
_FRAME: Final = _PRELUDE.size + _CRC.size  # bytes of a message with neither headers nor payload
_MAX_HEADERS: Final = 128 << 10
_MAX_MESSAGE: Final = (24 << 20) + _MAX_HEADERS + _FRAME

# Value types 0 to 9: true, false, byte, short, integer, long, byte array, string, timestamp, UUID.
_FIXED_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTE_ARRAY: Final = 6
_STRING: Final = 7


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `headers` has its string headers, the only ones that say what it is."""

    headers: dict[str, str]
    payload: bytes

    @property
    def kind(self) -> str:
        """`event`, `exception` or `error`; "" when the message doesn't say."""
        return self.headers.get(":message-type", "")

    @property
    def name(self) -> str:
        """The event's, exception's or error's own type; "" when the message doesn't say."""
        return (
            self.headers.get(":event-type")
            or self.headers.get(":exception-type")
            or self.headers.get(":error-code")
            or ""
        )


class MessageParser:
    """Turns the bytes of one event stream into messages.

    `broken` says why these bytes are no event stream; "" while they are. Nothing comes after it.
    """

    __slots__ = ("_buffer", "_total", "broken")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._total = 0  # length of the message that has begun, once its prelude is there
        self.broken = ""

    @property
    def unfinished(self) -> bool:
        """True when a message has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes, in order."""
        if self.broken:
            return []
        self._buffer += data
        messages: list[Message] = []
        try:
            while (message := self._next()) is not None:
                messages.append(message)
        except ValueError as error:
            self.broken = str(error)
            self._buffer.clear()
        return messages

    def _next(self) -> Message | None:
        buffer = self._buffer
        if not self._total:
            if len(buffer) < _PRELUDE.size:
                return None
            total, headers, check = _PRELUDE.unpack_from(buffer)
            if crc32(buffer[:8]) != check:
                raise ValueError("wrong checksum of a prelude")
            if not _FRAME + headers <= total <= _MAX_MESSAGE or headers > _MAX_HEADERS:
                raise ValueError("a message of an impossible length")
            self._total = total
        if len(buffer) < self._total:
            return None
        message = bytes(buffer[: self._total])
        del buffer[: self._total]
        self._total = 0
        (check,) = _CRC.unpack_from(message, len(message) - _CRC.size)
        if crc32(message[: -_CRC.size]) != check:
            raise ValueError("wrong checksum of a message")
        _, length, _ = _PRELUDE.unpack_from(message)
        payload_at = _PRELUDE.size + length
        block = message[_PRELUDE.size : payload_at]
        return Message(_string_headers(block), message[payload_at : -_CRC.size])


def _string_headers(data: bytes) -> dict[str, str]:
    """The string headers of a message by name. ValueError when the block doesn't add up."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        name, at = _sized(data, at, 1)
        if at >= len(data):
            raise ValueError("a header is cut short")
        value_type = data[at]
        at += 1
        if value_type in (_BYTE_ARRAY, _STRING):
            value, at = _sized(data, at, 2)
            if value_type == _STRING:
                found[_text(name)] = _text(value)
        elif value_type in _FIXED_SIZES:
            at += _FIXED_SIZES[value_type]
        else:
            raise ValueError("a header of an unknown type")
    if at > len(data):
        raise ValueError("a header is cut short")
    return found


def _sized(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """The bytes behind their own length of `width` bytes at `at`, and where they end."""
    start = at + width
    end = start + int.from_bytes(data[at:start], "big")
    if end > len(data):
        raise ValueError("a header is cut short")
    return data[start:end], end


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("a header isn't UTF-8") from None
