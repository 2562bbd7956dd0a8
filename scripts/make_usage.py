"""Make docs/USAGE.md from the command line itself.

python scripts/make_usage.py           writes it
python scripts/make_usage.py --check   exit code 1 when it isn't what it would be
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from llm_cache.cli.app import app

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "USAGE.md"

HEAD = """\
# Commands

<!-- Made by scripts/make_usage.py from the command line; not to be edited. -->

Exit codes: 0 success, 1 a failed check or operation, 2 wrong usage, 130 Ctrl-C; `exec` has its
command's. Results go to stdout, everything said about them to stderr. There is no colour when
stdout isn't a terminal or `NO_COLOR` is set. `--help` is understood everywhere. What the settings
in parentheses mean: [SETTINGS.md](SETTINGS.md).
"""


def document() -> str:
    """The text of docs/USAGE.md."""
    program = typer.main.get_command(app)
    found = list(commands(program, ("llm-cache",)))
    rows = [f"| [`{' '.join(path)}`](#{anchor(path)}) | {summary(one)} |" for path, one in found]
    parts = [HEAD, "\n".join(["| command | does |", "| --- | --- |", *rows]) + "\n"]
    parts += [section(path, one) for path, one in found]
    return "\n".join(parts)


def commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that is shown, in the order of the help, those of groups too."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def anchor(path: tuple[str, ...]) -> str:
    """What a heading is called in a link."""
    return "-".join(path)


def summary(command: Any) -> str:
    """The first paragraph of the help, on one line."""
    return paragraphs(command)[0].rstrip(".")


def paragraphs(command: Any) -> list[str]:
    """What the help says, but for the example."""
    text = (command.help or "").replace("\b", "")
    parts = [" ".join(part.split()) for part in text.split("\n\n")]
    return [part for part in parts if part and not part.startswith("Example: ")]


def example(command: Any) -> str:
    """The example of the help, on one line."""
    found = re.search(r"^Example: (.+?)(?:\n\n|\Z)", command.help or "", re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def section(path: tuple[str, ...], command: Any) -> str:
    """All of one command."""
    lines = [f"## {' '.join(path)}", ""]
    for paragraph in paragraphs(command):
        lines += [paragraph, ""]
    if shown := example(command):
        lines += ["```sh", shown, "```", ""]
    rows = [row(one) for one in command.params if not getattr(one, "hidden", False)]
    if rows := [one for one in rows if one]:
        lines += ["| | |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def row(parameter: Any) -> str:
    """One option or argument; "" for --help, which all have."""
    if "--help" in parameter.opts:
        return ""
    if parameter.param_type_name == "argument":
        name = f"`{parameter.name.upper()}`"
    else:
        names = [*sorted(parameter.opts, key=len, reverse=True), *parameter.secondary_opts]
        metavar = "" if parameter.is_flag else f" {parameter.metavar or word(parameter)}"
        name = ", ".join(f"`{one}{metavar}`" for one in names)
    default = parameter.default
    text = (parameter.help or "").rstrip(".")
    if isinstance(default, str) and default:
        text += f" (default: `{default}`)"
    cells = [cell.replace("|", "\\|") for cell in (name, text)]
    return f"| {cells[0]} | {cells[1]} |"


def word(parameter: Any) -> str:
    """What stands for the value of an option."""
    return str(parameter.name).upper().rpartition("_")[2]


def main() -> int:
    """Write the document, or compare it; the exit code."""
    parser = argparse.ArgumentParser(description="Make docs/USAGE.md.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    text = document()
    if not check:
        DOCUMENT.write_text(text, "utf-8")
        return 0
    if DOCUMENT.exists() and DOCUMENT.read_text("utf-8") == text:
        return 0
    print(f"{DOCUMENT} isn't what the command line says: run scripts/make_usage.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
