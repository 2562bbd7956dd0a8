"""Gemini and Vertex AI requests: which are cached, where they go, what of them counts."""

from __future__ import annotations

import json

import pytest

from llm_cache.wire.provider import Endpoint, Json
from llm_cache.wire.providers.gemini import Gemini
from llm_cache.wire.providers.vertex import Vertex
from llm_cache.wire.registry import PROVIDERS

GEMINI = Gemini()
VERTEX = Vertex()
HOME = "/v1/projects/my-project/locations/europe-west4/publishers"
GENERATE = Endpoint("generate_content", "gemini-2.5-flash")
CLAUDE = Endpoint("anthropic.messages", "claude-sonnet-4-5@20250929")


def claimant(path: str, headers: dict[bytes, bytes] | None = None, method: str = "POST") -> str:
    return next((p.name for p in PROVIDERS if p.claims(method, path, headers or {})), "")


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1beta/models/gemini-2.5-flash:generateContent", GENERATE),
        ("/v1/models/gemini-2.5-flash:generateContent", GENERATE),
        ("/v1alpha/models/gemini-2.5-flash:generateContent", GENERATE),
        ("/v1beta/tunedModels/mine-1:generateContent", Endpoint("generate_content", "mine-1")),
        ("/v1beta/models/g:streamGenerateContent", Endpoint("stream_generate_content", "g")),
        ("/v1beta/models/g:countTokens", Endpoint("count_tokens", "g")),
        ("/v1beta/models/g:embedContent", Endpoint("embed_content", "g")),
        ("/v1beta/models/g:batchEmbedContents", Endpoint("batch_embed_contents", "g")),
        ("/v1beta/openai/chat/completions", Endpoint("chat.completions")),
        ("/v1beta/openai/embeddings", Endpoint("embeddings")),
        ("/v1beta/models/g:batchGenerateContent", None),
        ("/v1beta/models/g:predictLongRunning", None),
        ("/v1beta/models/g", None),
        ("/v1beta/models/g:generateContent/x", None),
        ("/v1beta/openai/files", None),
        ("/v1beta/cachedContents", None),
        ("/v1beta/files", None),
    ],
)
def test_what_asks_a_model_is_cached(path: str, endpoint: Endpoint | None) -> None:
    assert claimant(path) == "gemini"
    assert GEMINI.endpoint("POST", path) == endpoint
    assert GEMINI.endpoint("GET", path) is None


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        (f"{HOME}/google/models/gemini-2.5-flash:generateContent", GENERATE),
        (f"/v1beta1{HOME[3:]}/google/models/gemini-2.5-flash:generateContent", GENERATE),
        ("/v1/publishers/google/models/gemini-2.5-flash:generateContent", GENERATE),
        ("/v1beta1/publishers/google/models/gemini-2.5-flash:generateContent", GENERATE),
        (f"{HOME}/google/models/e:predict", Endpoint("predict", "e")),
        (
            "/v1/projects/p/locations/us-central1/endpoints/123:streamGenerateContent",
            Endpoint("stream_generate_content", "123"),
        ),
        (f"{HOME}/anthropic/models/claude-sonnet-4-5@20250929:rawPredict", CLAUDE),
        (f"{HOME}/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict", CLAUDE),
        (
            f"{HOME}/anthropic/models/count-tokens:rawPredict",
            Endpoint("anthropic.count_tokens"),
        ),
        (f"{HOME}/anthropic/models/claude-sonnet-4-5:predict", None),
        (
            f"{HOME}/mistralai/models/mistral-small-2503:rawPredict",
            Endpoint("chat.completions", "mistral-small-2503"),
        ),
        (
            f"{HOME}/mistralai/models/mistral-small-2503:streamRawPredict",
            Endpoint("chat.completions", "mistral-small-2503"),
        ),
        (
            "/v1beta1/projects/p/locations/us-central1/endpoints/openapi/chat/completions",
            Endpoint("chat.completions"),
        ),
        ("/v1/projects/p/locations/us-central1/endpoints/openapi/embeddings", None),
        (f"{HOME}/google/models/gemini-2.5-flash:rawPredict", None),
        ("/v1/projects/p/locations/us-central1/batchPredictionJobs", None),
    ],
)
def test_vertex_is_known_by_its_paths(path: str, endpoint: Endpoint | None) -> None:
    # Anthropic's headers are on requests for Claude at Vertex too.
    assert claimant(path) == claimant(path, {b"anthropic-version": b"2023-06-01"}) == "vertex"
    assert VERTEX.endpoint("POST", path) == endpoint
    assert VERTEX.endpoint("GET", path) is None


