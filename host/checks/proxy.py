"""The checks of what runs: the service, the port, and the proxy's answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from llm_cache import __version__
from llm_cache.errors import LlmCacheError
from llm_cache.host import process
from llm_cache.host.checks.finding import Finding, Level
from llm_cache.settings import Settings, configured_upstreams

FOREIGN_HOST = "rebound.example"
"""A name no proxy is known by: the page that uses it has nothing to ask here."""

_FIGURES = ("calls", "hits", "misses", "errors", "hit_rate_pct", "session", "cache")
_METRICS = ("llm_cache_calls_total", "llm_cache_hits_total", "llm_cache_hit_ratio")


def service(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The boot service: whether it is what `install` would make now, and how it does."""
    from llm_cache.host import service as services

    try:
        manager = services.installed(settings)
        if manager is None:
            yield _service("ok", "not installed: `llm-cache install` starts the proxy at boot")
            return
        text = manager.written()
        plans = (services.plan_for(settings, sandbox=sandbox) for sandbox in (True, False))
        if text in [manager.unit(plan) for plan in plans]:
            yield _service("ok", f"{manager.path} is in step with the settings")
        else:
            why = f"{manager.path} isn't what `llm-cache install` would write now"
            yield _service("warning", f"{why}: other program, home or log", "llm-cache install")
        if names := services.only_here(settings, environ):
            text = f"doesn't see what only this shell has: {', '.join(names)}"
            yield _service("warning", text, f"put them into {settings.env_file}")
        state = manager.state()
        if not state.enabled:
            yield _service("warning", "doesn't start at boot", "llm-cache install")
        if state.activity == "failed":
            yield _service("error", f"{manager.name} says it failed", "llm-cache restart")
    except LlmCacheError as error:
        yield _service("warning", str(error), "llm-cache install")


def _service(level: Level, text: str, fix: str = "") -> Finding:
    return Finding("Service", "boot service", level, text, fix)


def runtime(settings: Settings, wrong: Collection[str]) -> Iterator[Finding]:
    """The port, and the proxy if it is up. `wrong`: settings that can't be trusted."""
    try:
        running = process.find(settings)
    except LlmCacheError as error:
        yield _found("proxy", "error", str(error), "try again in a moment")
        return
    if running is None:
        yield _found("proxy", "ok", "not running: `llm-cache on` starts it")
        if not {"CACHE_PORT", "CACHE_HOST"} & set(wrong):
            yield _port(settings)
    elif running.address is None:
        text = f"runs (pid {running.pid}) but doesn't answer"
        yield _found("proxy", "error", text, "llm-cache restart")
    else:
        yield from _up(settings, running, running.address, wrong)


def _found(name: str, level: Level, text: str, fix: str = "") -> Finding:
    return Finding("Runtime", name, level, text, fix)


def port_problem(settings: Settings) -> str | None:
    """Why a proxy can't listen where the settings say, or None when it can."""
    from llm_cache.server import bound_sockets

    try:
        with bound_sockets(settings):
            return None
    except LlmCacheError as error:
        return str(process.with_owner(error))
    except OSError as error:
        return str(error)


def _port(settings: Settings) -> Finding:
    name = f"port {settings.port}"
    problem = port_problem(settings)
    if problem is not None:
        return _found(name, "error", problem, f"put CACHE_PORT=… into {settings.env_file}")
    return _found(name, "ok", "free" if settings.port else "any free one is taken")


def _up(
    settings: Settings,
    running: process.Running,
    address: process.Address,
    wrong: Collection[str],
) -> Iterator[Finding]:
    if settings.port in (0, address.port) or "CACHE_PORT" in wrong:
        yield _found(f"port {address.port}", "ok", f"ours: {address.url} (pid {running.pid})")
    else:
        text = f"the proxy listens there, the settings say {settings.port}"
        yield _found(f"port {address.port}", "warning", text, "llm-cache restart")
    health = running.health or {}
    version = health.get("version")
    if health.get("status") != "ok":
        yield _found("/health", "error", "doesn't say ok", "llm-cache restart")
    elif version != __version__:
        text = f"200, by version {version}; this is {__version__}"
        yield _found("/health", "warning", text, "llm-cache restart")
    else:
        yield _found("/health", "ok", f"200 (version {version})")
    for path, check in (("/stats", _stats), ("/metrics", _metrics), ("Host check", _host)):
        try:
            yield check(settings, address)
        except LlmCacheError as error:
            yield _found(path, "error", str(error), "llm-cache restart")


def _stats(settings: Settings, address: process.Address) -> Finding:
    figures = process.ask(settings, address, "GET", "/stats")
    missing = [name for name in _FIGURES if name not in figures]
    if missing:
        text = f"200, but without {', '.join(missing)}"
        return _found("/stats", "error", text, "llm-cache restart")
    if figures.get("store_failures"):
        text = f"the store failed {figures['store_failures']} times in this run"
        return _found("/stats", "warning", text, "see `llm-cache status` and the log")
    wanted = {"mode": settings.mode, "upstreams": configured_upstreams(settings)}
    if others := [name for name in wanted if figures.get(name, wanted[name]) != wanted[name]]:
        text = f"200, but it runs with {' and '.join(others)} other than the settings say"
        return _found("/stats", "warning", text, "llm-cache restart")
    calls, hits, rate = figures["calls"], figures["hits"], figures["hit_rate_pct"]
    text = f"200 ({calls:,} calls, {hits:,} hits, {rate}% hit rate, cache {figures['cache']})"
    return _found("/stats", "ok", text)


def _metrics(settings: Settings, address: process.Address) -> Finding:
    text = b"".join(process.follow(settings, address, "/metrics")).decode("utf-8", "replace")
    missing = [name for name in _METRICS if f"# TYPE {name}" not in text]
    if missing:
        said = f"200, but without {', '.join(missing)}"
        return _found("/metrics", "error", said, "llm-cache restart")
    return _found("/metrics", "ok", "200 (Prometheus text, the expected metrics are there)")


def _host(settings: Settings, address: process.Address) -> Finding:
    status = process.status_under(settings, address, FOREIGN_HOST, "/health")
    if status == 403:
        return _found("Host check", "ok", "a foreign Host gets 403")
    text = f"a foreign Host gets {status} instead of 403: a web page could spend your key"
    return _found("Host check", "error", text, "llm-cache restart")
