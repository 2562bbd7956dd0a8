"""The rooms' one-way arrows, read from the imports of every module.

cli -> host -> server -> exchange -> wire, store; the package's own classes -> exchange. wire and
store know nobody. The leaves of `sdk/` may be imported by all. No module imports itself by way of
others, and what a room's `__init__` doesn't name, no other room imports.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module

import pytest
from draw_rooms import drawing
from import_graph import (
    LEAVES,
    PACKAGE,
    ROOMS,
    ROOT,
    Import,
    Module,
    all_imports,
    graph,
    imports,
    modules,
    named,
    room,
)

MODULES = modules()
IMPORTS = all_imports()

# What the modules of a room may import, by room or leaf. "" is `llm_cache` itself: its version.
ALLOWED = {
    "cli": {"", "host", "exchange", "wire", "store", *LEAVES},
    "host": {"", "server", "exchange", "wire", "store", *LEAVES},
    "server": {"", "exchange", "wire", "store", *LEAVES},
    "exchange": {"wire", "store", *LEAVES},
    "wire": {"errors", "lazy", "masking"},
    "store": {"errors", "lazy", "masking"},
}
# The modules of `sdk/` have arrows of their own: each leaf, the one that starts the command line,
# and the package with what it shows.
OWN: dict[str, set[str]] = {
    "env_file": {"errors"},
    "errors": set(),
    "lazy": set(),
    "masking": set(),
    "settings": {"env_file", "errors", "masking", "upstreams"},
    "upstreams": set(),
    "__main__": {"cli"},
}
OWN_CLASSES = {"", "exchange", "store", *LEAVES}

# The command line is for looking: what it may have of the rooms below the host's.
CLI_MAY_HAVE = {
    "exchange": {
        "browse",  # what `explore` shows
        "Credential",  # why `exec` says that a miss is in the cache for another key
        "Label",  # what a hit is called
        "Refused",  # why a request that `key` is asked about is none
        "Router",
        "figures",  # the sums of `stats`
        "load_rules",
        "open_store",
        "read_ledger",
        "read_optional",
        "request_keys",
    },
    "store": {"Entry", "Store"},
    "wire": {
        "framing.encoding",
        "presets.catalog",
        "prices",
        "provider",
        "readable",
        "recognize",
        "registry",
    },
}

HEAVY = (
    *("httpx", "pydantic", "genai_prices", "hypercorn", "anthropic", "rich", "uvloop", "asyncio"),
    "textual",
)


def rooms_of(found: set[Import]) -> set[str]:
    return {room(one.target) for one in found}


@pytest.mark.parametrize("name", MODULES)
def test_imports_follow_the_arrows(name: str) -> None:
    own = room(name)
    allowed = {own, *ALLOWED[own]} if own in ROOMS else OWN.get(own, OWN_CLASSES)
    found = rooms_of(IMPORTS[name])
    assert found <= allowed, f"{name} imports of {sorted(found - allowed)}"


def test_the_command_line_only_looks() -> None:
    beyond = set()
    for name, found in IMPORTS.items():
        for one in found:
            if room(name) != "cli" or room(one.target) not in CLI_MAY_HAVE:
                continue
            within = one.target.split(".", 2)[2:]  # wire's facts go by module, others by name
            what = within[0] if within else one.name
            if what not in CLI_MAY_HAVE[room(one.target)]:
                beyond.add(f"{name}: {one.target} {one.name}")
    assert beyond == set()


def test_nothing_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter(graph(IMPORTS)).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("name", MODULES)
def test_other_rooms_are_entered_by_their_doors(name: str) -> None:
    farther = {
        one
        for one in IMPORTS[name]
        if room(one.target) in ROOMS and room(one.target) != room(name) and is_farther(one, MODULES)
    }
    if name == f"{PACKAGE}.__main__":  # the command line has no door: nobody else imports it
        farther -= {Import(f"{PACKAGE}.cli.app", "run")}
    assert farther == set(), f"{name} imports what the room's `__all__` doesn't name: {farther}"


def is_farther(one: Import, known: dict[str, Module]) -> bool:
    """True for an import past an `__init__` that doesn't name it, and of a private name. A module
    that a room names is a door: whatever is public in it may be imported."""
    parts = one.target.split(".")
    for index in range(2, len(parts)):
        if parts[index] not in named(known[".".join(parts[:index])]):
            return True
    if known[one.target].is_package and one.name:
        return one.name not in named(known[one.target])
    return one.name.startswith("_")


@pytest.mark.parametrize(
    ("target", "name", "farther"),
    [
        ("exchange", "Exchange", False),
        ("exchange", "Tiers", True),
        ("exchange.exchange", "Exchange", True),
        ("exchange.edits", "", False),
        ("store.local", "LocalStore", True),
        ("wire.keys", "exact_key", False),
        ("wire.keys", "_hidden", True),
        ("wire.framing.headers", "end_to_end", False),
        ("wire.framing.sse", "", True),
        ("wire.providers.openai", "OpenAI", True),
    ],
)
def test_what_is_farther_than_needed(target: str, name: str, farther: bool) -> None:
    assert is_farther(Import(f"{PACKAGE}.{target}", name), MODULES) is farther


def shown(module: Module) -> tuple[dict[str, str], dict[str, str]]:
    """What an `__init__` says of its names: which module each is in, for types, and as it runs."""
    for_types: dict[str, str] = {}
    for node in ast.parse(module.path.read_text("utf-8")).body:
        if not isinstance(node, ast.If) or ast.unparse(node.test) != "TYPE_CHECKING":
            continue
        for one in node.body:
            assert isinstance(one, ast.ImportFrom)
            owner = str(one.module).removeprefix(module.name).lstrip(".")
            for_types |= {alias.name: owner or alias.name for alias in one.names}
        [assignment] = node.orelse
        assert isinstance(assignment, ast.Assign)
        assert isinstance(assignment.value, ast.Call)
        return for_types, ast.literal_eval(assignment.value.args[1])
    raise AssertionError(f"{module.path} shows nothing")


LAZY = [PACKAGE, *(f"{PACKAGE}.{name}" for name in ("exchange", "host", "server", "store"))]


@pytest.mark.parametrize("name", LAZY)
def test_a_room_says_the_same_to_readers_to_types_and_as_it_runs(name: str) -> None:
    for_types, as_it_runs = shown(MODULES[name])
    assert for_types == as_it_runs
    assert sorted(as_it_runs) == sorted(set(named(MODULES[name])) - {"__version__"})


@pytest.mark.parametrize("name", [*LAZY, f"{PACKAGE}.wire", f"{PACKAGE}.wire.framing"])
def test_every_door_opens(name: str) -> None:
    for door in named(MODULES[name]):
        if f"{name}.{door}" in MODULES:
            import_module(f"{name}.{door}")
        assert hasattr(import_module(name), door), door


@pytest.mark.parametrize(
    ("source", "package", "found"),
    [
        ("import llm_cache.store.local.blobs", "wire", Import("llm_cache.store.local.blobs")),
        ("from llm_cache import server", "wire", Import("llm_cache.server")),
        ("from llm_cache import __version__", "cli", Import("llm_cache", "__version__")),
        (
            "def f():\n    from llm_cache.cli.app import run",
            "store",
            Import("llm_cache.cli.app", "run"),
        ),
        (
            "if TYPE_CHECKING:\n    from ..store import Store",
            "wire",
            Import("llm_cache.store", "Store"),
        ),
        ("from . import keys", "wire", Import("llm_cache.wire.keys")),
        ("from .keys import exact_key", "wire", Import("llm_cache.wire.keys", "exact_key")),
        ("import_module('llm_cache.server.app')", "wire", Import("llm_cache.server.app")),
    ],
)
def test_every_form_of_import_is_seen(source: str, package: str, found: Import) -> None:
    assert imports(source, f"{PACKAGE}.{package}", MODULES) == {found}


def test_other_packages_are_none_of_ours() -> None:
    source = "import httpx\nfrom llm_cache_of_others import store"
    assert imports(source, f"{PACKAGE}.server", MODULES) == set()


@pytest.mark.process
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


def test_the_page_draws_the_rooms_as_they_are() -> None:
    page = (ROOT / "docs/ARCHITECTURE.md").read_text("utf-8")
    assert drawing() in page, "put there what `python scripts/draw_rooms.py` prints"
