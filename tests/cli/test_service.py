"""install, uninstall and the commands that go through the service manager, against recording
stand-ins for systemctl, loginctl and launchctl."""

from __future__ import annotations

import getpass
import os
import plistlib
import signal
from pathlib import Path

import pytest
from support.command import Cli
from support.managers import Managers, plist_path, stand_ins, unit_path
from support.upstream import wait_until

UNIT = "llm-cache.service"
AGENT = f"gui/{os.getuid()}/local.llm-cache"
INSTALLED = ["systemctl --user daemon-reload", f"systemctl --user enable {UNIT}"]
LINGER = f"loginctl enable-linger {getpass.getuser()}"
START = [f"systemctl --user reset-failed {UNIT}", f"systemctl --user start {UNIT}"]


@pytest.fixture
def configured(cli: Cli) -> Cli:
    """A home whose settings are in `.env`, where a service sees them."""
    cli.home.mkdir(mode=0o700)
    lines = [f"{name}={value}\n" for name, value in cli.settings.items()]
    (cli.home / ".env").write_text("".join(lines))
    cli.settings.clear()
    return cli


@pytest.fixture
def systemd(configured: Cli) -> Managers:
    return stand_ins(configured, "systemctl", "loginctl")


@pytest.fixture
def launchd(configured: Cli) -> Managers:
    return stand_ins(configured, "launchctl")


# systemd


def test_install_enables_starts_and_lingers(configured: Cli, systemd: Managers) -> None:
    said = configured.ok("install", "--system", "systemd")
    assert systemd.calls() == [*INSTALLED, LINGER, *START]
    assert unit_path(configured).read_text() == (
        configured.ok("install", "--print", "--system", "systemd")
    )
    assert f"installed: {unit_path(configured)}" in said
    assert f"(pid {configured.pid()}), now and after every boot" in said
    assert list(unit_path(configured).parent.iterdir()) == [unit_path(configured)]  # no draft


def test_install_twice_changes_nothing(configured: Cli, systemd: Managers) -> None:
    configured.ok("install", "--system", "systemd")
    before, pid = unit_path(configured).stat(), configured.pid()
    configured.ok("install", "--system", "systemd")
    after = unit_path(configured).stat()
    assert (after.st_ino, after.st_mtime_ns, configured.pid()) == (
        before.st_ino,
        before.st_mtime_ns,
        pid,
    )


def test_a_changed_unit_restarts_the_service(configured: Cli, systemd: Managers) -> None:
    configured.ok("install", "--system", "systemd")
    pid = configured.pid()
    systemd.forget()
    configured.ok("install", "--system", "systemd", "--no-sandbox")
    assert "ProtectSystem" not in unit_path(configured).read_text()
    assert systemd.calls() == [f"systemctl --user stop {UNIT}", *INSTALLED, LINGER, *START]
    assert configured.pid() not in (None, pid)


def test_commands_go_through_the_manager(configured: Cli, systemd: Managers) -> None:
    configured.ok("install", "--system", "systemd")
    for command, calls in (
        ("stop", [f"systemctl --user stop {UNIT}"]),
        ("on", START),
        ("off", []),  # switched without a restart
        ("restart", [f"systemctl --user stop {UNIT}", *START]),
    ):
        systemd.forget()
        configured.ok(command)
        assert systemd.calls() == calls, command
    assert configured.json("status")["cache"] == "off"
    assert configured.json("status")["service"] == {
        "manager": "systemd",
        "unit": str(unit_path(configured)),
        "state": "active",
        "starts_at_boot": True,
        "pid": configured.pid(),
    }
    systemd.forget()
    configured.ok("stop")
    systemd.forget()
    assert configured.ok("stop") == "llm-cache is not running\n"
    assert systemd.calls() == [f"systemctl --user stop {UNIT}"]  # also what starts itself again


def test_off_starts_the_service_with_the_cache_off(configured: Cli, systemd: Managers) -> None:
    configured.ok("install", "--system", "systemd")
    configured.ok("stop")
    assert "llm-cache is off" in configured.ok("off")
    assert configured.json("status")["cache"] == "off"


def test_a_proxy_beside_the_service_is_told_and_stopped(configured: Cli, systemd: Managers) -> None:
    """Somebody ran `llm-cache run` while the service was stopped."""
    configured.ok("install", "--system", "systemd")
    configured.ok("stop")
    with configured.started("run") as running:
        wait_until(lambda: configured("status").returncode == 0, "up", 20)
        assert "service    systemd: inactive, not the one that runs" in configured.ok("status")
        assert configured.ok("stop") == "llm-cache is stopped\n"
        assert running.wait(20) == 0


def test_the_service_has_its_settings_from_env_alone(configured: Cli, systemd: Managers) -> None:
    result = configured("install", "--system", "systemd", CACHE_TTL_SEC="5", CACHE_AUTH_TOKEN="t0")
    assert result.returncode == 0
    assert "what only this shell has: CACHE_AUTH_TOKEN, CACHE_TTL_SEC" in result.stderr
    assert "t0" not in result.stdout + result.stderr
    configured.ok("stop")
    told = configured.fails(2, "on", "--port", "4100", "--mode", "replay")
    assert f"from {configured.home}/.env: put CACHE_PORT=4100 CACHE_MODE=replay there" in told
    result = configured("on", CACHE_TTL_SEC="5")
    assert "doesn't see what only this shell has: CACHE_TTL_SEC" in result.stderr


