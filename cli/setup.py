"""`setup`: from nothing to a configuration, by questions or by flags."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_cache.cli.clients import client_lines
from llm_cache.cli.output import note, say
from llm_cache.errors import LlmCacheError, UsageError
from llm_cache.settings import check_value, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_cache.host import Answers, Present, TakenOver
    from llm_cache.settings import Settings


def setup(
    key_env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[PROVIDER=]NAME",
            help="Keep the real key that is in this environment variable; repeatable.",
        ),
    ] = None,
    key_stdin: Annotated[
        bool, typer.Option("--key-stdin", help="Keep the real key that comes from stdin.")
    ] = False,
    provider: Annotated[
        str | None, typer.Option(help="Whose key it is; anthropic unless the variable tells.")
    ] = None,
    no_key: Annotated[
        bool, typer.Option("--no-key", help="Keep no key: each client's own passes through.")
    ] = False,
    check_key: Annotated[
        bool | None,
        typer.Option(
            "--check-key/--no-check-key", help="Try the key with one free call (lists models)."
        ),
    ] = None,
    scope: Annotated[str | None, typer.Option(help="credential or shared (CACHE_SCOPE).")] = None,
    upstream: Annotated[
        str | None, typer.Option(help="Send everything to this base URL (CACHE_UPSTREAM).")
    ] = None,
    port: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Listen on this port (CACHE_PORT).")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Listen on this address (CACHE_HOST); a token is made when it needs one."
        ),
    ] = None,
    tls_cert: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Serve HTTPS by this certificate (CACHE_TLS_CERTFILE)."),
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its key (CACHE_TLS_KEYFILE).")
    ] = None,
    allow_hosts: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Further names clients call it by, with commas (CACHE_ALLOW_HOSTS).",
        ),
    ] = None,
    token_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take the token from this environment variable."),
    ] = None,
    new_token: Annotated[
        bool, typer.Option("--new-token", help="Make a new token (CACHE_AUTH_TOKEN).")
    ] = False,
    ttl: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS", help="Keep answers that long, 0: no limit (CACHE_TTL_SEC)."
        ),
    ] = None,
    max_entries: Annotated[
        str | None,
        typer.Option(metavar="NUMBER", help="Keep at most so many answers (CACHE_MAX_ENTRIES)."),
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Use at most so much disk (CACHE_MAX_BYTES)."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Take over llm-cache-proxy's .env, normalize.json and prices.json; asks nothing.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing; take defaults for the rest.")
    ] = False,
) -> None:
    """Configure the proxy: keys, port, host, limits.

    Asks on a terminal; every answer is a flag as well. Writes .env in the home, for your eyes
    only, and keeps what it doesn't know. Keys are never on the command line.

    Example: llm-cache setup --key-env ANTHROPIC_API_KEY --port 4100 --yes
    """
    from llm_cache.host import configure

    flags = {
        "CACHE_SCOPE": ("--scope", scope),
        "CACHE_UPSTREAM": ("--upstream", upstream),
        "CACHE_PORT": ("--port", port),
        "CACHE_HOST": ("--host", host),
        "CACHE_TLS_CERTFILE": ("--tls-cert", _absolute(tls_cert)),
        "CACHE_TLS_KEYFILE": ("--tls-key", _absolute(tls_key)),
        "CACHE_ALLOW_HOSTS": ("--allow-hosts", allow_hosts),
        "CACHE_TTL_SEC": ("--ttl", ttl),
        "CACHE_MAX_ENTRIES": ("--max-entries", max_entries),
        "CACHE_MAX_BYTES": ("--max-bytes", max_bytes),
    }
    if no_key and (key_env or key_stdin):
        raise UsageError("--no-key: keeps none, so no key can be given with it")
    if new_token and token_env:
        raise UsageError("--new-token: makes one, so --token-env can't be given too")
    now = configure.present()
    if now.broken:
        note(f"{now.broken}; such lines become comments when it is written")
    answers: dict[str, str | None] = {}
    for setting, (flag, value) in flags.items():
        if value is not None:
            answers[setting] = _checked(now, flag, setting, value)
    if token_env is not None:
        value = _variable("--token-env", token_env)
        answers["CACHE_AUTH_TOKEN"] = _checked(
            now, f"--token-env {token_env}", "CACHE_AUTH_TOKEN", value
        )
    elif new_token:
        answers["CACHE_AUTH_TOKEN"] = configure.new_token()
    taken = _taken_over(now, from_)
    if taken is not None:
        answers = {**taken.answers, **answers}
    keys = _given_keys(key_env or [], key_stdin, provider)
    for name, (flag, key) in keys.items():
        answers[configure.key_setting(name)] = _checked(now, flag, configure.key_setting(name), key)
    if no_key:
        answers |= dict.fromkeys(now.kept_keys())
    key_known = bool(keys) or no_key
    _check_given(now, answers, keys, check_key is True)
    asking = can_ask() and not yes and not key_stdin and taken is None
    if not (asking or yes or taken or key_known or now.exists or now.providers()):
        raise UsageError(
            "setup can't ask without a terminal: give --key-env NAME, --key-stdin or --no-key, "
            "or --yes to take the defaults (each client's own key passes through)"
        )
    if taken is not None:
        from llm_cache.host import takeover

        now.review.settings.make_home()
        for path in takeover.write_files(taken, now.home):
            say(f"written: {path}")
    settings = _finish(now, answers, asking, key_known, check_key)
    _say_what_is_next(now, settings)


def _absolute(path: str | None) -> str | None:
    """A path of a flag, which is said from here; one in `.env` is from the home."""
    return None if path is None else str(Path(path).expanduser().absolute())


def _taken_over(now: Present, folder: str | None) -> TakenOver | None:
    if folder is None:
        return None
    from llm_cache.host import takeover

    taken = takeover.taken_over(Path(folder).expanduser().absolute(), now)
    for sentence in taken.left:
        note(sentence)
    return taken


def first_run(flags: Mapping[str, str]) -> None:
    """The wizard before the first start, on a terminal. The `flags` are answers already, and are
    written with the others."""
    from llm_cache.host import configure

    say("llm-cache isn't configured yet. A few questions; Ctrl-C leaves all as it is.")
    _finish(configure.present(), dict(flags), True, False, None)


def can_ask() -> bool:
    """True when there is somebody to ask."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _finish(
    now: Present,
    answers: dict[str, str | None],
    asking: bool,
    key_known: bool,
    check_key: bool | None,
) -> Settings:
    """Ask what isn't answered, if there is somebody to ask, and write it."""
    from llm_cache.host import configure

    if asking:
        _say_what_is_there(now)
        try:
            _ask(now, answers, key_known, check_key)
            answers = dict(configure.completed(now, answers))
            written = configure.changes(now, answers)
            agreed = not (written or now.broken) or _confirmed(now, written)
        except KeyboardInterrupt:
            note(f"nothing was changed: {now.path}")
            raise
        if not agreed:
            raise LlmCacheError(f"nothing was changed: {now.path}")
    else:
        _choose_free_port(now, answers)
        answers = dict(configure.completed(now, answers))
    review = configure.planned(now, answers)
    if configure.write(now, answers):
        say(f"written: {now.path} (only you can read it)")
    else:
        say(f"nothing to change: {now.path}")
    if answers.get("CACHE_AUTH_TOKEN"):
        say("it holds a new token, which every client must send")
    for name in configure.overridden(now, answers):
        note(f"{name} is set in the environment as well, and that counts where it is set")
    if review.problems:
        wrong = review.error()
        failed = LlmCacheError(f"written, but the proxy won't start: {wrong}")
        if wrong.heading:
            failed.heading = f"written, but the proxy won't start: {wrong.heading}"
            failed.details = wrong.details
        raise failed
    return review.settings


