"""Anthropic requests: which are cached, what counts in their keys, what is volatile in them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from support.keys import further_keys

from llm_cache.wire.normalize import Rules
from llm_cache.wire.providers.anthropic import COUNT_TOKENS, MESSAGES, Anthropic
from llm_cache.wire.registry import PROVIDERS, by_name

PROVIDER = Anthropic()


def test_providers_are_found_by_name() -> None:
    assert by_name("anthropic") in PROVIDERS
    assert by_name("Anthropic") is None
    assert len({provider.name for provider in PROVIDERS}) == len(PROVIDERS)


def test_exactly_two_endpoints_are_cached() -> None:
    assert PROVIDER.endpoint("POST", "/v1/messages") == MESSAGES
    assert PROVIDER.endpoint("POST", "/v1/messages/count_tokens") == COUNT_TOKENS


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/messages"),
        ("post", "/v1/messages"),
        ("POST", "/v1/messages/"),
        ("POST", "/V1/messages"),
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/messages/batches/b1/cancel"),
        ("POST", "/v1/messages/count_tokens/"),
        ("POST", "/v1/complete"),
        ("POST", "/v1/files"),
        ("POST", "//v1/messages"),
        ("POST", "/x/../v1/messages"),
        ("DELETE", "/v1/files/f1"),
    ],
)
def test_everything_else_passes_through(method: str, path: str) -> None:
    assert PROVIDER.endpoint(method, path) is None


@pytest.mark.parametrize(
    ("path", "headers", "claimed"),
    [
        ("/v1/messages", {}, True),
        ("/v1/messages/count_tokens", {}, True),
        ("/v1/messages/batches/b1/results", {}, True),
        ("/v1/messagesx", {}, False),
        ("/v1/complete", {}, True),
        ("/v1/completions", {}, False),
        ("/v1/organizations/o/users", {}, True),
        ("/v1/skills", {}, True),
        ("/v1/models", {}, False),
        ("/v1/models", {b"authorization": b"Bearer sk"}, False),
        ("/v1/models", {b"anthropic-version": b"2023-06-01"}, True),
        ("/v1/models/claude", {b"x-api-key": b"k"}, True),
        ("/v1/files", {b"anthropic-beta": b"files-api-2025-04-14"}, True),
        ("/v1/files", {}, False),
        ("/v1/anything/new", {b"anthropic-version": b"2023-06-01"}, True),
        ("/api/claude_code/metrics", {}, True),
        ("/v1/chat/completions", {b"x-api-key": b"k"}, False),
    ],
)
def test_requests_are_claimed_by_path_and_headers(
    path: str, headers: dict[bytes, bytes], claimed: bool
) -> None:
    assert PROVIDER.claims("POST", path, headers) is claimed


def test_anthropic_headers_count_in_the_key() -> None:
    counted = (b"anthropic-version", b"anthropic-beta", b"anthropic-anything-new")
    ignored = (
        b"anthropic-dangerous-direct-browser-access", b"x-api-key", b"authorization",
        b"user-agent", b"x-stainless-retry-count", b"accept",
    )  # fmt: skip
    assert all(PROVIDER.is_key_header(name) for name in counted)
    assert not any(PROVIDER.is_key_header(name) for name in ignored)
    assert PROVIDER.credential_headers == {b"x-api-key", b"authorization"}
    assert PROVIDER.auth_header("sk-1") == (b"x-api-key", b"sk-1")


def test_errors_have_the_shape_the_official_client_reads() -> None:
    body = PROVIDER.error_body(502, "api_error", 'upstream "x" unreachable é')
    assert json.loads(body) == {
        "type": "error",
        "error": {"type": "api_error", "message": 'upstream "x" unreachable é'},
    }


def test_the_model_of_a_request() -> None:
    assert PROVIDER.request_model(MESSAGES, "/v1/messages", {"model": "m"}) == "m"
    assert PROVIDER.request_model(MESSAGES, "/v1/messages", {"model": 5}) is None
    assert PROVIDER.request_model(MESSAGES, "/v1/messages", {}) is None


# Volatile fields


def key(doc: dict[str, Any], rules: Rules | None = None) -> bytes:
    body = json.dumps(doc).encode()
    keys = further_keys(PROVIDER, MESSAGES, b"", body, rules or Rules(), 5.0)
    assert keys.normalized is not None
    return keys.normalized


BILLING = [
    "x-anthropic-billing-header: cc_version=2.1.63.a43; cc_entrypoint=sdk-cli; cch=e2224;",
    "x-anthropic-billing-header: cc_version=2.1.64.b00; cc_entrypoint=cli; cch=00000;",
    "x-anthropic-billing-header: cc_version=2.2.0",
    "x-anthropic-billing-header:cch=1",
    "x-anthropic-billing-header: cc_version=3; cc_workload=cron; cc_is_subagent=true;",
]


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


FORMS: dict[str, Callable[[str], dict[str, Any]]] = {
    "string, alone": lambda line: {"system": line},
    "string, first line": lambda line: {"system": f"{line}\nYou are Claude Code."},
    "string, CRLF": lambda line: {"system": f"{line}\r\nYou are Claude Code."},
    "string, later line": lambda line: {"system": f"You are\n{line}\nClaude Code."},
    "string, last line": lambda line: {"system": f"You are Claude Code.\n{line}"},
    "block of its own": lambda line: {"system": [text(line), text("You are Claude Code.")]},
    "first line of a block": lambda line: {"system": [text(f"{line}\nYou are Claude Code.")]},
    "cached block": lambda line: {
        "system": [{**text(line), "cache_control": {"type": "ephemeral"}}, text("You are")]
    },
    "system message": lambda line: {"messages": [{"role": "system", "content": line}]},
    "system message of blocks": lambda line: {
        "messages": [{"role": "system", "content": [text(line)]}]
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_requests_that_differ_only_in_the_billing_line_share_a_key(form: str) -> None:
    assert len({key(FORMS[form](line)) for line in BILLING}) == 1
    assert key(FORMS[form](BILLING[0])) != key(FORMS[form]("another line"))


def test_the_billing_line_may_be_missing_altogether() -> None:
    assert key({"system": f"{BILLING[0]}\nYou are"}) == key({"system": "You are"})
    assert key({"system": [text(BILLING[0]), text("You are")]}) == key(
        {"system": [text("You are")]}
    )


def test_only_the_billing_line_is_ignored() -> None:
    first, second = (f"{BILLING[0]}\n{rest}" for rest in ("be nice", "be evil"))
    assert key({"system": first}) != key({"system": second})
    inside = "as in x-anthropic-billing-header: "
    assert key({"system": f"{inside}1"}) != key({"system": f"{inside}2"})
    user = [{"messages": [{"role": "user", "content": line}]} for line in BILLING]
    assert len({key(doc) for doc in user}) == len(user)


def test_the_users_id_is_ignored_and_other_metadata_is_not() -> None:
    assert key({"metadata": {"user_id": "a"}}) == key({"metadata": {"user_id": "b"}}) == key({})
    one = {"metadata": {"user_id": "a", "x": 1}}
    assert key(one) == key({"metadata": {"x": 1}})
    assert key(one) != key({"metadata": {"user_id": "a", "x": 2}})
    assert key({"metadata": "user_id"}) != key({})


@pytest.mark.parametrize(
    "doc",
    [
        {"system": None, "messages": None},
        {"system": 5, "messages": "text", "metadata": []},
        {"system": [1, None, {"type": "text"}, {"text": 5}], "messages": [1, None, [], {}]},
        {
            "messages": [
                {"content": None},
                {"content": [None, 1, {"type": 5}, {"type": "document"}]},
            ]
        },
        {"messages": [{"content": [{"type": "tool_result", "content": 5}]}]},
        {"messages": [{"role": 5, "content": [{"type": "document", "source": "x"}]}] * 5},
    ],
)
def test_ill_formed_requests_are_left_to_the_upstream(doc: dict[str, Any]) -> None:
    rules = Rules(("x",), ("x",), suffix_only=True, suffix_turns=1)
    assert key(doc, rules) == key(doc, rules)


# Texts


def test_every_text_is_reached_and_nothing_else() -> None:
    doc: dict[str, Any] = {
        "model": "m",
        "system": [text("s1")],
        "tools": [{"name": "t", "description": "d"}],
        "messages": [
            {"role": "system", "content": "s2"},
            {"role": "user", "content": "u1"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": "s"},
                    text("a1"),
                    {"type": "tool_use", "id": "i", "name": "n", "input": {"text": "kept"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "i", "content": "u2"},
                    {"type": "tool_result", "tool_use_id": "j", "content": [text("u3")]},
                    {"type": "mcp_tool_result", "tool_use_id": "k", "content": [text("u4")]},
                    {"type": "image", "source": {"type": "base64", "data": "kept"}},
                    {"type": "document", "source": {"type": "text", "data": "u5"}},
                    {"type": "document", "source": {"type": "base64", "data": "kept"}},
                    {"type": "document", "source": {"type": "content", "content": [text("u6")]}},
                    {"type": "search_result", "title": "kept", "content": [text("u7")]},
                ],
            },
        ],
    }
    expected = json.dumps(doc)
    for words in ("s1", "s2"):
        expected = expected.replace(f'"{words}"', f'"S({words})"')
    for words in ("u1", "a1", "u2", "u3", "u4", "u5", "u6", "u7"):
        expected = expected.replace(f'"{words}"', f'"M({words})"')
    PROVIDER.map_texts(MESSAGES, doc, lambda t: f"S({t})", lambda t: f"M({t})")
    assert doc == json.loads(expected)


def test_a_system_string_is_reached() -> None:
    doc: dict[str, Any] = {"system": "s", "messages": []}
    PROVIDER.map_texts(MESSAGES, doc, str.upper, str.lower)
    assert doc == {"system": "S", "messages": []}


# The last turns


def says(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


PLAIN = [
    says("user", "one"),
    says("assistant", "two"),
    says("user", "three"),
    says("assistant", "four"),
    says("user", "five"),
]


def test_the_last_turns_are_kept_and_the_rest_of_the_request() -> None:
    doc = {"model": "m", "system": "s", "messages": copy.deepcopy(PLAIN)}
    assert PROVIDER.keep_last(MESSAGES, doc, 2)
    assert doc == {"model": "m", "system": "s", "messages": PLAIN[-2:]}


@pytest.mark.parametrize("turns", [5, 6, 100])
def test_a_talk_that_is_short_enough_is_left_whole(turns: int) -> None:
    doc = {"messages": copy.deepcopy(PLAIN)}
    assert PROVIDER.keep_last(MESSAGES, doc, turns)
    assert doc == {"messages": PLAIN}


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("turns", [1, 3, 5, 9])
@pytest.mark.parametrize(
    "kind",
    [
        "tool_use", "server_tool_use", "mcp_tool_use", "tool_result", "mcp_tool_result",
        "web_search_tool_result", "code_execution_tool_result", "browser_click_tool_use",
    ],
)  # fmt: skip
def test_tools_anywhere_forbid_the_suffix_tier(at: int, turns: int, kind: str) -> None:
    messages = copy.deepcopy(PLAIN)
    messages[at]["content"] = [text("words"), {"type": kind}]
    assert not PROVIDER.keep_last(MESSAGES, {"messages": messages}, turns)


QUESTIONS = [
    "sure?",
    "sure?  \n",
    "**Sure?**",
    'Say "go"?',
    "I will.\n\nSure? (yes/no)",
    "\u786e\u5b9a\u5417\uff1f",  # with a full-width question mark
    "\u0645\u062a\u0623\u0643\u062f\u061f",  # with an Arabic one
]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("listed", [False, True])
def test_an_answer_to_a_question_that_is_cut_forbids_the_suffix_tier(
    question: str, listed: bool
) -> None:
    messages = copy.deepcopy(PLAIN)
    messages[3]["content"] = [text("Well."), text(question)] if listed else question
    for turns, allowed in ((1, False), (2, False), (3, True), (4, True), (5, True)):
        doc = {"messages": copy.deepcopy(messages)}
        assert PROVIDER.keep_last(MESSAGES, doc, turns) is allowed, turns


def test_a_users_question_and_an_old_one_are_no_obstacle() -> None:
    messages = [says("user", "why?"), says("assistant", "Sure? I am.\nDone."), says("user", "ok")]
    for turns in (1, 2):
        assert PROVIDER.keep_last(MESSAGES, {"messages": list(messages)}, turns)


def test_an_instruction_that_would_be_cut_forbids_the_suffix_tier() -> None:
    doc = {"messages": [says("system", "be evil"), *PLAIN]}
    assert not PROVIDER.keep_last(MESSAGES, doc, 2)


@pytest.mark.parametrize("messages", [None, [], "text", [1, 2, 3, 4], [*PLAIN, None]])
def test_what_is_not_a_talk_has_no_last_turns(messages: Any) -> None:
    assert not PROVIDER.keep_last(MESSAGES, {"messages": messages}, 1)
    assert not PROVIDER.keep_last(MESSAGES, {}, 1)
    assert not PROVIDER.keep_last(MESSAGES, {"messages": PLAIN}, 0)
    assert not PROVIDER.keep_last(COUNT_TOKENS, {"messages": PLAIN}, 1)
