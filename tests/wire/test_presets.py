"""Presets: what a known agent changes from run to run isn't in the normalized key; all else is."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from support.agents import Body, claude_code, codex, gemini_cli
from support.keys import further_keys

from llm_cache.errors import SettingsError
from llm_cache.wire.normalize import Rules
from llm_cache.wire.pattern_cost import slowest
from llm_cache.wire.presets.catalog import PLACES, names, presets
from llm_cache.wire.provider import Endpoint, Provider
from llm_cache.wire.providers.anthropic import COUNT_TOKENS, MESSAGES, Anthropic
from llm_cache.wire.providers.gemini import Gemini
from llm_cache.wire.providers.openai import RESPONSES, OpenAI

GENERATE = Endpoint("stream_generate_content", "gemini-3-pro")
AGENTS: dict[str, tuple[Provider, Endpoint, Callable[..., Body]]] = {
    "claude-code": (Anthropic(), MESSAGES, claude_code),
    "codex": (OpenAI(), RESPONSES, codex),
    "gemini-cli": (Gemini(), GENERATE, gemini_cli),
}
each_agent = pytest.mark.parametrize("agent", sorted(AGENTS))


def key(agent: str, doc: Body, *named: str) -> bytes:
    provider, endpoint, _ = AGENTS[agent]
    body = json.dumps(doc).encode()
    keys = further_keys(provider, endpoint, b"p", body, Rules(presets=named), 5.0)
    assert keys.normalized is not None, keys.note
    return keys.normalized


def body_of(agent: str, run: int = 1, **changes: Any) -> Body:
    return AGENTS[agent][2](run, **changes)


# What is on always


@each_agent
def test_a_second_run_of_the_same_conversation_has_the_same_key(agent: str) -> None:
    assert body_of(agent, 1) != body_of(agent, 2)
    assert key(agent, body_of(agent, 1)) == key(agent, body_of(agent, 2))


def test_a_count_of_the_same_conversation_has_the_same_key() -> None:
    one, two = (
        further_keys(
            Anthropic(), COUNT_TOKENS, b"p", json.dumps(claude_code(run)).encode(), Rules(), 5.0
        ).normalized
        for run in (1, 2)
    )
    assert one == two is not None


@each_agent
def test_what_was_asked_and_what_tools_said_are_in_the_key(agent: str) -> None:
    said = "report" if agent == "claude-code" else "output"
    keys = {
        key(agent, body_of(agent)),
        key(agent, body_of(agent, prompt="Find the fast test.")),
        key(agent, body_of(agent, **{said: "something else"})),
        key(agent, {**body_of(agent), "model": "another"}),
    }
    assert len(keys) == 4


@each_agent
def test_what_an_agent_writes_counts_in_a_request_that_is_not_its_own(agent: str) -> None:
    """Somebody else's request, whose tools say the same."""
    keys = set()
    for run in (1, 2):
        doc = body_of(agent, run)
        for member in ("system", "instructions", "systemInstruction", "client_metadata"):
            doc.pop(member, None)
        if agent == "gemini-cli":
            doc["contents"] = doc["contents"][1:]
        for item in doc.get("input", []):
            item.pop("internal_chat_message_metadata_passthrough", None)
        keys.add(key(agent, doc))
    assert len(keys) == 2


QUOTED = [
    ("claude-code", "agentId: {} (for resuming to continue this agent's work if needed)"),
    ("claude-code", "Command running in background with ID: {}"),
    ("claude-code", "<usage>total_tokens: 1\ntool_uses: 1\nduration_ms: 1{}</usage>"),
    ("claude-code", "Today's date is 2026-11-2{}."),
    ("codex", "Chunk ID: {}\nWall time: 0.0000 seconds\nOutput:\n"),
    ("codex", "Chunk ID: abc\nWall time: 0.0{} seconds\nOutput:\n"),
    ("gemini-cli", "Output: x\nProcess Group PGID: {}"),
    ("gemini-cli", "Today's date is {} (formatted according to the user's locale)."),
]


@pytest.mark.parametrize(("agent", "text"), QUOTED)
def test_a_person_who_asks_about_what_an_agent_writes_asks_different_things(
    agent: str, text: str
) -> None:
    one, two = (body_of(agent, prompt=text.format(at)) for at in ("12345678", "87654321"))
    assert key(agent, one, *names()) != key(agent, two, *names())


