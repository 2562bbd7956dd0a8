"""Starting, stopping and asking after the proxy: on, off, restart, stop, run, status."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from llm_cache.cli.clients import client_lines
from llm_cache.cli.output import duration, note, printable, say, say_json
from llm_cache.cli.settings_now import settings_beside_it
from llm_cache.cli.setup import can_ask, first_run
from llm_cache.errors import LlmCacheError, UsageError
from llm_cache.host import Manager, process, service, tell_manager
from llm_cache.masking import without_keys
from llm_cache.settings import Settings, home_folder, load_settings, review_settings

Port = Annotated[
    str | None, typer.Option(metavar="NUMBER", help="Listen on this port (CACHE_PORT).")
]
Host = Annotated[str | None, typer.Option(help="Listen on this address (CACHE_HOST).")]
Upstream = Annotated[
    str | None, typer.Option(help="Send everything to this base URL (CACHE_UPSTREAM).")
]
Mode = Annotated[
    str | None, typer.Option(help="cache, fresh, bypass or replay, by default (CACHE_MODE).")
]
Scope = Annotated[str | None, typer.Option(help="credential or shared (CACHE_SCOPE).")]
LogLevel = Annotated[
    str | None, typer.Option(help="silent, error, info or debug (CACHE_LOG_LEVEL).")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="The same as --log-level debug.", show_default=False)
]
Save = Annotated[
    bool, typer.Option("--save", help="Write the flags into .env as well, for every later start.")
]
_ERROR_LINE = re.compile(r"llm-cache: |\S+ ERR(OR)? |\S+ [A-Z-]+ +\S+  [45][0-9][0-9]  ")
"""A line of the log that tells of an error: at a start, of the proxy, of a call."""

_MEANING = {
    "fresh": ": asks upstream each time, and stores",
    "bypass": ": doesn't touch the cache",
    "replay": ": never asks upstream, a miss is a 504",
}
"""What a mode does to requests that name none; `cache` needs no word."""

_PLACE = ("CACHE_PORT", "CACHE_HOST", "CACHE_UPSTREAM")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


def on(
    port: Port = None,
    host: Host = None,
    upstream: Upstream = None,
    mode: Mode = None,
    scope: Scope = None,
    log_level: LogLevel = None,
    verbose: Verbose = False,
    save: Save = False,
) -> None:
    """Start the proxy in the background, or switch caching on.

    Example: llm-cache on --port 4100 --save
    """
    _switch("on", _flags(port, host, upstream, mode, scope, log_level, verbose), save=save)


def off(
    port: Port = None,
    host: Host = None,
    upstream: Upstream = None,
    mode: Mode = None,
    scope: Scope = None,
    log_level: LogLevel = None,
    verbose: Verbose = False,
) -> None:
    """Forward everything and store nothing, until `on`.

    Starts the proxy if it is down.

    Example: llm-cache off
    """
    _switch("off", _flags(port, host, upstream, mode, scope, log_level, verbose))


def restart(
    port: Port = None,
    host: Host = None,
    upstream: Upstream = None,
    mode: Mode = None,
    scope: Scope = None,
    log_level: LogLevel = None,
    verbose: Verbose = False,
    save: Save = False,
) -> None:
    """Stop and start, with what the running proxy was started with.

    Its flags, and the environment of then, stay; a flag given here changes one, and .env is read
    anew. A cache that is on stays on, one that is off stays off.

    Example: llm-cache restart --port 4100
    """
    from llm_cache.host import foreground, record

    flags = _flags(port, host, upstream, mode, scope, log_level, verbose)
    plan = record.for_restart(flags)  # what is wrong is told before anything is stopped
    settings = plan.settings
    foreground.check_files(settings)
    if not save:
        _no_flags_for_a_service(settings, plan.flags)
    running = process.find(settings)
    cache = running.cache if running is not None else ""
    if running is not None:
        _stop(settings)
    _switch(
        cache or ("off" if settings.off else "on"),
        dict(plan.flags),
        environ=plan.environ,
        save=save,
    )


def stop() -> None:
    """Stop the proxy.

    Answers in flight finish first, within 30 seconds.

    Example: llm-cache stop
    """
    settings = settings_beside_it()
    _stop(settings)


def run(
    port: Port = None,
    host: Host = None,
    upstream: Upstream = None,
    mode: Mode = None,
    scope: Scope = None,
    log_level: LogLevel = None,
    verbose: Verbose = False,
    as_service: Annotated[bool, typer.Option("--service", hidden=True)] = False,
) -> int:
    """Run the proxy in the foreground, for a service manager.

    Example: llm-cache run --port 4100
    """
    from llm_cache.host import starting

    handed = starting.handed()
    environ = service.own_environment(os.environ) if as_service else None
    try:
        given = _flags(port, host, upstream, mode, scope, log_level, verbose)
        flags = {**handed.flags, **given}
        review = review_settings(flags, environ=environ)
        if review.problems:
            raise review.error()
        note_misspelt(flags, environ)
        review.settings.make_home()
        from llm_cache.host import foreground

        return foreground.run(review)
    except LlmCacheError as error:
        handed.tell(error)
        tell_manager(f"STATUS={without_keys(' '.join(str(error).split()))}")
        if as_service:
            starting.keep_failure(home_folder(environ), error)
        raise


def status(json: Json = False) -> int:
    """Tell whether the proxy is up, and how it does.

    Exit code 0: up, 1: down.

    Example: llm-cache status --json
    """
    settings = settings_beside_it()
    report = _report(settings, process.find(settings))
    if json:
        say_json(report)
    else:
        _print_report(report)
    return 0 if report["up"] else 1


def _switch(
    cache: str,
    flags: dict[str, str],
    *,
    environ: Mapping[str, str] | None = None,
    save: bool = False,
) -> None:
    settings = load_settings(flags, environ=environ)
    running = process.find(settings)
    if running is None:
        note_misspelt(flags, environ)
        asked = not settings.env_file.exists() and _first_run(settings, flags)
        if asked or save:
            flags = _saved(flags, environ)
            settings = load_settings(flags, environ=environ)
        running = _start(settings, cache, flags, environ)
        url = _address(running).url
        say(f"llm-cache is {_state(cache)}: {url} (pid {running.pid})")
        if asked:
            say("\n".join(["", *client_lines(settings, url)]))
            return
    else:
        address = _address(running)
        _same_place(settings, flags, address)
        if save:
            _saved(flags, environ)
        if others := [name for name in flags if name not in _PLACE]:
            note(
                f"the running proxy keeps its settings: {', '.join(others)} isn't taken; "
                "`llm-cache restart` with the same flags changes it"
            )
        if running.cache == cache:
            say(f"llm-cache is already {_state(cache)}: {address.url} (pid {running.pid})")
        else:
            process.ask(settings, address, "POST", "/cache/mode", {"cache": cache})
            say(f"llm-cache is now {_state(cache)}: {address.url} (pid {running.pid})")
    _print_exports(settings, _address(running).url)


def _saved(flags: Mapping[str, str], environ: Mapping[str, str] | None) -> dict[str, str]:
    """Write the flags into `.env`; those that are still needed, since the environment says
    something else."""
    from llm_cache.host import configure

    now = configure.present(environ)
    if configure.write(now, flags):
        say(f"written: {now.path} (only you can read it)")
    needed = configure.overridden(now, flags)
    for name in needed:
        note(f"{name} is set in the environment as well, and that counts where it is set")
    return {name: flags[name] for name in needed}


def note_misspelt(flags: Mapping[str, object], environ: Mapping[str, str] | None = None) -> None:
    """Say which names look like settings and do nothing: a misspelt one would go unseen."""
    from llm_cache.host import misspelt

    for sentence in misspelt(review_settings(flags, environ=environ)):
        note(sentence)


def _start(
    settings: Settings,
    cache: str,
    flags: Mapping[str, str],
    environ: Mapping[str, str] | None,
) -> process.Running:
    """The proxy of this home, started with `cache` on or off; as its service, if it has one."""
    manager = service.installed(settings)
    if manager is None:
        overrides = {"CACHE_OFF": "1" if cache == "off" else "0"}
        return process.start(settings, overrides, flags=flags, environ=environ)
    _no_flags_for_a_service(settings, flags)
    if names := service.only_here(settings, os.environ):
        note(f"the service doesn't see what only this shell has: {', '.join(names)}")
    running = service.start(manager, settings)
    if running.cache != cache:
        process.ask(settings, _address(running), "POST", "/cache/mode", {"cache": cache})
    return running


def _no_flags_for_a_service(settings: Settings, flags: Mapping[str, str]) -> None:
    if flags and service.installed(settings) is not None:
        wanted = " ".join(f"{name}={value}" for name, value in flags.items())
        raise UsageError(
            f"the installed service has its settings from {settings.env_file}: put {wanted} "
            "there (--save does), or `llm-cache uninstall`"
        )


def _state(cache: str) -> str:
    return "on" if cache == "on" else "off (forwards everything, stores nothing)"


def _first_run(settings: Settings, flags: Mapping[str, str]) -> bool:
    """Ask what a first run needs, where there is somebody to ask; whether that was so."""
    if can_ask() and not settings.real_keys:
        first_run(flags)
        return True
    keys = ", ".join(f"{name.upper()}_API_KEY_REAL" for name in settings.real_keys)
    how = f"sends {keys}" if keys else "passes each client's own credentials through"
    note(f"not configured yet: the proxy {how}; settings can be put into {settings.env_file}")
    return False


def _same_place(settings: Settings, flags: Mapping[str, str], address: process.Address) -> None:
    """Refuse flags by which clients would find, or requests reach, another place than they do."""
    port = flags.get("CACHE_PORT")
    if port not in (None, "0", str(address.port)):
        raise LlmCacheError(
            f"the proxy runs already and keeps port {address.port}; "
            f"`llm-cache restart --port {port}` moves it"
        )
    if "CACHE_UPSTREAM" in flags:
        from llm_cache.host import in_words

        asks = process.ask(settings, address, "GET", "/stats").get("upstreams") or {}
        if asks.get("*") != settings.upstream:
            raise LlmCacheError(
                f"the proxy runs already and asks {in_words(asks)}; "
                f"`llm-cache restart --upstream {settings.upstream}` changes it"
            )


def _print_exports(settings: Settings, url: str) -> None:
    say()
    passed_through = []
    for provider, base_url in (("anthropic", url), ("openai", f"{url}/openai/v1")):
        name = provider.upper()
        say(f"  export {name}_BASE_URL={base_url}")
        if provider not in settings.real_keys:
            passed_through.append(f"{name}_API_KEY")
        elif settings.auth_token:
            say(f"  export {name}_API_KEY=...    # the value of CACHE_AUTH_TOKEN")
        else:
            say(f"  export {name}_API_KEY=anything    # the proxy puts the real key in its place")
    if passed_through:
        say(f"  # your own {' and '.join(passed_through)} as always: passed through")
    if passed_through and settings.auth_token:
        say("  # and with every such request the header x-cache-auth: the CACHE_AUTH_TOKEN")


def _stop(settings: Settings) -> None:
    manager = service.installed(settings)
    outcome = service.stop(manager, settings) if manager else process.stop(settings)
    if outcome == "killed":
        from llm_cache.host import record

        record.forget(settings.home)  # it couldn't do that itself
        say("llm-cache didn't stop in time and was killed")
    else:
        say(f"llm-cache is {outcome}")


def _address(running: process.Running) -> process.Address:
    if running.address is None:
        raise LlmCacheError(
            f"the proxy runs (pid {running.pid}) but doesn't answer; "
            "try again in a moment, or `llm-cache restart`"
        )
    return running.address


def _report(settings: Settings, running: process.Running | None) -> dict[str, Any]:
    manager = service.installed(settings)
    report: dict[str, Any] = {
        "up": running is not None and running.address is not None,
        "pid": running.pid if running else None,
        "address": None,
        "accepting_calls": False,
        "since": None,
        "uptime_s": None,
        "cache": None,
        "mode": None,
        "upstreams": None,
        "last_call_s": None,
        "errors": None,
        "recent_errors": _log_errors(settings),
        "service": None if manager is None else _service(manager),
    }
    if running is None or running.address is None or running.health is None:
        return report
    figures = process.ask(settings, running.address, "GET", "/stats")
    uptime = float(running.health.get("uptime_s", 0))
    since = figures.get("started") or datetime.now(UTC).timestamp() - uptime
    return report | {
        "address": running.address.url,
        "accepting_calls": running.health.get("status") == "ok",
        "since": datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds"),
        "uptime_s": uptime,
        "cache": running.cache,
        "mode": figures.get("mode"),
        "upstreams": figures.get("upstreams"),
        "last_call_s": figures.get("last_call_s"),
        "errors": figures.get("session", {}).get("errors"),
        "recent_errors": figures.get("recent_errors", []),
    }


def _service(manager: Manager) -> dict[str, Any]:
    state = manager.state()
    return {
        "manager": manager.name,
        "unit": str(manager.path),
        "state": state.activity,
        "starts_at_boot": state.enabled,
        "pid": state.pid,
    }


def _print_report(report: dict[str, Any]) -> None:
    if report["up"]:
        since = datetime.fromisoformat(report["since"]).astimezone()
        last = report["last_call_s"]
        say(f"up         {duration(report['uptime_s'])}, since {since:%Y-%m-%d %H:%M:%S}")
        say(f"pid        {report['pid']}")
        say(f"address    {report['address']}")
        say(f"calls      {'accepted' if report['accepting_calls'] else 'not accepted'}")
        off = report["cache"] == "off"
        say(f"cache      {'off (forwards everything, stores nothing)' if off else 'on'}")
        if mode := report["mode"]:
            say(f"mode       {mode}{_MEANING.get(mode, '')}")
        if report["upstreams"] is not None:
            for line in _upstream_lines(report["upstreams"]):
                say(printable(line))
        say(f"last call  {'none yet' if last is None else duration(last) + ' ago'}")
        say(f"errors     {report['errors']} in this run")
    elif report["pid"]:
        say(f"not answering, though process {report['pid']} runs; see the log")
    else:
        say("down: start it with `llm-cache on`")
    if one := report["service"]:
        how = "" if one["starts_at_boot"] else ", doesn't start at boot"
        other = ", not the one that runs" if report["up"] and one["pid"] != report["pid"] else ""
        say(f"service    {one['manager']}: {one['state']}{how}{other}")
    if report["recent_errors"]:
        say("recent errors" if report["up"] else "last errors in the log")
        for line in report["recent_errors"]:
            say(f"  {printable(line)}")


def _upstream_lines(configured: dict[str, str]) -> list[str]:
    """Who is asked, in words."""
    named = dict(sorted(configured.items()))
    others = named.pop("*", "each provider's own")
    if not named:
        return [f"upstream   {others}"]
    width = max(len("all others"), *map(len, named))
    lines = [f"{name:<{width}}  {url}" for name, url in {**named, "all others": others}.items()]
    return [f"{'' if at else 'upstreams':<10} {line}" for at, line in enumerate(lines)]


def _log_errors(settings: Settings, most: int = 5) -> list[str]:
    """The last lines of the log that tell of an error; empty when there is no log."""
    if settings.log_file is None:
        return []
    try:
        with settings.log_file.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 65536))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    told: list[str] = []
    for line in lines:
        if _ERROR_LINE.match(line):
            told.append(line)
        elif told and told[-1].startswith("llm-cache: ") and line.startswith("  "):
            told[-1] += f" {line.strip()};"  # one of several things that were wrong at once
    return [line.rstrip(";") for line in told[-most:]]


def _flags(
    port: str | None,
    host: str | None,
    upstream: str | None,
    mode: str | None,
    scope: str | None,
    log_level: str | None,
    verbose: bool,
) -> dict[str, str]:
    given = {
        "CACHE_PORT": port,
        "CACHE_HOST": host,
        "CACHE_UPSTREAM": upstream,
        "CACHE_MODE": mode,
        "CACHE_SCOPE": scope,
        "CACHE_LOG_LEVEL": log_level or ("debug" if verbose else None),
    }
    return {name: value for name, value in given.items() if value is not None}
