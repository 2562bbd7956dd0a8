"""Bedrock requests: which are cached, where they go, what of them counts."""

from __future__ import annotations

import json

import pytest

from llm_cache.wire.prices import Prices
from llm_cache.wire.provider import Endpoint, Json, Usage
from llm_cache.wire.providers.bedrock import Bedrock, Mantle
from llm_cache.wire.registry import PROVIDERS

PROVIDER = Bedrock()
MANTLE = Mantle()
CONVERSE = Endpoint("converse", "amazon.nova-micro-v1:0")
INVOKE = Endpoint("invoke", "anthropic.claude-sonnet-4-5-20250929-v1:0")
SIGNED = b"AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/bedrock/aws4_request, Signature=00"


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/model/amazon.nova-micro-v1%3A0/converse", CONVERSE),
        ("/model/amazon.nova-micro-v1:0/converse", CONVERSE),
        ("/model/m/converse-stream", Endpoint("converse_stream", "m")),
        ("/model/m/invoke", Endpoint("invoke", "m")),
        ("/model/m/invoke-with-response-stream", Endpoint("invoke_stream", "m")),
        ("/model/m/count-tokens", Endpoint("count_tokens", "m")),
        (
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Famazon.nova-micro-v1%3A0"
            "/converse",
            CONVERSE,
        ),
        (
            "/model/arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0"
            "/converse",
            Endpoint("converse", "us.amazon.nova-lite-v1:0"),
        ),
        (
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aapplication-inference-profile%2Fab1/invoke",
            Endpoint("invoke", "application-inference-profile/ab1"),
        ),
        ("/model/m/async-invoke", None),
        ("/model/m/converse/x", None),
        ("/model//converse", None),
        ("/model/m", None),
        ("/guardrail/g/version/1/apply", None),
    ],
)
def test_what_asks_a_model_is_cached(path: str, endpoint: Endpoint | None) -> None:
    # Anthropic's headers are on requests for Claude at Bedrock too.
    headers = {b"anthropic-version": b"2023-06-01"}
    asked = next(p for p in PROVIDERS if p.claims("POST", path, headers))
    assert asked.name == "bedrock"
    assert PROVIDER.endpoint("POST", path) == endpoint
    assert PROVIDER.endpoint("GET", path) is None


def test_openais_and_anthropics_apis_at_bedrock_are_theirs() -> None:
    assert PROVIDER.endpoint("POST", "/openai/v1/chat/completions") == Endpoint("chat.completions")
    assert PROVIDER.endpoint("POST", "/openai/v1/files") is None
    assert MANTLE.endpoint("POST", "/v1/chat/completions") == Endpoint("chat.completions")
    assert MANTLE.endpoint("POST", "/openai/v1/responses") == Endpoint("responses")
    assert MANTLE.endpoint("POST", "/anthropic/v1/messages") == Endpoint("messages")
    assert MANTLE.endpoint("GET", "/v1/models") is None
    watcher = MANTLE.watch(Endpoint("messages"), 200, "application/json")
    watcher.feed(b'{"type":"message","content":[],"stop_reason":"end_turn"}')
    assert watcher.close().complete


@pytest.mark.parametrize(
    ("environ", "region"),
    [
        ({}, "us-east-1"),
        ({"AWS_REGION": "eu-central-1"}, "eu-central-1"),
        ({"AWS_DEFAULT_REGION": "us-gov-west-1"}, "us-gov-west-1"),
        ({"AWS_REGION": "ap-southeast-2", "AWS_DEFAULT_REGION": "eu-west-1"}, "ap-southeast-2"),
        ({"AWS_REGION": "evil.example/"}, "us-east-1"),
        ({"AWS_REGION": ""}, "us-east-1"),
    ],
)
def test_the_region_is_the_environments(environ: dict[str, str], region: str) -> None:
    path = "/model/m/converse"
    assert PROVIDER.home(path, environ) == f"https://bedrock-runtime.{region}.amazonaws.com"
    assert MANTLE.home("/v1/responses", environ) == f"https://bedrock-mantle.{region}.api.aws"


# Credentials


def test_a_signature_is_no_credential_and_an_api_key_is_one() -> None:
    assert PROVIDER.is_signature(b"authorization", SIGNED)
    assert PROVIDER.is_signature(b"x-amz-security-token", b"any")
    assert not PROVIDER.is_signature(b"authorization", b"Bearer one")
    assert not PROVIDER.is_signature(b"x-api-key", b"one")
    assert PROVIDER.auth_header("k") == (b"authorization", b"Bearer k")


def test_only_headers_that_change_the_answer_are_in_the_key() -> None:
    names = (
        b"accept",
        b"x-amzn-bedrock-guardrailidentifier",
        b"x-amzn-bedrock-service-tier",
        b"x-amz-date",
        b"amz-sdk-invocation-id",
        b"amz-sdk-request",
        b"x-amzn-trace-id",
        b"authorization",
        b"user-agent",
    )
    assert [name for name in names if PROVIDER.is_key_header(name)] == list(names[:3])


def test_errors_have_the_form_that_boto3_reads() -> None:
    body = json.loads(PROVIDER.error_body(504, "cache_miss", "not here"))
    assert body == {"message": "not here", "__type": "cache_miss"}


# Texts and turns


