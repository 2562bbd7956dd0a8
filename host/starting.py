"""What a proxy is handed by who starts it, and how it says why there is no proxy.

What always holds:
- A failure travels as JSON, the form of `LlmCacheError.told`; nobody reads it out of words.
- `on` hands its child one variable of the environment: the flags it was given, and the number of an
  inherited pipe for the failure. The child takes it out of its environment at once.
- A service has no such pipe. What ended its last start is in a file of the home, for its user only,
  until the next good start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_cache import env_file
from llm_cache.errors import LlmCacheError, SettingsError

VARIABLE = "LLM_CACHE_STARTED_BY"
"""`{"failure_fd": 5, "flags": {"CACHE_PORT": "4100"}}`; no setting, and nothing secret in it."""

_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class Handed:
    """What this process was handed when it was started. `flags` are settings by name, as if they
    stood on its command line."""

    flags: Mapping[str, str] = field(default_factory=dict)
    failure_fd: int | None = None

    def tell(self, error: LlmCacheError) -> None:
        """Let who started us hear why there is no proxy; nothing when nobody waits for it."""
        if self.failure_fd is not None:
            with suppress(OSError):
                os.set_blocking(self.failure_fd, False)  # a pipe that is full holds nobody up
                os.write(self.failure_fd, json.dumps(error.told()).encode())


def handed() -> Handed:
    """What is in our environment, which doesn't hold it any more then."""
    try:
        given = json.loads(os.environ.pop(VARIABLE, "{}"))
        number = given.get("failure_fd")
        if number is not None:
            os.set_inheritable(number, False)
        return Handed(dict(given.get("flags", {})), number)
    except (OSError, ValueError, TypeError, AttributeError):
        return Handed()


def to_hand(flags: Mapping[str, str], failure_fd: int) -> dict[str, str]:
    """The environment's variable for a child that is to be handed this."""
    return {VARIABLE: json.dumps({"failure_fd": failure_fd, "flags": dict(flags)})}


def heard(pipe: int) -> LlmCacheError | None:
    """What a child that has ended told through its pipe, None when it didn't say."""
    with open(pipe, "rb", closefd=False) as told:
        return _error(told.read(_MOST))


def keep_failure(home: Path, error: LlmCacheError) -> None:
    """Leave for who looks after a service why it didn't start, if the home can be written to."""
    with suppress(SettingsError):
        env_file.write_private(_failure_file(home), json.dumps(error.told()).encode())


def kept_failure(home: Path) -> LlmCacheError | None:
    """Why the last start of the service failed, None when it didn't or nothing is known."""
    try:
        return _error(_failure_file(home).read_bytes())
    except OSError:
        return None


def forget_failure(home: Path) -> None:
    """There is a good start now, or a new one is tried."""
    with suppress(OSError):
        _failure_file(home).unlink()


def _failure_file(home: Path) -> Path:
    return home / "start-failed.json"


def _error(told: bytes) -> LlmCacheError | None:
    try:
        document: Any = json.loads(told)
        return LlmCacheError.heard(document)
    except (ValueError, TypeError, KeyError):
        return None