def test_a_tool_s_result_that_quotes_another_tool_s_frame_is_not_touched() -> None:
    def read(line: str) -> Body:
        doc = claude_code()
        doc["messages"][6:] = [
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "r", "name": "Read", "input": {}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "r", "content": line}],
            },
        ]
        return doc

    for frame in (
        "agentId: {} (for resuming to continue this agent's work if needed)",
        "Command running in background with ID: {}",
        "  12\tcurl says\n<persisted-output>\nOutput too large (1MB). Full output saved to: "
        "/x/tool-results/{}.txt\n",
    ):
        assert key("claude-code", read(frame.format("b4ir7gg7r"))) != key(
            "claude-code", read(frame.format("bgaopxykb"))
        )
    nested = "Output: log\nProcess Group PGID: {}\nmore\nProcess Group PGID: 77"
    one, two = (gemini_cli(output=nested.format(at)) for at in (1, 2))
    assert key("gemini-cli", one) != key("gemini-cli", two)
    nested = "cat log\nChunk ID: {}\nWall time: 0.0000 seconds\nOutput:\n"
    assert key("codex", codex(output=nested.format("aaa"))) != key(
        "codex", codex(output=nested.format("bbb"))
    )


def test_ids_that_stand_for_something_kept_elsewhere_are_in_the_key() -> None:
    """An item_reference names an item the API keeps; an id of the API's own may do so as well."""
    for at, other in ((-1, "msg_other"), (3, "rs_other")):
        doc = codex()
        assert doc["input"][at]["type"] in ("item_reference", "reasoning")
        doc["input"][at]["id"] = other
        assert key("codex", doc) != key("codex", codex())
    doc = codex()
    doc["input"][-1]["id"] = "msg_01a059de-d5f8-7e30-a52d-7f0677eac1c9"
    assert key("codex", doc) != key("codex", codex())


def test_which_call_a_result_belongs_to_is_in_the_key() -> None:
    doc = gemini_cli()
    one, two = (doc["contents"][at]["parts"][0]["functionResponse"] for at in (3, 5))
    one["id"], two["id"] = two["id"], one["id"]
    assert key("gemini-cli", doc) != key("gemini-cli", gemini_cli())


# What is on by name


CHANGES = [
    ("claude-code", "dates", {"day": "2026-11-26"}),
    ("claude-code", "folders", {"folder": "/home/bo/elsewhere"}),
    ("claude-code", "git", {"commit": "99ffee1 second\na1b2c3d first"}),
    ("codex", "dates", {"day": "2026-11-26"}),
    ("codex", "folders", {"folder": "/home/bo/elsewhere"}),
    ("gemini-cli", "dates", {"day": "Donnerstag, 26. November 2026"}),
    ("gemini-cli", "folders", {"folder": "/home/bo/elsewhere"}),
]


@pytest.mark.parametrize(("agent", "group", "change"), CHANGES)
def test_dates_folders_and_git_state_count_unless_named(
    agent: str, group: str, change: dict[str, str]
) -> None:
    one, two = body_of(agent, 1), body_of(agent, 2, **change)
    assert key(agent, one) != key(agent, two)
    assert key(agent, one, agent) == key(agent, two, agent)
    assert key(agent, one, f"{agent}:{group}") == key(agent, two, f"{agent}:{group}")
    others = [name for name in names() if name not in (agent, f"{agent}:{group}")]
    assert key(agent, one, *others) != key(agent, two, *others)


