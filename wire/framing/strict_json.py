"""JSON that means one thing only.

What is parsed here parses the same everywhere: UTF-8 without a byte order mark, no key twice in
one object, no NaN or Infinity, no number that a double can't hold, no nesting deeper than the
interpreter allows. Anything else is a ValueError, never another exception.
"""

from __future__ import annotations

import json
from typing import Any


def parse(body: bytes) -> Any:
    """The value of `body`. ValueError when it isn't strict JSON.

    Source: RFC 8259, sections 4 (names should be unique), 6 (numbers) and 8.1 (UTF-8, no BOM).
    """
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def canonical(value: Any) -> bytes:
    """One spelling for all JSON texts of the same value: sorted keys, no white space, ASCII.

    1 and 1.0 stay distinct. ValueError when a number has no finite double or nesting is too deep.
    """
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
        ).encode("ascii")
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
