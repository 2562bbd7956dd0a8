"""A JSON array, element by element, wherever its bytes are split."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.wire.framing.json_array import ArrayParser

ARRAY = b'[{"a": "x]\\"}{,[\\\\", "b": [1, {"c": []}]}\n,\r\n{"d": "\xc3\xa9"}, [2], "s,", 3\n]\n'


def read(*pieces: bytes, limit: int = 1 << 20) -> tuple[list[bytes], bool, str]:
    parser = ArrayParser(limit)
    elements = [element for piece in pieces for element in parser.feed(piece)]
    return elements, parser.ended, parser.broken


def test_elements_are_cut_by_structure_and_not_by_what_strings_hold() -> None:
    elements, ended, broken = read(ARRAY)
    assert [json.loads(element) for element in elements] == json.loads(ARRAY)
    assert (ended, broken) == (True, "")


@given(st.lists(st.integers(0, len(ARRAY)), max_size=12))
def test_how_an_array_is_split_changes_no_element(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(ARRAY)]
    assert read(*(ARRAY[a:b] for a, b in pairwise(edges))) == read(ARRAY)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.lists(json_values), st.booleans(), st.data())
def test_any_array_comes_out_whole(values: list[Any], escape: bool, data: st.DataObject) -> None:
    text = json.dumps(values, ensure_ascii=escape, indent=1).encode("utf-8", "surrogatepass")
    cut = data.draw(st.integers(0, len(text)))
    elements, ended, broken = read(text[:cut], text[cut:])
    assert [json.loads(element) for element in elements] == values
    assert (ended, broken) == (True, "")


def test_an_array_cut_anywhere_is_not_ended() -> None:
    for length in range(len(ARRAY) - len(b"]\n") + 1):
        _, ended, broken = read(ARRAY[:length])
        assert (ended, broken) == (False, ""), length


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{}", "not an array"),
        (b"x[]", "not an array"),
        (b'"[]"', "not an array"),
        (b"[1}", "not an array"),
        (b"[1,]", "an element is missing"),
        (b"[,1]", "an element is missing"),
        (b"[1,,2]", "an element is missing"),
        (b"[1] 2", "data after the array"),
        (b"[1]]", "data after the array"),
    ],
)
def test_what_is_no_array_says_why(text: bytes, why: str) -> None:
    assert read(text)[2] == why
    assert read(*(text[at : at + 1] for at in range(len(text))))[2] == why


def test_an_element_above_the_limit_ends_the_reading() -> None:
    inside = b"[" + b"1" * 10 + b",2]"
    assert read(inside, limit=10) == ([b"1" * 10, b"2"], True, "")
    assert read(inside, limit=9) == ([], False, "an element is too large")
