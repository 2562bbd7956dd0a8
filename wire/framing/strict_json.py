"""JSON that means one thing only.

What is parsed here parses the same everywhere: UTF-8 without a byte order mark, no key twice in
one object, no NaN or Infinity, no number too large for a double, no nesting deeper than the
interpreter allows. Anything else is a ValueError, never another exception.

Numbers keep their text's value: one that a double can't tell to the last digit (0.1 is told,
0.10000000000000000555 and 1e-400 aren't) is a Decimal in the place of a float.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from math import isinf
from typing import Any


def parse(body: bytes) -> Any:
    """The value of `body`. ValueError when it isn't strict JSON.

    Source: RFC 8259, sections 4 (names should be unique), 6 (numbers) and 8.1 (UTF-8, no BOM).
    """
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_number,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def canonical(value: Any) -> bytes:
    """One spelling for all JSON texts of the same value: sorted keys, no white space, ASCII.

    Numbers are the same when their texts have the same value (1.0, 1.00 and 10e-1), but 1 and 1.0
    stay distinct. ValueError when a number has no finite double or nesting is too deep.
    """
    try:
        try:
            text = json.dumps(
                value,
                sort_keys=True,
                separators=(",", ":"),
                ensure_ascii=True,
                allow_nan=False,
                default=_refuse_decimal,
            )
        except _HasDecimalError:
            text = _spelled(value)
        return text.encode("ascii")
    except RecursionError:
        raise ValueError("nested too deeply") from None


class _HasDecimalError(Exception):
    """A value has numbers that the interpreter's own encoder can't spell."""


def _refuse_decimal(value: object) -> Any:
    if isinstance(value, Decimal):
        raise _HasDecimalError
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def _spelled(value: Any) -> str:
    """As `canonical`, for a value that may hold Decimals. No double's shortest spelling has the
    value of one, and an integer has no exponent: so no two values are spelled alike."""
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        told = "".join(map(str, digits))
        short = told.rstrip("0")
        return f"{'-' if sign else ''}{short}e{int(exponent) + len(told) - len(short)}"
    if isinstance(value, dict):
        members = (f"{json.dumps(name)}:{_spelled(value[name])}" for name in sorted(value))
        return f"{{{','.join(members)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_spelled, value))}]"
    return json.dumps(value, allow_nan=False)


def _number(text: str) -> float | Decimal:
    """The double whose shortest spelling has the value of `text`, else the value itself. One too
    large for a double is infinite, which `canonical` refuses."""
    value = float(text)
    if repr(value) == text or isinf(value):
        return value
    try:
        exact = Decimal(text)
    except InvalidOperation:
        raise ValueError("a number's exponent is out of bounds") from None
    return value if exact == Decimal(repr(value)) else exact


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