def _ask(
    now: Present, answers: dict[str, str | None], key_known: bool, check_key: bool | None
) -> None:
    from llm_cache.cli import wizard

    keeps = key_known or wizard.ask_for_keys(now, answers, check_key)
    if "CACHE_PORT" not in answers:
        answers["CACHE_PORT"] = wizard.ask_for_port(now)
    if "CACHE_HOST" not in answers:
        answers["CACHE_HOST"] = wizard.ask_for_host(now)
    if not keeps:
        wizard.ask_for_scope(now, answers)
    wizard.ask_for_limits(now, answers)


def _confirmed(now: Present, written: Answers) -> bool:
    from llm_cache.cli import wizard

    return wizard.confirm_changes(now, written)


def _choose_free_port(now: Present, answers: dict[str, str | None]) -> None:
    """A first configuration gets a port that is free; one that is named or set already stays."""
    from llm_cache.host import configure

    given = answers.get("CACHE_PORT") or now.value("CACHE_PORT")
    problem = configure.taken(now, given or configure.DEFAULTS["CACHE_PORT"])
    if given is None and not now.exists:
        answers["CACHE_PORT"] = configure.free_port(now)
        if problem:
            note(f"{problem}; port {answers['CACHE_PORT']} is taken instead")
    elif problem:
        note(problem)


