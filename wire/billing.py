"""Claude Code's billing header in a request body, made the same for every request.

Claude Code puts `x-anthropic-billing-header: cc_version=2.1.63.a43; …; cch=e2224;` at the head of
the system prompt, with values that change from request to request. A local model server can reuse
its KV cache only for a prompt's common prefix, so this one line costs it the whole prompt. Here the
value is replaced by a fixed string (SPEC 4a). What holds: only the value of such a line inside the
top-level `system` member changes; every other byte stays as the client sent it.
"""

from __future__ import annotations

import re
from typing import Final

FIXED: Final = b" cc_version=0; cc_entrypoint=0; cch=0;"
"""What stands for every value, in the form a value has."""

BILLING: Final = b"x-anthropic-billing-header:"
"""What every such line begins with; a body without it stays as it is."""

# A JSON string or one structural character. The string's parts are possessive: no backtracking.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]:,]', re.DOTALL)

# The line begins where the text or a line does, and ends with the text or at an escaped line end.
_LINE: Final = re.compile(
    rb'((?:(?<=")|(?<=\\n)|(?<=\\r))x-anthropic-billing-header:)((?:[^"\\]++|\\[^nr])*+)'
)


def rewrite_billing(body: bytes) -> tuple[bytes, int]:
    """The body with every billing line of its system prompt fixed, and how many there were.

    A body that isn't JSON, or has no such line there, comes back as it is, with 0.
    """
    if BILLING not in body:
        return body, 0
    span = _system_span(body)
    if span is None:
        return body, 0
    start, end = span
    fixed, count = _LINE.subn(rb"\g<1>" + FIXED, body[start:end])
    return (body[:start] + fixed + body[end:], count) if count else (body, 0)


def _system_span(body: bytes) -> tuple[int, int] | None:
    """Where the value of the object's own member `system` starts and ends."""
    depth = 0
    name: bytes | None = None  # the member of the outermost object whose value is being read
    previous = b""
    start = -1
    for token in _TOKEN.finditer(body):
        text = token[0]
        if text in (b"}", b"]"):
            depth -= 1
        if depth == 1:
            if text == b":":
                name, start = previous, token.end()
            elif text == b"," and name == b'"system"':
                return start, token.start()
            elif text == b",":
                name = None
        elif depth == 0 and text == b"}" and name == b'"system"':
            return start, token.start()
        if text in (b"{", b"["):
            depth += 1
        previous = text
    return None
