"""One user's answer never goes to another: every credential that goes upstream is in the key."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import gemini_wire
from support.proxy import Proxy
from support.raw import exchange
from support.replies import Reply, json_reply
from support.upstream import Request, Upstream

from llm_cache.exchange.control import Control
from llm_cache.exchange.outgoing import outgoing
from llm_cache.exchange.routing import Router
from llm_cache.settings import load_settings

Lines = list[tuple[bytes, bytes]]

PATHS = {
    "anthropic": "/anthropic/v1/messages",
    "openai": "/openai/v1/chat/completions",
    "azure": "/azure/openai/deployments/d/chat/completions",
    "gemini": "/gemini/v1beta/models/g:generateContent",
    "vertex": "/vertex/v1/projects/p/locations/l/publishers/google/models/g:generateContent",
    "bedrock": "/bedrock/model/m/converse",
    "mantle": "/mantle/v1/responses",
    "cohere": "/cohere/v2/chat",
    "mistral": "/mistral/v1/chat/completions",
    "ollama": "/ollama/api/chat",
    "huggingface": "/huggingface/v1/chat/completions",
    "openrouter": "/openrouter/api/v1/chat/completions",
    "perplexity": "/perplexity/chat/completions",
    "compatible": "/compatible/v1/chat/completions",
}
HEADERS = (
    b"authorization x-api-key api-key x-goog-api-key x-amz-security-token x-portkey-api-key "
    b"ocp-apim-subscription-key cf-access-client-secret x-litellm-api-key x-forwarded-user "
    b"x-forwarded-access-token x_api_key x-auth-token x-secret dpop"
).split(b" ")
PARAMETERS = (b"key access_token oauth_token api_key api-key %6bey %61ccess_token KEY token").split(
    b" "
)
WHO = [b"APP", b"ALICE", b"BOB", b"Bearer ALICE", b"Bearer APP", b"APP, ALICE", b"ALICE, APP", b""]

header_lines = st.lists(
    st.tuples(st.sampled_from(HEADERS), st.sampled_from(WHO)),
    max_size=4,
)
parameters = st.lists(
    st.tuples(st.sampled_from(PARAMETERS), st.sampled_from(WHO[:3])),
    max_size=3,
)
askers = st.tuples(header_lines, parameters)


def key_and_forwarded(
    provider: str, lines: Lines, query: Lines
) -> tuple[bytes, object, Counter[bytes]]:
    """The key of a request with these credentials, what goes upstream of it, and that with a sole
    API key of Google's in one place, whether it came in query or header."""
    target = PATHS[provider].encode()
    if query:
        target += b"?" + b"&".join(name + b"=" + value for name, value in query)
    route = ROUTER.route("POST", target, dict(lines))
    assert route is not None
    assert route.endpoint is not None
    prefix = route.key_prefix(lines, Control(), shared=False)
    sent = outgoing(route, lines, b"")
    by_name = sorted(sent.headers, key=lambda line: line[0])
    values = Counter([value for _, value in sent.headers if value])
    values.update(value for _, value in query if value)
    return prefix, (by_name, sent.target, sent.unsigned), values


ROUTER = Router(
    load_settings(
        {"LLM_CACHE_HOME": "/nonexistent", "CACHE_UPSTREAM_COMPATIBLE": "http://127.0.0.1:9"}
    )
)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(sorted(PATHS)), askers, askers)
@example(
    "gemini",
    ([], [(b"key", b"APP"), (b"access_token", b"ALICE")]),
    ([], [(b"key", b"APP"), (b"access_token", b"BOB")]),
)
@example(
    "vertex",
    ([(b"x-goog-api-key", b"APP")], [(b"access_token", b"ALICE")]),
    ([(b"x-goog-api-key", b"APP")], []),
)
@example(
    "gemini",
    ([], [(b"key", b"APP"), (b"key", b"ALICE")]),
    ([], [(b"key", b"APP"), (b"key", b"BOB")]),
)
@example(
    "anthropic",
    ([(b"x-amz-security-token", b"ALICE")], []),
    ([(b"x-amz-security-token", b"BOB")], []),
)
@example(
    "openai",
    ([(b"authorization", b"APP, ALICE")], []),
    ([(b"authorization", b"APP"), (b"authorization", b"ALICE")], []),
)
@example("cohere", ([(b"ocp-apim-subscription-key", b"ALICE")], []), ([], []))
def test_credentials_that_go_upstream_differently_never_share_a_key(
    provider: str, one: tuple[Lines, Lines], other: tuple[Lines, Lines]
) -> None:
    first, sent, values = key_and_forwarded(provider, *one)
    second, sent_too, values_too = key_and_forwarded(provider, *other)
    if first == second and sent != sent_too:
        # The one thing that may differ: the place of an API key that is the only one.
        assert provider in ("gemini", "vertex")
        assert values == values_too
        for lines, query in (one, other):
            names = [name for name, _ in lines if name == b"x-goog-api-key"]
            assert len([*names, *(name for name, _ in query if name in (b"key", b"%6bey"))]) == 1


def test_two_users_of_one_app_key_never_get_each_other_s_answer(
    upstream: Upstream, proxy: Any
) -> None:
    def reply(request: Request) -> Reply:
        return json_reply(gemini_wire.answer(f"for {request.target}"))

    upstream.default = reply
    one: Proxy = proxy(CACHE_UPSTREAM_GEMINI=upstream.url)
    seen = []
    for who in ("?key=APP&access_token=ALICE", "?key=APP&access_token=BOB", "?key=APP"):
        target = f"/v1beta/models/gemini-3-pro:generateContent{who}"
        for _ in range(2):
            answer = exchange(one.port, "POST", target, [], b'{"contents":[]}')
            assert who.encode() in answer.body
            seen.append(answer.header("x-cache"))
    assert seen == ["MISS", "HIT"] * 3
