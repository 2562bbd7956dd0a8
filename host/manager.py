"""What a service manager is: a plan becomes a unit, which is started, stopped and looked at.

What always holds: a unit says in its text that we wrote it and for which home, and holds no secret.
"""

from __future__ import annotations

import subprocess
import tempfile
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from llm_cache.errors import LlmCacheError

_MANAGER_SEC = 75.0
"""How long a command of the manager may take, in seconds: above the 60 s a start is given."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a unit is made of. `command` is the program and its arguments; `sandbox` says whether
    the proxy sees the system read-only but for its own folders, where the manager can do that."""

    command: tuple[str, ...]
    home: Path
    env_file: Path
    log_file: Path | None
    sandbox: bool = True


@dataclass(frozen=True, slots=True)
class State:
    """What a manager says of the service: `activity` in its own word (`active`, `running`), the
    process if there is one, and whether it comes by itself."""

    activity: str
    pid: int | None
    enabled: bool


class NoSandbox(LlmCacheError):
    """The system doesn't let the service have a view of the files of its own."""


class Manager(ABC):
    """A service manager of this user. `label` is the service's name there."""

    name: str
    label: str
    template: str

    @property
    @abstractmethod
    def path(self) -> Path:
        """Where the unit is."""

    @abstractmethod
    def values(self, plan: Plan) -> dict[str, str]:
        """What fills the template, each quoted as its place there needs it. Raises LlmCacheError
        for a path that can't be said in a unit."""

    @abstractmethod
    def home_of(self, text: str) -> Path | None:
        """The home of a unit that we wrote."""

    @abstractmethod
    def check(self) -> None:
        """Raise LlmCacheError when there is no such manager, or it can't be reached."""

    @abstractmethod
    def enable(self) -> str:
        """Make the service come at boot, by the unit as it is now; "" or what to tell the user."""

    @abstractmethod
    def disable(self) -> None:
        """End the service and take it from the boot; the unit may be removed then."""

    @abstractmethod
    def forget(self) -> None:
        """The unit was removed."""

    @abstractmethod
    def start(self) -> None:
        """Start the service; LlmCacheError with the reason when it doesn't."""

    @abstractmethod
    def failure(self) -> str:
        """Why the service that was started doesn't run, "" as long as it does or may yet."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the service until the next boot or start."""

    @abstractmethod
    def state(self) -> State:
        """How the service is."""

    def unit(self, plan: Plan) -> str:
        """The text of the unit."""
        from importlib import resources  # slow to import, and seldom needed

        text = resources.files("llm_cache.service_templates").joinpath(self.template)
        return Template(text.read_text("utf-8")).substitute(self.values(plan))

    def written(self) -> str | None:
        """The text of the unit that is there, None when there is none."""
        try:
            return self.path.read_text("utf-8", "replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LlmCacheError(f"{self.path}: can't be read: {error.strerror}") from None

    def write(self, text: str) -> None:
        """Put the unit in place, whole or not at all."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self.path.parent, prefix=".llm-cache-", delete=False
            ) as draft:
                draft.write(text)
            Path(draft.name).chmod(0o644)  # it holds no secret
            Path(draft.name).replace(self.path)
        except OSError as error:
            raise LlmCacheError(f"{self.path}: can't be written: {error.strerror}") from None


def call(command: Sequence[str], environ: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command of the manager; its exit code and what it printed. LlmCacheError when it
    isn't there or doesn't end."""
    try:
        done = subprocess.run(
            command,
            env=None if environ is None else dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_MANAGER_SEC,
            check=False,
        )
    except FileNotFoundError:
        raise LlmCacheError(f"{command[0]} isn't on this system") from None
    except OSError as error:
        raise LlmCacheError(f"{command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise LlmCacheError(f"`{' '.join(command)}` didn't end in {_MANAGER_SEC:.0f} s") from None
    return done.returncode, done.stdout.strip()


def plain_text(path: Path | str) -> str:
    """A path as text that a unit can hold. LlmCacheError when it has control characters or isn't
    UTF-8."""
    text = str(path)
    if any(unicodedata.category(mark) in ("Cc", "Cs") for mark in text):
        raise LlmCacheError(f"{text!r}: this path can't be written in a service's unit")
    return text
