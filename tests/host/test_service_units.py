"""What install writes: units that systemd and launchd understand, whatever the paths."""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.command import Cli, lead_to_us

from llm_cache.errors import LlmCacheError
from llm_cache.host.launchd import Launchd
from llm_cache.host.manager import Plan
from llm_cache.host.systemd import Systemd, command_line, file_pattern, path_word, quoted

ODD = (
    "plain",
    "with space",
    "ünïcödé 日本",
    "per%cent %h %%",
    "dollar $HOME ${PATH} $$",
    "back\\slash \\n",
    'double"quote',
    "apostrophe's",
    "star*[a-z]?",
    "a;b#c&d<e>|f",
    "-dash",
    "trailing ",
    "no\u00a0break",
)


def plan(root: Path, *, sandbox: bool = True, log_file: Path | None = None) -> Plan:
    command = (str(root / "bin/python"), "-P", "-m", "llm_cache", "run", "--service")
    return Plan(command, root / "home", root / "home/.env", log_file, sandbox)


def systemd_unit(one: Plan) -> dict[str, str]:
    lines = (line.partition("=") for line in Systemd().unit(one).splitlines() if "=" in line)
    return {name: value for name, _, value in lines}


def test_the_systemd_unit_says_what_it_must(cli: Cli) -> None:
    said = cli.ok("install", "--print", "--system", "systemd")
    for line in (
        "Type=notify",
        f"EnvironmentFile=-{cli.home}/.env",
        f'Environment="LLM_CACHE_HOME={cli.home}"',
        f'ExecStart="{sys.executable}" "-P" "-m" "llm_cache" "run" "--service"',
        "Restart=on-failure",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        "UMask=0077",
        "WantedBy=default.target",
    ):
        assert line in said.splitlines()
    without = cli.ok("install", "--print", "--system", "systemd", "--no-sandbox")
    assert "ProtectSystem" not in without
    assert "NoNewPrivileges=yes" in without


def test_the_launchd_agent_says_what_it_must(cli: Cli) -> None:
    agent = plistlib.loads(cli.ok("install", "--print", "--system", "launchd").encode())
    assert agent == {
        "Label": "local.llm-cache",
        "ProgramArguments": [sys.executable, "-P", "-m", "llm_cache", "run", "--service"],
        "EnvironmentVariables": {"LLM_CACHE_HOME": str(cli.home)},
        "LimitLoadToSessionType": ["Aqua", "Background"],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 30,
        "ExitTimeOut": 45,
        "Umask": 0o077,
        "StandardOutPath": "/dev/null",
        "StandardErrorPath": str(cli.home / "proxy.log"),
    }


def test_print_touches_nothing(cli: Cli) -> None:
    before = sorted(cli.home.parent.rglob("*"))
    for system in ("systemd", "launchd"):
        cli.ok("install", "--print", "--system", system)
    assert sorted(cli.home.parent.rglob("*")) == before
    assert not cli.home.exists()


@pytest.mark.parametrize("system", ["systemd", "launchd"])
def test_no_secret_is_in_a_unit(cli: Cli, system: str) -> None:
    cli.settings |= {"ANTHROPIC_API_KEY_REAL": "sk-ant-canary", "CACHE_AUTH_TOKEN": "canary"}
    assert "canary" not in cli.ok("install", "--print", "--system", system)


@pytest.mark.parametrize("name", ODD)
def test_a_plist_keeps_every_path(name: str) -> None:
    root = Path("/Users") / name
    text = Launchd().unit(plan(root, log_file=root / "proxy.log"))
    ElementTree.fromstring(text)
    agent = plistlib.loads(text.encode(), fmt=plistlib.FMT_XML)
    assert agent["ProgramArguments"][0] == str(root / "bin/python")
    assert agent["EnvironmentVariables"] == {"LLM_CACHE_HOME": str(root / "home")}
    assert agent["StandardErrorPath"] == str(root / "proxy.log")
    assert Launchd().home_of(text) == root / "home"


@pytest.mark.parametrize("name", ODD)
def test_a_unit_says_whose_home_it_is_for(name: str) -> None:
    root = Path("/home") / name
    assert Systemd().home_of(Systemd().unit(plan(root))) == root / "home"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("sandbox", [True, False])