def test_shared_paths_go_by_the_key_header() -> None:
    assert claimant("/v1/models", {b"x-goog-api-key": b"k"}, "GET") == "gemini"
    assert claimant("/v1/models", {b"x-api-key": b"k"}, "GET") == "anthropic"
    assert claimant("/v1/models", {b"authorization": b"Bearer k"}, "GET") == "openai"
    assert claimant("/upload/v1beta/files") == "gemini"


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("evil.example#", "aiplatform.googleapis.com"),
        ("Evil", "aiplatform.googleapis.com"),
        ("a%2eb", "aiplatform.googleapis.com"),
        ("evil@", "aiplatform.googleapis.com"),
    ],
)
def test_a_region_has_its_host_and_nothing_else_chooses_one(location: str, host: str) -> None:
    path = f"/v1/projects/p/locations/{location}/publishers/google/models/g:generateContent"
    assert VERTEX.home(path, {}) == f"https://{host}"
    assert VERTEX.home("/v1/publishers/google/models/g:generateContent", {}) == VERTEX.base_url


# Headers


def test_headers_that_only_name_the_client_are_not_in_the_key() -> None:
    counted = {
        name
        for name in (
            b"x-goog-api-key",
            b"x-goog-api-client",
            b"x-goog-fieldmask",
            b"x-goog-user-project",
            b"user-agent",
            b"authorization",
        )
        if GEMINI.is_key_header(name)
    }
    assert counted == {b"x-goog-fieldmask", b"x-goog-user-project"}
    assert VERTEX.is_key_header(b"anthropic-beta")
    assert VERTEX.is_key_header(b"x-vertex-ai-llm-request-type")


def test_errors_have_googles_form() -> None:
    body = json.loads(GEMINI.error_body(504, "cache_miss", "not here"))
    assert body == {
        "error": {
            "code": 504,
            "message": "not here",
            "status": "DEADLINE_EXCEEDED",
            "type": "cache_miss",
        }
    }
    assert json.loads(GEMINI.error_body(599, "x", "y"))["error"]["status"] == "INTERNAL"
    assert json.loads(GEMINI.error_body(418, "x", "y"))["error"]["status"] == "FAILED_PRECONDITION"


# Texts and turns


