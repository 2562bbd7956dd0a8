"""What is configured now, and what new answers do to `.env`: all of `setup` but the asking.

What holds: nothing is written but by `write`, which replaces `.env` in one step; what nobody
answered stays as it is; a key that is in the environment isn't copied to a file by itself.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llm_cache import env_file
from llm_cache.errors import LlmCacheError, SettingsError
from llm_cache.host import process, service
from llm_cache.host.checks.proxy import port_problem
from llm_cache.settings import (
    Review,
    Settings,
    check_value,
    home_folder,
    is_loopback,
    is_secret,
    read_env_file,
    review_settings,
)
from llm_cache.wire.registry import by_name

Answers = Mapping[str, str | None]
"""Settings by name: the text that goes into `.env`; None takes the setting out of it."""

DEFAULTS: Mapping[str, str] = {
    "CACHE_PORT": "4000",
    "CACHE_HOST": "127.0.0.1",
    "CACHE_TTL_SEC": "604800",
    "CACHE_MAX_ENTRIES": "5000",
    "CACHE_MAX_BYTES": "2 GiB",
}
"""What a new `.env` says unless something else was answered."""

_HEAD = b"# Settings of llm-cache; after a change: llm-cache restart\n"
_CLIENT_KEY = re.compile(r"([A-Z][A-Z0-9_]*)_API_KEY")


@dataclass(frozen=True, slots=True)
class Present:
    """What was found before anything is asked. `said` is what `.env` says, `client_keys` are the
    environment's variables with a client's key, by provider; `service` is the manager's name;
    `broken` is why `.env` can't be understood as a whole."""

    home: Path
    review: Review
    said: Mapping[str, str]
    exists: bool
    running: process.Running | None
    service: str | None
    client_keys: Mapping[str, str]
    broken: str = ""

    @property
    def path(self) -> Path:
        """Where `.env` is or will be."""
        return self.home / ".env"

    def value(self, name: str) -> str | None:
        """What counts now for a setting, unless it is wrong."""
        wrong = {problem.name for problem in self.review.problems}
        found = self.review.found.get(name)
        return None if found is None or name in wrong else found.text

    def providers(self) -> list[str]:
        """The providers whose real key is set, in `.env` or the environment."""
        return [name for name in self.review.settings.real_keys if by_name(name) is not None]

    def kept_keys(self) -> list[str]:
        """The settings of `.env` that hold a provider's real key."""
        return [name for name in self.said if by_name(provider_of(name)) is not None]


def present(environ: Mapping[str, str] | None = None) -> Present:
    """Look at what is there. Raises SettingsError for a home or an `.env` that can't be read; one
    that is read and not understood is `broken`."""
    env = os.environ if environ is None else environ
    home = home_folder(env)
    path = home / ".env"
    said = env_file.as_far_as_it_reads(path)
    broken = ""
    try:
        read_env_file(path)
    except SettingsError as error:
        env_file.read_bytes(path)  # which isn't mended when it can't be read
        broken = str(error)
    review = review_settings(environ=env, env_file=said)
    try:
        running = process.find(review.settings)
    except LlmCacheError:
        running = None
    manager = service.installed(review.settings)
    clients = {
        match[1].lower(): name
        for name, value in env.items()
        if value and (match := _CLIENT_KEY.fullmatch(name)) and by_name(match[1].lower())
    }
    exists = path.exists()
    name = None if manager is None else manager.name
    return Present(home, review, said, exists, running, name, clients, broken)


def provider_of(name: str) -> str:
    """The provider whose real key a setting holds; "" when it holds none."""
    return name.removesuffix("_API_KEY_REAL").lower() if name.endswith("_API_KEY_REAL") else ""


def key_setting(provider: str) -> str:
    """The setting with this provider's real key."""
    return f"{provider.upper()}_API_KEY_REAL"


def taken(now: Present, port: str) -> str | None:
    """Why a proxy of this home can't listen on `port`, or None: it is free, or ours already."""
    if check_value("CACHE_PORT", port, now.home) is not None:
        return None
    running = now.running
    if running is not None and running.address is not None and running.address.port == int(port):
        return None
    return port_problem(replace(now.review.settings, port=int(port), host="127.0.0.1"))


def free_port(now: Present) -> str:
    """The port to propose: the present one or the default, or the next that is free."""
    wanted = now.value("CACHE_PORT") or DEFAULTS["CACHE_PORT"]
    for port in range(int(wanted), min(int(wanted) + 50, 65536)):
        if taken(now, str(port)) is None:
            return str(port)
    return wanted


def completed(now: Present, answers: Answers) -> Answers:
    """The answers, and what follows from them: a new token when the host needs one and there is
    none, and the default in the place of what stands in `.env` and is wrong."""
    whole = dict(answers)
    for name, default in DEFAULTS.items():
        if name in now.said and check_value(name, now.said[name], now.home) is not None:
            whole.setdefault(name, default)
    host = whole.get("CACHE_HOST") or now.value("CACHE_HOST") or DEFAULTS["CACHE_HOST"]
    has_token = whole.get("CACHE_AUTH_TOKEN") or now.value("CACHE_AUTH_TOKEN")
    if not is_loopback(host) and not has_token:
        whole["CACHE_AUTH_TOKEN"] = new_token()
    return whole


def new_token() -> str:
    """A token that nobody guesses: 192 bits."""
    return secrets.token_urlsafe(24)


def changes(now: Present, answers: Answers) -> Answers:
    """What of the answers `.env` doesn't say yet. A new file says everything that was answered,
    and the defaults; one that is there isn't filled up with them."""
    if not now.exists:
        values = {name: now.value(name) or default for name, default in DEFAULTS.items()}
        return {name: value for name, value in {**values, **answers}.items() if value is not None}
    return {
        name: value
        for name, value in answers.items()
        if now.said.get(name, None if value is None else DEFAULTS.get(name)) != value
    }


def planned(now: Present, answers: Answers, environ: Mapping[str, str] | None = None) -> Review:
    """The settings as they will be with these answers, and what is wrong with them then."""
    said = {**now.said, **answers}
    kept = {name: value for name, value in said.items() if value is not None}
    return review_settings(environ=environ, env_file=kept)


def overridden(now: Present, answers: Answers) -> list[str]:
    """Names answered here for which the environment says something else, which counts."""
    found = now.review.found
    return [
        name
        for name, value in answers.items()
        if name in found and found[name].where == "environment" and found[name].text != value
    ]


def shown(answers: Answers) -> list[str]:
    """The changes for the eye, without what is secret."""
    lines = []
    for name, value in answers.items():
        if value is None:
            lines.append(f"{name} is taken out")
        else:
            lines.append(f"{name} (hidden)" if is_secret(name) else f"{name}={value}")
    return lines


def write(now: Present, answers: Answers) -> bool:
    """Bring the answers into `.env`, 0600; False when it says all that already, and privately.
    Lines that can't be understood become comments.

    What was changed in the file since it was looked at stays changed. Raises SettingsError, and
    then the file is as it was.
    """
    now.review.settings.make_home()
    old = env_file.read_bytes(now.path)
    new = env_file.changed(env_file.mended(old) or _HEAD, changes(now, answers))
    if new == old and stat.S_IMODE(now.path.stat().st_mode) == 0o600:
        return False
    env_file.write_private(now.path, new)
    return True


def listens_at(now: Present, settings: Settings) -> str | None:
    """The base URL for clients on this machine; None when the port isn't known before a start."""
    if settings.port == 0:
        running = now.running
        return running.address.url if running is not None and running.address else None
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
    return process.Address(host, settings.port, settings.tls).url
