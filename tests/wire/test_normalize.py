"""Normalized and suffix keys: what they ignore is named, all else decides; rules can't stall."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.keys import FurtherKeys, further_keys

from llm_cache.errors import SettingsError
from llm_cache.wire.framing import strict_json
from llm_cache.wire.keys import exact_key
from llm_cache.wire.normalize import Rules
from llm_cache.wire.providers.anthropic import COUNT_TOKENS, MESSAGES, Anthropic

PROVIDER = Anthropic()
SUFFIX = Rules(suffix_only=True)


def keys_of(body: bytes | dict[str, Any], rules: Rules | None = None) -> FurtherKeys:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return further_keys(PROVIDER, MESSAGES, b"prefix", raw, rules or Rules(), 5.0)


def normalized(body: bytes | dict[str, Any], rules: Rules | None = None) -> bytes:
    key = keys_of(body, rules).normalized
    assert key is not None
    return key


def user(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)
DOCS = st.dictionaries(st.text(max_size=6), VALUES, max_size=5)


def shuffled(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict):
        members = list(value.items())
        dice.shuffle(members)
        return {key: shuffled(member, dice) for key, member in members}
    if isinstance(value, list):
        return [shuffled(member, dice) for member in value]
    return value


@given(DOCS, st.randoms(), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_key_order_white_space_and_escapes_do_not_matter(
    doc: dict[str, Any], dice: random.Random, indent: int | str | None, ascii_only: bool
) -> None:
    other = json.dumps(shuffled(doc, dice), indent=indent, ensure_ascii=ascii_only)
    assert normalized(other.encode()) == normalized(doc)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    members: Any = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    return [path, *[inner for key, member in members for inner in paths(member, (*path, key))]]


@given(DOCS.filter(bool), st.data())
def test_any_changed_value_changes_the_key(doc: dict[str, Any], data: st.DataObject) -> None:
    changed = json.loads(json.dumps(doc))
    *way, last = data.draw(st.sampled_from([path for path in paths(doc) if path]))
    holder = changed
    for step in way:
        holder = holder[step]
    holder[last] = data.draw(VALUES.filter(lambda new: json.dumps(new) != json.dumps(holder[last])))
    if json.dumps(changed, sort_keys=True) != json.dumps(doc, sort_keys=True):
        assert normalized(changed) != normalized(doc)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"temperature": 1}, {"temperature": True}),
        ({"stream": True}, {"stream": False}),
        ({"stream": False}, {}),
        ({"seed": 12345678901234567890123}, {"seed": 12345678901234567890124}),
        ({"stop_sequences": ["a", "b"]}, {"stop_sequences": ["b", "a"]}),
        ({"metadata": {"other": 1}}, {"metadata": {"other": 2}}),
        ({"system": "be nice"}, {"system": "be evil"}),
        ({"tools": []}, {}),
        ({"x": None}, {}),
    ],
)
def test_no_parameter_is_forgotten(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert normalized(one) != normalized(two)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not JSON",
        b"[1]",
        b'"text"',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\xff"}',
        b'{"a":1} {"b":2}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"[" * 900 + b"]" * 900 + b"}" + b"]",
    ],
)
def test_a_body_that_is_not_strict_json_has_no_further_key(body: bytes) -> None:
    keys = keys_of(body, SUFFIX)
    assert (keys.normalized, keys.suffix) == (None, None)
    assert keys.note


JSON_LIKE = st.text(alphabet='{}[]":,0truefalsn\\ue-', max_size=60).map(str.encode)


@given(st.binary(max_size=60) | JSON_LIKE)
def test_no_body_raises(body: bytes) -> None:
    keys_of(body, Rules(("a",), ("b",), True, 1))


def test_deep_but_parsable_bodies_do_not_raise() -> None:
    for depth in (100, 400, 600, 800, 950, 990, 1000, 1500):
        nested = '{"type":"tool_result","content":[' * depth + "]}" * depth
        body = f'{{"messages":[{{"role":"user","content":[{nested}]}}]}}'.encode()
        keys_of(body, Rules(("a",), ("b",), True, 1))


def test_the_tiers_never_share_a_key() -> None:
    body = strict_json.canonical(user("hi"))
    keys = keys_of(body, SUFFIX)
    assert len({exact_key(b"prefix", body), keys.normalized, keys.suffix}) == 3
    other = further_keys(PROVIDER, MESSAGES, b"other", body, SUFFIX, 5.0)
    assert not {other.normalized, other.suffix} & {keys.normalized, keys.suffix}


# Rules


def test_matches_become_one_placeholder_in_string_and_block_form() -> None:
    rules = Rules.parse(
        '{"system_strip": ["today is \\\\S+"], "message_strip": ["/tmp/\\\\w+", "pid=\\\\d+"]}', "n"
    )

    def request(day: str, path: str, pid: str, listed: bool) -> dict[str, Any]:
        system: Any = f"Be nice, today is {day}"
        content: Any = f"look at {path}"
        if listed:
            system = [{"type": "text", "text": system}]
            result = [{"type": "text", "text": f"pid={pid}"}]
            content = [
                {"type": "text", "text": content},
                {"type": "tool_result", "tool_use_id": "t", "content": result},
                {"type": "tool_result", "tool_use_id": "t", "content": f"pid={pid}"},
            ]
        return {"system": system, "messages": [{"role": "user", "content": content}]}

    for listed in (False, True):
        one = request("Monday", "/tmp/abc", "12", listed)
        two = request("Friday", "/tmp/xyz", "7", listed)
        assert normalized(one) != normalized(two)
        assert normalized(one, rules) == normalized(two, rules)


def test_a_system_rule_leaves_messages_alone_and_the_other_way_round() -> None:
    rules = Rules(system_strip=("x+",), message_strip=("y+",))
    assert normalized({"system": "x"}, rules) == normalized({"system": "xx"}, rules)
    assert normalized({"system": "y"}, rules) != normalized({"system": "yy"}, rules)
    assert normalized(user("y"), rules) == normalized(user("yy"), rules)
    assert normalized(user("x"), rules) != normalized(user("xx"), rules)


def test_a_match_becomes_the_placeholder_and_keeps_what_is_around_it() -> None:
    rules = Rules(message_strip=(r"\d+",))
    assert normalized(user("a 12 b"), rules) == normalized(user("a <NORM> b"))
    assert normalized(user("a 12 b"), rules) != normalized(user("a b"), rules)


CATASTROPHIC = "(a+)+$"
LONG = "a" * 200_000 + "b"


@pytest.mark.parametrize("form", ["string", "block", "system"])
def test_a_catastrophic_pattern_ends_within_its_budget(form: str) -> None:
    doc: dict[str, Any] = user(LONG)
    if form == "block":
        doc = {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG}] * 50}]}
    if form == "system":
        doc = {"system": LONG}
    rules = Rules(system_strip=("ok", CATASTROPHIC), message_strip=("ok", CATASTROPHIC))
    body = json.dumps(doc).encode()
    started = time.monotonic()
    keys = further_keys(PROVIDER, MESSAGES, b"p", body, rules, 0.2)
    assert time.monotonic() - started < 2
    assert (keys.normalized, keys.suffix) == (None, None)
    assert "_strip[1]" in keys.note
    assert CATASTROPHIC in keys.note


def test_other_threads_run_while_a_pattern_searches() -> None:
    rules = Rules(message_strip=(CATASTROPHIC,))
    body = json.dumps(user(LONG)).encode()
    results: list[FurtherKeys] = []
    search = threading.Thread(
        target=lambda: results.append(further_keys(PROVIDER, MESSAGES, b"p", body, rules, 1.0))
    )
    longest = 0.0
    last = time.monotonic()  # before the start: a thread that holds the lock holds us there
    search.start()
    while search.is_alive():
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    assert results[0].normalized is None
    assert longest < 0.5  # a lock held over the search would make it one whole second


def test_a_spent_budget_leaves_no_further_key() -> None:
    keys = further_keys(PROVIDER, MESSAGES, b"p", b'{"system":"x"}', Rules(("x",)), 0.0)
    assert keys.normalized is None
    assert "ran out of time" in keys.note


def test_rules_are_read_with_their_defaults() -> None:
    assert Rules.parse("{}", "n") == Rules()
    assert Rules() == Rules((), (), False, 3)
    text = '{"system_strip":["a"],"message_strip":["b","c"],"suffix_only":true,"suffix_turns":1}'
    assert Rules.parse(text, "n") == Rules(("a",), ("b", "c"), True, 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["not valid JSON"]),
        ("{'a': 1}", ["not valid JSON"]),
        ('{"suffix_only":true,"suffix_only":false}', ["not valid JSON", "twice"]),
        ("[]", ["JSON object", "[]"]),
        ('{"sufix_only": true}', ["unknown field 'sufix_only'", "suffix_only, suffix_turns"]),
        ('{"suffix_only": "yes"}', ["suffix_only", '"yes"', "true or false"]),
        ('{"suffix_only": 1}', ["suffix_only", "true or false"]),
        ('{"suffix_turns": 0}', ["suffix_turns", "0", "from 1"]),
        ('{"suffix_turns": true}', ["suffix_turns", "true", "from 1"]),
        ('{"suffix_turns": 2.5}', ["suffix_turns", "2.5", "from 1"]),
        ('{"suffix_turns": null}', ["suffix_turns", "null", "from 1"]),
        ('{"system_strip": "abc"}', ["system_strip", '"abc"', "a list of regular expressions"]),
        ('{"message_strip": ["a", 5]}', ["message_strip[1]", "5", "a string"]),
        ('{"system_strip": ["a", "b("]}', ["system_strip[1]", "'b('", "at position 2"]),
        ('{"message_strip": ["[z-a]"]}', ["message_strip[0]", "'[z-a]'", "at position"]),
    ],
)
def test_a_wrong_rule_is_refused_by_name(text: str, told: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Rules.parse(text, "normalize.json")
    for words in ["normalize.json", *told]:
        assert words in str(caught.value)


# The suffix tier


def talk(*texts: str) -> dict[str, Any]:
    """user, assistant, user, ... with an assistant's turn second."""
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]
    return {"model": "m", "messages": messages}


