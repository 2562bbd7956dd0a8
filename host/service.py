"""The proxy as a service that starts at boot, whichever service manager has it.

What always holds:
- There is one service per user, for one home. A unit says in its text that we wrote it and for
  which home; a file that doesn't is never changed unless the user insists.
- A unit holds no secret: the proxy reads those from `.env` itself.
- While a service is installed for a home, its proxy is started and stopped through the manager
  only, so that the manager doesn't bring back what was stopped, nor start a second one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from llm_cache.errors import LlmCacheError
from llm_cache.host import process, starting
from llm_cache.host.manager import Manager, NoSandbox, Plan
from llm_cache.server import holder
from llm_cache.settings import Settings, is_setting, read_env_file

MARK = "Written by `llm-cache install`"


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
