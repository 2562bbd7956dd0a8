"""One line of what `validate` reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was looked at, how it is and why, and how to mend it."""

    section: str
    name: str
    level: Level
    text: str = ""
    fix: str = ""
    value: str = ""