def test_another_home_is_not_touched_by_the_service(
    configured: Cli, systemd: Managers, tmp_path: Path
) -> None:
    configured.ok("install", "--system", "systemd")
    systemd.forget()
    other = Cli(configured.home.parent / "other", {**configured.settings, "CACHE_PORT": "0"})
    other.ok("on")
    other.ok("restart")
    assert other.json("status")["service"] is None
    other.ok("stop")
    assert systemd.calls() == []
    assert configured.pid() is not None
    told = other.fails(1, "install", "--system", "systemd")
    assert f"is that of {configured.home}; give --force" in told
    assert f"is that of {configured.home}" in other.fails(1, "uninstall")
    (other.home / ".env").write_text("CACHE_PORT=0\n")
    other.ok("install", "--system", "systemd", "--force")
    assert configured.pid() is None  # its service was taken over
    assert other.pid() is not None
    other.ok("uninstall")
    assert other.pid() is None


def test_a_unit_of_somebody_elses_stays(configured: Cli, systemd: Managers) -> None:
    unit_path(configured).parent.mkdir(parents=True)
    unit_path(configured).write_text("[Service]\nExecStart=/bin/mine\n")
    told = configured.fails(1, "install", "--system", "systemd")
    assert f"{unit_path(configured)} wasn't written by llm-cache" in told
    assert "wasn't written by llm-cache" in configured.fails(1, "uninstall")
    configured.ok("on")  # it isn't ours, so it isn't asked
    configured.ok("stop")
    assert systemd.calls() == []
    assert "/bin/mine" in unit_path(configured).read_text()
    configured.ok("install", "--system", "systemd", "--force")
    assert "llm-cache" in unit_path(configured).read_text()


def test_uninstall_leaves_settings_and_store(configured: Cli, systemd: Managers) -> None:
    configured.ok("install", "--system", "systemd")
    systemd.forget()
    said = configured.ok("uninstall")
    assert said == (
        f"removed: {unit_path(configured)}\nsettings and store are still in {configured.home}\n"
    )
    assert systemd.calls() == [
        f"systemctl --user disable --now {UNIT}",
        "systemctl --user daemon-reload",
        f"systemctl --user reset-failed {UNIT}",
    ]
    assert configured.pid() is None
    assert not unit_path(configured).exists()
    assert (configured.home / "store").is_dir()
    assert configured.ok("uninstall") == "llm-cache is not installed as a service\n"


def test_uninstall_works_when_the_session_has_gone(configured: Cli, systemd: Managers) -> None:
    configured.ok("install", "--system", "systemd")
    link = unit_path(configured).parent / f"default.target.wants/{UNIT}"
    link.parent.mkdir()
    link.symlink_to(unit_path(configured))
    for word in ("disable", "daemon-reload", "reset-failed", "show"):
        systemd.fail("systemctl", word, 1, "Failed to connect to bus: No medium found")
    configured.ok("uninstall")
    assert not link.is_symlink()
    assert not unit_path(configured).exists()
    assert configured.pid() is None


def test_stop_works_when_the_session_has_gone(configured: Cli, systemd: Managers) -> None:
    configured.ok("install", "--system", "systemd")
    systemd.fail("systemctl", "stop", 1, "Failed to connect to bus: No medium found")
    assert configured.ok("stop") == "llm-cache is stopped\n"
    assert configured.pid() is None
    assert "No medium found" in configured.fails(1, "stop")  # whether it starts again isn't known


def test_no_session_is_told_with_what_to_do(configured: Cli, systemd: Managers) -> None:
    systemd.fail("systemctl", "show", 1, "Failed to connect to bus: No medium found")
    told = configured.fails(1, "install", "--system", "systemd")
    assert "systemd has no session for " in told
    assert "No medium found" in told
    assert f"loginctl enable-linger {getpass.getuser()}" in told
    assert "`llm-cache on` works without a service" in told
    assert not unit_path(configured).exists()


def test_no_manager_is_told(configured: Cli) -> None:
    stand_ins(configured)
    assert "there is no systemctl" in configured.fails(1, "install", "--system", "systemd")
    assert "there is no launchctl" in configured.fails(1, "install", "--system", "launchd")


def test_lingering_that_is_refused_is_told_and_no_failure(
    configured: Cli, systemd: Managers
) -> None:
    systemd.fail("loginctl", "enable-linger", 1, "Could not enable linger: Access denied")
    result = configured("install", "--system", "systemd")
    assert result.returncode == 0
    assert "logs in and not at boot" in result.stderr
    assert "Access denied" in result.stderr
    assert LINGER in result.stderr


