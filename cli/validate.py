"""`validate`: is everything in order, and if not, what to do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from llm_cache.cli.output import colourful, printable, say, say_json

if TYPE_CHECKING:
    from llm_cache.host import Finding

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]

_MARKS = {"ok": ("✓", "+", "green"), "warning": ("!", "!", "yellow"), "error": ("✗", "x", "red")}
"""The mark, the same where a terminal has no such letter, and its colour."""


def validate(json: Json = False) -> int:
    """Check every setting and file, and the proxy if it is up.

    Changes nothing, asks nothing, and needs no terminal. Exit code 0: nothing is wrong (there may
    be warnings), 1: something is.

    Example: llm-cache validate
    """
    from llm_cache.host import check_everything

    findings = []
    section = ""
    if not json:
        say("== llm-cache validate ==")
    for finding in check_everything():
        findings.append(finding)
        if json:
            continue
        if finding.section != section:
            section = finding.section
            say(f"\n{section}:")
        say(f"  {_line(finding)}")
    errors = sum(finding.level == "error" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if json:
        say_json(
            {
                "ok": not errors,
                "errors": errors,
                "warnings": warnings,
                "checks": [_as_json(finding) for finding in findings],
            }
        )
    else:
        say(f"\nResult: {_result(errors, warnings)}")
    return 1 if errors else 0


def _line(finding: Finding) -> str:
    name = f"{finding.name}={finding.value}" if finding.value else finding.name
    parts = [f"{_mark(finding.level)} {printable(name)}"]
    if finding.text:
        parts.append(f" — {printable(finding.text)}")
    if finding.fix:
        parts.append(f" → {printable(finding.fix)}")
    return "".join(parts)


def _mark(level: str) -> str:
    mark, plain, colour = _MARKS[level]
    try:
        mark.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        mark = plain
    return typer.style(mark, fg=colour) if colourful() else mark


def _as_json(finding: Finding) -> dict[str, str | None]:
    return {
        "section": finding.section.lower(),
        "name": finding.name,
        "value": finding.value or None,
        "status": finding.level,
        "message": finding.text,
        "fix": finding.fix or None,
    }


def _result(errors: int, warnings: int) -> str:
    if not errors and not warnings:
        return f"all checks passed {_mark('ok')}"
    counts = [
        f"{count} {what}{'' if count == 1 else 's'}"
        for count, what in ((errors, "error"), (warnings, "warning"))
        if count
    ]
    return f"{', '.join(counts)} {_mark('error' if errors else 'warning')}"
