"""Strict JSON: one spelling for one value, numbers by what their texts say."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.wire.framing.strict_json import canonical, parse

DIGITS = st.text("0123456789", min_size=1, max_size=24)
EXPONENTS = st.integers(-420, 280)


@st.composite
def numbers(draw: st.DrawFn) -> str:
    """A JSON number with a fraction, an exponent, or both."""
    whole = draw(DIGITS).lstrip("0") or "0"
    fraction = draw(st.none() | DIGITS)
    exponent = draw(EXPONENTS if fraction is None else st.none() | EXPONENTS)
    text = draw(st.sampled_from(["", "-"])) + whole
    text += "" if fraction is None else f".{fraction}"
    return text if exponent is None else f"{text}{draw(st.sampled_from('eE'))}{exponent}"


def spelled(text: str) -> bytes:
    return canonical(parse(b'{"b":[%b],"a":null}' % text.encode()))


@given(numbers(), numbers())
def test_numbers_are_the_same_when_their_texts_have_the_same_value(one: str, other: str) -> None:
    if Decimal(one) and Decimal(other):
        assert (spelled(one) == spelled(other)) == (Decimal(one) == Decimal(other))


@given(numbers(), st.integers(0, 8), st.integers(-6, 6))
def test_another_spelling_of_a_number_is_the_same_number(text: str, zeros: int, shift: int) -> None:
    sign, digits, exponent = Decimal(text).as_tuple()
    told = "".join(map(str, digits)) + "0" * zeros
    other = f"{'-' if sign else ''}{told.lstrip('0') or '0'}e{int(exponent) - zeros}"
    assert spelled(other) == spelled(text)
    moved = Decimal((sign, digits, int(exponent) + shift))
    assert (spelled(f"{text}") == spelled(f"{moved:e}")) == (moved == Decimal(text))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("0.1", "0.10000000000000000555", False),
        ("1e-400", "0.0", False),
        ("1e-400", "1e-401", False),
        ("9007199254740993.0", "9007199254740992.0", False),
        ("1.0", "1.00", True),
        ("1.0", "10e-1", True),
        ("1e-400", "0.10E-399", True),
        ("1", "1.0", False),
        ("10", "1e1", False),
        ("0.1", '"0.1"', False),
        ("1e-400", '"1e-400"', False),
    ],
)
def test_a_number_is_what_its_text_says(one: str, other: str, same: bool) -> None:
    assert (spelled(one) == spelled(other)) == same
    assert (spelled(f'1e-400,{{"é":{one}}}') == spelled(f'1e-400,{{"é":{other}}}')) == same


def test_a_rare_number_changes_the_spelling_of_nothing_else() -> None:
    rest = {"z": [1, 1.5, True, None, "é\n"], "a": {"c": {}, "b": []}}
    body = json.dumps({**rest, "n": 0}).replace('"n": 0', '"n": 1e-400')
    plain = canonical({**rest, "n": 0})
    assert canonical(parse(body.encode())) == plain.replace(b'"n":0', b'"n":1e-400')


@pytest.mark.parametrize("text", ["1e400", "-1e400", "1e-99999999999999999999999"])
def test_a_number_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"[Oo]ut of"):
        spelled(text)


def test_a_rare_number_deep_inside_is_a_value_error_and_no_other() -> None:
    nested: object = Decimal("1e-400")
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ValueError, match="nested too deeply"):
        canonical(nested)
