"""What a package shows of its modules, loaded when it is first used.

A room names in its `__init__` what others may use, and importing the room costs nothing yet.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy(
    package: str, owners: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` (PEP 562) of `package`, whose names are in the modules that
    `owners` says, each given relative to the package. A name that is its owner's own is the module
    itself."""

    def get(name: str) -> object:
        if name not in owners:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        owner = owners[name]
        module = import_module(f"{package}.{owner}")
        value: object = module if name == owner else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *owners})

    return get, names
