"""Takes out of a request what the rules of its agent's preset name.

What holds: a request that isn't a known agent's own is never changed, and costs a few searches over
its raw bytes; of an agent's request nothing changes but what a rule's groups caught, or its paths
lead to. So two requests have the same normalized key only if they differ in such things alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from llm_cache.wire.json_path import leave_out
from llm_cache.wire.patterns import compiled
from llm_cache.wire.presets.catalog import FieldRule, Preset, TextRule, groups_of, presets
from llm_cache.wire.presets.texts import Text, has_shape, texts_of
from llm_cache.wire.provider import Json

TAKEN: Final = "<NORM>"
"""What stands where something was taken out of a text."""

_HEAD: Final = 200
"""Characters of a text in which an agent's mark is looked for."""


def apply_presets(doc: Json, body: bytes, named: Iterable[str], deadline: float) -> None:
    """Take out of `doc`, the parsed `body`, what the presets say: the rules that are always on, and
    those of the groups that `named` names.

    Raises TimeoutError, with the rule's name, when `deadline` (of the monotonic clock) passes.
    """
    for preset in presets():
        if not has_shape(preset.shape, doc) or not any(mark in body for mark in preset.marks.body):
            continue
        texts = texts_of(preset.shape, doc)
        if not _is_its(preset, doc, texts):
            continue
        groups = groups_of(preset, named)
        for text in texts:
            _strip_text(preset, groups, text, deadline)
        for rule in preset.fields:
            if rule.group in groups:
                _strip_fields(rule, doc)


def _is_its(preset: Preset, doc: Json, texts: list[Text]) -> bool:
    marks = preset.marks
    if any(path.places(doc) for path in marks.paths):
        return True
    told = {"system": marks.system, "user": marks.user}
    return any(
        mark in text.value[:_HEAD] for text in texts for mark in told.get(text.place, ()) if mark
    )


def _strip_text(preset: Preset, groups: frozenset[str | None], text: Text, deadline: float) -> None:
    """Every rule reads the text as it came, so that their order doesn't matter."""
    value = text.value
    caught: list[tuple[int, int]] = []
    for rule in preset.texts:
        if (
            rule.group in groups
            and text.place in rule.places
            and rule.needs in value
            and (not rule.begins or value.startswith(rule.begins))
            and (not rule.tools or text.tool is None or text.tool in rule.tools)
        ):
            try:
                for start, end in _reach(rule, value):
                    caught += _caught(rule.pattern, value[start:end], start, deadline)
            except TimeoutError:
                raise TimeoutError(
                    f"preset {preset.name}: the rule {rule.name!r} ran out of time on this body"
                ) from None
    if not caught:
        return
    parts: list[str] = []
    at = 0
    for start, end in sorted(caught):
        if at <= start < end:
            parts += [value[at:start], TAKEN]
            at = end
    text.holder[text.key] = "".join([*parts, value[at:]])


def _reach(rule: TextRule, text: str) -> list[tuple[int, int]]:
    """The parts of `text` that a rule may look at."""
    if not rule.frame_end:
        return [(0, len(text))]
    parts = []
    start = 0
    # Several of the agent's own parts may follow each other; the first that isn't one ends it.
    while text.startswith(rule.begins, start):
        end = text.find(rule.frame_end, start)
        if end < 0:
            break
        end += len(rule.frame_end)
        parts.append((start, end))
        start = end
        while text.startswith("\n", start):
            start += 1
    return parts


def _caught(pattern: str, text: str, offset: int, deadline: float) -> list[tuple[int, int]]:
    """What the groups of a pattern catch in `text`; `offset` is where that begins."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    searched = compiled(pattern)
    return [
        (start + offset, end + offset)
        for match in searched.finditer(text, timeout=left, concurrent=True)
        for group in range(1, searched.groups + 1)
        for start, end in match.spans(group)
    ]


def _strip_fields(rule: FieldRule, doc: Json) -> None:
    if not (rule.value or rule.when or rule.unless or rule.numbered):
        leave_out(doc, rule.paths)
        return
    numbers: dict[str, int] = {}
    for path in rule.paths:
        for holder, key in path.places(doc):
            if not isinstance(holder, dict) or not isinstance(key, str) or not _fits(rule, holder):
                continue
            value = holder[key]
            if rule.value and not (
                isinstance(value, str) and compiled(rule.value).fullmatch(value)
            ):
                continue
            if rule.numbered:
                holder[key] = f"{TAKEN}{numbers.setdefault(value, len(numbers))}"
            else:
                del holder[key]


def _fits(rule: FieldRule, holder: dict[str, Any]) -> bool:
    return all(holder.get(name) in values for name, values in rule.when.items()) and not any(
        holder.get(name) in values for name, values in rule.unless.items()
    )
