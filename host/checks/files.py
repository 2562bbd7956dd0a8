"""The checks of the home's files: who may read them, and what is in them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from llm_cache.errors import SettingsError
from llm_cache.exchange import NORMALIZE_BUDGET_SEC, load_rules, read_optional
from llm_cache.host.checks.finding import Finding, Level
from llm_cache.settings import Settings
from llm_cache.wire.normalize import Rules
from llm_cache.wire.prices import Prices

_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_WARNING_SHARE = 0.2
"""The share of a request's time for normalizing from which one pattern is worth a warning."""


def files(home: Path, settings: Settings, unread: str) -> Iterator[Finding]:
    """The home and what is in it but the store. `unread`: why `.env` couldn't be read."""
    yield _home(home)
    if home.exists() and not home.is_dir():
        return
    yield from _env(settings.env_file, unread)
    yield from _normalize(settings)
    yield from _prices(settings)
    yield from _private(settings)
    yield from _log(settings)
    yield from _certificate(settings)


def nearest_folder(path: Path) -> Path:
    """The folder itself, or where it would be made in."""
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def _found(name: str, level: Level, text: str, fix: str = "") -> Finding:
    return Finding("Files", name, level, text, fix)


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _home(home: Path) -> Finding:
    mode = _mode(home)
    if mode is None:
        folder = nearest_folder(home)
        if not os.access(folder, os.W_OK | os.X_OK):
            text = f"isn't there and can't be made: {folder} can't be written"
            return _found(str(home), "error", text, "set LLM_CACHE_HOME to a folder of your own")
        return _found(str(home), "ok", "not there yet: the first start makes it")
    if not home.is_dir():
        return _found(str(home), "error", "isn't a folder", "set LLM_CACHE_HOME to a folder")
    fix = f"chmod 700 {home}"
    if mode & _OTHERS_WRITE:
        return _found(str(home), "error", f"others may write to it (mode {mode:04o})", fix)
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return _found(str(home), "error", f"you may not use it (mode {mode:04o})", fix)
    if mode & _OTHERS:
        return _found(str(home), "warning", f"others may look into it (mode {mode:04o})", fix)
    return _found(str(home), "ok", f"private (mode {mode:04o})")


def _env(path: Path, unread: str) -> Iterator[Finding]:
    mode = _mode(path)
    if unread:
        yield _found(".env", "error", unread, f"mend it: {path} is lines of NAME=value")
    if mode is None:
        if not unread:
            yield _found(".env", "ok", "not there: environment and defaults count")
    elif mode & _OTHERS:
        text = f"others may read it (mode {mode:04o}), and it holds keys"
        yield _found(".env", "error", text, f"chmod 600 {path}")
    elif not unread:
        yield _found(".env", "ok", f"private (mode {mode:04o})")


def _normalize(settings: Settings) -> Iterator[Finding]:
    name = settings.normalize_file.name
    try:
        text = read_optional(settings.normalize_file)
        rules = load_rules(settings)
    except SettingsError as error:
        yield from _wrong(settings.normalize_file, error)
        return
    if text is None:
        yield _found(name, "ok", "not there: nothing more is stripped")
        return
    yield _found(
        name,
        "ok",
        f"valid JSON ({len(rules.system_strip)} system_strip, {len(rules.message_strip)} "
        f"message_strip patterns; suffix_only={str(rules.suffix_only).lower()}{_more(rules)})",
    )
    yield from _patterns(rules)


def _more(rules: Rules) -> str:
    presets = f"; presets {', '.join(rules.presets)}" if rules.presets else ""
    ignored = len(rules.ignore) + len(rules.ignored_headers)
    return presets + (f"; {ignored} ignored" if ignored else "")


