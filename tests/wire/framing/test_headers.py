"""Header fields: what ends at the proxy stays there, what is end to end crosses."""

from __future__ import annotations

import pytest

from llm_cache.wire.credentials import looks_like_credential
from llm_cache.wire.framing.headers import (
    HOP_BY_HOP,
    NOT_REPLAYED,
    end_to_end,
    forwardable,
    is_gateway_header,
    replayable,
)

KEPT_REQUEST = [
    (b"x-api-key", b"k"),
    (b"authorization", b"Bearer t"),
    (b"anthropic-version", b"2023-06-01"),
    (b"anthropic-beta", b"a"),
    (b"anthropic-beta", b"b"),
    (b"content-type", b"application/json"),
    (b"user-agent", b"claude-cli/2"),
    (b"x-cached-elsewhere", b"kept: it only begins alike"),
]
KEPT_RESPONSE = [
    (b"content-type", b"text/event-stream"),
    (b"content-encoding", b"gzip"),
    (b"content-length", b"310"),
    (b"request-id", b"req_1"),
    (b"server-timing", b"x;dur=1202"),
    (b"anthropic-ratelimit-requests-remaining", b"9"),
    (b"via", b"1.1 a"),
    (b"via", b"1.1 b"),
]


def test_nothing_of_one_hop_crosses() -> None:
    hop = [(name, b"v") for name in sorted(HOP_BY_HOP)] + [(b"proxy-anything", b"v")]
    assert end_to_end(hop) == []
    assert forwardable(KEPT_REQUEST + hop) == KEPT_REQUEST
    assert replayable(KEPT_RESPONSE + hop) == KEPT_RESPONSE


def test_what_connection_lists_does_not_cross() -> None:
    fields = [
        (b"connection", b"close, X-One ,x-two"),
        (b"x-one", b"1"),
        (b"connection", b"x-three,"),
        (b"x-two", b"2"),
        (b"x-three", b"3"),
        (b"x-four", b"4"),
    ]
    assert end_to_end(fields) == [(b"x-four", b"4")]


def test_the_proxys_own_request_fields_and_cookies_are_not_forwarded() -> None:
    own = [
        b"x-cache-auth", b"x-cache-mode", b"x-cache-bypass", b"x-cache", b"x-stasis-mode",
        b"cookie", b"host", b"content-length", b"expect", b"proxy-authorization", b"te",
    ]  # fmt: skip
    assert forwardable([(name, b"secret") for name in own] + KEPT_REQUEST) == KEPT_REQUEST


def test_what_belongs_to_the_first_answer_is_not_replayed() -> None:
    first = [(name, b"v") for name in sorted(NOT_REPLAYED)]
    first += [(b"x-cache", b"HIT"), (b"x-cache-key", b"00")]
    assert {b"date", b"set-cookie", b"age"} <= NOT_REPLAYED
    assert replayable(first + KEPT_RESPONSE) == KEPT_RESPONSE


