"""The documents say what is true: commands, flags, settings and links in them exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
from support.anthropic_wire import message
from support.proxy import clean_environment
from support.replies import json_reply
from support.upstream import Upstream, unused_port

from llm_cache.settings import SETTING_NAMES, is_setting
from llm_cache.wire.registry import PROVIDERS

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SETTING = re.compile(r"\b(?:CACHE|LLM_CACHE)_[A-Z_]+[A-Z]\b|\b[A-Z]+_API_KEY_REAL\b")
_LINK = re.compile(r"\[[^\]]+\]\(([^)#:]+)\)")


_SHELL_BLOCK = re.compile(
    r"^(?P<mark><!-- not run: [^\n]+ -->\n)?```(?:sh|bash|console)\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
GENERATED = "USAGE.md"
"""Its examples are those of the commands' own help, some of which never end."""
NOT_RUN = {"README.md": 3, "INSTALL.md": 6, "TEAMS.md": 1}
"""How many shell blocks of a page can't be run by a test. Each says why, in a comment above it."""


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.name)
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def commands(text: str) -> list[list[str]]:
    """The words of every `llm-cache …` call in shell blocks."""
    found = []
    for language, block in _BLOCK.findall(text):
        if language not in ("sh", "bash", "console"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            for call in re.split(r"&&|\|\||[|;]", line.removeprefix("$ ")):
                words = shlex.split(call, comments=True)
                while words and ("=" in words[0] or words[0] in ("exec", "nohup")):
                    words = words[1:]
                if words and words[0].rpartition("/")[2] == "llm-cache":
                    found.append(words[1:])
    return found


@cache
def help_of(*command: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "llm_cache", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return run.stdout


def test_links_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), target


def test_commands_and_flags_exist(document: Path) -> None:
    known = help_of()
    for words in commands(document.read_text()):
        name = words[0] if words else ""
        if not name or name.startswith("-"):
            continue
        assert re.search(rf"^\s+{re.escape(name)}\b", known, re.MULTILINE), words
        own = words[: words.index("--")] if "--" in words else words
        place = words[: 2 if "COMMAND [ARGS]" in help_of(name) else 1]
        for flag in [word.partition("=")[0] for word in own if word.startswith("--")]:
            assert re.search(rf"{re.escape(flag)}\b", help_of(*place)), words


def test_settings_named_exist(document: Path) -> None:
    text = document.read_text()
    if document.name == "MIGRATE.md":  # what stands first in its tables is another program's
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)
    for name in set(_SETTING.findall(text)):
        assert is_setting(name), name


def test_every_setting_is_documented() -> None:
    named = set(_SETTING.findall((ROOT / "docs" / "SETTINGS.md").read_text()))
    assert not sorted(SETTING_NAMES - named)


def test_every_provider_is_documented_with_its_host_and_key() -> None:
    text = (ROOT / "docs" / "PROVIDERS.md").read_text()
    for provider in PROVIDERS:
        (row,) = re.findall(rf"^\| `{provider.name}` \| (.*_REAL` )\|$", text, re.MULTILINE)
        assert f"`{provider.key_setting}`" in row
        region = provider.name in ("vertex", "bedrock", "mantle")
        assert region or (provider.base_url or provider.upstream_setting) in row
        assert f", `{provider.name}` |" in text


def test_the_variables_of_clients_are_those_exec_sets() -> None:
    text = (ROOT / "docs" / "CLIENTS.md").read_text()
    known = {name: path for one in PROVIDERS for name, path in one.clients.urls}
    named = re.findall(r"`([A-Z_]+)=P(/[^`]*)?`", text)
    assert set(known) <= {name for name, _ in named}
    for name, path in named:
        assert path == known.get(name, path), name


def test_the_clients_named_are_those_tested() -> None:
    text = (ROOT / "docs" / "PROVIDERS.md").read_text()
    named = re.findall(r"^\| `([a-z0-9-]+)`[^|]*\| ([0-9.]+) \|", text, re.MULTILINE)
    assert len(named) >= 7
    for package, tested in named:
        assert version(package).split(".")[0] == tested.split(".")[0], package


def test_the_first_command_of_the_readme_does_the_main_job() -> None:
    first = _BLOCK.search((ROOT / "README.md").read_text())
    assert first is not None
    assert first[2].strip().endswith("llm-cache demo")
    run = subprocess.run(
        [sys.executable, "-m", "llm_cache", "demo"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "HIT" in run.stdout


BLOCKS = [
    pytest.param(found["text"], id=f"{path.name}-{number}")
    for path in DOCUMENTS
    if path.name != GENERATED
    for number, found in enumerate(_SHELL_BLOCK.finditer(path.read_text()), 1)
    if not found["mark"]
]


def test_the_blocks_that_no_test_runs_are_counted(document: Path) -> None:
    text = document.read_text()
    shell = list(_SHELL_BLOCK.finditer(text))
    assert len(shell) == sum(
        language in ("sh", "bash", "console") for language, _ in _BLOCK.findall(text)
    )
    if document.name != GENERATED:
        assert sum(bool(found["mark"]) for found in shell) == NOT_RUN.get(document.name, 0)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_other_block_of_a_page_runs_on_a_fresh_machine(
    block: str, tmp_path: Path, upstream: Upstream
) -> None:
    """In a home of its own, which holds what the page is about: llm-cache-proxy's folder, a script
    for the eval. A block that doesn't start the proxy itself finds it running. The ports are free
    ones in the place of those named."""
    upstream.default = json_reply(message())
    home = tmp_path / "user"
    theirs = home / ".llm-cache-a"
    theirs.mkdir(parents=True)
    (theirs / ".env").write_text(
        "CACHE_UPSTREAM_HOST=127.0.0.1\nCACHE_UPSTREAM_PORT=9\nCACHE_UPSTREAM_PROTO=http\n"
    )
    (theirs / "normalize.json").write_text('{"system_strip": ["[0-9]+ open files"]}')
    (home / "my_eval.py").write_text("import os; assert os.environ['ANTHROPIC_BASE_URL']\n")
    programs = tmp_path / "programs"
    programs.mkdir()
    answers = {"claude": "", "pytest": "", "pass": "echo sk-ant-api03-0123456789"}
    answers["llm-cache"] = f'exec {shlex.quote(sys.executable)} -m llm_cache "$@"'
    for name, line in answers.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    ports = {port: str(unused_port()) for port in set(re.findall(r"\b(?:4000|8\d\d\d)\b", block))}
    for port, free in ports.items():
        block = block.replace(port, free)
    environment = clean_environment(home / ".llm-cache") | {
        "HOME": str(home),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SHELL": "/bin/bash",
        "CACHE_PORT": ports.get("4000") or str(unused_port()),
        "CACHE_UPSTREAM_ANTHROPIC": upstream.url,
        "ANTHROPIC_API_KEY": "sk-ant-api03-0123456789",
    }
    del environment["LLM_CACHE_HOME"]

    def shell(text: str) -> None:
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert run.returncode == 0, f"{text}\n{run.stdout}\n{run.stderr}"

    try:
        if "llm-cache on" not in block and "setup" not in block:
            shell("llm-cache on")
        shell(block)
    finally:
        shell("llm-cache stop")