def test_systemd_analyze_verifies_the_unit(tmp_path: Path, name: str, sandbox: bool) -> None:
    """Which also looks whether the program of ExecStart= is there and may be run."""
    root = tmp_path / name
    (root / "bin").mkdir(parents=True)
    (root / "bin/python").symlink_to("/bin/true")
    (tmp_path / "units").mkdir()
    unit = tmp_path / "units/llm-cache.service"
    unit.write_text(Systemd().unit(plan(root, sandbox=sandbox)))
    (tmp_path / "run").mkdir(mode=0o700)
    result = subprocess.run(
        ["systemd-analyze", "--user", "verify", unit],
        env={"PATH": os.defpath, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_analyze_would_see_a_wrong_unit(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    unit = tmp_path / "llm-cache.service"
    unit.write_text(Systemd().unit(plan(tmp_path)).replace("UMask=0077", "UMusk=0077"))
    result = subprocess.run(
        ["systemd-analyze", "--user", "verify", unit],
        env={"PATH": os.defpath, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")},
        capture_output=True,
        text=True,
    )
    assert "UMusk" in result.stderr
    assert f"{tmp_path}/bin/python is not executable" in result.stderr


def test_each_place_of_a_unit_quotes_by_its_own_rule() -> None:
    text = "/a b/%h/$x/\\y/\"z\"/'q'/[*]"
    assert quoted(text) == '"/a b/%%h/$x/\\\\y/\\"z\\"/\'q\'/[*]"'
    shell = ':"/bin/sh" "-c" "exec \\"$0\\" \\"$@\\""'
    assert command_line((text, "run")) == f'{shell} {quoted(text)} "run"'
    assert command_line(("/a $b", "run")) == ':"/a $b" "run"'
    assert command_line(("/plain", "run")) == '"/plain" "run"'
    assert file_pattern(Path(text)) == "/a b/%%h/$x/\\\\y/\"z\"/'q'/\\[\\*]"
    assert path_word(Path("/it's 100%")) == "'-/it'\"'\"'s 100%%'"


@pytest.mark.parametrize("name", ["line\nbreak", "bell\a", "not utf-8 \udcff"])
def test_a_path_that_no_unit_can_hold_is_an_error(name: str) -> None:
    for manager in (Systemd(), Launchd()):
        with pytest.raises(LlmCacheError, match="can't be written in a service's unit"):
            manager.unit(plan(Path("/home") / name))


def test_what_is_kept_in_tmp_is_not_put_out_of_sight() -> None:
    assert systemd_unit(plan(Path("/home/me")))["PrivateTmp"] == "yes"
    assert "PrivateTmp" not in systemd_unit(plan(Path("/tmp/me")))
    assert "PrivateTmp" not in systemd_unit(plan(Path("/home/me"), log_file=Path("/var/tmp/a.log")))


def test_a_log_outside_of_the_home_may_be_written() -> None:
    inside = systemd_unit(plan(Path("/home/me"), log_file=Path("/home/me/home/proxy.log")))
    assert inside["ReadWritePaths"] == "-/home/me/home -%h/.aws"
    odd = systemd_unit(plan(Path("/home/b\\s")))
    assert odd["ProtectSystem"] == "full"
    assert "ReadWritePaths" not in odd
    outside = systemd_unit(plan(Path("/home/me"), log_file=Path("/home/me/logs here/a.log")))
    assert outside["ReadWritePaths"] == "-/home/me/home '-/home/me/logs here' -%h/.aws"


def test_the_interpreter_is_that_of_the_environment_we_run_in(cli: Cli, tmp_path: Path) -> None:
    """A venv, as pipx and uv tool make them too: its own python, not the one behind it."""
    place = tmp_path / "my tools/llm-cache"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    python = lead_to_us(place)
    result = subprocess.run(
        [python, "-m", "llm_cache", "install", "--print", "--system", "systemd"],
        env=cli.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r'^ExecStart="([^"]+)"', result.stdout, re.MULTILINE)
    assert found is not None
    assert Path(found[1]).parent == place / "bin"


def test_an_unknown_system_is_wrong_usage(cli: Cli) -> None:
    assert "must be systemd or launchd" in cli.fails(2, "install", "--print", "--system", "sysv")
