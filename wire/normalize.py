"""What two requests may differ in and be one: the rules of `normalize.json`, and how they are
applied.

Everything counts but what is named here, by a known agent's preset or by a rule. A body that can't
be normalized within its time budget has no normalized form: then the exact key is all there is.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from llm_cache.errors import SettingsError
from llm_cache.wire.credentials import looks_like_credential
from llm_cache.wire.framing import strict_json
from llm_cache.wire.json_path import JsonPath, leave_out
from llm_cache.wire.patterns import compiled
from llm_cache.wire.presets import catalog
from llm_cache.wire.presets.applying import apply_presets
from llm_cache.wire.provider import Endpoint, Json, Provider

PLACEHOLDER: Final = "<NORM>"
"""What each match of a rule becomes. Also a valid replacement template: no backslash."""

_FIELDS: Final = (
    "system_strip",
    "message_strip",
    "ignore",
    "presets",
    "suffix_only",
    "suffix_turns",
)

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
"""A header's name, in lower case (RFC 9110, 5.6.2)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What `normalize.json` says. `Rules()` strips nothing and leaves the suffix tier off."""

    system_strip: tuple[str, ...] = ()
    message_strip: tuple[str, ...] = ()
    suffix_only: bool = False
    suffix_turns: int = 3
    presets: tuple[str, ...] = ()
    ignore: tuple[JsonPath, ...] = ()
    ignored_headers: frozenset[bytes] = frozenset()
    """Lower-case names of request headers that are in no key."""

    @property
    def strips(self) -> bool:
        """True when some text has to be searched by a pattern."""
        return bool(self.system_strip or self.message_strip)

    @staticmethod
    def parse(text: str, source: str) -> Rules:
        """The rules in `text`, the content of the file named `source`.

        Raises SettingsError with all that is wrong: the field, its value and what is allowed, or
        the pattern that doesn't compile and where.
        """
        try:
            doc = strict_json.parse(text.encode("utf-8"))
        except ValueError as error:
            raise SettingsError(f"{source}: not valid JSON: {error}") from None
        if not isinstance(doc, dict):
            raise SettingsError(f"{source}: must be a JSON object, not {_shown(doc)}")
        allowed = ", ".join(_FIELDS)
        wrong = [
            f"unknown field {field!r} (allowed: {allowed})" for field in doc if field not in _FIELDS
        ]
        suffix_only = doc.get("suffix_only", False)
        if not isinstance(suffix_only, bool):
            wrong.append(f"suffix_only is {_shown(suffix_only)}, allowed: true or false")
        turns = doc.get("suffix_turns", 3)
        if isinstance(turns, bool) or not isinstance(turns, int) or turns < 1:
            wrong.append(f"suffix_turns is {_shown(turns)}, allowed: a whole number from 1")
        system, message = (
            _patterns(doc, field, wrong) for field in ("system_strip", "message_strip")
        )
        presets = _presets(doc, wrong)
        paths, headers = _ignored(doc, wrong)
        if wrong:
            raise SettingsError.of_file(source, wrong)
        return Rules(system, message, suffix_only, turns, presets, paths, headers)


class NotNormal(Exception):
    """The request has no normalized form; the message says why not."""


def normalize(
    provider: Provider, endpoint: Endpoint, doc: Json, body: bytes, rules: Rules, budget_sec: float
) -> None:
    """Take out of `doc`, the parsed `body`, in place, what makes no difference. Raises `NotNormal`
    and nothing else.

    Patterns may take `budget_sec` seconds together and don't hold the interpreter lock while they
    search. Large bodies and rules that strip belong in a worker thread.
    """
    try:
        deadline = time.monotonic() + budget_sec
        apply_presets(doc, body, rules.presets, deadline)
        provider.strip_volatile(endpoint, doc)
        leave_out(doc, rules.ignore)
        if rules.strips:
            provider.map_texts(
                endpoint,
                doc,
                _stripper(rules.system_strip, "system_strip", deadline),
                _stripper(rules.message_strip, "message_strip", deadline),
            )
    except TimeoutError as error:
        raise NotNormal(str(error)) from None
    except RecursionError:
        raise NotNormal("the body is nested too deeply") from None
    except ValueError as error:
        raise NotNormal(f"the body can't be normalized: {error}") from None


