"""What two requests may differ in and be one: the rules of `normalize.json`, and how they are
applied.

Everything counts but what is named here or stripped by a rule. A body that can't be normalized
within its time budget has no normalized form: then the exact key is all there is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from llm_cache.errors import SettingsError
from llm_cache.wire.framing import strict_json
from llm_cache.wire.provider import Endpoint, Json, Provider

if TYPE_CHECKING:
    import regex  # type: ignore[import-untyped, unused-ignore]

PLACEHOLDER: Final = "<NORM>"
"""What each match of a rule becomes. Also a valid replacement template: no backslash."""

_FIELDS: Final = ("system_strip", "message_strip", "suffix_only", "suffix_turns")


@dataclass(frozen=True, slots=True)
class Rules:
    """What `normalize.json` says. `Rules()` strips nothing and leaves the suffix tier off."""

    system_strip: tuple[str, ...] = ()
    message_strip: tuple[str, ...] = ()
    suffix_only: bool = False
    suffix_turns: int = 3

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
        if wrong:
            raise SettingsError.of_file(source, wrong)
        return Rules(system, message, suffix_only, turns)


class NotNormal(Exception):
    """The request has no normalized form; the message says why not."""


def normalize(
    provider: Provider, endpoint: Endpoint, doc: Json, rules: Rules, budget_sec: float
) -> None:
    """Take out of the parsed request `doc`, in place, what makes no difference. Raises `NotNormal`
    and nothing else.

    Patterns may take `budget_sec` seconds together and don't hold the interpreter lock while they
    search. Large bodies and rules that strip belong in a worker thread.
    """
    try:
        provider.strip_volatile(endpoint, doc)
        if rules.strips:
            deadline = time.monotonic() + budget_sec
            provider.map_texts(
                endpoint,
                doc,
                _stripper(rules.system_strip, "system_strip", deadline),
                _stripper(rules.message_strip, "message_strip", deadline),
            )
    except _OverBudgetError as error:
        raise NotNormal(str(error)) from None
    except RecursionError:
        raise NotNormal("the body is nested too deeply") from None
    except ValueError as error:
        raise NotNormal(f"the body can't be normalized: {error}") from None


class _OverBudgetError(Exception):
    """The patterns took longer than the request may spend on them."""


def _stripper(patterns: tuple[str, ...], field: str, deadline: float) -> Callable[[str], str]:
    def strip(text: str) -> str:
        for index, pattern in enumerate(patterns):
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                text = _compiled(pattern).sub(PLACEHOLDER, text, timeout=left, concurrent=True)
            except TimeoutError:
                raise _OverBudgetError(
                    f"{field}[{index}] {pattern!r} ran out of time on this body"
                ) from None
        return text

    return strip


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> regex.Pattern[str]:
    # Imported late: it costs a command's start-up, and only rules need it.
    import regex  # type: ignore[import-untyped, unused-ignore]

    return regex.compile(pattern)


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
        _compiled(pattern)
    except regex.error as error:
        place = "" if error.pos is None else f" at position {error.pos}"
        return f"{pattern!r} is not a regular expression: {error.msg}{place}"
    except (RecursionError, OverflowError, MemoryError, ValueError) as error:
        return f"{pattern!r} is not a usable regular expression: {error}"
    return None


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