def _given_keys(
    key_env: list[str], key_stdin: bool, provider: str | None
) -> dict[str, tuple[str, str]]:
    """The keys of the flags by provider, each with the flag it came by."""
    from llm_cache.wire.registry import by_name

    keys: dict[str, tuple[str, str]] = {}
    for text in key_env:
        named, equals, variable = text.rpartition("=")
        owner = named if equals else provider
        if owner is None:
            match = re.fullmatch(r"([A-Z0-9_]+?)_API_KEY(_REAL)?", variable)
            told = match[1].lower() if match else ""
            owner = told if by_name(told) else "anthropic"
        keys[_known(owner)] = (f"--key-env {text}", _variable("--key-env", variable))
    if key_stdin:
        keys[_known(provider or "anthropic")] = ("--key-stdin", _from_stdin())
    return keys


def _known(provider: str) -> str:
    from llm_cache.wire.registry import PROVIDERS, by_name

    if by_name(provider.lower()) is None:
        names = ", ".join(one.name for one in PROVIDERS)
        raise UsageError(f"--provider {provider}: isn't known; one of {names}")
    return provider.lower()


def _variable(flag: str, name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise UsageError(f"{flag} {name}: no such variable, or it is empty")
    return value


def _from_stdin() -> str:
    if sys.stdin.isatty():
        raise UsageError("--key-stdin: stdin is a terminal; without this flag the key is asked for")
    lines = sys.stdin.read(65536).split()
    if len(lines) != 1:
        raise UsageError("--key-stdin: must be one key on one line")
    return lines[0]


def _checked(now: Present, flag: str, setting: str, value: str) -> str:
    problem = check_value(setting, value, now.home)
    if problem is not None:
        hidden = flag.startswith(("--key", "--token", "--upstream"))  # a URL may hold a password
        raise UsageError(f"{flag if hidden else f'{flag} {value}'}: {problem}")
    return value


def _check_given(
    now: Present, answers: Answers, keys: dict[str, tuple[str, str]], try_them: bool
) -> None:
    """Whether the keys of the flags can be right, and, if wanted, whether they are."""
    if not keys:
        return
    from llm_cache.host import ask_with, configure, form_problem

    settings = configure.planned(now, answers).settings
    for provider, (flag, key) in keys.items():
        if problem := form_problem(settings, provider, key):
            raise UsageError(f"{flag}: {problem}")
        if try_them:
            verdict, said = ask_with(settings, provider, key)
            if verdict == "refused":
                raise LlmCacheError(f"{said}; nothing was changed")
            note(said)


def _say_what_is_there(now: Present) -> None:
    keys = ", ".join(now.providers())
    found = [f"found {now.path}" if now.exists else f"{now.path} isn't there yet"]
    if keys:
        found.append(f"keys of {keys} are set")
    if now.client_keys:
        found.append(f"{', '.join(now.client_keys.values())} in this shell")
    if now.service:
        found.append(f"a {now.service} service is installed")
    if now.running is not None:
        found.append(f"the proxy runs (pid {now.running.pid})")
    say("; ".join(found))
    for problem in now.review.problems:
        say(f"  ! {problem.sentence}")


def _say_what_is_next(now: Present, settings: Settings) -> None:
    from llm_cache.host import configure

    command = "llm-cache on" if now.running is None else "llm-cache restart"
    say(f"next: {command}")
    url = configure.listens_at(now, settings)
    if url is None:
        say("its port is any that is free: `llm-cache on` says which")
        return
    say()
    for line in client_lines(settings, url):
        say(line)
    if not is_loopback(settings.host) and "//localhost" in url:
        say("From other machines: this machine's name or address in the place of localhost.")