def _stripper(patterns: tuple[str, ...], field: str, deadline: float) -> Callable[[str], str]:
    def strip(text: str) -> str:
        for index, pattern in enumerate(patterns):
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                text = compiled(pattern).sub(PLACEHOLDER, text, timeout=left, concurrent=True)
            except TimeoutError:
                raise TimeoutError(
                    f"{field}[{index}] {pattern!r} ran out of time on this body"
                ) from None
        return text

    return strip


def _presets(doc: dict[str, Any], wrong: list[str]) -> tuple[str, ...]:
    """The presets that are named; what is wrong with them is added to `wrong`."""
    named = doc.get("presets", [])
    if not isinstance(named, list):
        wrong.append(f"presets is {_shown(named)}, allowed: a list of names of presets")
        return ()
    allowed = catalog.names() if named else []
    wrong += [
        f"presets[{index}] is {_shown(name)}, allowed: {', '.join(allowed)}"
        for index, name in enumerate(named)
        if name not in allowed
    ]
    return tuple(named)


def _ignored(
    doc: dict[str, Any], wrong: list[str]
) -> tuple[tuple[JsonPath, ...], frozenset[bytes]]:
    """The paths and the headers that are ignored; what is wrong with them is added to `wrong`."""
    named = doc.get("ignore", [])
    if not isinstance(named, list):
        wrong.append(f"ignore is {_shown(named)}, allowed: a list of JSON paths and header:NAME")
        return (), frozenset()
    paths: list[JsonPath] = []
    headers: set[bytes] = set()
    for index, text in enumerate(named):
        try:
            if not isinstance(text, str):
                raise ValueError("allowed: a JSON path or header:NAME")
            if text.startswith("header:"):
                headers.add(_header(text.removeprefix("header:")))
            else:
                paths.append(_path(text))
        except ValueError as error:
            wrong.append(f"ignore[{index}] is {_shown(text)}: {error}")
    return tuple(paths), frozenset(headers)


def _header(text: str) -> bytes:
    name = text.strip().lower()
    if not _TOKEN.fullmatch(name):
        raise ValueError("that is no header's name")
    if name.startswith(("x-cache-", "x-stasis-")):
        raise ValueError("it speaks to the proxy itself; leave it out of the request instead")
    if looks_like_credential(name.encode()) or name.encode() in _credentials():
        raise ValueError(
            "it tells who asks, and one user's answer must not go to another; "
            "CACHE_SCOPE=shared lets clients share answers"
        )
    return name.encode()


def _path(text: str) -> JsonPath:
    path = JsonPath.parse(text)
    if path.steps[0] == "stream":
        raise ValueError(
            "it says in which form the answer comes; "
            "CACHE_CROSS_STREAM=1 lets streams and plain answers stand for each other"
        )
    return path


def _credentials() -> frozenset[bytes]:
    from llm_cache.wire.registry import ALL_CREDENTIALS

    return ALL_CREDENTIALS


def _patterns(doc: dict[str, Any], field: str, wrong: list[str]) -> tuple[str, ...]:
    """The patterns of a field; what is wrong with them is added to `wrong`."""
    patterns = doc.get(field, [])
    if not isinstance(patterns, list):
        wrong.append(f"{field} is {_shown(patterns)}, allowed: a list of regular expressions")
        return ()
    for index, pattern in enumerate(patterns):
        if problem := _pattern_problem(pattern):
            wrong.append(f"{field}[{index}] {problem}")
    return tuple(patterns)


def _pattern_problem(pattern: Any) -> str | None:
    import regex  # type: ignore[import-untyped, unused-ignore]

    if not isinstance(pattern, str):
        return f"is {_shown(pattern)}, allowed: a string"
    try:
        compiled(pattern)
    except regex.error as error:
        place = "" if error.pos is None else f" at position {error.pos}"
        return f"{pattern!r} is not a regular expression: {error.msg}{place}"
    except (RecursionError, OverflowError, MemoryError, ValueError) as error:
        return f"{pattern!r} is not a usable regular expression: {error}"
    return None


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
