"""What GitHub runs is what the package promises: every Python and system it names, one test
command, and publishing without a token."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"


def test_the_matrix_is_what_the_package_says_it_runs_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    text = (WORKFLOWS / "test.yml").read_text("utf-8")
    [pythons] = re.findall(r"^ +python: \[(.*)\]$", text, re.MULTILINE)
    assert re.findall(r'"(3\.\d+)"', pythons) == classified
    assert project["requires-python"] == f">={classified[0]}"
    assert "os: [ubuntu-latest, macos-latest]" in text


def test_every_script_a_workflow_runs_is_there_and_runs() -> None:
    for workflow in WORKFLOWS.glob("*.yml"):
        for script in re.findall(r"run: (scripts/\S+)", workflow.read_text("utf-8")):
            assert os.access(ROOT / script, os.X_OK), script


def test_a_release_is_checked_first_and_published_without_a_secret() -> None:
    text = (WORKFLOWS / "publish.yml").read_text("utf-8")
    build, publish = text.split("\n  publish:\n")
    assert "run: scripts/check" in build
    assert "id-token" not in build
    assert "needs: build" in publish
    assert "id-token: write" in publish
    assert "secrets." not in text
    assert "password" not in text
