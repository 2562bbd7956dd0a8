"""The questions of `setup`, on a terminal. They decide nothing: what comes out are the answers.

What holds: keys are typed unseen; Ctrl-C or Ctrl-D at any question ends it all with
KeyboardInterrupt, before anything was written; what was answered by a flag isn't asked.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from typing import Any, TypeVar

import questionary

from llm_cache.cli.output import duration, say
from llm_cache.errors import LlmCacheError
from llm_cache.host import Answers, Present, configure
from llm_cache.host import real_keys as keys
from llm_cache.settings import check_value, is_loopback
from llm_cache.wire.registry import PROVIDERS, by_name

T = TypeVar("T")

_EVERYWHERE = "0.0.0.0"  # noqa: S104  # an answer; a token goes with it
_FIRST = ("anthropic", "openai", "gemini")
"""The providers that most people have a key of, in the order of the menu."""

_DAY = 86400


def ask_for_keys(now: Present, answers: dict[str, str | None], check: bool | None) -> bool:
    """Whose key goes upstream; whether one is kept here. `check`: whether to try a new key; None:
    ask."""
    has_key = bool(now.providers())
    keep = _select(
        "Whose API keys go upstream?",
        {
            "Each client's own, as they come: none is kept": False,
            "One that is kept here: clients need none": True,
        },
        has_key,
    )
    if not keep:
        answers.update(dict.fromkeys(now.kept_keys()))
        return False
    while True:
        provider = _ask_for_provider(now, answers)
        _ask_for_key(now, answers, provider, check)
        if not _confirm("A key of another provider as well?", False):
            return True


def ask_for_port(now: Present) -> str:
    """Where to listen."""
    wanted = now.value("CACHE_PORT") or configure.DEFAULTS["CACHE_PORT"]
    if problem := configure.taken(now, wanted):
        say(f"  {problem}")

    def check(text: str) -> bool | str:
        problem = check_value("CACHE_PORT", text.strip(), now.home)
        return problem or configure.taken(now, text.strip()) or True

    return _text("Port:", configure.free_port(now), check)


def ask_for_host(now: Present) -> str:
    """Who may reach it."""
    present = now.value("CACHE_HOST") or configure.DEFAULTS["CACHE_HOST"]
    choices = {
        "This machine only": present if is_loopback(present) else "127.0.0.1",
        "Every machine that can reach this one, with a token": _EVERYWHERE,
        "One address of this machine, with a token…": "",
    }
    default = present if present in choices.values() else ""
    host = _select("Who may use it?", choices, default)
    if host:
        return host
    shown = "" if is_loopback(present) or present == _EVERYWHERE else present
    return _text(
        "Address or host name:",
        shown,
        lambda text: check_value("CACHE_HOST", text.strip(), now.home) or True,
    )


def ask_for_scope(now: Present, answers: dict[str, str | None]) -> None:
    """Who shares answers, where clients' credentials pass through and `CACHE_HOST` is answered: on
    a machine of one person, whose login's token changes by the hour, it is one cache."""
    if "CACHE_SCOPE" in answers:
        return
    host = answers.get("CACHE_HOST") or now.value("CACHE_HOST") or configure.DEFAULTS["CACHE_HOST"]
    # Enter changes nothing of a configuration that is there.
    usual = "shared" if is_loopback(host) and not now.exists else "credential"
    scope = _select(
        "Whose are the clients?",
        {
            "All mine: one cache, also when a login's token changes": "shared",
            "Several people or accounts: each has its own answers": "credential",
        },
        now.value("CACHE_SCOPE") or usual,
    )
    if scope != (now.value("CACHE_SCOPE") or "credential"):
        answers["CACHE_SCOPE"] = scope


def ask_for_limits(now: Present, answers: dict[str, str | None]) -> None:
    """How long and how much is kept."""
    names = ("CACHE_TTL_SEC", "CACHE_MAX_ENTRIES", "CACHE_MAX_BYTES")
    open_ones = [name for name in names if name not in answers]
    values = {name: now.value(name) or configure.DEFAULTS[name] for name in names}
    sentence = (
        f"{_span(values['CACHE_TTL_SEC'])}, {int(values['CACHE_MAX_ENTRIES']):,} answers, "
        f"{values['CACHE_MAX_BYTES']}"
    )
    if not open_ones or not _confirm(f"Change how much is kept ({sentence})?", False):
        return
    if "CACHE_TTL_SEC" in open_ones:
        answers["CACHE_TTL_SEC"] = _ask_for_span(now, values["CACHE_TTL_SEC"])
    for name, message in (
        ("CACHE_MAX_ENTRIES", "Most answers kept (0: no limit):"),
        ("CACHE_MAX_BYTES", "Most room on disk, such as 2 GiB (0: no limit):"),
    ):
        if name in open_ones:
            answers[name] = _text(message, values[name], _allowed(name, now))


