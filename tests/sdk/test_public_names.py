"""`import llm_cache` costs nothing and gives every public name."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llm_cache


def test_every_public_name_is_there() -> None:
    for name in llm_cache.__all__:
        assert getattr(llm_cache, name) is not None
    assert set(llm_cache.__all__) <= set(dir(llm_cache))


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    assert not hasattr(llm_cache, "no_such_name")


@pytest.mark.process
def test_importing_the_package_loads_nothing_else() -> None:
    code = "import llm_cache, sys; print(*sorted(n for n in sys.modules if 'llm_cache.' in n))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["llm_cache.lazy"]