def test_every_text_is_mapped_in_both_spellings_and_nothing_else_is() -> None:
    doc = {
        "systemInstruction": {"parts": [{"text": "sys"}, {"inlineData": {"data": "AA"}}]},
        "system_instruction": {"parts": {"text": "sys"}},
        "contents": [
            {"role": "user", "parts": [{"text": "ask"}, {"fileData": {"fileUri": "gs://ask"}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"q": "ask"}}}]},
            {
                "role": "user",
                "parts": [
                    {
                        "functionResponse": {
                            "name": "f",
                            "response": {"result": ["res", {"deep": "res"}, 1, None]},
                        }
                    }
                ],
            },
            "not a content",
        ],
        "generationConfig": {"stopSequences": ["ask"]},
        "requests": [{"content": {"parts": [{"text": "embed"}]}}],
        "content": {"parts": [{"text": "embed"}]},
        "generateContentRequest": {"contents": {"parts": [{"text": "count"}]}},
    }
    GEMINI.map_texts(GENERATE, doc, lambda text: f"S({text})", lambda text: f"M({text})")
    assert doc == {
        "systemInstruction": {"parts": [{"text": "S(sys)"}, {"inlineData": {"data": "AA"}}]},
        "system_instruction": {"parts": {"text": "S(sys)"}},
        "contents": [
            {"role": "user", "parts": [{"text": "M(ask)"}, {"fileData": {"fileUri": "gs://ask"}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"q": "ask"}}}]},
            {
                "role": "user",
                "parts": [
                    {
                        "functionResponse": {
                            "name": "f",
                            "response": {"result": ["M(res)", {"deep": "M(res)"}, 1, None]},
                        }
                    }
                ],
            },
            "not a content",
        ],
        "generationConfig": {"stopSequences": ["ask"]},
        "requests": [{"content": {"parts": [{"text": "M(embed)"}]}}],
        "content": {"parts": [{"text": "M(embed)"}]},
        "generateContentRequest": {"contents": {"parts": [{"text": "M(count)"}]}},
    }


def test_claude_at_vertex_is_read_as_anthropics_own() -> None:
    doc = {
        "system": "x-anthropic-billing-header: cc_version=2.1; cch=1;\nBe kind.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "metadata": {"user_id": "u1"},
    }
    VERTEX.strip_volatile(CLAUDE, doc)
    VERTEX.map_texts(CLAUDE, doc, str.lower, str.upper)
    assert doc == {
        "system": "be kind.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "HI"}]}],
    }
    assert VERTEX.keep_last(CLAUDE, doc, 1)
    assert VERTEX.request_model(CLAUDE, "", doc) == CLAUDE.model


def turns(*texts: str) -> list[Json]:
    roles = ("user", "model")
    return [{"role": roles[at % 2], "parts": [{"text": text}]} for at, text in enumerate(texts)]


def test_the_suffix_tier_keeps_the_last_turns_of_plain_talk() -> None:
    doc: Json = {"contents": turns("a", "b", "c", "d", "e")}
    assert GEMINI.keep_last(GENERATE, doc, 3)
    assert doc["contents"] == turns("a", "b", "c", "d", "e")[2:]
    assert not GEMINI.keep_last(Endpoint("count_tokens"), {"contents": turns("a")}, 3)
    assert not GEMINI.keep_last(GENERATE, {"contents": turns("a", "Sure?", "yes")}, 1)


@pytest.mark.parametrize(
    "part",
    [
        {"functionCall": {"name": "f"}},
        {"function_response": {"name": "f"}},
        {"executableCode": {"code": "1"}},
        {"toolCall": {}},
    ],
)
def test_the_suffix_tier_is_not_used_with_tools(part: Json) -> None:
    doc = {"contents": [*turns("a", "b"), {"role": "user", "parts": [part]}]}
    assert not GEMINI.keep_last(GENERATE, doc, 1)


@pytest.mark.parametrize(
    ("endpoint", "doc", "fixed"),
    [
        (Endpoint("embed_content"), {}, True),
        (Endpoint("batch_embed_contents"), {}, True),
        (GENERATE, {"generationConfig": {"temperature": 0, "seed": 1}}, True),
        (GENERATE, {"generation_config": {"temperature": 0.0, "seed": 1}}, True),
        (GENERATE, {"generationConfig": {"temperature": 0}}, False),
        (GENERATE, {"generationConfig": {"temperature": 0.1, "seed": 1}}, False),
        (GENERATE, {}, False),
    ],
)
def test_what_always_gets_the_same_answer(endpoint: Endpoint, doc: Json, fixed: bool) -> None:
    assert GEMINI.is_deterministic(endpoint, doc) is fixed
    assert VERTEX.is_deterministic(Endpoint("predict", "text-embedding-005"), doc)
    assert not VERTEX.is_deterministic(Endpoint("predict", "imagen-4"), doc)
