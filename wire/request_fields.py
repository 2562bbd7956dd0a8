"""The fields of a request body that speak to the proxy, not to the provider.

Such a field is cut out of the bytes; every other byte stays as the client sent it.
"""

from __future__ import annotations

import json
import re
from typing import Final

BYPASS_FIELD: Final = b'"_cache_bypass"'
_MOST: Final = 4

# A JSON string or one structural character. The string's parts are possessive: no backtracking.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]', re.DOTALL)
_MEMBER: Final = re.compile(rb'"_cache_bypass"[ \t\n\r]*:[ \t\n\r]*(true|false)')
_COMMA_AFTER: Final = re.compile(rb"[ \t\n\r]*,[ \t\n\r]*")


def cache_bypass(body: bytes) -> tuple[bool | None, bytes]:
    """The value of the top-level field `_cache_bypass`, and the body without that field.

    (None, body) when the field isn't there, isn't true or false, or the body isn't a JSON object.
    Given twice, the last one counts and both are taken out; given ever so often, to keep the proxy
    busy cutting, it means nothing.
    """
    whole = body
    if BYPASS_FIELD not in body:  # nearly every body: one search and no parsing
        return None, body
    try:
        doc = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None, body
    if not isinstance(doc, dict) or not isinstance(flag := doc.get("_cache_bypass"), bool):
        return None, body
    for _ in range(_MOST + 1):
        if (rest := _without_first(body)) is None:
            return flag, body
        body = rest
    return None, whole


def _without_first(body: bytes) -> bytes | None:
    """`body`, a valid JSON object, without the first such member; None when there is none."""
    depth = 0
    for token in _TOKEN.finditer(body):
        match token[0]:
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
            case _ if depth == 1 and token[0] == BYPASS_FIELD:
                if member := _MEMBER.match(body, token.start()):
                    return _cut(body, *member.span())
    return None


def _cut(body: bytes, start: int, end: int) -> bytes:
    """`body` without the member at `start:end` and without the comma that belonged to it."""
    if comma := _COMMA_AFTER.match(body, end):
        return body[:start] + body[comma.end() :]
    before = body[:start].rstrip(b" \t\n\r")
    if before.endswith(b","):
        return before[:-1].rstrip(b" \t\n\r") + body[end:]
    return body[:start] + body[end:]
