"""Why a proxy didn't start reaches who started it as fields, whatever the words are."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from support.command import Cli

from llm_cache.errors import LlmCacheError, SettingsError
from llm_cache.host import process, starting
from llm_cache.settings import load_settings


def failed(cli: Cli) -> LlmCacheError:
    settings = load_settings(environ=cli.environment)
    with pytest.raises(LlmCacheError) as raised:
        process.start(settings, {}, environ=cli.environment)
    return raised.value


def test_a_taken_port_is_told_as_such_with_its_number(cli: Cli) -> None:
    port = int(cli.settings["CACHE_PORT"])
    with socket.create_server(("127.0.0.1", port)):
        error = failed(cli)
    assert (error.kind, error.port, error.exit_code) == ("port_taken", port, 1)


def test_each_of_several_things_that_are_wrong_is_told_and_the_exit_code(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    (cli.home / "normalize.json").write_text('{"system_strip": ["("], "message_strip": ["["]}')
    error = failed(cli)
    assert (error.kind, error.exit_code, len(error.details)) == ("", 2, 2)
    assert error.heading.endswith("normalize.json: 2 things are wrong")


def test_what_a_child_is_handed_is_out_of_its_environment_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told, to_tell = os.pipe()
    os.set_inheritable(to_tell, True)
    for name, value in starting.to_hand({"CACHE_PORT": "1"}, to_tell).items():
        monkeypatch.setenv(name, value)
    handed = starting.handed()
    assert handed.flags == {"CACHE_PORT": "1"}
    assert starting.VARIABLE not in os.environ
    assert not os.get_inheritable(to_tell)
    handed.tell(SettingsError.of(["a", "b"], "two"))
    os.close(to_tell)
    heard = starting.heard(told)
    os.close(told)
    assert heard is not None
    assert (heard.exit_code, heard.heading, heard.details) == (2, "two", ("a", "b"))


@pytest.mark.parametrize("text", ["", "x", "[]", '{"failure_fd": 999}', '{"flags": 1}', "null"])
def test_a_variable_of_another_form_hands_nothing(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(starting.VARIABLE, text)
    assert starting.handed() == starting.Handed()
    assert starting.VARIABLE not in os.environ


def test_a_child_that_was_killed_leaves_its_exit_code_and_last_line(cli: Cli, home: Path) -> None:
    """Nothing was told through the pipe."""
    error = process._failure(None, b"first\nlast words\n\n", -9)
    assert str(error) == "the proxy ended with code -9 before it answered: last words"


def test_a_service_leaves_its_failure_until_the_next_good_start(cli: Cli) -> None:
    cli.home.mkdir(mode=0o700)
    file = cli.home / "start-failed.json"
    with socket.create_server(("127.0.0.1", int(cli.settings["CACHE_PORT"]))):
        assert (
            subprocess.run(
                cli.command("run", "--service"),
                env=cli.environment,
                capture_output=True,
                check=False,
            ).returncode
            == 1
        )
    told = json.loads(file.read_text())
    assert (told["kind"], told["port"]) == ("port_taken", int(cli.settings["CACHE_PORT"]))
    assert file.stat().st_mode & 0o777 == 0o600
    cli.ok("on")
    assert not file.exists()
    cli.ok("stop")
