"""install and what follows, with a real systemd --user."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import Cli, lead_to_us
from support.upstream import Upstream, unused_port, wait_until
from support.user_session import Session, user_session, why_not

from llm_cache.server.pidfile import holder

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


class Installed:
    """`llm-cache` in the session, by a python that may be anywhere."""

    def __init__(self, session: Session, home: Path, python: str = sys.executable) -> None:
        self.session = session
        self.home = home
        self.python = python
        session.environment["LLM_CACHE_HOME"] = str(home)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.session.run(self.python, "-m", "llm_cache", *arguments)

    def ok(self, *arguments: str) -> str:
        result = self(*arguments)
        assert result.returncode == 0, result.stdout + result.stderr + self.session.log.read_text()
        return result.stdout

    def show(self, *names: str) -> list[str]:
        told = self.session.run(
            *("systemctl", "--user", "show", "llm-cache.service", "--property", ",".join(names))
        )
        return sorted(told.stdout.split("\n")[:-1])

    @property
    def pid(self) -> int | None:
        return holder(self.home / "proxy.pid")


@pytest.fixture
def session(cli: Cli) -> Iterator[Session]:
    try:
        started = user_session(cli)
        one = started.__enter__()
    except OSError as error:
        pytest.skip(f"systemd --user can't be started here: {error}")
    with one.process:
        try:
            yield one
        finally:
            started.__exit__(None, None, None)


def configured(home: Path, upstream: Upstream, **settings: str) -> None:
    home.mkdir(mode=0o700, parents=True)
    settings |= {"CACHE_UPSTREAM_ANTHROPIC": upstream.url}
    settings.setdefault("CACHE_PORT", str(unused_port()))
    lines = [f"{name}={value}\n" for name, value in settings.items()]
    (home / ".env").write_text("".join(lines))
    (home / ".env").chmod(0o600)


def test_the_life_of_a_service(session: Session, cli: Cli, upstream: Upstream) -> None:
    configured(cli.home, upstream)
    one = Installed(session, cli.home)
    said = one("install")
    assert said.returncode == 0, said.stderr + session.log.read_text()
    assert "now and after every boot" in said.stdout
    assert "you are root" in said.stderr
    first = one.pid
    assert one.show("ActiveState", "MainPID", "NRestarts", "UnitFileState") == [
        *("ActiveState=active", f"MainPID={first}", "NRestarts=0", "UnitFileState=enabled")
    ]
    assert "service    systemd: active\n" in one.ok("status")

    one.ok("install")  # again: nothing changes
    assert one.pid == first
    assert "already on" in one.ok("on")
    assert "now off" in one.ok("off")

    one.ok("restart")
    second = one.pid
    assert second not in (None, first)
    assert one.show("ActiveState", "MainPID") == ["ActiveState=active", f"MainPID={second}"]
    assert "already off" in one.ok("off")  # a cache that is off stays off

    assert one.ok("stop") == "llm-cache is stopped\n"
    assert (one.pid, one.show("ActiveState")) == (None, ["ActiveState=inactive"])
    assert one.ok("stop") == "llm-cache is not running\n"
    assert one("status").returncode == 1

    assert "llm-cache is on" in one.ok("on")
    assert one.show("ActiveState", "MainPID") == ["ActiveState=active", f"MainPID={one.pid}"]

    assert "removed: " in one.ok("uninstall")
    assert one.pid is None
    assert one.show("LoadState") == ["LoadState=not-found"]
    assert not list(cli.home.parent.glob(".config/systemd/**/llm-cache*"))
    assert "not installed" in one.ok("uninstall")
    one.ok("on")  # without a service again
    assert one.show("ActiveState") == ["ActiveState=inactive"]
    one.ok("stop")


def test_a_proxy_that_dies_comes_back_and_one_that_is_stopped_does_not(
    session: Session, cli: Cli, upstream: Upstream
) -> None:
    configured(cli.home, upstream)
    one = Installed(session, cli.home)
    one.ok("install")
    first = one.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: one.pid not in (None, first), "a new proxy", 30)
    wait_until(lambda: one.show("ActiveState") == ["ActiveState=active"], "ready", 30)
    assert one.show("NRestarts") == ["NRestarts=1"]
    second = one.pid
    assert second is not None
    os.kill(second, signal.SIGTERM)  # a clean end, by whomever
    wait_until(lambda: one.show("ActiveState") == ["ActiveState=inactive"], "the end", 30)
    assert one.pid is None
    one.ok("uninstall")


def test_install_takes_over_from_a_proxy_that_runs(
    session: Session, cli: Cli, upstream: Upstream
) -> None:
    configured(cli.home, upstream)
    one = Installed(session, cli.home)
    one.ok("off")
    before = one.pid
    one.ok("install")
    assert one.pid not in (None, before)
    assert one.show("MainPID") == [f"MainPID={one.pid}"]
    assert "already off" in one.ok("off")
    one.ok("uninstall")


def test_a_start_that_fails_says_why_and_is_not_tried_again(
    session: Session, cli: Cli, upstream: Upstream
) -> None:
    configured(cli.home, upstream, CACHE_PORT="1")  # so that nobody else has it
    one = Installed(session, cli.home)
    (cli.home / "store").write_text("not a folder")
    result = one("install")
    assert result.returncode == 1
    assert "the service didn't start: " in result.stderr
    assert f"{cli.home}/store" in result.stderr
    assert "it is installed: mend this, then `llm-cache on`" in result.stderr
    assert one.show("ActiveState", "NRestarts") in (
        ["ActiveState=failed", "NRestarts=0"],
        ["ActiveState=inactive", "NRestarts=0"],
    )
    (cli.home / "store").unlink()
    assert "llm-cache is on" in one.ok("on")
    one.ok("uninstall")


def test_a_wrong_setting_is_not_tried_again(session: Session, cli: Cli, upstream: Upstream) -> None:
    configured(cli.home, upstream)
    one = Installed(session, cli.home)
    one.ok("install")
    one.ok("stop")
    with (cli.home / "normalize.json").open("w") as rules:
        rules.write('{"system_strip": ["(unclosed"]}')
    result = one("on")
    assert result.returncode == 2  # as without a service
    assert "normalize.json" in result.stderr
    session.run("systemctl", "--user", "start", "llm-cache.service")
    assert one.show("NRestarts", "Result") == ["NRestarts=0", "Result=exit-code"]
    assert one.show("ActiveState") == ["ActiveState=failed"]
    one.ok("uninstall")


def test_env_is_read_by_our_rules_not_systemds(
    session: Session, cli: Cli, upstream: Upstream
) -> None:
    """The same file is an EnvironmentFile, whose comments and quotes are others."""
    port = unused_port()
    configured(cli.home, upstream, CACHE_PORT=f"{port} # ours", CACHE_NAMESPACE="'a \\ b'")
    one = Installed(session, cli.home)
    assert f":{port} " in one.ok("install")
    one.ok("uninstall")


def test_the_sandbox_holds(session: Session, cli: Cli, upstream: Upstream) -> None:
    """What the proxy's own process may do, seen from inside its view of the files."""
    configured(cli.home, upstream)
    one = Installed(session, cli.home)
    one.ok("install")
    inside = ("nsenter", "-t", str(one.pid), "-m", "--", "sh", "-c")
    outside = cli.home.parent / "outside"
    tried = session.run(*inside, f"touch {outside} /etc/llm-cache-try; echo x > {cli.home}/inside")
    assert tried.stderr.count("Read-only file system") == 2
    assert not outside.exists()
    assert (cli.home / "inside").exists()
    told = Path(f"/proc/{one.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in told
    assert "Umask:\t0077" in told
    assert stat.S_IMODE((cli.home / "store").stat().st_mode) == 0o700
    one.ok("uninstall")


@pytest.mark.parametrize("name", ["a b 'q' %h $HOME ünï", 'back\\slash "z" [x]* $$ %%'])
def test_any_path_does(session: Session, cli: Cli, upstream: Upstream, name: str) -> None:
    """Home and environment with what systemd's quoting could stumble over."""
    root = cli.home.parent / name
    home = root / "home"
    configured(home, upstream)
    (root / "plain").mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True)
    one = Installed(session, home, str(lead_to_us(root / "venv")))
    one.ok("install")
    pid = one.pid
    assert one.show("MainPID") == [f"MainPID={pid}"]
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert command[0] == one.python.encode()
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert f"LLM_CACHE_HOME={home}".encode() in environ
    assert f"CACHE_UPSTREAM_ANTHROPIC={upstream.url}".encode() in environ  # the EnvironmentFile
    one.ok("uninstall")
    assert one.pid is None