def suffix(doc: dict[str, Any], turns: int = 3) -> bytes | None:
    return keys_of(doc, Rules(suffix_only=True, suffix_turns=turns)).suffix


def test_the_suffix_key_ignores_all_but_the_last_turns() -> None:
    one = suffix(talk("hi", "hello", "red or blue", "blue", "and now"))
    assert one is not None
    assert one == suffix(talk("hey", "good day", "red or blue", "blue", "and now"))
    assert one != suffix(talk("hi", "hello", "red or green", "blue", "and now"))
    assert one != suffix({**talk("hi", "hello", "red or blue", "blue", "and now"), "system": "s"})


def test_the_suffix_tier_is_off_unless_asked_for() -> None:
    assert keys_of(talk("a", "b", "c", "d", "e")).suffix is None


@pytest.mark.parametrize("turns", range(1, 9))
@pytest.mark.parametrize("before", [(), ("hi", "hello")])
def test_a_yes_never_answers_for_another_question(turns: int, before: tuple[str, ...]) -> None:
    deleting = suffix(talk(*before, "delete prod?", "sure?", "yes"), turns)
    tea = suffix(talk(*before, "make tea?", "sure?", "yes"), turns)
    assert deleting is None or deleting != tea


def test_a_talk_of_as_many_turns_as_kept_is_whole() -> None:
    assert suffix(talk("a", "b?", "c"), 3) is not None
    assert suffix(talk("a", "b?", "c"), 3) != suffix(talk("x", "b?", "c"), 3)


def test_keys_of_different_numbers_of_turns_are_different() -> None:
    assert suffix(talk("a"), 1) != suffix(talk("a"), 2)


def test_a_count_of_tokens_has_no_suffix_key() -> None:
    body = json.dumps(talk("a", "b", "c", "d", "e")).encode()
    keys = further_keys(PROVIDER, COUNT_TOKENS, b"p", body, SUFFIX, 5.0)
    assert keys.normalized is not None
    assert keys.suffix is None
