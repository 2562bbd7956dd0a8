"""Keys: every part of a context counts, and no two contexts or tiers can meet."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_cache.wire.keys import KeyContext, credential_digest, exact_key, tier_key

CONTEXT = KeyContext(
    method=b"POST",
    target=b"/v1/messages?beta=true",
    base_url=b"https://api.anthropic.com",
    headers=((b"anthropic-beta", b"a"), (b"anthropic-version", b"2023-06-01")),
    namespace=b"",
    sample=b"",
    credential=b"",
)
SMALL = st.binary(max_size=3)
CONTEXTS = st.builds(
    KeyContext, SMALL, SMALL, SMALL,
    st.lists(st.tuples(SMALL, SMALL), max_size=2).map(tuple), SMALL, SMALL, SMALL,
)  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        replace(CONTEXT, method=b"PUT"),
        replace(CONTEXT, target=b"/v1/messages/count_tokens?beta=true"),
        replace(CONTEXT, target=b"/v1/messages"),
        replace(CONTEXT, base_url=b"http://127.0.0.1:8080"),
        replace(CONTEXT, headers=((b"anthropic-beta", b"a"),)),
        replace(CONTEXT, headers=((b"anthropic-beta", b"b"), CONTEXT.headers[1])),
        replace(CONTEXT, namespace=b"suite"),
        replace(CONTEXT, sample=b"suite"),
        replace(CONTEXT, credential=credential_digest([b"sk-1"])),
        replace(CONTEXT, credential=credential_digest([b"sk-2"])),
    ],
)
def test_every_part_of_the_context_decides_the_key(other: KeyContext) -> None:
    assert exact_key(other.prefix(), b"{}") != exact_key(CONTEXT.prefix(), b"{}")


def test_the_key_is_the_sha256_of_what_the_format_says() -> None:
    parts = [
        b"POST", b"/v1/messages?beta=true", b"https://api.anthropic.com", b"", b"", b"",
        b"anthropic-beta", b"a", b"anthropic-version", b"2023-06-01",
    ]  # fmt: skip
    hashed = b"llm-cache key 1 exact\n" + struct.pack(">Q", 10)
    hashed += b"".join(struct.pack(">Q", len(part)) + part for part in parts)
    # A key that changes makes every store out there miss: then the format's number goes up.
    expected = hashlib.sha256(hashed + b'{"model":"m"}').digest()
    assert exact_key(CONTEXT.prefix(), b'{"model":"m"}') == expected


@given(CONTEXTS, SMALL, CONTEXTS, SMALL)
def test_no_two_contexts_and_bodies_are_hashed_alike(
    one: KeyContext, one_body: bytes, two: KeyContext, two_body: bytes
) -> None:
    assume((one, one_body) != (two, two_body))
    assert one.prefix() + one_body != two.prefix() + two_body
    assert exact_key(one.prefix(), one_body) != exact_key(two.prefix(), two_body)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_the_tiers_keys_never_meet(prefix: bytes, body: bytes) -> None:
    keys = {exact_key(prefix, body)}
    keys |= {tier_key(tier, prefix, body) for tier in ("normalized", "suffix 1", "suffix 2")}
    assert len(keys) == 4


def test_credentials_are_told_apart_and_not_to_be_read() -> None:
    digests = [
        credential_digest(values)
        for values in ([b"sk-1"], [b"sk-2"], [b"sk-", b"1"], [b"", b"sk-1"], [b"sk-1", b""])
    ]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 32 and b"sk" not in digest for digest in digests)
    assert credential_digest([]) == b""
