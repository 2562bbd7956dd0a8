"""`token`: the secret that a team shares is shown when asked for, and changed in one command."""

from __future__ import annotations

from support.command import Cli


def test_a_new_token_is_shown_written_and_counts_after_a_restart(cli: Cli) -> None:
    assert "`llm-cache token new`" in cli.fails(1, "token", "show")
    cli.ok("on")
    result = cli("token", "new")
    assert result.returncode == 0, result.stderr
    token = result.stdout.strip()
    assert len(token) == 32
    assert token not in result.stderr
    assert "it counts from `llm-cache restart` on" in result.stderr
    assert (cli.home / ".env").stat().st_mode & 0o777 == 0o600
    assert cli.ok("token", "show") == f"{token}\n"
    cli.ok("restart")
    assert cli.json("stats")["session"] is not None
    second = cli.ok("token", "new").strip()
    assert second != token
    assert cli.ok("token", "show") == f"{second}\n"
    told = cli.fails(1, "stats")  # the running proxy has the old one until it is restarted
    assert "refuses this CACHE_AUTH_TOKEN" in told


def test_a_token_of_the_environment_is_not_changed_behind_its_back(cli: Cli) -> None:
    told = cli.fails(1, "token", "new", CACHE_AUTH_TOKEN="of-the-environment")
    assert "set in the environment" in told
    assert not (cli.home / ".env").exists()
