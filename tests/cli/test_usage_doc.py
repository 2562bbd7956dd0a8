"""docs/USAGE.md is what the command line says: every command and every option, each once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import Cli

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/make_usage.py"
USAGE = ROOT / "docs/USAGE.md"


def made(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )


def test_usage_is_what_the_command_line_says() -> None:
    result = made(SCRIPT, "--check")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_drift_is_seen(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs").mkdir()
    script = Path(shutil.copy(SCRIPT, tmp_path / "scripts"))
    assert made(script, "--check").returncode == 1  # there is none
    assert made(script).returncode == 0
    copy = tmp_path / "docs/USAGE.md"
    assert copy.read_bytes() == USAGE.read_bytes()
    copy.write_text(copy.read_text().replace("--port", "--prot", 1))
    result = made(script, "--check")
    assert result.returncode == 1
    assert "run scripts/make_usage.py" in result.stdout


@pytest.mark.parametrize("command", ["on", "setup", "validate", "exec", "completion install"])
def test_every_option_of_the_help_is_in_it(cli: Cli, command: str) -> None:
    listed = cli.ok(*command.split(), "--help").partition("Options:")[2]
    options = re.findall(r"^ {2}(?:-\w, )?(--[a-z-]+)", listed, re.MULTILINE)
    assert "--help" in options
    section = USAGE.read_text().partition(f"\n## llm-cache {command}\n")[2].partition("\n## ")[0]
    assert "```sh\n" in section
    for option in options:
        assert option == "--help" or f"`{option}" in section
