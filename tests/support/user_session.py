"""A real `systemd --user` of a test's own, with nothing of this user's session in it.

It has a runtime folder, a home and a control group of its own. Where this machine wasn't started by
systemd, it and whoever talks to it get a mount namespace in which it looks as if it were: systemd
asks for the folder /run/systemd/system. Needs root, to make control group and namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from support.command import Cli
from support.upstream import wait_until

_SYSTEMD = next(
    (p for p in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd") if Path(p).exists()), ""
)
_START = """
for group in $GROUPS_TO_JOIN; do echo $$ > "$group/cgroup.procs" || exit 3; done
if [ ! -d /run/systemd/system ]; then
    mount -t tmpfs none /run/systemd && mkdir /run/systemd/system || exit 4
fi
exec "$0" --user --log-target=console --log-level=info
"""


@dataclass(slots=True)
class Session:
    """The running manager. `prefix` comes before a command that talks to it."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    log: Path

    @property
    def prefix(self) -> list[str]:
        return ["nsenter", "-t", str(self.process.pid), "-m", "--"]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the session."""
        return subprocess.run(
            [*self.prefix, *command],
            env=self.environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
        )


def why_not() -> str:
    """Why no session can be had here, "" when one may be tried."""
    if not _SYSTEMD:
        return "systemd isn't installed here"
    missing = [name for name in ("systemctl", "nsenter", "unshare") if not shutil.which(name)]
    if missing:
        return f"{missing[0]} isn't installed here"
    if os.geteuid() != 0:
        return "only root can give a systemd --user its own control group and namespace"
    if not _control_groups():
        return "no control group of systemd's is mounted here"
    return ""


@contextmanager
def user_session(cli: Cli) -> Iterator[Session]:
    """A running systemd --user for the home of `cli`. OSError when it can't be started; then this
    system doesn't let us."""
    with ExitStack() as stack:
        runtime = Path(tempfile.mkdtemp(prefix="llm-cache-"))  # a short path: sockets are in it
        stack.callback(shutil.rmtree, runtime, ignore_errors=True)
        groups = [group / runtime.name for group in _control_groups()]
        stack.callback(_remove, groups)
        for group in groups:
            group.mkdir()
        environment = {
            **{k: v for k, v in cli.environment.items() if not k.startswith(("CACHE_", "LLM_"))},
            "XDG_RUNTIME_DIR": str(runtime),
        }
        log = cli.home.parent / "systemd.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["unshare", "-m", "--propagation", "private", "sh", "-c", _START, _SYSTEMD],
                env={**environment, "GROUPS_TO_JOIN": " ".join(map(str, groups))},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
            )
        stack.callback(_end, process)
        session = Session(process, environment, log)

        def up() -> bool:
            if process.poll() is not None:
                raise OSError(f"systemd --user ended with code {process.returncode}")
            return (
                session.run("systemctl", "--user", "is-system-running").stdout.strip() == "running"
            )

        wait_until(up, "systemd --user running", 20)
        yield session


def _control_groups() -> list[Path]:
    """Where systemd keeps its control groups: the unified hierarchy, and its own of version 1."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        unified = kind == "cgroup2" and "ro" not in options.split(",")
        if unified or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(place))
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _remove(groups: list[Path]) -> None:
    for top in groups:
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
