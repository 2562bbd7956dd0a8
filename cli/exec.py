"""`exec`: one command with a proxy of its own beside it.

What always holds: stdout is the command's alone; its exit code is ours; signals that reach us
reach it; and when we end, the proxy has ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from llm_cache.cli.lifecycle import note_misspelt
from llm_cache.cli.open_store import opened_store
from llm_cache.cli.output import dollars, note, printable
from llm_cache.errors import LlmCacheError, StoreError, UsageError
from llm_cache.settings import Settings, is_loopback, load_settings

if TYPE_CHECKING:
    from llm_cache.exchange import Credential
    from llm_cache.host import Calls

_FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_FROM_KEYS = (signal.SIGINT, signal.SIGQUIT)
"""What a terminal sends to the command itself as well as to us."""

_NOT_SHARED = ("store", "proxy.pid", "proxy.log", "proxy.log.1")
"""What of a home belongs to its proxy, and not to its settings."""


def exec_(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.")],
    mode: Annotated[
        str | None, typer.Option(help="cache, fresh, bypass or replay (CACHE_MODE).")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Namespace of its requests (CACHE_NAMESPACE).")
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option(help="auto: its n-th equal request is sample n (CACHE_SAMPLE)."),
    ] = None,
    scope: Annotated[str | None, typer.Option(help="credential or shared (CACHE_SCOPE).")] = None,
    fail_on_miss: Annotated[
        bool,
        typer.Option(
            "--fail-on-miss",
            help="Exit code 1 when anything wasn't in the cache; --mode is replay unless given.",
        ),
    ] = False,
    home: Annotated[
        Path | None, typer.Option(help="Use the store and settings of this home.")
    ] = None,
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Use an empty store that goes with the command.")
    ] = False,
    log_file: Annotated[
        Path | None, typer.Option(help="Write the log of its proxy here; there is none otherwise.")
    ] = None,
) -> int:
    """Run a command with a proxy of its own.

    The proxy listens on a free port as long as the command runs, and shares the store. The
    command finds it by ANTHROPIC_BASE_URL, OPENAI_BASE_URL and their kin. Hits, misses, tokens
    and money go to stderr. The exit code is the command's, 128 + n when signal n ended it.

    Example: llm-cache exec --mode replay --fail-on-miss -- pytest tests
    """
    if home is not None and isolated:
        raise UsageError("--isolated: makes a home of its own, so --home can't be given too")
    if mode is None and fail_on_miss:
        mode = "replay"
    flags: dict[str, object] = {
        "LLM_CACHE_HOME": None if home is None else home.expanduser().absolute(),
        "CACHE_MODE": mode,
        "CACHE_NAMESPACE": namespace,
        "CACHE_SAMPLE": samples,
        "CACHE_SCOPE": scope,
        "CACHE_LOG_FILE": "none" if log_file is None else log_file.expanduser().absolute(),
        "CACHE_OFF": "0",
    }
    settings = load_settings(flags)
    note_misspelt(flags)
    if log_file is not None:
        _require_writable(log_file.expanduser())
    overrides = {name: str(value) for name, value in flags.items() if value is not None}
    try:
        with _signals_passed_on() as signals, _home(settings, isolated) as folder:
            overrides["LLM_CACHE_HOME"] = str(folder)
            code, calls = _run(command, settings, overrides, signals)
    except _Interrupted as interrupted:
        return 128 + interrupted.number
    _sum_up(calls)
    if fail_on_miss or settings.mode == "replay":
        for key, missed in calls.missed.items():
            often = f"  {missed.times} times" if missed.times > 1 else ""
            what = printable(f"{missed.what}  {missed.model or '-'}")
            note(f"missed {key or '(no key)'}  {what}{often}")
        if not isolated:
            _tell_other_credentials(calls, settings)
    if fail_on_miss and calls.missed:
        count = len(calls.missed)
        raise LlmCacheError(
            f"{count} request{'s were' if count > 1 else ' was'} not in the cache; "
            f"the command ended with code {code}"
        )
    return code


def _require_writable(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    except OSError as error:
        raise UsageError(f"--log-file {path}: can't be written: {error.strerror}") from None


def _run(
    command: list[str], settings: Settings, overrides: Mapping[str, str], signals: _Signals
) -> tuple[int, Calls]:
    """The command's exit code, and what the proxy did for it."""
    from llm_cache.host import proxy_beside

    folder = Path(overrides["LLM_CACHE_HOME"])
    with proxy_beside({**os.environ, **overrides}, folder) as proxy:
        address = proxy.address()
        environment = command_environment(settings, address, os.environ)
        code = signals.run(led_by_arguments(command, environment), environment)
    return code, proxy.calls


def command_environment(
    settings: Settings, address: str, environ: Mapping[str, str]
) -> dict[str, str]:
    """`environ` as the command gets it: official clients find the proxy at `address`, also where
    an HTTP proxy is set, and have a key to start with where theirs isn't looked at."""
    from llm_cache.wire.registry import PROVIDERS

    found = dict(environ)
    keyless = settings.mode == "replay" and settings.scope == "shared"
    for provider in PROVIDERS:
        client = provider.clients
        upstream = settings.upstream or settings.upstreams.get(provider.name)
        if not (provider.base_url or upstream):
            continue  # it isn't led to a proxy that knows no way on
        for name, path in client.urls:
            if upstream is None and _leads_elsewhere(environ.get(name, ""), settings):
                host = urlsplit(environ[name]).hostname
                note(
                    f"{name} led to {printable(str(host))}; the proxy asks {provider.base_url} "
                    f"unless {provider.upstream_setting} is set"
                )
            found[name] = address + path
        own = provider.name in settings.real_keys
        if own and settings.auth_token:
            found |= dict.fromkeys(client.keys[:1], settings.auth_token)
        elif (own or keyless) and not any(environ.get(name) for name in client.keys):
            # The client refuses to start without a key, and nobody looks at this one.
            found |= dict.fromkeys(client.keys[:1], "llm-cache")
    if any(name.lower().endswith("_proxy") for name in environ):
        for name in ("NO_PROXY", "no_proxy"):
            found[name] = ",".join(filter(None, (environ.get(name), "localhost,127.0.0.1,::1")))
    return found


