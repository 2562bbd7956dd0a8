"""The errors llm-cache raises on purpose, in one small tree.

Each carries a message for the person who reads it (what was wrong, where, what to do) and the
exit code a command ends with. Errors of other libraries (httpx, sqlite3, OSError, zstandard) are
mapped to these at the door of the room that calls them. This module imports nothing of llm_cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, cast

Kind = Literal["", "port_taken"]
"""What a program that hears of an error may act on; "" is for people only."""


class LlmCacheError(Exception):
    """Anything llm-cache reports to its user. `exit_code` is what a command exits with. The text
    is one line; where that sums up several things, a command shows `heading` and, a line each,
    `details` in its place. `kind` is what a program may act on, `port` the one it is about.

    `told` is an error for another process, as JSON; `heard` is the same error there.
    """

    exit_code = 1
    heading = ""
    details: tuple[str, ...] = ()
    kind: Kind = ""
    port: int | None = None

    @classmethod
    def of(cls, problems: Sequence[str], heading: str) -> Self:
        """One error for one problem or for several; `heading` says whose they are."""
        if len(problems) == 1:
            return cls(problems[0])
        error = cls(f"{heading}: {'; '.join(problems)}")
        error.heading, error.details = heading, tuple(problems)
        return error

    def told(self) -> dict[str, Any]:
        """The error as one JSON object."""
        return {
            "error": str(self),
            "heading": self.heading,
            "details": list(self.details),
            "exit_code": self.exit_code,
            "kind": self.kind,
            "port": self.port,
        }

    @staticmethod
    def heard(told: Mapping[str, Any]) -> LlmCacheError:
        """The error that another process told."""
        error = LlmCacheError(str(told["error"]))
        error.heading = str(told.get("heading", ""))
        error.details = tuple(str(detail) for detail in told.get("details", ()))
        error.exit_code = int(told.get("exit_code", 1))
        error.kind = "port_taken" if told.get("kind") == "port_taken" else ""
        error.port = cast("int | None", told.get("port"))
        return error

    def under(self, where: str, more: str = "") -> LlmCacheError:
        """The same error, told by who met it: `where: the error`, and what else is to be said."""
        error = LlmCacheError.heard(self.told() | {"error": f"{where}: {self}{more}"})
        if self.heading:
            error.heading = f"{where}: {self.heading}"
        return error


class UsageError(LlmCacheError):
    """The command was called wrongly: bad flag, missing value, unreadable argument."""

    exit_code = 2


class SettingsError(LlmCacheError):
    """A setting, `normalize.json` or `prices.json` has a value that isn't allowed."""

    exit_code = 2

    @classmethod
    def of_file(cls, source: str, problems: Sequence[str]) -> Self:
        """One error for all that is wrong in the file named `source`."""
        if len(problems) == 1:
            return cls(f"{source}: {problems[0]}")
        return cls.of(problems, f"{source}: {len(problems)} things are wrong")


class StoreError(LlmCacheError):
    """The store can't be read or written. The proxy answers without it (fail-open)."""


class StoreBusy(StoreError):
    """Others keep the store for themselves, longer than one waits; later it may be free.

    `repeated` is True when the same was said a moment ago.
    """

    def __init__(self, message: str, *, repeated: bool = False) -> None:
        super().__init__(message)
        self.repeated = repeated


class StoreFormatError(StoreError):
    """The store was written by a newer llm-cache in a format this one doesn't know."""


class NotRunningError(LlmCacheError):
    """The command needs a running proxy and none answers."""
