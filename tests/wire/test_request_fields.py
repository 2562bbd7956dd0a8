"""`_cache_bypass`: cut out of the bytes, every other byte as it was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.wire.request_fields import cache_bypass

TEXTS = st.text(max_size=8) | st.sampled_from(
    [
        "_cache_bypass",
        '"_cache_bypass"',
        '"_cache_bypass": true',
        '{"_cache_bypass":true}',
        "\\",
        '"',
    ]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
SPACE = st.sampled_from(["", " ", "\n\t", "\r\n  "])


@given(
    st.dictionaries(TEXTS.filter(lambda key: key != "_cache_bypass"), VALUES, max_size=4),
    st.integers(0, 4),
    st.booleans(),
    st.lists(SPACE, min_size=6, max_size=6),
    st.booleans(),
)
def test_only_the_field_is_cut_and_the_rest_is_byte_equal(
    doc: dict[str, Any], at: int, flag: bool, space: list[str], ascii_only: bool
) -> None:
    members = [
        f"{json.dumps(key, ensure_ascii=ascii_only)}{space[0]}:{space[1]}"
        f"{json.dumps(value, ensure_ascii=ascii_only)}"
        for key, value in doc.items()
    ]
    at = min(at, len(members))
    field = f'"_cache_bypass"{space[2]}:{space[3]}{json.dumps(flag)}'
    comma = f"{space[4]},{space[5]}"
    with_field = "{" + comma.join([*members[:at], field, *members[at:]]) + "}"
    without = "{" + comma.join(members) + "}"
    found, rest = cache_bypass(with_field.encode())
    assert found is flag
    assert rest == without.encode()
    assert json.loads(rest) == doc
    assert cache_bypass(without.encode()) == (None, without.encode())


@pytest.mark.parametrize(
    ("body", "flag", "rest"),
    [
        (b'{"_cache_bypass":true}', True, b"{}"),
        (b'{ "_cache_bypass" : false }', False, b"{  }"),
        (b'{"a":1,"_cache_bypass":true,"b":2}', True, b'{"a":1,"b":2}'),
        (b'{"a":1, "_cache_bypass":true}', True, b'{"a":1}'),
        (b'{"_cache_bypass":true,"a":1,"_cache_bypass":false}', False, b'{"a":1}'),
        (
            b'{"a":{"_cache_bypass":true},"b":["_cache_bypass"],"_cache_bypass":false}',
            False,
            b'{"a":{"_cache_bypass":true},"b":["_cache_bypass"]}',
        ),
    ],
)
def test_the_field_goes_with_its_comma(body: bytes, flag: bool, rest: bytes) -> None:
    assert cache_bypass(body) == (flag, rest)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"metadata":{"_cache_bypass":true}}',
        b'[{"_cache_bypass":true}]',
        b'["_cache_bypass"]',
        b'{"a":"_cache_bypass"}',
        b'{"a":"{\\"_cache_bypass\\":true}"}',
        b'{"_cache_bypass":1}',
        b'{"_cache_bypass":"true"}',
        b'{"_cache_bypass":null}',
        b'{"_cache_bypass":true',
        b'{"_cache_bypass":true} x',
        b'\xff{"_cache_bypass":true}',
        b'{"_cache_bypass":true,"a":"' + b"\\" * 50_001,
        b'{"_cache_bypass":true,"a":' + b"[" * 200_000,
    ],
)
def test_a_body_without_the_field_at_its_top_is_untouched(body: bytes) -> None:
    assert cache_bypass(body) == (None, body)


def test_a_field_given_ever_so_often_is_left_alone_at_once() -> None:
    body = b"{" + b",".join([b'"_cache_bypass": true'] * 5000) + b', "a": 1}'
    assert cache_bypass(body) == (None, body)
    assert cache_bypass(b'{"_cache_bypass": true, "_cache_bypass": false}') == (False, b"{}")
