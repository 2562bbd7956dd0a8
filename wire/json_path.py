"""Paths into a JSON document, as `normalize.json` and the presets write them.

`metadata.trace_id` is a member of a member, `input[]` every item of a list, `input[0]` one item;
a name with a dot, a bracket or a blank in it stands in brackets and quotes: `metadata["a.b"]`.
A path says where to look, nothing more: what isn't there, or isn't what the path takes it for, is
no place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Place: TypeAlias = tuple[dict[str, Any] | list[Any], str | int]
"""What holds a value, and the name or index it has there."""

_STEP: Final = re.compile(
    r'(?P<dot>\.)?(?P<name>[^.\[\]"\s]+)|\[(?P<index>[0-9]{0,6})\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]'
)


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A path: a name, an index, or None for every item, step by step."""

    text: str
    steps: tuple[str | int | None, ...]

    @staticmethod
    def parse(text: str) -> JsonPath:
        """The path that `text` writes. ValueError says what is wrong with it and where."""
        steps: list[str | int | None] = []
        at = 0
        while at < len(text):
            match = _STEP.match(text, at)
            # A dot stands between a step and a name, and nowhere else.
            if match is None or (match["name"] and bool(match["dot"]) != bool(steps)):
                raise ValueError(f"is no path from position {at} on ({text[at : at + 20]!r})")
            if match["name"]:
                steps.append(match["name"])
            elif match["quoted"]:
                try:
                    steps.append(str(json.loads(match["quoted"])))
                except ValueError:
                    raise ValueError(f"has a name at position {at} that isn't JSON") from None
            elif not steps:
                raise ValueError("begins with an item of a list, but a body is an object")
            else:
                steps.append(int(match["index"]) if match["index"] else None)
            at = match.end()
        if not steps:
            raise ValueError("is empty")
        return JsonPath(text, tuple(steps))

    def places(self, doc: Any) -> list[Place]:
        """Where the path leads in `doc`: each place that is there, in order."""
        *way, last = self.steps
        holders = [doc]
        for step in way:
            holders = [value for holder in holders for value in _values(holder, step)]
        return [place for holder in holders for place in _keys(holder, last)]


def leave_out(doc: Any, paths: Iterable[JsonPath]) -> None:
    """Take everything the paths lead to out of `doc`, in place. All paths are followed first, so
    that none moves what another names."""
    found = [place for path in paths for place in path.places(doc)]
    # The last items of a list go first: those before them keep their index.
    found.sort(key=lambda place: place[1] if isinstance(place[1], int) else -1, reverse=True)
    gone: set[tuple[int, str | int]] = set()
    for holder, key in found:
        if (id(holder), key) not in gone:
            gone.add((id(holder), key))
            del holder[key]  # type: ignore[arg-type]  # each place has its holder's kind of key


def _keys(holder: Any, step: str | int | None) -> Iterator[Place]:
    if isinstance(step, str):
        if isinstance(holder, dict) and step in holder:
            yield holder, step
    elif isinstance(holder, list):
        for index in range(len(holder)) if step is None else [step] if step < len(holder) else []:
            yield holder, index


def _values(holder: Any, step: str | int | None) -> Iterator[Any]:
    return (where[key] for where, key in _keys(holder, step))  # type: ignore[index]
