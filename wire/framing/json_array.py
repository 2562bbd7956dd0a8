"""The elements of one JSON array, from bytes that arrive in pieces of any size.

A streamed answer of this form (`[{…}` `,{…}` … `]`) is whole when its closing bracket came and
nothing but white space followed. Elements come out as bytes, cut by structure (brackets outside of
strings) and not parsed. How the bytes are split never changes them. Memory is bounded by
`max_element_bytes`. Grammar: RFC 8259, section 5.
"""

from __future__ import annotations

import re
from typing import Final

_SPACE: Final = b" \t\r\n"
_OUTSIDE: Final = re.compile(rb'["\[\]{},]')
_INSIDE: Final = re.compile(rb'["\\]')
_QUOTE: Final = 0x22
_BACKSLASH: Final = 0x5C
_COMMA: Final = 0x2C


class ArrayParser:
    """Cuts the bytes of one JSON array into its elements.

    `ended`: the closing bracket came. `broken` says why these bytes are no array, or that an
    element is too large; "" while all is well. Nothing comes after it.
    """

    __slots__ = (
        "_depth",
        "_element",
        "_escaped",
        "_in_string",
        "_max",
        "_seen",
        "_size",
        "broken",
        "ended",
    )

    def __init__(self, max_element_bytes: int = 32 << 20) -> None:
        self._max = max_element_bytes
        self._depth = 0  # 0: before the array; 1: between elements or in a bare one; more: inside
        self._in_string = False
        self._escaped = False
        self._element: list[bytes] = []
        self._size = 0
        self._seen = 0  # elements that came out
        self.ended = False
        self.broken = ""

    def feed(self, data: bytes) -> list[bytes]:
        """The elements that `data` completes, in order, each without the space around it."""
        elements: list[bytes] = []
        at = 0
        while at < len(data) and not self.broken:
            at = self._step(data, at, elements)
        return elements

    def _step(self, data: bytes, at: int, elements: list[bytes]) -> int:
        """Go on to the next byte that means something; where to look from then."""
        if self._escaped:
            self._escaped = False
            self._keep(data[at : at + 1])
            return at + 1
        found = (_INSIDE if self._in_string else _OUTSIDE).search(data, at)
        end = len(data) if found is None else found.start()
        if self._depth == 0 or self.ended:
            if data[at:end].strip(_SPACE) or (found is not None and self.ended):
                self.broken = "data after the array" if self.ended else "not an array"
            elif found is not None:
                if found[0] != b"[":
                    self.broken = "not an array"
                self._depth = 1
            return end + 1
        self._keep(data[at:end])
        if found is not None and not self.broken:
            self._take(data[end], elements)
        return end + 1

    def _take(self, char: int, elements: list[bytes]) -> None:
        if self._in_string:
            self._escaped = char == _BACKSLASH
            self._in_string = char != _QUOTE
        elif char == _QUOTE:
            self._in_string = True
        elif char in b"[{":
            self._depth += 1
        elif char in b"]}":
            self._depth -= 1
            if self._depth == 0:
                self._close(char, elements)
                return
        elif self._depth == 1 and char == _COMMA:
            self._finish(elements)
            return
        self._keep(bytes((char,)))

    def _close(self, char: int, elements: list[bytes]) -> None:
        if char != 0x5D:
            self.broken = "not an array"
        elif self._seen or b"".join(self._element).strip(_SPACE):
            self._finish(elements)
        self.ended = True

    def _finish(self, elements: list[bytes]) -> None:
        element = b"".join(self._element).strip(_SPACE)
        self._element.clear()
        self._size = 0
        if not element:
            self.broken = "an element is missing"
            return
        elements.append(element)
        self._seen += 1

    def _keep(self, piece: bytes) -> None:
        if not piece:
            return
        self._element.append(piece)
        self._size += len(piece)
        if self._size > self._max:
            self.broken = "an element is too large"
            self._element.clear()
