"""OpenAI's requests: which are cached, what decides their keys, where their text is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.keys import further_keys

from llm_cache.wire.normalize import Rules
from llm_cache.wire.provider import Endpoint
from llm_cache.wire.providers.openai import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    INPUT_TOKENS,
    MODERATIONS,
    RESPONSES,
    Azure,
    OpenAI,
)
from llm_cache.wire.registry import by_name

PROVIDER = OpenAI()

CHATTED: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
    ],
}


def normalized(doc: dict[str, Any], endpoint: Endpoint = CHAT, rules: Rules | None = None) -> bytes:
    body = json.dumps(doc).encode()
    keys = further_keys(PROVIDER, endpoint, b"prefix", body, rules or Rules(), 1.0)
    assert keys.normalized is not None, keys.note
    return keys.normalized


def suffix(messages: list[dict[str, Any]], turns: int = 1, **fields: Any) -> bytes | None:
    rules = Rules(suffix_only=True, suffix_turns=turns)
    body = json.dumps({"model": "gpt-4o", "messages": messages, **fields}).encode()
    return further_keys(PROVIDER, CHAT, b"prefix", body, rules, 1.0).suffix


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", COMPLETIONS),
        ("/v1/responses", RESPONSES),
        ("/v1/responses/input_tokens", INPUT_TOKENS),
        ("/v1/embeddings", EMBEDDINGS),
        ("/v1/moderations", MODERATIONS),
        ("/chat/completions", CHAT),
        ("/openai/deployments/gpt-4o/chat/completions", CHAT),
        ("/openai/deployments/ada/embeddings", EMBEDDINGS),
        ("/openai/v1/responses", RESPONSES),
        ("/api/v1/chat/completions", CHAT),
        ("/v1/fim/completions", COMPLETIONS),
        ("/v1/chat/completions/", None),
        ("/v1/chat/completionsX", None),
        ("/v1/xcompletions", None),
        ("/v1//completions", None),
        ("/v1/chat/completions/chatcmpl-1", None),
        ("/v1/responses/resp_1", None),
        ("/v1/responses/resp_1/cancel", None),
        ("/v1/responses/resp_1/input_items", None),
        ("/v1/responses/compact", None),
        ("/v1/conversations", None),
        ("/v1/batches", None),
        ("/v1/files", None),
        ("/v1/models", None),
        ("/v1/images/generations", None),
        ("/v1/audio/speech", None),
        ("/v1/realtime/calls", None),
        ("completions", None),
        ("", None),
        ("/", None),
    ],
)
def test_only_what_asks_a_model_is_cacheable(path: str, endpoint: Endpoint | None) -> None:
    assert PROVIDER.endpoint("POST", path) is endpoint
    assert PROVIDER.endpoint("GET", path) is None
    assert PROVIDER.endpoint("DELETE", path) is None


@pytest.mark.parametrize(
    ("path", "claimed"),
    [
        ("/v1/chat/completions", True),
        ("/v1/responses/resp_1", True),
        ("/v1/models", True),
        ("/v1/files/file_1/content", True),
        ("/chat/completions", True),
        ("/v1/chatter", False),
        ("/v1", False),
        ("/v2/chat", False),
        ("/v1beta/models/gemini:generateContent", False),
        ("/health", False),
    ],
)
def test_paths_without_a_prefix_are_claimed_by_their_root(path: str, claimed: bool) -> None:
    assert PROVIDER.claims("GET", path, {}) is claimed


def test_azures_paths_are_azures_and_its_key_goes_in_its_own_header() -> None:
    azure = Azure()
    path = "/openai/deployments/my-gpt/chat/completions"
    assert path.startswith(azure.own_paths)
    assert azure.claims("POST", path, {})
    assert azure.endpoint("POST", path) is CHAT
    assert azure.request_model(CHAT, path, {}) == "my-gpt"
    assert azure.request_model(CHAT, path, {"model": "gpt-4o"}) == "gpt-4o"
    assert azure.request_model(RESPONSES, "/openai/v1/responses", {}) is None
    assert azure.auth_header("k") == (b"api-key", b"k")
    assert PROVIDER.auth_header("k") == (b"authorization", b"Bearer k")
    # Without a setting nothing can leave: there is no host to send it to.
    assert azure.base_url == ""


@pytest.mark.parametrize(
    ("name", "telling"),
    [
        (b"openai-beta", True),
        (b"openai-organization", True),
        (b"openai-project", True),
        (b"openai-safety-identifier", False),
        (b"x-stainless-lang", False),
        (b"user-agent", False),
        (b"authorization", False),
        (b"idempotency-key", False),
    ],
)
def test_headers_that_can_change_an_answer_are_in_the_key(name: bytes, telling: bool) -> None:
    assert PROVIDER.is_key_header(name) is telling


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, EMBEDDINGS])
@pytest.mark.parametrize("field", ["user", "safety_identifier", "prompt_cache_key"])
def test_who_asks_is_not_in_the_normalized_key(endpoint: Endpoint, field: str) -> None:
    doc = {"model": "gpt-4o", "input": "a"}
    assert normalized({**doc, field: "one"}, endpoint) == normalized(doc, endpoint)
    assert normalized({"metadata": {field: "one"}, **doc}, endpoint) != normalized(doc, endpoint)


def test_bar_15_every_parameter_is_in_the_key_be_nice_never_answers_for_be_evil() -> None:
    evil = {
        **CHATTED,
        "messages": [{"role": "system", "content": "Be evil."}, CHATTED["messages"][1]],
    }
    parameters: list[dict[str, Any]] = [
        {"system": "Be nice."},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "required"},
        {"n": 2},
        {"seed": 1},
        {"stop": ["x"]},
        {"stop_sequences": ["x"]},
        {"logit_bias": {"50256": -100}},
        {"thinking": {"type": "enabled"}},
        {"reasoning_effort": "low"},
        {"temperature": 0},
        {"temperature": 0.0},
        {"response_format": {"type": "json_object"}},
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"store": True},
        {"metadata": {"run": "1"}},
        {"service_tier": "flex"},
        {"prediction": {"type": "content", "content": "a"}},
        {"a_parameter_of_tomorrow": 1},
    ]
    docs = [CHATTED, evil, *({**CHATTED, **one} for one in parameters)]
    keys = [normalized(doc) for doc in docs]
    assert len(set(keys)) == len(docs)


def test_key_order_and_white_space_do_not_matter() -> None:
    loose = json.dumps(dict(reversed(CHATTED.items())), indent=2).encode()
    keys = further_keys(PROVIDER, CHAT, b"prefix", loose, Rules(), 1.0)
    assert keys.normalized == normalized(CHATTED)


def test_stored_state_is_in_the_key() -> None:
    doc = {"model": "gpt-4o", "input": "and then?"}
    named = [
        {**doc, field: value}
        for field, value in [
            ("previous_response_id", "resp_1"),
            ("previous_response_id", "resp_2"),
            ("conversation", "conv_1"),
            ("background", True),
            ("store", False),
        ]
    ]
    keys = {normalized(one, RESPONSES) for one in [doc, *named]}
    assert len(keys) == len(named) + 1


STRIP = Rules(system_strip=("sys-\\d+",), message_strip=("run-\\d+",))


@pytest.mark.parametrize(
    ("endpoint", "form"),
    [
        (CHAT, {"messages": [{"role": "system", "content": "sys-%d"}]}),
        (CHAT, {"messages": [{"role": "developer", "content": "sys-%d"}]}),
        (
            CHAT,
            {"messages": [{"role": "system", "content": [{"type": "text", "text": "sys-%d"}]}]},
        ),
        (CHAT, {"messages": [{"role": "user", "content": "run-%d"}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "run-%d"}]}]}),
        (CHAT, {"messages": [{"role": "tool", "tool_call_id": "c", "content": "run-%d"}]}),
        (
            CHAT,
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "refusal", "refusal": "run-%d"}]}
                ]
            },
        ),
        (COMPLETIONS, {"prompt": "run-%d"}),
        (COMPLETIONS, {"prompt": ["run-%d", "b"], "suffix": "run-%d"}),
        (EMBEDDINGS, {"input": ["run-%d"]}),
        (MODERATIONS, {"input": [{"type": "text", "text": "run-%d"}]}),
        (RESPONSES, {"instructions": "sys-%d", "input": "run-%d"}),
        (RESPONSES, {"input": [{"role": "developer", "content": "sys-%d"}]}),
        (RESPONSES, {"input": [{"role": "user", "content": "run-%d"}]}),
        (
            RESPONSES,
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "run-%d"}]}]},
        ),
        (
            RESPONSES,
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "run-%d"}]},
        ),
        (
            RESPONSES,
            {
                "input": [
                    {
                        "type": "custom_tool_call_output",
                        "output": [{"type": "input_text", "text": "run-%d"}],
                    }
                ]
            },
        ),
        (INPUT_TOKENS, {"instructions": "sys-%d", "input": "run-%d"}),
    ],
)
def test_rules_reach_text_in_every_form_and_nothing_else(
    endpoint: Endpoint, form: dict[str, Any]
) -> None:
    def with_number(number: int) -> dict[str, Any]:
        doc: dict[str, Any] = json.loads(json.dumps(form).replace("%d", str(number)))
        return {"model": "gpt-4o", **doc}

    one, two = with_number(1), with_number(22)
    assert normalized(one, endpoint) != normalized(two, endpoint)
    assert normalized(one, endpoint, STRIP) == normalized(two, endpoint, STRIP)
    elsewhere = {**one, "metadata": {"a": "run-1 sys-1"}}
    moved = {**one, "metadata": {"a": "run-2 sys-2"}}
    assert normalized(elsewhere, endpoint, STRIP) != normalized(moved, endpoint, STRIP)


def turn(role: str, content: str, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def test_the_suffix_keeps_the_instructions_and_the_last_turns() -> None:
    one = [turn("user", "a"), turn("assistant", "b."), turn("user", "tea")]
    two = [turn("user", "x"), turn("assistant", "y."), turn("user", "tea")]
    head = turn("system", "Be kind.")
    assert suffix(one) == suffix(two)
    assert suffix([head, *one]) == suffix([head, *two]) != suffix(one)
    assert suffix([head, *one]) != suffix([turn("system", "Be evil."), *two])
    assert suffix(one, 3) != suffix(two, 3)
    assert suffix(one, seed=1) != suffix(two, seed=2)


@pytest.mark.parametrize(
    "cut",
    [
        turn("assistant", "sure?"),
        turn("assistant", "", tool_calls=[{"id": "c", "type": "function"}]),
        turn("assistant", "", function_call={"name": "f"}),
        turn("tool", "deleted", tool_call_id="c"),
        turn("system", "Be evil from here on."),
    ],
)
def test_the_suffix_never_answers_across_tools_questions_or_instructions(
    cut: dict[str, Any],
) -> None:
    assert suffix([turn("user", "a"), cut, turn("user", "yes")]) is None
    assert suffix([]) is None


def test_the_suffix_of_a_response_is_of_its_input() -> None:
    def key(given: object, **fields: Any) -> bytes | None:
        body = json.dumps({"model": "m", "input": given, **fields}).encode()
        rules = Rules(suffix_only=True, suffix_turns=1)
        return further_keys(PROVIDER, RESPONSES, b"prefix", body, rules, 1.0).suffix

    talk = [turn("user", "a"), turn("assistant", "b."), turn("user", "tea")]
    other = [turn("user", "x", type="message"), turn("assistant", "y."), turn("user", "tea")]
    assert key(talk) == key(other) is not None
    assert key(talk, instructions="Be kind.") != key(talk)
    assert key("tea") is not None
    assert key(talk, previous_response_id="resp_1") is None
    assert key(talk, conversation="conv_1") is None
    assert key([{"type": "function_call_output", "output": "x"}, turn("user", "tea")]) is None
    assert key([{"type": "item_reference", "id": "i"}, turn("user", "tea")]) is None


@pytest.mark.parametrize(
    ("endpoint", "fields", "deterministic"),
    [
        (CHAT, {"temperature": 0, "seed": 7}, True),
        (CHAT, {"temperature": 0.0, "seed": 0}, True),
        (CHAT, {"temperature": 0, "random_seed": 7}, True),
        (CHAT, {"temperature": 0}, False),
        (CHAT, {"seed": 7}, False),
        (CHAT, {"temperature": 0.1, "seed": 7}, False),
        (CHAT, {"temperature": False, "seed": 7}, False),
        (CHAT, {"temperature": 0, "seed": None}, False),
        (CHAT, {"temperature": 0, "seed": 7, "web_search_options": {"a": 1}}, False),
        (COMPLETIONS, {"temperature": 0, "seed": 7}, True),
        (RESPONSES, {"temperature": 0, "seed": 7}, False),
        (EMBEDDINGS, {}, True),
        (MODERATIONS, {}, False),
    ],
)
def test_only_what_cannot_change_is_deterministic(
    endpoint: Endpoint, fields: dict[str, Any], deterministic: bool
) -> None:
    assert PROVIDER.is_deterministic(endpoint, {**CHATTED, **fields}) is deterministic


def test_errors_have_openais_shape() -> None:
    assert json.loads(PROVIDER.error_body(504, "cache_miss", 'no "entry"')) == {
        "error": {"message": 'no "entry"', "type": "cache_miss", "param": None, "code": None}
    }


@pytest.mark.parametrize(
    ("doc", "model"), [({"model": "gpt-4o"}, "gpt-4o"), ({}, None), ({"model": 3}, None)]
)
def test_the_request_names_its_model(doc: dict[str, Any], model: str | None) -> None:
    assert PROVIDER.request_model(CHAT, "/v1/chat/completions", doc) == model


def test_openai_is_known_by_its_name() -> None:
    assert isinstance(by_name("openai"), OpenAI)
    assert isinstance(by_name("azure"), Azure)


@pytest.mark.parametrize("path", ["/nosuch/v1/chat/completions", "/gorq/openai/v1/responses"])
def test_a_misspelt_upstream_name_is_never_taken_for_openai(path: str) -> None:
    assert not OpenAI().claims("POST", path, {})
