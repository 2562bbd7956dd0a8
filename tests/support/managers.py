"""Stand-ins for systemctl, loginctl and launchctl: programs on PATH that record how they are called
and keep one service the way the real ones do, as far as llm-cache can tell.

What they are told is in `calls`. The proxy they start is a real one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from support.command import Cli


@dataclass(frozen=True, slots=True)
class Managers:
    """The stand-ins of one test. A file `<program>-<word>.fails` in `folder`, holding an exit code
    and a text, makes that command fail."""

    folder: Path

    def calls(self) -> list[str]:
        """What was run, in order, but for what only asks."""
        log = self.folder / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if not any(word in line for word in (" show ", " print "))]

    def forget(self) -> None:
        """Begin a new record."""
        (self.folder / "calls").unlink(missing_ok=True)

    def fail(self, program: str, word: str, code: int, text: str) -> None:
        """Let `program word ...` fail from now on."""
        (self.folder / f"{program}-{word}.fails").write_text(f"{code}\n{text}")

    def mend(self, program: str, word: str) -> None:
        """Let it work again."""
        (self.folder / f"{program}-{word}.fails").unlink()


def stand_ins(cli: Cli, *programs: str) -> Managers:
    """Put stand-ins for these programs on the command's PATH, before everything else, and take
    the others off it."""
    folder = cli.home.parent / "managers"
    folder.mkdir()
    for program in ("systemctl", "loginctl", "launchctl"):
        if program in programs:
            script = folder / program
            script.write_text(f"#!{sys.executable} -IS\nFOLDER = {str(folder)!r}\n{SCRIPT}")
            script.chmod(0o755)
    plain = cli.home.parent / "programs"  # what a proxy needs, and no manager of this machine
    plain.mkdir()
    cli.settings["PATH"] = f"{folder}:{plain}"
    return Managers(folder)


def unit_path(cli: Cli) -> Path:
    return cli.home.parent / ".config/systemd/user/llm-cache.service"


def plist_path(cli: Cli) -> Path:
    return cli.home.parent / "Library/LaunchAgents/local.llm-cache.plist"


SCRIPT = r"""
import json, os, plistlib, re, signal, subprocess, sys, time
from pathlib import Path

folder, program, words = Path(FOLDER), Path(sys.argv[0]).name, sys.argv[1:]
with open(folder / "calls", "a") as log:
    log.write(" ".join([program, *words]) + "\n")
loaded, enabled = folder / "loaded", folder / "enabled"

def leave(code=0, text=""):
    if text:
        print(text, file=sys.stderr if code else sys.stdout)
    sys.exit(code)

def pid():
    try:
        number = int((folder / "pid").read_text())
        state = Path(f"/proc/{number}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            return 0
        os.kill(number, 0)
        return number
    except (OSError, ValueError):
        return 0

def spawn(command, environ, errors):
    if not pid():
        with open(errors, "ab") as stderr:
            child = subprocess.Popen(command, env={**os.environ, **environ}, stderr=stderr,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        (folder / "pid").write_text(str(child.pid))

def end():
    if number := pid():
        os.kill(number, signal.SIGTERM)
        while pid():
            time.sleep(0.02)

verb = next(word for word in words if not word.startswith("-"))
failing = folder / f"{program}-{verb}.fails"
if failing.exists():
    code, _, text = failing.read_text().partition("\n")
    leave(int(code), text)

if program == "systemctl":
    assert words[0] == "--user", words
    unit = Path(os.environ["HOME"], ".config/systemd/user/llm-cache.service")
    confined = loaded.exists() and "ProtectSystem" in loaded.read_text()
    refused = confined and (folder / "no-namespaces").exists()
    if verb == "show":
        print("ExecMainStatus=" + ("226" if refused else "0"))
        print("ActiveState=" + ("active" if pid() else "inactive"))
        print(f"MainPID={pid()}")
        print("UnitFileState=" + ("enabled" if enabled.exists() else "disabled"))
    elif verb == "daemon-reload":
        loaded.write_text(unit.read_text()) if unit.exists() else loaded.unlink(missing_ok=True)
    elif verb == "enable":
        enabled.touch()
    elif verb == "disable":
        enabled.unlink(missing_ok=True)
        end() if "--now" in words else None
    elif verb == "stop":
        end() if loaded.exists() else leave(5, "Unit llm-cache.service not loaded.")
    elif verb == "start":
        if not loaded.exists():
            leave(5, "Unit llm-cache.service not found.")
        if refused:
            leave(1, "Job for llm-cache.service failed.")
        home = json.loads(re.search("^# home: (.*)$", loaded.read_text(), re.M)[1])
        # Like a unit's process: nothing of the caller's environment.
        environ = {name: "" for name in os.environ if name.startswith("CACHE_")}
        command = re.search('^ExecStart="([^"]*)" "-P"', loaded.read_text(), re.M)[1]
        spawn([command, "-P", "-m", "llm_cache", "run", "--service"],
            {**environ, "LLM_CACHE_HOME": home}, folder / "errors")
elif program == "launchctl":
    domains = {f"gui/{os.getuid()}", f"user/{os.getuid()}"}
    if (folder / "no-desktop").exists():
        domains.remove(f"gui/{os.getuid()}")
    place = words[1]
    if verb == "print" and place in domains:
        leave(0, "domain")
    domain, _, label = place.rpartition("/") if verb != "bootstrap" else (place, "", "")
    if domain not in domains:
        leave(112, "Could not find domain")
    if verb == "enable":
        enabled.touch()
    elif verb == "bootstrap":
        if loaded.exists() or (folder / "going").exists():
            leave(5, "Bootstrap failed: 5: Input/output error")
        loaded.write_bytes(Path(words[2]).read_bytes())
    elif not loaded.exists() and not (folder / "going").exists():
        leave(113, "Could not find service")
    if verb == "bootout":
        end()
        loaded.unlink()
        (folder / "going").write_text("2")  # it is gone only a moment later
        leave(36, "Boot-out failed: 36: Operation now in progress")
    if (folder / "going").exists() and verb == "print":
        left = int((folder / "going").read_text())
        (folder / "going").write_text(str(left - 1)) if left else (folder / "going").unlink()
        leave(0, "state = SIGTERMed")
    if verb in ("bootstrap", "kickstart"):
        agent = plistlib.loads(loaded.read_bytes())
        environ = {name: "" for name in os.environ if name.startswith("CACHE_")}
        spawn(agent["ProgramArguments"], {**environ, **agent["EnvironmentVariables"]},
            agent["StandardErrorPath"])
    if verb == "print":
        number = pid()
        print("\tstate = " + ("running" if number else "not running"))
        print(f"\tpid = {number}" if number else "\tlast exit code = 1")
"""