def confirm_changes(now: Present, changes: Answers) -> bool:
    """Show what will be written; whether it shall be."""
    say()
    for line in configure.shown(changes):
        say(f"  {line}")
    return _confirm(f"Write this to {now.path}?", True)


def _ask_for_provider(now: Present, answers: Answers) -> str:
    kept = {*now.providers(), *(configure.provider_of(name) for name in answers)}
    names = [one.name for one in PROVIDERS if one.key_form is not None]
    names = [*_FIRST, *(name for name in names if name not in _FIRST)]
    titles = {_title(name) + (" (set)" if name in kept else ""): name for name in names}
    return _select("Of which provider? (type to filter)", titles, "anthropic", filtered=True)


def _title(provider: str) -> str:
    known = by_name(provider)
    return provider if known is None else known.title


def _ask_for_key(
    now: Present, answers: dict[str, str | None], provider: str, check: bool | None
) -> None:
    setting = configure.key_setting(provider)
    variable = now.client_keys.get(provider)
    choices = {"Type a key (it isn't shown)": "type"}
    if variable is not None:
        choices = {f"Take the one in ${variable}": "take", **choices}
    if provider in now.providers():
        choices = {"Keep the one that is set": "keep", **choices, "Remove it": "remove"}
    while True:
        how = next(iter(choices.values()))
        if len(choices) > 1:
            how = _select(f"Which key of {_title(provider)}?", choices, how)
        if how == "keep":
            return
        if how == "remove":
            answers[setting] = None
            return
        if how == "take" and variable is not None:
            key = os.environ[variable].strip()
        else:
            key = _password(f"{_title(provider)} API key:", _allowed(setting, now))
        if _is_wanted(now, answers, provider, key, check):
            answers[setting] = key
            return


def _is_wanted(now: Present, answers: Answers, provider: str, key: str, check: bool | None) -> bool:
    settings = configure.planned(now, answers).settings
    if problem := check_value(configure.key_setting(provider), key, now.home):
        say(f"  {problem}")
        return False
    if problem := keys.form_problem(settings, provider, key):
        _tell(f"That doesn't look right: {problem}.")
        if not _confirm("Use it all the same?", False):
            return False
    known = by_name(provider)
    form = None if known is None else known.key_form
    if form is None or form.free_path is None or check is False:
        return True
    if check is None and not _confirm("Try it with one free call (lists models)?", True):
        return True
    try:
        verdict, said = keys.ask_with(settings, provider, key)
    except LlmCacheError as error:
        verdict, said = "unknown", str(error)
    _tell(said)
    return verdict != "refused" or _confirm("Use it all the same?", False)


def _ask_for_span(now: Present, present: str) -> str:
    days = {"1 day": 1, "7 days": 7, "30 days": 30, "1 year": 365}
    choices = {title: str(number * _DAY) for title, number in days.items()}
    choices |= {"No limit": "0", "Another time, in seconds…": ""}
    span = _select(
        "How long are answers kept?", choices, present if present in choices.values() else ""
    )
    return span or _text("Seconds (0: no limit):", present, _allowed("CACHE_TTL_SEC", now))


def _span(seconds: str) -> str:
    days, rest = divmod(int(seconds), _DAY)
    if not int(seconds):
        return "no limit of time"
    return duration(int(seconds)) if rest else f"{days} day{'' if days == 1 else 's'}"


def _allowed(setting: str, now: Present) -> Any:
    def check(text: str) -> bool | str:
        if not text.strip():
            return "type something, or Ctrl-C to leave everything as it is"
        return check_value(setting, text.strip(), now.home) or True

    return check


def _tell(text: str) -> None:
    """A sentence, broken between words where the terminal ends."""
    width = shutil.get_terminal_size().columns - 1
    say(textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  "))


# One question each. questionary's own `ask` would take Ctrl-C for an answer.


def _select(message: str, choices: dict[str, T], default: T, *, filtered: bool = False) -> T:
    titles = [questionary.Choice(title, value) for title, value in choices.items()]
    chosen = next((one for one in titles if one.value == default), titles[0])
    question = questionary.select(
        message, titles, default=chosen, use_search_filter=filtered, use_jk_keys=not filtered
    )
    answer: T = _asked(question)
    return answer


def _confirm(message: str, default: bool) -> bool:
    return bool(_asked(questionary.confirm(message, default=default)))


def _text(message: str, default: str, check: Any) -> str:
    return str(_asked(questionary.text(message, default=default, validate=check))).strip()


def _password(message: str, check: Any) -> str:
    return str(_asked(questionary.password(message, validate=check))).strip()


def _asked(question: questionary.Question) -> Any:
    try:
        return question.unsafe_ask()
    except EOFError:
        raise KeyboardInterrupt from None
