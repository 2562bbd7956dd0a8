"""What `validate` finds: every setting, file, the store, the service and the running proxy, looked
at one by one.

What holds: a check changes nothing and makes no file, asks nobody but this machine, and no finding
holds a secret, of a key its maker and its end at most. One thing that is wrong doesn't keep the
others from being looked at.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping

from llm_cache.errors import SettingsError
from llm_cache.host.checks.finding import Finding
from llm_cache.masking import masked
from llm_cache.settings import (
    SETTING_NAMES,
    Found,
    Review,
    Settings,
    home_folder,
    is_loopback,
    is_secret,
    review_settings,
)

_SHORT_TOKEN = 16
_VERY_NEAR = 0.85


def check_everything(environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Look at all there is, in the order a reader wants it. Never raises LlmCacheError."""
    from llm_cache.host.checks import files as checks_files
    from llm_cache.host.checks import proxy as checks_proxy
    from llm_cache.host.checks import store as checks_store

    env = os.environ if environ is None else environ
    try:
        home = home_folder(env)
    except SettingsError as error:
        fix = "set it to a folder, or unset it for ~/.llm-cache"
        yield Finding("Settings", "LLM_CACHE_HOME", "error", str(error), fix)
        return
    unread = ""
    try:
        review = review_settings(environ=env)
    except SettingsError as error:
        unread = str(error)
        review = review_settings(environ=env, env_file={})
    settings = review.settings
    wrong = frozenset(problem.name for problem in review.problems)
    yield from _settings(review)
    yield from _keys(review)
    yield from _as_far_as("Files", checks_files.files(home, settings, unread))
    yield from _as_far_as("Store", checks_store.store(settings, wrong))
    yield from _as_far_as("Service", checks_proxy.service(settings, env))
    yield from _as_far_as("Runtime", checks_proxy.runtime(settings, wrong))


def _as_far_as(section: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings, and a last one where the system lets nobody look any further."""
    try:
        yield from findings
    except OSError as error:
        text = f"can't be looked at: {error.strerror or type(error).__name__}"
        fix = "make it yours, or set LLM_CACHE_HOME to another folder"
        yield Finding(section, str(error.filename or section), "error", text, fix)


def _source(found: Found) -> str:
    """Where a setting was found: the environment, or a file."""
    return "the environment" if found.where == "environment" else found.where


def _place(found: Found) -> str:
    """The same in a word or two."""
    return "the environment" if found.where == "environment" else ".env"


def _settings(review: Review) -> Iterator[Finding]:
    problems = {problem.name: problem.allowed for problem in reversed(review.problems)}
    problems = _misled(review.settings) | problems
    for name, value in (
        ("CACHE_PORT", review.settings.port),
        ("CACHE_HOST", review.settings.host),
    ):
        if name not in review.found:
            yield Finding("Settings", name, "ok", "default", value=str(value))
    for name, found in review.found.items():
        value = found.shown.partition("=")[2]
        if name in problems:
            text = f"from {_place(found)}: {problems.pop(name)}"
            yield Finding(
                "Settings", name, "error", text, f"change {name} in {_source(found)}", value
            )
        elif name not in _real_keys(review):
            text = f"from {_place(found)}" if value else f"set, from {_place(found)}"
            yield Finding("Settings", name, "ok", text, value=value)
    for name, allowed in problems.items():
        yield Finding("Settings", name, "error", allowed, f"set {name}")
    for found in review.unknown:
        yield _unknown(found)
    yield from _openness(review.settings)


def _unknown(found: Found) -> Finding:
    nearest = _nearest(found.name)
    fix = f"did you mean {nearest}?" if nearest else "docs/SETTINGS.md names all there are"
    text = f"in {_place(found)}: there is no such setting, so it does nothing"
    return Finding("Settings", found.name, "warning", text, fix)


def misspelt(review: Review) -> list[str]:
    """A sentence for each name that is probably a setting's, and is none. What `.env` says is
    meant for us; the environment has names of other programs too, and there only one that is very
    near to a setting's counts."""
    told = [
        _unknown(found)
        for found in review.unknown
        if found.where != "environment"
        or found.name.startswith("LLM_CACHE_")
        or _nearest(found.name, _VERY_NEAR)
    ]
    if _real_keys(review):  # or nothing of a provider has to be loaded
        told += [one for one in _keys(review) if one.level == "warning"]
    return [f"{one.name} {one.text}; {one.fix}" for one in told]


def _misled(settings: Settings) -> dict[str, str]:
    """The setting that names a provider there isn't, and what is allowed."""
    from llm_cache.exchange import Router

    try:
        Router(settings)
    except SettingsError as error:
        name, _, allowed = str(error).partition(": ")
        return {name: allowed}
    return {}


def _openness(settings: Settings) -> Iterator[Finding]:
    """What to know of a proxy that other machines can reach."""
    if is_loopback(settings.host):
        return
    if not settings.tls:
        yield Finding(
            *("Settings", "TLS", "warning", "keys and prompts cross the network in the clear"),
            "set CACHE_TLS_CERTFILE and CACHE_TLS_KEYFILE, or let a TLS proxy stand in front",
        )
    if settings.auth_token and len(settings.auth_token) < _SHORT_TOKEN:
        yield Finding(
            *("Settings", "CACHE_AUTH_TOKEN", "warning"),
            f"shorter than {_SHORT_TOKEN} characters: it can be guessed",
            "`llm-cache setup --new-token` makes one",
        )


def _keys(review: Review) -> Iterator[Finding]:
    from llm_cache.host.real_keys import form_problem
    from llm_cache.wire.registry import PROVIDERS, by_name

    keys = _real_keys(review)
    wrong = {problem.name for problem in review.problems}
    if not keys:
        text = "none is set: each client's own credentials pass through"
        yield Finding("Settings", "API keys", "ok", text)
    for name, found in keys.items():
        provider = name.removesuffix("_API_KEY_REAL").lower()
        if name in wrong:
            continue
        known = by_name(provider) is not None
        named = {one.replace("-", "_") for one in review.settings.named_upstreams}
        if not known and provider not in named:
            names = [one.name for one in PROVIDERS]
            near = difflib.get_close_matches(provider, names, 1, 0.6)
            fix = f"did you mean {near[0].upper()}_API_KEY_REAL?" if near else "remove it"
            text = f"in {_place(found)}: there is no provider {provider}, so it does nothing"
            yield Finding("Settings", name, "warning", text, fix)
            continue
        problem = form_problem(review.settings, provider, found.text) if known else None
        if problem is None:
            shown = masked(found.text)
            yield Finding("Settings", name, "ok", f"from {_place(found)}", value=shown)
        else:
            fix = f"`llm-cache setup --provider {provider}`, or change it in {_source(found)}"
            yield Finding("Settings", name, "error", f"from {_place(found)}: {problem}", fix)


def _real_keys(review: Review) -> dict[str, Found]:
    return {
        name: found
        for name, found in review.found.items()
        if is_secret(name) and name != "CACHE_AUTH_TOKEN"
    }


def _nearest(name: str, least: float = 0.6) -> str | None:
    """The setting whose name is nearest, if it is as near as `least` (1: the same)."""
    names = {*SETTING_NAMES, "LLM_CACHE_HOME"}
    bare = re.sub(r"^LLM_CACHE_", "CACHE_", name)
    if bare in names:
        return bare
    near = difflib.get_close_matches(bare, sorted(names), 1, least)
    return near[0] if near else None
