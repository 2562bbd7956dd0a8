"""`presets`: what is left out of the keys of known agents' requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_cache.cli.output import printable, say, say_json
from llm_cache.errors import UsageError
from llm_cache.settings import load_settings

if TYPE_CHECKING:
    from llm_cache.wire.presets.catalog import FieldRule, Preset, TextRule

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


def presets(
    name: Annotated[str | None, typer.Argument(help="One agent's rules, one by one.")] = None,
    json: Json = False,
) -> int:
    """Show what is left out of the keys of known agents' requests.

    What can't change an answer is left out always. The rest, by `presets` in normalize.json:
    `claude-code`, or one group of it, `claude-code:dates`; what may then be replayed is said.

    Example: llm-cache presets codex
    """
    from llm_cache.exchange import load_rules
    from llm_cache.wire.presets import catalog

    found = [one for one in catalog.presets() if name in (None, one.name)]
    if not found:
        known = ", ".join(one.name for one in catalog.presets())
        raise UsageError(f"there is no preset {name}; one of {known}")
    named = load_rules(load_settings()).presets
    if json:
        say_json([_as_json(preset, catalog.groups_of(preset, named)) for preset in found])
        return 0
    for at, preset in enumerate(found):
        if at:
            say()
        _show(preset, catalog.groups_of(preset, named), in_full=name is not None)
    return 0


def _show(preset: Preset, groups: frozenset[str | None], *, in_full: bool) -> None:
    say(f"{preset.name} — {preset.title}, as of {preset.dated}")
    for group, replayed in (("", ""), *preset.groups.items()):
        on = (group or None) in groups
        rules = [rule for rule in _rules(preset) if (rule.group or "") == group]
        if group:
            say(f"  {preset.name}:{group} — {'on' if on else 'off'}; may replay {replayed}")
        else:
            say("  on always; it can't change an answer")
        if not in_full:
            say(f"    {', '.join(rule.name for rule in rules)}")
            continue
        for rule in rules:
            say(f"    {rule.name}: {rule.seen}")
            say(f"      {printable(rule.example)}")


def _as_json(preset: Preset, groups: frozenset[str | None]) -> dict[str, Any]:
    return {
        "preset": preset.name,
        "title": preset.title,
        "dated": preset.dated,
        "groups": [
            {"name": group, "on": group in groups, "may_replay": replayed}
            for group, replayed in preset.groups.items()
        ],
        "rules": [
            {
                "name": rule.name,
                "group": rule.group,
                "on": rule.group in groups,
                "seen": rule.seen,
                "example": rule.example,
                "paths": [path.text for path in getattr(rule, "paths", ())],
                "pattern": getattr(rule, "pattern", None),
            }
            for rule in _rules(preset)
        ],
    }


def _rules(preset: Preset) -> list[TextRule | FieldRule]:
    return [*preset.fields, *preset.texts]
