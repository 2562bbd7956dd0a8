"""The service as a unit of the user's systemd.

How a value is quoted depends on its place, and each function here says whose rule it follows.
Source: systemd.syntax(7), systemd.service(5) "Command lines", systemd.exec(5), systemctl(1).
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import shutil
from pathlib import Path

from llm_cache.errors import LlmCacheError
from llm_cache.host.manager import Manager, NoSandbox, Plan, State, call, plain_text

_NO_NAMESPACE = 226
"""systemd's exit status for a process that couldn't get its own view of the files."""

_NOT_LOADED = 5
"""systemctl's exit code for a unit that there isn't (LSB: program is not installed)."""

_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  # what PrivateTmp= puts out of sight


class Systemd(Manager):
    """`systemctl --user`."""

    name = "systemd"
    label = "llm-cache.service"
    template = "llm-cache.service"

    @property
    def path(self) -> Path:
        folder = os.environ.get("XDG_CONFIG_HOME", "")
        config = Path(folder) if folder.startswith("/") else Path.home() / ".config"
        return config / "systemd/user" / self.label

    def values(self, plan: Plan) -> dict[str, str]:
        return {
            "home": json.dumps(plain_text(plan.home), ensure_ascii=False),
            "command": command_line(plan.command),
            "environment": quoted(f"LLM_CACHE_HOME={plan.home}"),
            "env_file": file_pattern(plan.env_file),
            "sandbox": _sandbox(plan) if plan.sandbox else "",
        }

    def home_of(self, text: str) -> Path | None:
        found = re.search(r"^# home: (\".*\")$", text, re.MULTILINE)
        try:
            return Path(json.loads(found[1])) if found else None
        except ValueError:
            return None

    def check(self) -> None:
        if shutil.which("systemctl") is None:
            raise LlmCacheError(
                "there is no systemctl: this system isn't run by systemd; `llm-cache on` starts "
                "the proxy without a service, `llm-cache run` is for another service manager"
            )
        code, said = _systemctl("show", "--property=Version")
        if code:
            raise LlmCacheError(
                f"systemd has no session for {_user()}: {_last(said)}. Log in as {_user()} itself "
                f"(not by su or sudo), or let an administrator run `loginctl enable-linger "
                f"{_user()}`; `llm-cache on` works without a service"
            )

    def enable(self) -> str:
        _must("daemon-reload")
        _must("enable", self.label)
        return _linger()

    def disable(self) -> None:
        code, _ = _systemctl("disable", "--now", self.label)
        if code:  # no session any more: take away by hand what `enable` made
            link = self.path.parent / "default.target.wants" / self.label
            link.unlink(missing_ok=True)

    def forget(self) -> None:
        _systemctl("daemon-reload")
        _systemctl("reset-failed", self.label)

    def start(self) -> None:
        _systemctl("reset-failed", self.label)  # or its former failures would count
        code, said = _systemctl("start", self.label)
        if code:
            facts = self._show("StatusText", "ExecMainStatus")
            if facts.get("ExecMainStatus") == str(_NO_NAMESPACE):
                raise NoSandbox(
                    "this system doesn't let a user's service have its own view of the files"
                )
            words = facts.get("StatusText") or _first(said)
            raise LlmCacheError(f"{words} (more: journalctl --user -u {self.label})")

    def failure(self) -> str:
        return ""  # `start` waits until the proxy is ready, and says it then

    def stop(self) -> None:
        code, said = _systemctl("stop", self.label)
        if code not in (0, _NOT_LOADED):
            raise LlmCacheError(f"`systemctl --user stop {self.label}` failed: {_last(said)}")

    def state(self) -> State:
        facts = self._show("ActiveState", "MainPID", "UnitFileState")
        pid = int(facts.get("MainPID") or 0)
        enabled = facts.get("UnitFileState") == "enabled"
        return State(facts.get("ActiveState") or "unknown", pid or None, enabled)

    def _show(self, *names: str) -> dict[str, str]:
        code, said = _systemctl("show", self.label, f"--property={','.join(names)}")
        pairs = (line.partition("=") for line in said.splitlines())
        return {} if code else {name: value for name, _, value in pairs}


def quoted(text: str) -> str:
    """One word: double quotes, C's escapes, and no specifiers."""
    escaped = plain_text(text).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("%", "%%") + '"'


def command_line(command: tuple[str, ...]) -> str:
    """ExecStart=. A program with a quote or backslash in its path is refused there, so a shell
    becomes it. A `$` is kept by `:`, which stops the replacing of variables altogether: doubled,
    it would be wrong in the program's own path, where none are replaced."""
    if any(mark in command[0] for mark in "\\'\""):
        command = ("/bin/sh", "-c", 'exec "$0" "$@"', *command)
    prefix = ":" if any("$" in word for word in command) else ""
    return prefix + " ".join(quoted(word) for word in command)


def file_pattern(path: Path) -> str:
    """EnvironmentFile=. A whole line, so nothing is quoted, but a pattern for glob(7)."""
    return re.sub(r"([\\*?\[])", r"\\\1", plain_text(path)).replace("%", "%%")


def path_word(path: Path) -> str:
    """One of ReadWritePaths=, quoted as a shell does; with `-`, a folder that isn't there is no
    fault. Not for a path with a backslash."""
    return shlex.quote(f"-{plain_text(path)}").replace("%", "%%")


def _sandbox(plan: Plan) -> str:
    folders = [plan.home]
    if plan.log_file is not None and not plan.log_file.is_relative_to(plan.home):
        folders.append(plan.log_file.parent)
    if any("\\" in str(folder) for folder in folders):
        # Whether ReadWritePaths= takes a backslash for itself differs between versions.
        lines = ["ProtectSystem=full"]
    else:
        # %h is the user's home; AWS clients keep there the tokens that they renew.
        writable = " ".join([*map(path_word, folders), "-%h/.aws"])
        lines = ["ProtectSystem=strict", "ProtectHome=read-only", f"ReadWritePaths={writable}"]
    used = (*folders, Path(plan.command[0]))
    if not any(path.is_relative_to(place) for path in used for place in _TEMPORARY):
        lines.append("PrivateTmp=yes")
    return "\n".join(lines) + "\n"


def _linger() -> str:
    """Let the user's services run with nobody logged in; "" or why not."""
    user = _user()
    if Path("/var/lib/systemd/linger", user).exists():
        return ""
    try:
        code, said = call(["loginctl", "enable-linger", user])
    except LlmCacheError as error:
        code, said = 1, str(error)
    if not code:
        return ""
    return (
        f"the service starts when {user} logs in and not at boot, since lingering couldn't be "
        f"switched on ({_last(said)}); an administrator can: loginctl enable-linger {user}"
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _systemctl(*arguments: str) -> tuple[int, str]:
    environ = dict(os.environ)
    own = Path(f"/run/user/{os.getuid()}")
    if not environ.get("XDG_RUNTIME_DIR") and own.is_dir():
        environ["XDG_RUNTIME_DIR"] = str(own)  # by cron or su: the session is there all the same
    return call(["systemctl", "--user", *arguments], environ)


def _must(*arguments: str) -> None:
    code, said = _systemctl(*arguments)
    if code:
        raise LlmCacheError(f"`systemctl --user {' '.join(arguments)}` failed: {_last(said)}")


def _first(said: str) -> str:
    return said.splitlines()[0] if said else "it didn't say why"


def _last(said: str) -> str:
    return said.splitlines()[-1].rstrip(".") if said else "it didn't say why"
