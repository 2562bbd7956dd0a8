"""What of a request says who asks, in every place and spelling (wire/credentials.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.wire.credentials import looks_like_credential, split_query, told_credentials
from llm_cache.wire.registry import KEYED_CREDENTIALS, by_name

GEMINI = by_name("gemini")
assert GEMINI is not None


@pytest.mark.parametrize(
    ("query", "bare", "found"),
    [
        (b"?key=AIza", b"", [(b"key", b"AIza")]),
        (b"?alt=sse&key=AIza", b"?alt=sse", [(b"key", b"AIza")]),
        (b"?b=2&key=AIza&a=1&b=3", b"?b=2&a=1&b=3", [(b"key", b"AIza")]),
        (b"?k%65y=AI%7Aa", b"", [(b"key", b"AIza")]),
        (b"?access_token=ya29&alt=sse", b"?alt=sse", [(b"access_token", b"ya29")]),
        (b"?key=one&key=two", b"", [(b"key", b"one"), (b"key", b"two")]),
        (b"?key", b"", [(b"key", b"")]),
        (b"?alt=sse&&x", b"?alt=sse&&x", []),
        (b"?monkey=AIza&KEY=x", b"?monkey=AIza&KEY=x", []),
        (b"", b"", []),
        (b"?", b"?", []),
    ],
)
def test_a_key_in_the_query_is_a_credential_and_not_part_of_the_target(
    query: bytes, bare: bytes, found: list[tuple[bytes, bytes]]
) -> None:
    path = b"/v1beta/models/g:generateContent"
    assert split_query(path + query, GEMINI.key_parameters) == (path + bare, found)


@given(
    st.lists(st.sampled_from([b"key=s3cr3t", b"a=1", b"a=key", b"", b"alt=sse", b"%6bey=s3cr3t"]))
)
def test_no_order_of_parameters_leaves_the_key_in_the_target(parameters: list[bytes]) -> None:
    target = b"/x?" + b"&".join(parameters)
    bare, _ = split_query(target, GEMINI.key_parameters)
    kept = [one for one in parameters if b"s3cr3t" not in one]
    if len(kept) == len(parameters):
        assert bare == target
    else:
        assert bare == b"/x" + (b"?" + b"&".join(kept) if kept else b"")


def told(target: bytes, *headers: tuple[bytes, bytes]) -> list[bytes]:
    return told_credentials(GEMINI, target, headers, KEYED_CREDENTIALS)


def test_a_request_s_only_api_key_counts_the_same_in_query_and_header() -> None:
    in_header = told(b"/x?alt=sse", (b"x-goog-api-key", b"AIza"))
    assert in_header == told(b"/x?alt=sse&key=AIza")
    assert in_header != told(b"/x?alt=sse", (b"authorization", b"Bearer AIza"))
    assert in_header != told(b"/x?alt=sse&access_token=AIza")
    both = told(b"/x?key=AIza", (b"x-goog-api-key", b"AIza"))
    assert both not in (in_header, told(b"/x?key=AIza&key=AIza"))
    with_a_token = (b"authorization", b"Bearer t")
    assert told(b"/x?key=AIza", with_a_token) == told(
        b"/x", (b"x-goog-api-key", b"AIza"), with_a_token
    )


@pytest.mark.parametrize(
    "name",
    [
        b"x-goog-api-key",
        b"x_api_key",
        b"api-key",
        b"ocp-apim-subscription-key",
        b"x-functions-key",
        b"x-amz-security-token",
        b"x-amzn-oidc-data",
        b"x-amzn-oidc-identity",
        b"cf-access-client-id",
        b"cf-access-client-secret",
        b"x-portkey-virtual-key",
        b"x-forwarded-user",
        b"x-forwarded-email",
        b"remote-user",
        b"x-auth-request-groups",
        b"tailscale-user-login",
        b"x-litellm-key",
        b"x-password",
        b"dpop",
        b"x-signature",
        b"x-session-token",
        b"x-vault-secret",
        b"x-client-cert",
    ],
)
def test_what_one_may_be_known_by_looks_like_a_credential(name: bytes) -> None:
    assert looks_like_credential(name)


@pytest.mark.parametrize(
    "name",
    [
        b"x-cache-auth",
        b"idempotency-key",
        b"x-idempotency-key",
        b"x-amz-date",
        b"x-amz-content-sha256",
        b"x-amzn-trace-id",
        b"user-agent",
        b"x-request-id",
        b"x-forwarded-for",
        b"traceparent",
        b"accept",
        b"content-type",
    ],
)
def test_a_label_of_one_call_does_not_look_like_a_credential(name: bytes) -> None:
    assert not looks_like_credential(name)
