"""The proxy as a service that starts at boot: what both service managers have in common.

What always holds:
- There is one service per user, for one home. A unit says in its text that we wrote it and for
  which home; a file that doesn't is never changed unless the user insists.
- A unit holds no secret: the proxy reads those from `.env` itself.
- While a service is installed for a home, its proxy is started and stopped through the manager
  only, so that the manager doesn't bring back what was stopped, nor start a second one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template

from llm_cache.errors import LlmCacheError
from llm_cache.host import process, starting
from llm_cache.server.pidfile import holder
from llm_cache.settings import Settings, is_setting, read_env_file

MARK = "Written by `llm-cache install`"

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


def plan_for(settings: Settings, *, sandbox: bool = True) -> Plan:
    """The plan for the proxy of these settings, run by the interpreter that runs us: that of the
    environment (venv, pipx, uv tool) which has llm_cache."""
    command = (sys.executable, "-P", "-m", "llm_cache", "run", "--service")
    return Plan(command, settings.home, settings.env_file, settings.log_file, sandbox)


def managers() -> tuple[Manager, ...]:
    """All managers, that of this system first."""
    from llm_cache.host.launchd import Launchd
    from llm_cache.host.systemd import Systemd

    found: tuple[Manager, ...] = (Systemd(), Launchd())
    return found[::-1] if sys.platform == "darwin" else found


def installed(settings: Settings) -> Manager | None:
    """The manager that has a service for this home."""
    for manager in managers():
        home = home_of(manager)
        if home is not None and home.resolve() == settings.home.resolve():
            return manager
    return None


def home_of(manager: Manager) -> Path | None:
    """The home of the service that is installed, None when there is none that we wrote."""
    text = manager.written()
    return manager.home_of(text) if text is not None and MARK in text else None


def start(manager: Manager, settings: Settings) -> process.Running:
    """Start the service and wait for its first answer. LlmCacheError when there is none; then it
    is stopped, and not tried again by the manager."""
    starting.forget_failure(settings.home)
    try:
        return _started(manager, settings)
    except BaseException:
        with suppress(LlmCacheError):
            manager.stop()
        raise


def _started(manager: Manager, settings: Settings) -> process.Running:
    try:
        manager.start()
        deadline = time.monotonic() + process.START_SEC
        while True:
            running = process.find(settings)
            if running is not None and running.address:
                return running
            if why := manager.failure():
                raise LlmCacheError(why)
            if time.monotonic() > deadline:
                raise LlmCacheError(f"it didn't answer within {process.START_SEC:.0f} s")
            time.sleep(0.1)
    except NoSandbox:
        raise
    except LlmCacheError as error:
        told = starting.kept_failure(settings.home)
        known = error if told is None else process.with_owner(told)
        raise known.under("the service didn't start") from None


def stop(manager: Manager, settings: Settings) -> str:
    """End the proxy of this home, whoever started it: `stopped`, `killed` or `not running`."""
    before = holder(settings.pid_file)
    failed: LlmCacheError | None = None
    try:
        manager.stop()
    except LlmCacheError as error:
        failed = error
    outcome = process.stop(settings)  # one that isn't the service's, or whose manager is away
    if failed is not None and outcome == "not running":
        raise failed
    return "stopped" if outcome == "not running" and before is not None else outcome


def own_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that counts for a service: without what `.env` says too.

    systemd reads that file as well, as an EnvironmentFile, and by rules of its own about quotes
    and comments. Its reading must not stand above ours.
    """
    home = environ.get("LLM_CACHE_HOME")
    said = read_env_file(Path(home) / ".env") if home else {}
    return {name: value for name, value in environ.items() if name not in said}


def only_here(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Names of settings that `environ` has and a service wouldn't."""
    said = read_env_file(settings.env_file)
    return sorted(
        name
        for name, value in environ.items()
        if value and is_setting(name) and name != "LLM_CACHE_HOME" and said.get(name) != value
    )


def passing_environment() -> str | None:
    """The folder of an environment that goes away again (uvx, pipx run), if that is ours."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    places = (Path(cache) / "uv", Path.home() / ".local/pipx/.cache", Path(cache) / "pipx")
    pipx = os.environ.get("PIPX_HOME") or str(Path.home() / ".local/share/pipx")
    ours = Path(sys.prefix)
    for place in (*places, Path(pipx) / ".cache"):
        if ours.is_relative_to(place):
            return str(ours)
    return None


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
