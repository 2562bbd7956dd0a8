"""`llm-cache` as a user runs it: a process with a home and an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_cache.host import process
from support.child import child
from support.proxy import clean_environment


@dataclass(slots=True)
class Cli:
    """`llm-cache` with a home of its own. `settings` are environment variables."""

    home: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(self.home, self.settings)

    def __call__(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            self.command(*arguments),
            env={**self.environment, **settings},
            cwd=self.home.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ok(self, *arguments: str, **settings: str) -> str:
        """Run one command, which must succeed; its stdout."""
        result = self(*arguments, **settings)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result.stdout

    def fails(self, code: int, *arguments: str, **settings: str) -> str:
        """Run one command, which must fail with `code` and one line on stderr; that line."""
        result = self(*arguments, **settings)
        assert result.returncode == code, result.stdout + result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("llm-cache: ")]
        assert len(lines) == 1, result.stderr
        assert "Traceback" not in result.stderr
        return lines[0]

    def json(self, *arguments: str, **settings: str) -> Any:
        """Run one command, which must print JSON, whatever its exit code."""
        return json.loads(self(*arguments, "--json", **settings).stdout)

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """One command with pipes, which has ended when the block is left."""
        with child(
            self.command(*arguments),
            env=self.environment,
            cwd=self.home.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            yield process

    @staticmethod
    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "llm_cache", *arguments]

    def pid(self) -> int | None:
        """The pid of this home's running proxy."""
        return process.holder(self.home / "proxy.pid")


def lead_to_us(place: Path) -> Path:
    """Let a venv find llm_cache and what it needs where these tests have them; its python."""
    [packages] = place.glob("lib/python3*/site-packages")
    folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    lines = [f"import site; site.addsitedir({folder!r})" for folder in folders]
    (packages / "around.pth").write_text("\n".join(lines) + "\n")
    return place / "bin/python"