CHOOSING = [
    # Portkey
    b"x-portkey-provider", b"x-portkey-config", b"x-portkey-virtual-key", b"x-portkey-custom-host",
    b"x-portkey-api-key", b"x-portkey-forward-headers", b"x-portkey-cache-force-refresh",
    b"x-portkey-cache-namespace", b"x-portkey-azure-deployment-id", b"x-portkey-aws-session-token",
    b"x-portkey-vertex-region", b"x-portkey-strict-open-ai-compliance",
    # LiteLLM
    b"x-litellm-timeout", b"x-litellm-num-retries", b"x-litellm-api-key", b"x-litellm-model-id",
    # Cloudflare
    b"cf-aig-authorization", b"cf-aig-cache-key", b"cf-aig-cache-ttl", b"cf-aig-skip-cache",
    b"cf-aig-custom-cost", b"cf-aig-max-attempts", b"cf-aig-request-timeout",
    # Helicone
    b"helicone-auth", b"helicone-target-url", b"helicone-openai-api-base", b"helicone-fallbacks",
    b"helicone-model-override", b"helicone-cache-enabled", b"helicone-cache-seed",
    b"helicone-llm-security-enabled", b"helicone-target-provider",
    # Bifrost
    b"x-bf-vk", b"x-bf-api-key", b"x-bf-eh-anthropic-beta", b"x-bf-eh-session-id",
    b"x-bf-cache-key", b"x-bf-passthrough-extra-params", b"x-bf-mcp-include-clients",
    # TrueFoundry
    b"x-tfy-provider-name", b"x-tfy-strict-openai", b"x-tfy-retry-config", b"x-tfy-mcp-headers",
    b"x-tfy-logging-config",
    # Kong, Braintrust, Langfuse
    b"x-kong-llm-model", b"x-kong-route-name", b"x-bt-endpoint-name", b"x-bt-org-name",
    b"x-bt-use-cache", b"x-langfuse-public-key", b"x-braintrust-model",
    # Anybody
    b"x-model", b"x-llm-provider", b"ai-language-model-id", b"x-provider-name",
]  # fmt: skip
LABELLING = [
    # Portkey
    b"x-portkey-trace-id", b"x-portkey-span-id", b"x-portkey-span-name",
    b"x-portkey-parent-span-id", b"x-portkey-metadata", b"x-portkey-request-id",
    # LiteLLM
    b"x-litellm-tags", b"x-litellm-trace-id", b"x-litellm-session-id", b"x-litellm-end-user-id",
    b"x-litellm-customer-id", b"x-litellm-spend-logs-metadata",
    # Cloudflare
    b"cf-aig-metadata", b"cf-aig-event-id", b"cf-aig-log-id",
    # Helicone
    b"helicone-request-id", b"helicone-session-id", b"helicone-session-name",
    b"helicone-session-path", b"helicone-user-id", b"helicone-prompt-id",
    b"helicone-property-app", b"helicone-property-conversation", b"helicone-property-model",
    # Bifrost
    b"x-bf-session-id", b"x-bf-maxim-trace-id", b"x-bf-maxim-traceid",
    b"x-bf-maxim-generation-id", b"x-bf-maxim-session-id", b"x-bf-maxim-tags", b"x-bf-dim-team",
    b"x-bf-prom-latency",
    # TrueFoundry, Kong, Braintrust, Langfuse
    b"x-tfy-metadata", b"x-tfy-request-id", b"x-kong-request-id", b"x-bt-parent", b"x-bt-span-id",
    b"x-braintrust-trace-id", b"x-langfuse-trace-id", b"x-langfuse-session-id",
    b"x-langfuse-user-id", b"x-langfuse-tags", b"x-langfuse-metadata", b"x-langfuse-trace-name",
    # Tracers and clients that name themselves
    b"traceparent", b"tracestate", b"baggage", b"sentry-trace", b"x-datadog-trace-id",
    b"x-b3-traceid", b"langsmith-trace", b"http-referer", b"x-title", b"x-request-id",
    b"x-codex-turn-metadata", b"x-claude-code-session-id", b"x-llmgateway-user-id",
]  # fmt: skip


@pytest.mark.parametrize("name", CHOOSING)
def test_a_header_that_chooses_who_answers_or_tells_who_asks_is_in_the_key(name: bytes) -> None:
    assert is_gateway_header(name) or looks_like_credential(name)


@pytest.mark.parametrize("name", LABELLING)
def test_a_header_that_only_labels_a_request_is_not(name: bytes) -> None:
    assert not is_gateway_header(name)
    assert not looks_like_credential(name)


@pytest.mark.parametrize("word", [b"api-key", b"auth", b"token", b"secret", b"jwt"])
def test_a_label_that_looks_like_a_credential_is_in_the_key(word: bytes) -> None:
    for name in LABELLING[:40]:
        assert looks_like_credential(name + b"-" + word)
