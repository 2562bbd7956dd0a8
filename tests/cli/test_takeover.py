"""`setup --from`: what llm-cache-proxy left in its folder counts here, in one command."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command import Cli

from llm_cache.settings import load_settings

KEY = "sk-ant-api03-canary0123456789"


@pytest.fixture
def theirs(cli: Cli) -> Path:
    folder = cli.home.parent / ".llm-cache-a"
    folder.mkdir()
    (folder / ".env").write_text(
        f"ANTHROPIC_API_KEY_REAL={KEY}\nCACHE_TTL_SEC=60\nCACHE_UPSTREAM_HOST=gateway.example\n"
        "CACHE_UPSTREAM_PORT=8443\nCACHE_UPSTREAM_PROTO=https\nCACHE_LOG_FILE=proxy.log\n"
        "CACHE_MAX_ENTRIES=many\nCACHE_DRIVER=sqlite\nNOT_OURS=1\nwhat is this\n"
    )
    (folder / "normalize.json").write_text('{"system_strip": ["[0-9]+ open files"]}')
    (folder / "prices.json").write_text('{"haiku": [8e-7, 4e-6]}')
    return folder


def test_a_folder_is_taken_over_in_one_command(cli: Cli, theirs: Path) -> None:
    del cli.settings["CACHE_UPSTREAM_ANTHROPIC"]
    result = cli("setup", "--from", str(theirs))
    assert result.returncode == 0, result.stderr
    assert KEY not in result.stdout + result.stderr
    settings = load_settings({}, environ={"LLM_CACHE_HOME": str(cli.home)})
    assert settings.real_keys == {"anthropic": KEY}
    assert settings.upstreams == {"anthropic": "https://gateway.example:8443"}
    assert (settings.ttl_sec, settings.log_file) == (60, cli.home / "proxy.log")
    for name in ("normalize.json", "prices.json"):
        assert (cli.home / name).read_bytes() == (theirs / name).read_bytes()
        assert (cli.home / name).stat().st_mode & 0o777 == 0o600
    assert (cli.home / ".env").stat().st_mode & 0o777 == 0o600
    assert "CACHE_MAX_ENTRIES of" in result.stderr
    assert "CACHE_DRIVER of" in result.stderr
    cli.ok("on")
    assert cli.json("status")["upstreams"] == {"anthropic": "https://gateway.example:8443"}


def test_what_is_here_already_stays(cli: Cli, theirs: Path) -> None:
    cli.home.mkdir(mode=0o700)
    (cli.home / ".env").write_text("CACHE_TTL_SEC=120\n")
    (cli.home / "normalize.json").write_text("{}")
    result = cli("setup", "--from", str(theirs))
    assert result.returncode == 0, result.stderr
    assert "CACHE_TTL_SEC=120\n" in (cli.home / ".env").read_text()
    assert (cli.home / "normalize.json").read_text() == "{}"
    assert "CACHE_TTL_SEC of" in result.stderr
    assert f"{cli.home}/normalize.json is there, and stays" in result.stderr


def test_a_file_that_would_keep_the_proxy_from_starting_leaves_all_as_it_was(
    cli: Cli, theirs: Path
) -> None:
    (theirs / "normalize.json").write_text('{"system_strip": ["("]}')
    told = cli.fails(2, "setup", "--from", str(theirs))
    assert f"nothing was taken over: {theirs}/normalize.json" in told
    assert not cli.home.exists()


def test_anthropics_own_host_is_no_upstream_of_its_own(cli: Cli, theirs: Path) -> None:
    (theirs / ".env").write_text("CACHE_UPSTREAM_HOST=api.anthropic.com\n")
    cli.ok("setup", "--from", str(theirs))
    assert "CACHE_UPSTREAM" not in (cli.home / ".env").read_text()


def test_a_folder_with_nothing_of_it_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    assert "--from" in cli.fails(2, "setup", "--from", str(tmp_path / "none"))
    assert not cli.home.exists()
