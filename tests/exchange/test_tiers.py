"""The tiers beyond the exact one: what each ignores, what it never does, and what it may cost.

SPEC 4. The upstream numbers its answers; what it is sent is compared byte for byte.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from support import anthropic_wire as wire
from support.cache import Cache, CacheFactory
from support.replies import json_reply
from support.upstream import Upstream


@pytest.fixture
def numbered(upstream: Upstream) -> Upstream:
    """Its n-th answer says n."""
    count = itertools.count(1)
    upstream.default = lambda request: json_reply(wire.message(f"answer {next(count)}"))
    return upstream


def rules(home: Path, document: object) -> None:
    """Write `normalize.json`."""
    home.mkdir(mode=0o700, exist_ok=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (home / "normalize.json").write_text(text)


def asked(one: Cache, body: bytes | dict[str, Any], **headers: str) -> tuple[str | None, str]:
    """The label and the text of the answer."""
    raw = body if isinstance(body, bytes) else wire.dump(body)
    response = one.ask(raw, {name.replace("_", "-"): text for name, text in headers.items()})
    assert response.status == 200, response.body
    return response.header("x-cache"), json.loads(response.body)["content"][0]["text"]


def talk(*texts: str, **fields: Any) -> dict[str, Any]:
    """A request of alternating user and assistant messages."""
    roles = itertools.cycle(("user", "assistant"))
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"model": wire.MODEL, "max_tokens": 100, "messages": messages, **fields}


def listed(text: str) -> list[dict[str, Any]]:
    return [wire.text_block(text)]


# Normalized


def test_key_order_white_space_and_escapes_are_ignored_in_the_key_and_forwarded(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    document = talk("Grüezi 世界", system="be brief", temperature=1.0, top_k=3)
    plain = wire.dump(document)
    shuffled = json.dumps(dict(reversed(document.items())), indent=3).encode()
    respelled = b" \n" + plain.replace("ü".encode(), b"\\u00fc") + b"\r\n"
    assert asked(one, shuffled) == ("MISS", "answer 1")
    assert numbered.calls[0].request.body == shuffled
    assert asked(one, plain) == ("HIT-NORM", "answer 1")
    assert asked(one, respelled) == ("HIT-NORM", "answer 1")
    assert asked(one, shuffled) == ("HIT", "answer 1")
    assert asked(one, plain, x_cache_mode="fresh") == ("MISS", "answer 2")
    assert numbered.calls[1].request.body == plain
    # The newest answer is what every tier finds.
    assert asked(one, respelled) == ("HIT-NORM", "answer 2")
    assert asked(one, talk("Grüezi 世界", system="be brief", temperature=1, top_k=3))[0] == "MISS"


def claude_code(turn: int) -> bytes:
    """A request as Claude Code writes it; what depends on `turn` differs from run to run."""
    billing = (
        f"x-anthropic-billing-header: cc_version=2.1.{turn}.a43; cc_entrypoint=cli; cch={turn:05x};"
    )
    return wire.dump(
        {
            "model": wire.MODEL,
            "messages": [{"role": "user", "content": listed("list the files")}],
            "system": [
                wire.text_block(billing),
                {**wire.text_block("You are an agent."), "cache_control": {"type": "ephemeral"}},
            ],
            "metadata": {"user_id": f"user_{turn}_account__session_{turn * 7919}"},
            "max_tokens": 32000,
        }
    )


def test_what_claude_code_changes_in_every_request_is_ignored_and_forwarded_untouched(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache(CACHE_REWRITE_BILLING="off")  # on for an upstream on this machine
    assert asked(one, claude_code(1)) == ("MISS", "answer 1")
    assert asked(one, claude_code(2)) == ("HIT-NORM", "answer 1")
    assert asked(one, claude_code(3), x_cache_mode="fresh") == ("MISS", "answer 2")
    assert asked(one, claude_code(4), x_cache_mode="bypass") == ("BYPASS", "answer 3")
    assert [call.request.body for call in numbered.calls] == [claude_code(n) for n in (1, 3, 4)]
    # As a string, and only as a line of its own.
    text = "x-anthropic-billing-header: cch={};\nYou are an agent."
    assert asked(one, talk("hi", system=text.format("a1")))[0] == "MISS"
    assert asked(one, talk("hi", system=text.format("b2")))[0] == "HIT-NORM"
    spoken = "say x-anthropic-billing-header: {}"
    assert asked(one, talk(spoken.format(1)))[0] == "MISS"
    assert asked(one, talk(spoken.format(2)))[0] == "MISS"


STRIPPING = {
    "system_strip": [r"Current date[^\n]*", r"Session-ID: [a-f0-9-]+"],
    "message_strip": [r"<now>[\s\S]*?</now>", r"\d+ files"],
}


def stripped_forms(number: int, *, as_list: bool) -> dict[str, Any]:
    """A request with something to strip in every place a text can be."""
    system = f"Be brief.\nCurrent date: day {number}\nSession-ID: {number:x}-ff\nThat is all."
    question = f"<now>{number}</now> what is new?"
    result = f"there are {number} files"
    return {
        "model": wire.MODEL,
        "max_tokens": 100,
        "system": listed(system) if as_list else system,
        "messages": [
            {"role": "user", "content": listed(question) if as_list else question},
            {"role": "assistant", "content": [wire.tool_use_block("ls", {"path": "."})]},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_01A09q90qw90lq917835lq9",
                        "content": listed(result) if as_list else result,
                    }
                ],
            },
        ],
    }


@pytest.mark.parametrize("as_list", [False, True], ids=["strings", "lists"])
def test_what_normalize_json_strips_is_ignored_wherever_a_text_can_be(
    numbered: Upstream, cache: CacheFactory, home: Path, as_list: bool
) -> None:
    """BAR fault 5: list-form `system` and `content` are never normalized."""
    rules(home, STRIPPING)
    one = cache()
    first, second = (wire.dump(stripped_forms(n, as_list=as_list)) for n in (1, 2))
    assert asked(one, first) == ("MISS", "answer 1")
    assert asked(one, second) == ("HIT-NORM", "answer 1")
    assert asked(one, second, x_cache_mode="fresh") == ("MISS", "answer 2")
    assert [call.request.body for call in numbered.calls] == [first, second]
    # One place at a time, and what no rule names decides.
    for path, found in (
        (("system",), "HIT-NORM"),
        (("messages", 0, "content"), "HIT-NORM"),
        (("messages", 2, "content", 0, "content"), "HIT-NORM"),
        (("messages", 2, "content", 0, "tool_use_id"), "MISS"),
        (("model",), "MISS"),
    ):
        changed = stripped_forms(1, as_list=as_list)
        holder: Any = changed
        for step in path[:-1]:
            holder = holder[step]
        other: Any = stripped_forms(3, as_list=as_list)
        for step in path:
            other = other[step]
        holder[path[-1]] = f"{other} " if found == "MISS" else other
        assert asked(one, changed)[0] == found, path


def test_rules_for_system_and_messages_are_not_mixed_up(
    numbered: Upstream, cache: CacheFactory, home: Path
) -> None:
    rules(home, {"system_strip": ["s[0-9]"], "message_strip": ["m[0-9]"]})
    one = cache()
    assert asked(one, talk("m1 s1", system="s1 m1"))[0] == "MISS"
    assert asked(one, talk("m2 s1", system="s2 m1"))[0] == "HIT-NORM"
    assert asked(one, talk("m1 s2", system="s1 m1"))[0] == "MISS"
    assert asked(one, talk("m1 s1", system="s1 m2"))[0] == "MISS"
    assert asked(one, talk("<NORM> s1", system="<NORM> m1"))[0] == "HIT-NORM"


def test_normalizing_can_be_switched_off(
    numbered: Upstream, cache: CacheFactory, home: Path
) -> None:
    rules(home, STRIPPING)
    off = cache(CACHE_NORMALIZE="off")
    assert asked(off, talk("hi", system="Current date: 1"))[0] == "MISS"
    assert asked(off, talk("hi", system="Current date: 2"))[0] == "MISS"
    assert asked(off, claude_code(1))[0] == "MISS"
    assert asked(off, claude_code(2))[0] == "MISS"
    assert asked(off, claude_code(2))[0] == "HIT"
    off.stop()
    on = cache()  # what was stored without further keys has none
    assert asked(on, claude_code(3))[0] == "MISS"
    assert asked(on, claude_code(4))[0] == "HIT-NORM"
    assert asked(on, claude_code(1))[0] == "HIT"


# Suffix


def test_the_suffix_tier_ignores_all_but_the_last_messages(
    numbered: Upstream, cache: CacheFactory, home: Path
) -> None:
    rules(home, {"suffix_only": True, "suffix_turns": 3})
    one = cache()
    first = talk("hello", "hi", "name a color", "red", "another one", system="be brief")
    other = talk("good day", "hello", "name a color", "red", "another one", system="be brief")
    assert asked(one, first) == ("MISS", "answer 1")
    assert asked(one, other) == ("HIT-SUFFIX", "answer 1")
    assert asked(one, first) == ("HIT", "answer 1")
    assert asked(one, json.dumps(first, indent=1).encode()) == ("HIT-NORM", "answer 1")
    assert asked(one, {**other, "system": "be verbose"})[0] == "MISS"
    assert asked(one, {**other, "model": "claude-opus-5"})[0] == "MISS"
    assert asked(one, talk("x", "y", "name a color", "blue", "another one", system="be brief"))[
        0
    ] == ("MISS")
    # Counting tokens is about every message.
    for document in (first, other):
        counted = one.send(wire.dump(document), path="/v1/messages/count_tokens")
        assert counted.header("x-cache") == "MISS"


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_a_yes_is_never_the_answer_to_another_question(
    numbered: Upstream, cache: CacheFactory, home: Path, turns: int
) -> None:
    """BAR fault 6: "delete prod? / sure? / yes" is replayed for "make tea? / sure? / yes"."""
    rules(home, {"suffix_only": True, "suffix_turns": turns})
    one = cache()
    answers: dict[str, set[str]] = {"delete prod?": set(), "make tea?": set()}
    for before in ((), ("hi", "hello"), ("hi", "hello", "go on", "done")):
        for task, texts in answers.items():
            label, text = asked(one, talk(*before, task, "sure?", "yes"))
            texts.add(text)
            assert label == "MISS" or (label == "HIT-SUFFIX" and turns == 3), before
    assert answers["delete prod?"].isdisjoint(answers["make tea?"])


TOOL_CALL = {"role": "assistant", "content": [wire.tool_use_block("rm", {"path": "a"})]}
TOOL_RESULT = {
    "role": "user",
    "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}],
}
SEARCH = {
    "role": "assistant",
    "content": [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}],
}


def test_tools_anywhere_in_the_talk_keep_the_suffix_tier_away(
    numbered: Upstream, cache: CacheFactory, home: Path
) -> None:
    rules(home, {"suffix_only": True, "suffix_turns": 2})
    one = cache()
    plain = talk("begin", "fine", "go on", "done", "and now")["messages"]
    for tool in (TOOL_CALL, TOOL_RESULT, SEARCH):
        for place in range(len(plain)):
            with_tool = [*plain[:place], tool, *plain[place:]]
            marked = [{"role": "user", "content": f"{tool['content']} {place}"}]
            for begin in ("one", "two"):
                messages = [{"role": "user", "content": begin}, *with_tool, *marked]
                assert asked(one, talk(messages=messages))[0] == "MISS", (tool, place)
    # The same talk without a tool is found, or nothing above would mean anything.
    for begin, label in (("one", "MISS"), ("two", "HIT-SUFFIX")):
        messages = [{"role": "user", "content": begin}, *plain]
        assert asked(one, talk(messages=messages))[0] == label


def test_a_stored_answer_is_found_by_every_active_tier_also_after_a_restart(
    numbered: Upstream, cache: CacheFactory, home: Path
) -> None:
    rules(home, {"system_strip": ["day [0-9]+"], "suffix_only": True, "suffix_turns": 1})
    texts = ("hello", "hi", "name a color")
    first = talk(*texts, system="day 1")
    spelled = json.dumps(talk(*texts, system="day 2"), indent=1).encode()
    suffix = talk("other", "talk", "name a color", system="day 3")
    one = cache()
    assert asked(one, first) == ("MISS", "answer 1")
    for _ in range(2):
        assert asked(one, first) == ("HIT", "answer 1")
        assert asked(one, spelled) == ("HIT-NORM", "answer 1")
        assert asked(one, suffix) == ("HIT-SUFFIX", "answer 1")
        assert one.stats()["entries"] == 1
        one.stop()
        one = cache()
    assert numbered.call_count == 1
