"""The proxy at every boot: install, uninstall."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

import typer

from llm_cache.cli.output import note, say
from llm_cache.errors import LlmCacheError, UsageError
from llm_cache.host import Manager, NoSandbox, Plan, process, service
from llm_cache.settings import Settings, load_settings

Force = Annotated[
    bool, typer.Option("--force", help="Also when it is another home's, or not by llm-cache.")
]


def install(
    print_: Annotated[
        bool, typer.Option("--print", help="Print the unit and touch nothing.")
    ] = False,
    system: Annotated[
        str | None,
        typer.Option(help="systemd or launchd; this system's own unless given, any for --print."),
    ] = None,
    force: Force = False,
    sandbox: Annotated[
        bool,
        typer.Option(
            "--sandbox/--no-sandbox",
            help="Let it write to its own folders only, where systemd can do that.",
        ),
    ] = True,
) -> None:
    """Start the proxy at every boot, by systemd or launchd.

    A systemd user unit on Linux, with lingering so that it needs no login; a launchd agent on
    macOS. Starts it now as well. Its settings are those in the home's .env. From then on, on, off,
    stop, restart and status go through the service manager.

    Example: llm-cache install --print --system systemd
    """
    settings = load_settings()
    manager = _manager(system)
    plan = service.plan_for(settings, sandbox=sandbox)
    unit = manager.unit(plan)
    if print_:
        say(unit.rstrip("\n"))
        return
    manager.check()
    _refuse_others(manager, settings, force)
    _advise(settings)
    settings.make_home()
    changed = manager.written() != unit
    cache = _clear_the_way(manager, settings, changed)
    if changed:
        manager.write(unit)
    advice = manager.enable()
    try:
        running = _start(manager, plan, settings)
    except LlmCacheError as error:
        raise LlmCacheError(f"{error}; it is installed: mend this, then `llm-cache on`") from None
    assert running.address is not None  # what `start` promises
    if cache == "off":
        process.ask(settings, running.address, "POST", "/cache/mode", {"cache": "off"})
    say(f"installed: {manager.path}")
    say(f"llm-cache runs at {running.address.url} (pid {running.pid}), now and after every boot")
    if advice:
        note(advice)


def uninstall(force: Force = False) -> None:
    """Stop the proxy and take it from the boot.

    Settings and store stay where they are.

    Example: llm-cache uninstall
    """
    settings = load_settings()
    found = [manager for manager in service.managers() if manager.written() is not None]
    if not found:
        say("llm-cache is not installed as a service")
        return
    for manager in found:
        _refuse_others(manager, settings, force)
        manager.disable()
        process.stop(settings)
        try:
            manager.path.unlink(missing_ok=True)
        except OSError as error:
            raise LlmCacheError(f"{manager.path}: can't be removed: {error.strerror}") from None
        manager.forget()
        say(f"removed: {manager.path}")
    say(f"settings and store are still in {settings.home}")


def _manager(system: str | None) -> Manager:
    known = {manager.name: manager for manager in service.managers()}
    if system is None:
        return next(iter(known.values()))
    if system not in known:
        raise UsageError(f"--system {system}: must be systemd or launchd")
    return known[system]


def _refuse_others(manager: Manager, settings: Settings, force: bool) -> None:
    """Keep off a unit that isn't ours, or is another home's."""
    if force or manager.written() is None:
        return
    home = service.home_of(manager)
    if home is None:
        raise LlmCacheError(
            f"{manager.path} wasn't written by llm-cache; look at it, and give --force if it may go"
        )
    if home.resolve() != settings.home.resolve():
        raise LlmCacheError(
            f"the installed service is that of {home}; give --force to take it over, or set "
            f"LLM_CACHE_HOME to that"
        )


def _advise(settings: Settings) -> None:
    """What the user should know before a service runs by these settings."""
    if os.getuid() == 0:
        who = os.environ.get("SUDO_USER", "")
        better = f"as {who}, without sudo" if who and who != "root" else "as who uses it"
        note(
            f"you are root: this is a service of root's own session, with root's rights and "
            f"{settings.home}; to have it for a person, run `llm-cache install` {better}"
        )
    if place := service.passing_environment():
        note(
            f"{place} is an environment that may go away; install llm-cache by `uv tool install` "
            "or `pipx install`, and then the service"
        )
    if not settings.env_file.exists():
        note(f"there is no {settings.env_file}: the service passes clients' credentials through")
    if names := service.only_here(settings, os.environ):
        note(
            f"the service won't see what only this shell has: {', '.join(names)}; "
            f"put it into {settings.env_file}"
        )


def _clear_the_way(manager: Manager, settings: Settings, changed: bool) -> str:
    """End what the service would meet: a proxy that isn't its own, a service by an older unit.
    Returns whether the cache of the proxy was on or off, "" when there was none."""
    running = process.find(settings)
    own = running is not None and running.pid == manager.state().pid
    if changed and manager.written() is not None:
        manager.stop()
    if changed or not own:
        process.stop(settings)
    return running.cache if running is not None else ""


def _start(manager: Manager, plan: Plan, settings: Settings) -> process.Running:
    """The service's proxy, without the sandbox where the system has none for it."""
    try:
        return service.start(manager, settings)
    except NoSandbox as error:
        note(f"{error}: installed with --no-sandbox")
    manager.write(manager.unit(replace(plan, sandbox=False)))
    manager.enable()
    return service.start(manager, settings)
