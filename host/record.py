"""What the running proxy of a home was started with, so that a restart keeps it.

`started.json` in the home, 0600, is written by a proxy once it listens and taken away at its clean
end. What always holds: no secret is in it, of those it has the names; `.env` isn't in it either,
since a restart reads that anew. One that a proxy left behind that was killed still counts.
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
from llm_cache.host import process
from llm_cache.settings import (
    Review,
    Settings,
    configured_upstreams,
    home_folder,
    is_secret,
    review_settings,
)


@dataclass(frozen=True, slots=True)
class Started:
    """Settings by name: those of the command line, those of the environment, and the names of the
    secrets that the environment had."""

    pid: int
    flags: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a restart starts with."""

    settings: Settings
    flags: Mapping[str, str]
    environ: Mapping[str, str]


def write(review: Review) -> None:
    """Say what this process was started with, if the home can be written to."""
    flags, environment, secrets = {}, {}, []
    for name, found in review.found.items():
        if name == "LLM_CACHE_HOME":
            continue
        if found.where == "command line":
            flags[name] = found.text
        elif found.where == "environment" and is_secret(name):
            secrets.append(name)
        elif found.where == "environment":
            environment[name] = found.text
    document = {
        "pid": os.getpid(),
        "flags": flags,
        "environment": environment,
        "secrets": sorted(secrets),
    }
    forget(review.settings.home)  # one that can't be replaced must not speak for us
    with suppress(SettingsError):
        env_file.write_private(
            _file(review.settings.home), json.dumps(document, indent=2).encode() + b"\n"
        )


def read(home: Path) -> Started | None:
    """What the proxy of this home was started with, None when nothing is known of it."""
    try:
        said: Any = json.loads(_file(home).read_bytes())
        return Started(
            int(said["pid"]),
            {str(name): str(text) for name, text in said["flags"].items()},
            {str(name): str(text) for name, text in said["environment"].items()},
            tuple(str(name) for name in said["secrets"]),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def forget(home: Path, pid: int | None = None) -> None:
    """There is no such proxy any more. With `pid`: only if it was that one."""
    if pid is not None and (started := read(home)) is not None and started.pid != pid:
        return
    with suppress(OSError):
        _file(home).unlink()


def for_restart(flags: Mapping[str, str]) -> Plan:
    """What a restart with these flags starts: by them, then by the flags, the environment now and
    the environment of the start, then by `.env`.

    Raises SettingsError when that is wrong, and LlmCacheError when it would send requests
    elsewhere, or without a secret, though no flag and no `.env` says so.
    """
    started = read(home_folder())
    kept = started or Started(0)
    whole = {**kept.flags, **flags}
    environ = {**kept.environment, **os.environ}
    review = review_settings(whole, environ=environ)
    if review.problems:
        raise review.error()
    plan = Plan(review.settings, whole, environ)
    running = process.find(review.settings)
    if running is not None and (started is None or started.pid != running.pid):
        _same_as_told(plan, running, flags)
    elif started is not None:
        _same_as_kept(plan, started)
        lost = [name for name in started.secrets if name not in review.found]
        if lost:
            raise LlmCacheError(
                f"the proxy was started with {', '.join(lost)} in its environment, and this shell "
                f"has none: set it here, or put it into {review.settings.env_file}; "
                "`llm-cache stop` and `llm-cache on` start without"
            )
    return plan


def _same_as_kept(plan: Plan, started: Started) -> None:
    """Refuse what only this shell's environment would change of the upstreams."""
    of_then = {
        name: text for name, text in os.environ.items() if not name.startswith("CACHE_UPSTREAM")
    }
    before = review_settings(plan.flags, environ={**of_then, **started.environment}).settings
    _refuse(configured_upstreams(before), configured_upstreams(plan.settings))


def _same_as_told(plan: Plan, running: process.Running, flags: Mapping[str, str]) -> None:
    """The same for a proxy of which no more is known than what it says itself."""
    if running.address is None or "CACHE_UPSTREAM" in flags:
        return
    figures = process.ask(plan.settings, running.address, "GET", "/stats")
    _refuse(figures.get("upstreams") or {}, configured_upstreams(plan.settings))


def _refuse(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    if before != after:
        raise LlmCacheError(
            f"the proxy was started to ask {in_words(before)}; by this shell's environment it "
            f"would ask {in_words(after)}: give --upstream, or `llm-cache stop` and then "
            "`llm-cache on`"
        )


def in_words(upstreams: Mapping[str, str]) -> str:
    """Who is asked, in a line."""
    if not upstreams:
        return "each provider's own host"
    named = [url if name == "*" else f"{name}={url}" for name, url in sorted(upstreams.items())]
    return ", ".join(named)


def _file(home: Path) -> Path:
    return home / "started.json"