def _patterns(rules: Rules) -> Iterator[Finding]:
    from llm_cache.wire.pattern_cost import LONG_TEXT, slowest

    for field in ("system_strip", "message_strip"):
        for index, pattern in enumerate(getattr(rules, field)):
            name = f"normalize.json {field}[{index}]"
            seconds = slowest(pattern, NORMALIZE_BUDGET_SEC)
            shown = repr(pattern if len(pattern) <= 60 else pattern[:59] + "…")
            fix = "make it match one thing in one way: no repeat inside a repeat, no .* twice"
            if seconds >= NORMALIZE_BUDGET_SEC:
                text = (
                    f"{shown} is too slow: it may take more than the {NORMALIZE_BUDGET_SEC} s a "
                    "request has for this, and then the request has no normalized key"
                )
                yield _found(name, "error", text, fix)
            elif seconds >= NORMALIZE_BUDGET_SEC * _WARNING_SHARE:
                text = f"{shown} is slow: {seconds * 1e3:.0f} ms on {LONG_TEXT >> 10} KiB"
                yield _found(name, "warning", text, fix)
            else:
                yield _found(name, "ok", f"{shown} takes {seconds * 1e3:.1f} ms at most")


def _wrong(path: Path, error: SettingsError) -> Iterator[Finding]:
    """A line for each thing that is wrong in a file of the home."""
    for problem in error.details or [str(error)]:
        yield _found(path.name, "error", problem, f"mend or remove {path}")


def _prices(settings: Settings) -> Iterator[Finding]:
    name = settings.prices_file.name
    try:
        text = read_optional(settings.prices_file)
        Prices.load(text, str(settings.prices_file))
    except SettingsError as error:
        yield from _wrong(settings.prices_file, error)
        return
    if text is None:
        yield _found(name, "ok", "not there: the built-in prices count")
    else:
        yield _found(name, "ok", f"valid JSON ({len(json.loads(text))} models)")


def _private(settings: Settings) -> Iterator[Finding]:
    """Files whose content is nobody else's: prompts and answers. In a private home nobody gets to
    them, so this is worth a warning only."""
    store = settings.store_dir
    paths = [store, *(store / name for name in ("index.sqlite", "blobs", "tmp"))]
    paths += [path for path in (settings.log_file, settings.pid_file) if path is not None]
    for path in paths:
        mode = _mode(path)
        if mode is not None and mode & _OTHERS:
            wanted = "700" if path.is_dir() else "600"
            level: Level = "error" if mode & _OTHERS_WRITE else "warning"
            what = "write to" if mode & _OTHERS_WRITE else "read"
            text = f"others may {what} it (mode {mode:04o})"
            yield _found(str(path), level, text, f"chmod {wanted} {path}")
    for path in (settings.normalize_file, settings.prices_file):
        mode = _mode(path)
        if mode is not None and mode & _OTHERS_WRITE:
            text = f"others may write to it (mode {mode:04o})"
            yield _found(path.name, "error", text, f"chmod 600 {path}")


def _log(settings: Settings) -> Iterator[Finding]:
    path = settings.log_file
    if path is None:
        return
    there = path if path.exists() else nearest_folder(path.parent)
    if path.is_dir() or not os.access(there, os.W_OK):
        fix = "set CACHE_LOG_FILE to a file of your own, or to none"
        yield _found("log", "error", f"{path} can't be written", fix)


def _certificate(settings: Settings) -> Iterator[Finding]:
    if settings.tls_certfile is None or settings.tls_keyfile is None:
        return
    from llm_cache.server import check_certificate

    try:
        check_certificate(settings)
        yield _found("TLS", "ok", f"{settings.tls_certfile} and its key fit together")
    except SettingsError as error:
        yield _found("TLS", "error", str(error), "name a certificate and its own key")
    mode = _mode(settings.tls_keyfile)
    if mode is not None and mode & _OTHERS:
        text = f"others may read the key (mode {mode:04o})"
        yield _found(
            str(settings.tls_keyfile), "warning", text, f"chmod 600 {settings.tls_keyfile}"
        )
