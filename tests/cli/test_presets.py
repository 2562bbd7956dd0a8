"""`presets`: what is left out of the keys of known agents' requests, and what is on."""

from __future__ import annotations

import pytest
from support.command import Cli

from llm_cache.wire.presets.catalog import presets


@pytest.fixture
def made(cli: Cli) -> Cli:
    cli.home.mkdir(mode=0o700)
    return cli


def test_every_preset_is_shown_with_its_groups_and_what_they_may_replay(made: Cli) -> None:
    shown = made.ok("presets")
    for preset in presets():
        assert f"{preset.name} — {preset.title}, as of {preset.dated}" in shown
        for group, replayed in preset.groups.items():
            assert f"{preset.name}:{group} — off; may replay {replayed}" in shown
        for rule in (*preset.texts, *preset.fields):
            assert rule.name in shown


def test_one_preset_is_shown_rule_by_rule(made: Cli) -> None:
    shown = made.ok("presets", "codex")
    assert "Claude Code" not in shown
    for preset in presets():
        if preset.name == "codex":
            for rule in (*preset.texts, *preset.fields):
                assert f"{rule.name}: {rule.seen}" in shown
    assert "there is no preset cursor; one of claude-code" in made.fails(2, "presets", "cursor")


def test_what_normalize_json_names_is_on(made: Cli) -> None:
    (made.home / "normalize.json").write_text('{"presets": ["codex:dates", "gemini-cli"]}')
    assert "codex:dates — on" in made.ok("presets")
    told = {one["preset"]: one for one in made.json("presets")}
    on = {
        name: {group["name"] for group in one["groups"] if group["on"]}
        for name, one in told.items()
    }
    assert on == {"claude-code": set(), "codex": {"dates"}, "gemini-cli": {"dates", "folders"}}
    for one in told.values():
        for rule in one["rules"]:
            assert rule["on"] == (rule["group"] is None or rule["group"] in on[one["preset"]])
            assert rule["seen"]
            assert rule["example"]
            assert rule["paths"] or rule["pattern"]


def test_validate_says_which_presets_are_named_and_which_are_not_known(made: Cli) -> None:
    rules = made.home / "normalize.json"
    for text, words in (
        ('{"presets": ["codex:dates"]}', "presets codex:dates"),
        ('{"presets": ["cursor"]}', 'presets[0] is "cursor", allowed: claude-code, '),
    ):
        rules.write_text(text)
        report = made("validate", "--json").stdout
        assert words in report.replace('\\"', '"')
