"""The rooms' one-way arrows, read from the imports of every module: cli -> server -> wire, store;
the public names -> wire, store; wire and store import neither each other nor anyone above."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEAVES = {"env_file", "errors", "masking", "settings", "upstreams"}
ROOMS = ("sdk", "cli", "host", "server", "exchange", "wire", "store")

# What the modules of a room may import of llm_cache, by room or leaf. "" is `llm_cache` itself:
# its version.
ALLOWED = {
    "cli": {"", "cli", "host", "server", "exchange", "wire", "store", *LEAVES},
    "host": {"", "host", "server", "exchange", "wire", "store", *LEAVES},
    "server": {"", "server", "exchange", "wire", "store", *LEAVES},
    "exchange": {"", "exchange", "server", "wire", "store", *LEAVES},
    "wire": {"wire", "errors"},
    "store": {"store", "errors"},
    "sdk": {"", "wire", "store", *LEAVES},
}
# Modules with an arrow of their own: the leaves, and the one that starts the command line.
OWN = {
    "sdk/env_file.py": {"errors"},
    "sdk/errors.py": set[str](),
    "sdk/masking.py": set[str](),
    "sdk/settings.py": {"errors", "masking", "upstreams"},
    "sdk/upstreams.py": set[str](),
    "sdk/__main__.py": {"cli"},
}
HEAVY = (
    *("httpx", "pydantic", "genai_prices", "hypercorn", "anthropic", "rich", "uvloop", "asyncio"),
    "textual",
)


def modules() -> list[str]:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in files)


def imported(source: str, package: str) -> set[str]:
    """The rooms and leaves a module of `package` imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                above = ".".join(parts[: len(parts) - node.level + 1])
                base = f"{above}.{base}" if base else above
            names |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and str(node.value).startswith("llm_cache."):
            names.add(str(node.value))  # import_module("llm_cache.server")
    known = {"cli", "host", "server", "exchange", "wire", "store", *LEAVES}
    ours = [name.split(".") for name in names if name.split(".")[0] == "llm_cache"]
    return {parts[1] if len(parts) > 1 and parts[1] in known else "" for parts in ours}


@pytest.mark.parametrize("module", modules())
def test_imports_follow_the_arrows(module: str) -> None:
    room = module.partition("/")[0]
    package = "llm_cache" if room == "sdk" else f"llm_cache.{room}"
    found = imported((ROOT / module).read_text("utf-8"), package)
    assert found <= OWN.get(module, ALLOWED[room]), f"{module} imports {found}"


@pytest.mark.parametrize(
    ("source", "package", "found"),
    [
        ("import llm_cache.store.local.blobs", "llm_cache.wire", {"store"}),
        ("from llm_cache import server", "llm_cache.wire", {"server"}),
        ("from llm_cache import __version__", "llm_cache.cli", {""}),
        ("def f():\n    from llm_cache.cli.app import run", "llm_cache.store", {"cli"}),
        ("from ..store import Store", "llm_cache.wire", {"store"}),
        ("from . import keys", "llm_cache.wire", {"wire"}),
        ("import_module('llm_cache.server.app')", "llm_cache.wire", {"server"}),
        ("import httpx", "llm_cache.server", set[str]()),
    ],
)
def test_every_form_of_import_is_seen(source: str, package: str, found: set[str]) -> None:
    assert imported(source, package) == found


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from llm_cache.cli.app import run; code = run(['--help']); "
        "print(*sorted(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "Usage: llm-cache" in result.stdout
    loaded = {name.partition(".")[0] for name in result.stderr.split()}
    assert loaded.isdisjoint(HEAVY)
    assert "llm_cache.store" not in result.stderr.split()
