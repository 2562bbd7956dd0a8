"""Server-sent events, from bytes that arrive in pieces of any size.

Follows the WHATWG HTML standard, section 9.2.6 (interpreting an event stream): lines end in CR,
LF or CRLF, one byte order mark at the start is skipped, `data` lines of one event are joined by
LF, an event without data or without its closing blank line is never dispatched. How the bytes
are split never changes the events. Memory is bounded by `max_event_bytes`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_BOM: Final = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One dispatched event. `name` is b"" when the stream gave none (then it is `message`)."""

    name: bytes
    data: bytes


class EventParser:
    """Turns the bytes of one event stream into events. Bytes are not decoded.

    `overflowed`: an event was larger than `max_event_bytes`; nothing comes after it.
    `stray`: a line was seen whose field the standard doesn't know. A client skips such a line,
    but no provider sends one: these bytes aren't an event stream, and no event comes after it.
    """

    __slots__ = (
        "_after_cr",
        "_at_start",
        "_data",
        "_data_size",
        "_line",
        "_line_size",
        "_max",
        "_name",
        "overflowed",
        "stray",
    )

    def __init__(self, max_event_bytes: int = 32 << 20) -> None:
        self._max = max_event_bytes
        self._at_start = True
        self._after_cr = False
        self._line: list[bytes] = []  # pieces of the line that isn't ended yet
        self._line_size = 0
        self._name = b""
        self._data: list[bytes] = []  # data lines of the event that isn't ended yet
        self._data_size = 0
        self.overflowed = False
        self.stray = False

    @property
    def unfinished(self) -> bool:
        """True when an event, or a line that isn't a comment, has begun and not ended."""
        if self._data or self._name:
            return True
        line = b"".join(self._line)
        return bool(line) and not line.startswith(b":")

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes, in order."""
        if self.overflowed or self.stray or not data:
            return []
        if self._after_cr:
            self._after_cr = False
            if data[0] == 0x0A:  # the second half of a CRLF whose CR ended a line already
                data = data[1:]
        if self._at_start:
            data = b"".join(self._line) + data
            self._line.clear()
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._line = [data] if data else []
                return []
            self._at_start = False
            data = data.removeprefix(_BOM)
        if b"\n" not in data and b"\r" not in data:
            self._line.append(data)
            self._line_size += len(data)
            self._bound()
            return []
        if self._line:
            self._line.append(data)
            data = b"".join(self._line)
            self._line.clear()
        lines = data.splitlines(keepends=True)
        self._after_cr = data[-1] == 0x0D
        rest = b"" if data[-1] in b"\r\n" else lines.pop()
        events: list[Event] = []
        for line in lines:
            self._take(line.rstrip(b"\r\n"), events)
            if self.stray:
                return events
        if rest:
            self._line.append(rest)
        self._line_size = len(rest)
        self._bound()
        return events

    def _take(self, line: bytes, events: list[Event]) -> None:
        if not line:
            if self._data:
                events.append(Event(self._name, b"\n".join(self._data)))
                self._data = []
                self._data_size = 0
            self._name = b""
            return
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            self._data.append(value)
            self._data_size += len(value)
        elif field == b"event":
            self._name = value
        elif field not in (b"", b"id", b"retry"):  # b"" is a comment
            self.stray = True

    def _bound(self) -> None:
        if self._line_size + self._data_size > self._max:
            self.overflowed = True
            self._line.clear()
            self._data = []
