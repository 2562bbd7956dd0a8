"""The checks of the store: readable, writable, of a known format, sound, and within its limits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator

from llm_cache.errors import StoreError, StoreFormatError
from llm_cache.host.checks.files import nearest_folder
from llm_cache.host.checks.finding import Finding, Level
from llm_cache.settings import Settings

_STEPS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def store(settings: Settings, wrong: Collection[str]) -> Iterator[Finding]:
    """What can be said of the store without a change to it. `wrong`: settings not to be trusted."""
    folder = settings.store_dir
    used = 0
    if folder.exists():
        yield _access(settings)
        from llm_cache.store import look

        try:
            seen = look(folder)
        except StoreFormatError as error:
            fix = "use a newer llm-cache, or another LLM_CACHE_HOME"
            yield _found("format", "error", str(error), fix)
            seen = None
        except StoreError as error:
            fix = "start the proxy: it sets the file aside and begins a new one"
            yield _found("index", "error", str(error), fix)
            seen = None
        if seen is not None:
            used = seen.bytes
            yield _found("format", "ok", str(seen.format))
            searched = "index" if seen.whole else "index (a part: it is large)"
            for fault in seen.faults:
                fix = "a damaged answer is a miss, and goes at its next use"
                if fault.startswith("index: "):
                    fix = "`llm-cache restart`: the index is set aside and begun anew"
                yield _found("integrity", "error", fault, fix)
            if not seen.faults:
                yield _found("integrity", "ok", f"{searched} and {seen.blobs} answers are sound")
            yield from _size(settings, seen.entries, seen.bytes)
    else:
        yield _found("store", "ok", "not there yet: the first start makes it")
    yield from _left_over(settings)
    if "CACHE_MAX_BYTES" not in wrong:
        yield _disk(settings, used)


def size(amount: float) -> str:
    """`12.3 MiB`, in steps of 1024."""
    step = 0
    while amount >= 1024 and step < len(_STEPS) - 1:
        amount, step = amount / 1024, step + 1
    return f"{amount:.0f} {_STEPS[step]}" if step == 0 else f"{amount:.1f} {_STEPS[step]}"


def _found(name: str, level: Level, text: str, fix: str = "") -> Finding:
    return Finding("Store", name, level, text, fix)


def _access(settings: Settings) -> Finding:
    folder = settings.store_dir
    if not folder.is_dir():
        return _found(str(folder), "error", "isn't a folder", f"move {folder} out of the way")
    parts = [folder, *(folder / name for name in ("blobs", "tmp"))]
    parts += [folder / name for name in ("index.sqlite", "index.sqlite-wal", "lock")]
    for path in parts:
        wanted = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
        if path.exists() and not os.access(path, wanted):
            fix = f"make it yours: chown -R {_user()} {folder} && chmod -R u+rwX {folder}"
            return _found(str(path), "error", "can't be read and written", fix)
    return _found(str(folder), "ok", "readable and writable")


def _user() -> str:
    return f"{os.geteuid()}:{os.getegid()}"


def _size(settings: Settings, entries: int, used: int) -> Iterator[Finding]:
    for name, now, most, shown in (
        ("entries", entries, settings.max_entries, f"{entries:,}"),
        ("size", used, settings.max_bytes, size(used)),
    ):
        limit = "no limit" if not most else f"{most:,}" if name == "entries" else size(most)
        if most and now > most:
            fix = "the proxy drops the least recently used ones; raise the limit to keep them"
            yield _found(name, "warning", f"{shown} is above the limit of {limit}", fix)
        else:
            yield _found(name, "ok", f"{shown} of {limit}" if most else f"{shown} ({limit})")


def _left_over(settings: Settings) -> Iterator[Finding]:
    folder = settings.store_dir
    if (folder / "index.suspect").exists():
        fix = "`llm-cache restart`: the index is set aside and begun anew"
        yield _found("index", "warning", "was found corrupt by the proxy", fix)
    broken = sorted(folder.glob("index.sqlite.broken-*")) if folder.is_dir() else []
    if broken:
        amount = size(sum(path.stat().st_size for path in broken))
        text = f"{len(broken)} files of an index that was set aside ({amount})"
        fix = f"rm {folder}/index.sqlite.broken-*, once nobody wants to look at them"
        yield _found("index", "warning", text, fix)


def _disk(settings: Settings, used: int) -> Finding:
    free = shutil.disk_usage(nearest_folder(settings.store_dir)).free
    if free < settings.max_entry_bytes:
        text = (
            f"{size(free)} free: less than one answer may have ({size(settings.max_entry_bytes)})"
        )
        return _found("disk", "error", text, "make room, or put LLM_CACHE_HOME on another disk")
    if not settings.max_bytes or settings.max_bytes - used <= free:
        return _found("disk", "ok", f"{size(free)} free")
    text = f"{size(free)} free: the store may grow by {size(settings.max_bytes - used)}"
    fix = f"set CACHE_MAX_BYTES to at most {size((used + free) * 0.9)}, or make room"
    return _found("disk", "warning", text, fix)