def led_by_arguments(command: list[str], environ: Mapping[str, str]) -> list[str]:
    """`command` with what leads it to the proxy, where the environment doesn't: Codex reads no
    base URL there, only providers of its configuration, which `-c` adds to."""
    key = "OPENAI_API_KEY"
    named = any("model_provider" in word for word in command)
    if Path(command[0]).name != "codex" or named or "OPENAI_BASE_URL" not in environ:
        return command
    if not environ.get(key):
        note(f"llm-cache: codex is not led to the proxy: it has no {key}, only a login of its own")
        return command
    fields = {
        "name": "llm-cache",
        "base_url": environ["OPENAI_BASE_URL"],
        "env_key": key,
        "wire_api": "responses",
    }
    pairs = ["model_provider=llm-cache"]
    pairs += [f"model_providers.llm-cache.{name}={json.dumps(fields[name])}" for name in fields]
    return [command[0], *(word for pair in pairs for word in ("-c", pair)), *command[1:]]


def _leads_elsewhere(url: str, settings: Settings) -> bool:
    """True when a base URL that is set already is another one than the proxy of the home."""
    if not url:
        return False
    with suppress(ValueError):
        parts = urlsplit(url)
        return not (is_loopback(parts.hostname or "") and parts.port == settings.port)
    return True


@contextmanager
def _home(settings: Settings, isolated: bool) -> Iterator[Path]:
    """The home for the proxy: the settings', or one that has everything of it but the store."""
    if not isolated:
        settings.make_home()
        yield settings.home
        return
    with tempfile.TemporaryDirectory(prefix="llm-cache-exec-") as name:
        folder = Path(name)
        for path in settings.home.iterdir() if settings.home.is_dir() else ():
            if path.name not in _NOT_SHARED:
                (folder / path.name).symlink_to(path)
        yield folder


class _Interrupted(BaseException):
    """A signal came while no command ran."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Signals:
    """Where a signal goes: to the command while it runs, else it ends us."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._starting = False
        self._waiting: list[int] = []

    def run(self, command: list[str], environ: Mapping[str, str]) -> int:
        """Run the command to its end; its exit code as a shell has it. Raises LlmCacheError when
        it can't be started (exit code 127 or 126, as a shell's)."""
        self._starting = True
        try:
            self._child = subprocess.Popen(command, env=dict(environ))
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            failed = LlmCacheError(f"{command[0]}: {error.strerror or 'cannot be run'}")
            failed.exit_code = 127 if missing else 126
            raise failed from None
        finally:
            self._starting = False
            waiting, self._waiting = self._waiting, []
            for number in waiting:
                self.take(number, None)
        try:
            code = self._child.wait()
        finally:
            self._child = None
        return 128 - code if code < 0 else code

    def take(self, number: int, _frame: FrameType | None) -> None:
        """What is done with a signal."""
        if self._starting:
            self._waiting.append(number)
        elif self._child is None:
            raise _Interrupted(number)
        elif not (number in _FROM_KEYS and _in_foreground()):
            self._child.send_signal(number)


@contextmanager
def _signals_passed_on() -> Iterator[_Signals]:
    signals = _Signals()
    before = {number: signal.getsignal(number) for number in _FORWARDED}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # nohup's command ignores it as well
            signal.signal(number, signals.take)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """True when the keys of a terminal reach us, and so the command, which is in our group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _sum_up(calls: Calls) -> None:
    if not calls.total:
        note(
            "llm-cache: no request reached the proxy; does the command read ANTHROPIC_BASE_URL, "
            "OPENAI_BASE_URL or their kin?"
        )
        return
    figures = [_counted(calls.hits, "hit", "hits"), _counted(calls.misses, "miss", "misses")]
    for count, one, many in (
        (calls.errors, "error", "errors"),
        (calls.bypassed, "bypassed", "bypassed"),
        (calls.passed, "passed through", "passed through"),
    ):
        figures += [_counted(count, one, many)] if count else []
    unpriced = f" ({calls.unpriced} of unknown price)" if calls.unpriced else ""
    note(
        f"llm-cache: {', '.join(figures)}; saved {calls.tokens_saved:,} tokens, "
        f"{dollars(calls.usd_saved)}; spent {calls.tokens_spent:,} tokens, "
        f"{dollars(calls.usd_spent)}{unpriced}"
    )


def _tell_other_credentials(calls: Calls, settings: Settings) -> None:
    """Say of missed requests that are in the cache for another key, and what to do."""
    found: dict[Credential, int] = {}
    with suppress(StoreError), opened_store(settings) as store:
        found = calls.missed_by_credential(store) if store is not None and calls.missed else {}
    if not found:
        return
    count = sum(found.values())
    which = "1 of the missed is" if count == 1 else f"{count} of the missed are"
    if set(found) != {"client"}:
        advice = "give --scope shared (CACHE_SCOPE=shared), which leaves the client's key out"
    elif settings.scope == "shared":
        advice = "record them with --scope shared too (CACHE_SCOPE=shared)"
    else:
        advice = "record and replay with --scope shared (CACHE_SCOPE=shared), or with the same key"
    note(
        f"llm-cache: {which} in the cache for another key: "
        f"each client's key has entries of its own; {advice}"
    )


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
