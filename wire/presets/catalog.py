"""The presets that are shipped, read from their files, and how they are named.

A rule without a group is on always: what it takes out can't change an answer. The others are on
where `presets` of `normalize.json` names their preset (`claude-code`, all its groups) or their
group (`claude-code:dates`). Files are read when a preset is first needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final

from llm_cache.wire.json_path import JsonPath

FILES: Final = ("claude-code", "codex", "gemini-cli")
PLACES: Final = ("system", "user", "result")


@dataclass(frozen=True, slots=True)
class Marks:
    """How an agent's request is recognized. `body`: one of these is in the raw bytes, or nobody
    looks further. `system`, `user`: one of these is in the first 200 characters of such a text.
    `paths`: one of these leads somewhere."""

    body: tuple[bytes, ...]
    system: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    paths: tuple[JsonPath, ...] = ()


@dataclass(frozen=True, slots=True)
class TextRule:
    """What is taken out of texts: in each match of `pattern`, what its groups caught.

    `places`: where. `tools`: whose results, () = any tool's. `begins`: what the text begins with,
    () = anything. `frame_end`: the rule reaches no further than this, which the agent closes its
    own part of the text with. `needs`: what is in every match.
    """

    name: str
    group: str | None
    seen: str
    example: str
    places: tuple[str, ...]
    needs: str
    pattern: str
    tools: tuple[str, ...] = ()
    begins: tuple[str, ...] = ()
    frame_end: str = ""


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What is taken out of the JSON itself: what `paths` lead to, or, with `numbered`, each
    different value there becomes its number, so that what belonged together still does.

    `value`: only values that are such a text. `when`, `unless`: what other members of the object
    that holds the field are, or aren't.
    """

    name: str
    group: str | None
    seen: str
    example: str
    paths: tuple[JsonPath, ...]
    value: str = ""
    numbered: bool = False
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unless: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preset:
    """One agent's. `dated`: the day it was last compared with what the agent sends (ISO 8601).
    `shape`: which API's requests it makes. `groups`: by name, what may be replayed by mistake."""

    name: str
    title: str
    dated: str
    shape: str
    marks: Marks
    groups: Mapping[str, str]
    texts: tuple[TextRule, ...]
    fields: tuple[FieldRule, ...]


@cache
def presets() -> tuple[Preset, ...]:
    """All of them."""
    folder = files(__package__)
    return tuple(
        _preset(json.loads(folder.joinpath(f"{name}.json").read_text("utf-8"))) for name in FILES
    )


def names() -> list[str]:
    """What `presets` of `normalize.json` may name."""
    return [
        name
        for preset in presets()
        for name in (preset.name, *(f"{preset.name}:{group}" for group in preset.groups))
    ]


def groups_of(preset: Preset, named: Iterable[str]) -> frozenset[str | None]:
    """The groups of `preset` that are on where `named` is; None is that of the rules always on."""
    chosen: set[str | None] = {None}
    for name in named:
        agent, _, group = name.partition(":")
        if agent == preset.name:
            chosen |= {group} if group else set(preset.groups)
    return frozenset(chosen)


def _preset(doc: dict[str, Any]) -> Preset:
    marks = doc["marks"]
    texts, fields = [], []
    for rule in doc["rules"]:
        told = {name: rule.get(name) for name in ("name", "group", "seen", "example")}
        if "paths" in rule:
            fields.append(
                FieldRule(
                    **told,
                    paths=_paths(rule["paths"]),
                    value=rule.get("value", ""),
                    numbered=rule.get("numbered", False),
                    when={name: tuple(values) for name, values in rule.get("when", {}).items()},
                    unless={name: tuple(values) for name, values in rule.get("unless", {}).items()},
                )
            )
        else:
            texts.append(
                TextRule(
                    **told,
                    places=tuple(rule["places"]),
                    needs=rule["needs"],
                    pattern=rule["pattern"],
                    tools=tuple(rule.get("tools", ())),
                    begins=tuple(rule.get("begins", ())),
                    frame_end=rule.get("frame_end", ""),
                )
            )
    return Preset(
        doc["preset"],
        doc["title"],
        doc["dated"],
        doc["shape"],
        Marks(
            tuple(mark.encode() for mark in marks["body"]),
            tuple(marks.get("system", ())),
            tuple(marks.get("user", ())),
            _paths(marks.get("paths", ())),
        ),
        doc["groups"],
        tuple(texts),
        tuple(fields),
    )


def _paths(texts: Iterable[str]) -> tuple[JsonPath, ...]:
    return tuple(map(JsonPath.parse, texts))