def test_a_start_that_fails_is_told_and_stopped(configured: Cli, systemd: Managers) -> None:
    systemd.fail("systemctl", "start", 1, "Job for llm-cache.service failed.\nSee journalctl.")
    told = configured.fails(1, "install", "--system", "systemd")
    assert "the service didn't start: Job for llm-cache.service failed." in told
    assert systemd.calls()[-1] == f"systemctl --user stop {UNIT}"
    assert unit_path(configured).exists()


def test_a_system_without_sandboxes_gets_a_unit_without(configured: Cli, systemd: Managers) -> None:
    """As Ubuntu 24.04 may be: 226/NAMESPACE for everything that asks for its own view."""
    (systemd.folder / "no-namespaces").touch()
    result = configured("install", "--system", "systemd")
    assert result.returncode == 0, result.stderr
    assert "installed with --no-sandbox" in result.stderr
    assert "ProtectSystem" not in unit_path(configured).read_text()
    assert "NoNewPrivileges=yes" in unit_path(configured).read_text()
    assert configured.pid() is not None


@pytest.mark.skipif(os.getuid() != 0, reason="only root is told what root's service is")
def test_root_is_told_what_it_means(configured: Cli, systemd: Managers) -> None:
    result = configured("install", "--system", "systemd", SUDO_USER="maria")
    assert result.returncode == 0
    assert "you are root: this is a service of root's own session" in result.stderr
    assert "run `llm-cache install` as maria, without sudo" in result.stderr


def test_a_unit_that_cannot_be_written_is_told(configured: Cli, systemd: Managers) -> None:
    unit_path(configured).parent.parent.mkdir(parents=True)
    unit_path(configured).parent.write_text("a file, no folder")
    assert "can't be " in configured.fails(1, "install", "--system", "systemd")


# launchd


def test_an_agent_is_loaded_and_runs(configured: Cli, launchd: Managers) -> None:
    said = configured.ok("install", "--system", "launchd")
    assert launchd.calls() == [
        f"launchctl enable {AGENT}",
        f"launchctl bootstrap gui/{os.getuid()} {plist_path(configured)}",
    ]
    agent = plistlib.loads(plist_path(configured).read_bytes())
    assert agent["EnvironmentVariables"] == {"LLM_CACHE_HOME": str(configured.home)}
    assert f"(pid {configured.pid()})" in said
    assert configured.json("status")["service"] == {
        "manager": "launchd",
        "unit": str(plist_path(configured)),
        "state": "running",
        "starts_at_boot": True,
        "pid": configured.pid(),
    }
    configured.ok("install", "--system", "launchd")  # again


def test_an_agent_is_unloaded_by_stop_and_loaded_by_on(configured: Cli, launchd: Managers) -> None:
    configured.ok("install", "--system", "launchd")
    load = f"launchctl bootstrap gui/{os.getuid()} {plist_path(configured)}"
    launchd.forget()
    assert configured.ok("stop") == "llm-cache is stopped\n"
    assert launchd.calls() == [f"launchctl bootout {AGENT}"]
    assert configured.pid() is None
    assert "not loaded" in configured("status").stdout
    launchd.forget()
    configured.ok("on")
    assert launchd.calls() == [load]
    launchd.forget()
    configured.ok("off")
    configured.ok("restart")
    assert launchd.calls() == [f"launchctl bootout {AGENT}", load]
    assert configured.json("status")["cache"] == "off"


def test_an_agent_that_ended_is_started_in_place(configured: Cli, launchd: Managers) -> None:
    configured.ok("install", "--system", "launchd")
    pid = configured.pid()
    assert pid is not None
    os.kill(pid, signal.SIGTERM)  # a clean end, after which launchd leaves it
    wait_until(lambda: configured.pid() is None, "the end", 20)
    launchd.forget()
    configured.ok("on")
    assert launchd.calls() == [f"launchctl kickstart {AGENT}"]


def test_an_agent_that_fails_says_why(configured: Cli, launchd: Managers) -> None:
    (configured.home / "store").write_text("not a folder")
    told = configured.fails(1, "install", "--system", "launchd")
    assert f"the service didn't start: {configured.home}/store" in told
    assert launchd.calls()[-1] == f"launchctl bootout {AGENT}"


def test_an_agent_is_uninstalled(configured: Cli, launchd: Managers) -> None:
    configured.ok("install", "--system", "launchd")
    launchd.forget()
    assert f"removed: {plist_path(configured)}" in configured.ok("uninstall")
    assert launchd.calls() == [f"launchctl bootout {AGENT}"]
    assert not plist_path(configured).exists()
    assert configured.pid() is None


def test_a_user_without_a_desktop_has_an_agent_too(configured: Cli, launchd: Managers) -> None:
    (launchd.folder / "no-desktop").touch()
    configured.ok("install", "--system", "launchd")
    assert launchd.calls()[0] == f"launchctl enable user/{os.getuid()}/local.llm-cache"


def test_an_agent_that_launchd_refuses_is_told(configured: Cli, launchd: Managers) -> None:
    launchd.fail("launchctl", "bootstrap", 125, "Domain does not support specified action")
    told = configured.fails(1, "install", "--system", "launchd")
    assert "launchd doesn't load " in told
    assert "Domain does not support" in told
