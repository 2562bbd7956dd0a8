"""The keys beyond the exact one: normalized and suffix, and the rules of `normalize.json`.

Everything is hashed but what is named here, by a known agent's preset or by a rule. A body that
isn't a strict JSON object has no further key, and neither has one that can't be normalized within
its time budget: then the exact key is all there is. No body and no pattern raises out of
`further_keys`.
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
from llm_cache.wire.keys import tier_key
from llm_cache.wire.presets import catalog
from llm_cache.wire.presets.applying import apply_presets
from llm_cache.wire.provider import Endpoint, Provider

if TYPE_CHECKING:
    import regex  # type: ignore[import-untyped, unused-ignore]

PLACEHOLDER: Final = "<NORM>"
"""What each match of a rule becomes. Also a valid replacement template: no backslash."""

_FIELDS: Final = ("system_strip", "message_strip", "presets", "suffix_only", "suffix_turns")


@dataclass(frozen=True, slots=True)
class Rules:
    """What `normalize.json` says. `Rules()` strips nothing and leaves the suffix tier off."""

    system_strip: tuple[str, ...] = ()
    message_strip: tuple[str, ...] = ()
    suffix_only: bool = False
    suffix_turns: int = 3
    presets: tuple[str, ...] = ()

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
        if wrong:
            raise SettingsError.of_file(source, wrong)
        return Rules(system, message, suffix_only, turns, presets)


@dataclass(frozen=True, slots=True)
class FurtherKeys:
    """The keys of the tiers after `exact`, None where the request has none; `note` says why not.

    `either_form` is the normalized key of a request and of its twin, one of which asks for a
    stream and one doesn't."""

    normalized: bytes | None
    suffix: bytes | None
    note: str = ""
    either_form: bytes | None = None


def further_keys(
    provider: Provider,
    endpoint: Endpoint,
    prefix: bytes,
    body: bytes,
    rules: Rules,
    budget_sec: float,
    *,
    cross_stream: bool = False,
) -> FurtherKeys:
    """The normalized and the suffix key of `body`; with `cross_stream` that of either form, too.
    Never raises.

    Patterns may take `budget_sec` seconds together and don't hold the interpreter lock while they
    search. Large bodies and rules that strip belong in a worker thread.
    """
    try:
        doc = strict_json.parse(body)
        if not isinstance(doc, dict):
            return FurtherKeys(None, None, "the body is not a JSON object")
        deadline = time.monotonic() + budget_sec
        apply_presets(doc, body, rules.presets, deadline)
        provider.strip_volatile(endpoint, doc)
        if rules.strips:
            provider.map_texts(
                endpoint,
                doc,
                _stripper(rules.system_strip, "system_strip", deadline),
                _stripper(rules.message_strip, "message_strip", deadline),
            )
        normalized = tier_key("normalized", prefix, strict_json.canonical(doc))
        either = suffix = None
        if cross_stream:
            formless = dict(doc)
            if provider.strip_form(endpoint, formless) is not None:
                either = tier_key("either form", prefix, strict_json.canonical(formless))
        if rules.suffix_only and provider.keep_last(endpoint, doc, rules.suffix_turns):
            tier = f"suffix {rules.suffix_turns}"
            suffix = tier_key(tier, prefix, strict_json.canonical(doc))
    except TimeoutError as error:
        return FurtherKeys(None, None, str(error))
    except ValueError as error:
        return FurtherKeys(None, None, f"the body is not strict JSON: {error}")
    except RecursionError:
        return FurtherKeys(None, None, "the body is nested too deeply")
    return FurtherKeys(normalized, suffix, either_form=either)


def _stripper(patterns: tuple[str, ...], field: str, deadline: float) -> Callable[[str], str]:
    def strip(text: str) -> str:
        for index, pattern in enumerate(patterns):
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                text = _compiled(pattern).sub(PLACEHOLDER, text, timeout=left, concurrent=True)
            except TimeoutError:
                raise TimeoutError(
                    f"{field}[{index}] {pattern!r} ran out of time on this body"
                ) from None
        return text

    return strip


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> regex.Pattern[str]:
    # Imported late: it costs a command's start-up, and only rules need it.
    import regex  # type: ignore[import-untyped, unused-ignore]

    return regex.compile(pattern)


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
