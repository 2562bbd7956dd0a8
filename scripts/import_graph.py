"""Who imports whom in the package, read from the source of its modules: nothing is run.

Every import counts, those inside functions and under TYPE_CHECKING too, and every module that is
named in a string (`python -m`, `import_module`). Not counted is what Python loads besides: the
packages that a module is in, whose `__init__` names things without loading them.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = "llm_cache"
ROOMS: Final = ("cli", "host", "server", "exchange", "wire", "store")
"""Folders that are packages of the same name in `llm_cache`; `sdk/` is `llm_cache` itself."""
LEAVES: Final = ("env_file", "errors", "lazy", "masking", "settings", "upstreams")
"""Modules of `sdk/` that any room may import."""


@dataclass(frozen=True, slots=True)
class Import:
    """One import: `target` is a module of ours, `name` what is taken from it, "" for itself."""

    target: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Module:
    """A module of ours by its dotted name."""

    name: str
    path: Path

    @property
    def is_package(self) -> bool:
        """True for a folder's `__init__`."""
        return self.path.name == "__init__.py"

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


def modules() -> dict[str, Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for folder in ("sdk", *ROOMS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[1:] if folder == "sdk" else parts
            name = ".".join([PACKAGE, *parts]).removesuffix(".__init__")
            found[name] = Module(name, path)
    return found


def room(name: str) -> str:
    """The room of a module by its dotted name; for one of `sdk/` its own name, "" for the package
    itself."""
    return name.removeprefix(PACKAGE).lstrip(".").partition(".")[0]


def imports(source: str, package: str, known: Collection[str]) -> set[Import]:
    """What a module of `package` imports of the `known` modules, wherever in its text."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {_resolved(alias.name, "", known) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                above = ".".join(parts[: len(parts) - node.level + 1])
                base = f"{above}.{base}" if base else above
            found |= {_resolved(base, alias.name, known) for alias in node.names}
        elif isinstance(node, ast.Constant) and str(node.value).startswith(f"{PACKAGE}."):
            found.add(_resolved(str(node.value), "", known))
    return {one for one in found if one.target in known}


def _resolved(base: str, name: str, known: Collection[str]) -> Import:
    module = f"{base}.{name}" if name else base
    return Import(module) if module in known else Import(base, name)


def all_imports() -> dict[str, set[Import]]:
    """The imports of every module, by its dotted name."""
    known = modules()
    return {
        name: imports(module.path.read_text("utf-8"), module.package, known)
        for name, module in known.items()
    }


def graph(found: Mapping[str, Collection[Import]]) -> dict[str, set[str]]:
    """The modules that each imports."""
    return {name: {one.target for one in taken} - {name} for name, taken in found.items()}


def between_rooms(found: Mapping[str, Collection[Import]]) -> set[tuple[str, str]]:
    """The arrows from room to room; what stands in `sdk/` is the room "sdk". Leaves have no arrows,
    nor have the line that starts the command and the package's version."""
    return {
        (room(name) if room(name) in ROOMS else "sdk", room(target))
        for name, targets in graph(found).items()
        for target in targets
        if room(target) in ROOMS and room(name) not in (*LEAVES, room(target), "__main__")
    }


def named(module: Module) -> list[str]:
    """What the `__all__` of a module says, in its order; nothing where it has none."""
    for node in ast.parse(module.path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []
