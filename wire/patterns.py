"""Regular expressions with a time limit, of `normalize.json` and of the presets."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import regex  # type: ignore[import-untyped, unused-ignore]


@lru_cache(maxsize=512)
def compiled(pattern: str) -> regex.Pattern[str]:
    """The pattern, compiled once. Raises `regex.error` and what else `regex.compile` raises."""
    # Imported late: it costs a command's start-up, and only rules need it.
    import regex  # type: ignore[import-untyped, unused-ignore]

    return regex.compile(pattern)