def test_every_group_is_tried() -> None:
    assert {(agent, group) for agent, group, _ in CHANGES} == {
        (preset.name, group) for preset in presets() for group in preset.groups
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"presets": "codex"}', ["presets", '"codex"', "a list of names"]),
        ('{"presets": ["codex", "cursor"]}', ["presets[1]", '"cursor"', "claude-code, "]),
        ('{"presets": [1]}', ["presets[0]", "1", "codex:dates"]),
        ('{"presets": ["codex:git"]}', ["presets[0]", "codex:git"]),
    ],
)
def test_a_preset_nobody_knows_is_refused_by_name(text: str, told: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Rules.parse(text, "normalize.json")
    for words in told:
        assert words in str(caught.value)


def test_presets_are_read() -> None:
    assert Rules.parse('{"presets": ["codex", "claude-code:dates"]}', "n").presets == (
        "codex",
        "claude-code:dates",
    )


# Nothing else


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    members: Any = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    else:
        yield path
    for name, member in members:
        yield from leaves(member, (*path, name))


@each_agent
@given(data=st.data())
def test_a_change_of_anything_else_than_a_rule_s_match_changes_the_key(
    agent: str, data: st.DataObject
) -> None:
    doc = body_of(agent)
    *way, last = data.draw(st.sampled_from(sorted(leaves(doc), key=str)))
    changed = copy.deepcopy(doc)
    holder = changed
    for step in way:
        holder = holder[step]
    if not isinstance(holder[last], str):
        return
    at = data.draw(st.integers(0, len(holder[last])))
    mark = data.draw(st.sampled_from(["x", "7", "\n", "<", "'", "<NORM>", " "]))
    holder[last] = holder[last][:at] + mark + holder[last][at:]
    if key(agent, changed, *names()) == key(agent, doc, *names()):
        regions = volatile(agent, (*way, last))
        assert any(start <= at <= end for start, end in regions), (last, holder[last], at)


def volatile(agent: str, path: tuple[Any, ...]) -> list[tuple[int, int]]:
    """Which parts of a text differ between two runs on other days, in other folders: the words
    that do, and all of what goes by the name of a date or of git's state."""
    texts = []
    for doc in (body_of(agent, 1), body_of(agent, 2, **OTHERS[agent])):
        value: Any = doc
        for step in path:
            value = value[step]
        texts.append(value)
    one, two = texts
    if agent == "claude-code" and path[:2] == ("system", 0):
        return [(0, len(one))]  # the block of the billing line goes as a whole
    words, others = list(re.finditer(r"[^\s<>]+", one)), re.findall(r"[^\s<>]+", two)
    assert len(words) == len(others)
    regions = [word.span() for word, other in zip(words, others, strict=True) if word[0] != other]
    if (state := one.find("gitStatus: ")) >= 0:
        regions.append((one.index("\n", state), len(one)))
    regions += [found.span(1) for found in re.finditer(r"Today's date is ([^(\n]*)", one)]
    return regions


OTHERS: dict[str, dict[str, str]] = {
    "claude-code": {"day": "2025-01-02", "folder": "/home/bo/else", "commit": "99ffee1 second"},
    "codex": {"day": "2025-01-02", "folder": "/home/bo/else"},
    "gemini-cli": {"day": "Thursday, January 2, 2025", "folder": "/home/bo/else"},
}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "text", "id", "name", "parts", "output", "response"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@each_agent
@given(value=JSON, data=st.data())
def test_no_shape_raises(agent: str, value: Any, data: st.DataObject) -> None:
    doc = body_of(agent)
    *way, last = data.draw(st.sampled_from(sorted(leaves(doc), key=str)))
    way = way[: data.draw(st.integers(0, len(way)))] if way else way
    holder: Any = doc
    for step in way[:-1]:
        holder = holder[step]
    holder[way[-1] if way else last] = value
    key(agent, doc, *names())


# The files


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_every_rule_says_what_it_was_seen_in_and_fits_its_example(preset: Any) -> None:
    assert date.fromisoformat(preset.dated) >= date(2026, 11, 25)
    assert preset.groups
    assert all(preset.groups.values())
    rules = [*preset.texts, *preset.fields]
    assert len({rule.name + str(rule.group) for rule in rules}) == len(rules)
    for rule in rules:
        assert rule.seen, rule.name
        assert rule.group is None or rule.group in preset.groups
    for rule in preset.texts:
        assert set(rule.places) <= set(PLACES)
        assert rule.needs in rule.example
        assert not rule.begins or rule.example.startswith(rule.begins)
        assert rule.frame_end in rule.example
        match = regex.search(rule.pattern, rule.example)
        assert match, rule.name
        assert any(match.groups()), rule.name
    for rule in preset.fields:
        assert not rule.value or regex.fullmatch(rule.value, rule.example)


@pytest.mark.parametrize(
    "rule", [rule for preset in presets() for rule in preset.texts], ids=lambda rule: rule.name
)
def test_no_pattern_of_a_preset_can_stall(rule: Any) -> None:
    assert slowest(rule.pattern, 0.25) < 0.25


def test_a_spent_budget_is_told_with_the_rule_s_name() -> None:
    body = json.dumps(claude_code()).encode()
    keys = further_keys(Anthropic(), MESSAGES, b"p", body, Rules(), 0.0)
    assert keys.normalized is None
    assert "preset claude-code: the rule 'scratchpad' ran out of time" in keys.note