def test_every_text_of_a_conversation_is_mapped() -> None:
    doc: Json = {
        "system": [{"text": "sys"}, {"cachePoint": {"type": "default"}}],
        "messages": [
            {"role": "user", "content": [{"text": "ask"}, {"image": {"format": "png"}}]},
            {"role": "assistant", "content": [{"toolUse": {"name": "f", "input": {"q": "ask"}}}]},
            {
                "role": "user",
                "content": [{"toolResult": {"content": [{"text": "res"}, {"json": {"a": "res"}}]}}],
            },
        ],
        "inferenceConfig": {"stopSequences": ["ask"]},
    }
    PROVIDER.map_texts(CONVERSE, doc, lambda text: f"S({text})", lambda text: f"M({text})")
    assert doc["system"] == [{"text": "S(sys)"}, {"cachePoint": {"type": "default"}}]
    assert doc["messages"] == [
        {"role": "user", "content": [{"text": "M(ask)"}, {"image": {"format": "png"}}]},
        {"role": "assistant", "content": [{"toolUse": {"name": "f", "input": {"q": "ask"}}}]},
        {
            "role": "user",
            "content": [{"toolResult": {"content": [{"text": "M(res)"}, {"json": {"a": "res"}}]}}],
        },
    ]
    assert doc["inferenceConfig"] == {"stopSequences": ["ask"]}


@pytest.mark.parametrize(
    ("doc", "mapped"),
    [
        ({"prompt": "ask", "max_gen_len": 5}, {"prompt": "ASK", "max_gen_len": 5}),
        ({"inputText": "ask"}, {"inputText": "ASK"}),
        ({"texts": ["ask", "b"], "truncate": "END"}, {"texts": ["ASK", "B"], "truncate": "END"}),
        (
            {
                "messages": [
                    {"role": "system", "content": "Sys"},
                    {"role": "user", "content": "ask"},
                ]
            },
            {
                "messages": [
                    {"role": "system", "content": "sys"},
                    {"role": "user", "content": "ASK"},
                ]
            },
        ),
        (
            {"anthropic_version": "bedrock-2023-05-31", "system": "Sys", "messages": []},
            {"anthropic_version": "bedrock-2023-05-31", "system": "sys", "messages": []},
        ),
    ],
)
def test_texts_of_every_makers_request_are_mapped(doc: Json, mapped: Json) -> None:
    PROVIDER.map_texts(INVOKE, doc, str.lower, str.upper)
    assert doc == mapped


def test_the_conversation_whose_tokens_are_counted_is_mapped() -> None:
    doc = {"input": {"converse": {"messages": [{"role": "user", "content": [{"text": "ask"}]}]}}}
    PROVIDER.map_texts(Endpoint("count_tokens"), doc, str.lower, str.upper)
    assert doc["input"]["converse"]["messages"][0]["content"] == [{"text": "ASK"}]


def test_claude_codes_billing_line_is_stripped_at_bedrock_too() -> None:
    line = "x-anthropic-billing-header: cc_version=2.1.63.a43; cch=e2224;\n"
    doc = {"anthropic_version": "bedrock-2023-05-31", "system": [{"type": "text", "text": line}]}
    PROVIDER.strip_volatile(INVOKE, doc)
    assert doc["system"] == []
    PROVIDER.strip_volatile(CONVERSE, other := {"system": [{"text": line}]})
    assert other == {"system": [{"text": line}]}


def turns(*texts: str) -> list[Json]:
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": [{"text": text}]} for at, text in enumerate(texts)]


def test_the_suffix_tier_keeps_the_last_turns_of_plain_talk() -> None:
    doc: Json = {"messages": turns("a", "b", "c", "d", "e")}
    assert PROVIDER.keep_last(CONVERSE, doc, 3)
    assert doc["messages"] == turns("a", "b", "c", "d", "e")[2:]
    used = {"role": "user", "content": [{"toolResult": {"content": [{"text": "x"}]}}]}
    assert not PROVIDER.keep_last(CONVERSE, {"messages": [used, *turns("a")]}, 1)
    assert not PROVIDER.keep_last(CONVERSE, {"messages": turns("a", "Sure?", "yes")}, 1)
    assert not PROVIDER.keep_last(CONVERSE, {"messages": [{"role": "user"}, 1]}, 1)
    assert not PROVIDER.keep_last(Endpoint("count_tokens"), {"messages": turns("a")}, 1)
    called: Json = {"role": "assistant", "content": "", "tool_calls": [{}]}
    assert not PROVIDER.keep_last(INVOKE, {"messages": [called, *turns("a")]}, 1)


@pytest.mark.parametrize(
    ("endpoint", "doc", "fixed"),
    [
        (Endpoint("invoke", "amazon.titan-embed-text-v2:0"), {}, True),
        (Endpoint("invoke", "cohere.embed-v4:0"), {}, True),
        (Endpoint("invoke", "m"), {"temperature": 0, "seed": 1}, True),
        (Endpoint("invoke", "m"), {"temperature": 0}, False),
        (CONVERSE, {"inferenceConfig": {"temperature": 0}}, False),
        (
            CONVERSE,
            {"inferenceConfig": {"temperature": 0}, "additionalModelRequestFields": {"seed": 1}},
            True,
        ),
        (CONVERSE, {}, False),
    ],
)
def test_what_always_gets_the_same_answer(endpoint: Endpoint, doc: Json, fixed: bool) -> None:
    assert PROVIDER.is_deterministic(endpoint, doc) is fixed


@pytest.mark.parametrize(
    "model",
    [
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "anthropic.claude-sonnet-4-20250514-v1:0",
        "us.amazon.nova-micro-v1:0",
        "amazon.titan-embed-text-v2:0",
        "us.meta.llama4-maverick-17b-instruct-v1:0",
        "openai.gpt-oss-120b-1:0",
    ],
)
def test_known_models_have_bedrocks_price(model: str) -> None:
    cost = Prices.load(None, "").cost("bedrock", model, Usage(input_tokens=1_000_000))
    assert cost is not None
    assert cost > 0
