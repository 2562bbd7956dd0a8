"""The service as an agent of the user's launchd.

Source: launchd.plist(5), launchctl(1). What was seen of launchd and isn't written there: an agent
that was booted out is gone only a moment later, and until then it can't be loaded again (error 5).
"""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import time
from pathlib import Path
from xml.parsers.expat import ExpatError
from xml.sax.saxutils import escape

from llm_cache.errors import LlmCacheError
from llm_cache.host.manager import Manager, Plan, State, call, plain_text

PATIENCE_SEC = 50.0
"""How long an agent may take to be gone: above the 45 s it gets to end."""
_RETRY_SEC = 10.0


class Launchd(Manager):
    """`launchctl`, in the domain of the user's desktop, or of the user where there is none."""

    name = "launchd"
    label = "local.llm-cache"
    template = "llm-cache.plist"

    @property
    def path(self) -> Path:
        return Path.home() / "Library/LaunchAgents" / f"{self.label}.plist"

    def values(self, plan: Plan) -> dict[str, str]:
        words = [f"\t\t<string>{_text(word)}</string>" for word in plan.command]
        return {
            "label": self.label,
            "arguments": "\n".join(words),
            "home": _text(plan.home),
            "log_file": _text(plan.log_file or "/dev/null"),
        }

    def home_of(self, text: str) -> Path | None:
        try:
            agent = plistlib.loads(text.encode())
            return Path(agent["EnvironmentVariables"]["LLM_CACHE_HOME"])
        except (ValueError, ExpatError, KeyError, TypeError):
            return None

    def check(self) -> None:
        if shutil.which("launchctl") is None:
            raise LlmCacheError("there is no launchctl: this system isn't macOS; see --print")

    def enable(self) -> str:
        call(["launchctl", "enable", self._target()])
        return ""

    def disable(self) -> None:
        self.stop()

    def forget(self) -> None:
        """Nothing: an agent that isn't loaded is known by its file alone."""

    def start(self) -> None:
        if self._loaded():
            self._must("kickstart", self._target())
            return
        deadline = time.monotonic() + _RETRY_SEC
        while True:
            code, said = call(["launchctl", "bootstrap", self._domain(), str(self.path)])
            if not code:
                return
            if code != 5 or time.monotonic() > deadline:
                raise LlmCacheError(f"launchd doesn't load {self.path}: {said}")
            time.sleep(0.3)

    def failure(self) -> str:
        said = call(["launchctl", "print", self._target()])[1]
        if re.search(r"^\s*pid = ", said, re.MULTILINE):
            return ""
        code = re.search(r"^\s*last exit code = ([0-9]+)", said, re.MULTILINE)
        return f"it ended with code {code[1]}" if code else ""

    def stop(self) -> None:
        """Unload it: an agent that is only killed would be started again."""
        if not self._loaded():
            return
        code, said = call(["launchctl", "bootout", self._target()])
        deadline = time.monotonic() + PATIENCE_SEC
        while self._loaded():
            if code not in (0, 36) or time.monotonic() > deadline:  # 36: it is in progress
                raise LlmCacheError(f"launchd doesn't unload {self.label}: {said}")
            time.sleep(0.1)

    def state(self) -> State:
        code, said = call(["launchctl", "print", self._target()])
        if code:
            return State("not loaded", None, self.path.exists())
        activity = re.search(r"^\s*state = (.+)$", said, re.MULTILINE)
        pid = re.search(r"^\s*pid = ([0-9]+)$", said, re.MULTILINE)
        return State(activity[1] if activity else "loaded", int(pid[1]) if pid else None, True)

    def _loaded(self) -> bool:
        return call(["launchctl", "print", self._target()])[0] == 0

    def _target(self) -> str:
        return f"{self._domain()}/{self.label}"

    def _domain(self) -> str:
        desktop = f"gui/{os.getuid()}"
        return desktop if call(["launchctl", "print", desktop])[0] == 0 else f"user/{os.getuid()}"

    def _must(self, *arguments: str) -> None:
        code, said = call(["launchctl", *arguments])
        if code:
            raise LlmCacheError(f"`launchctl {' '.join(arguments)}` failed: {said}")


def _text(value: Path | str) -> str:
    return escape(plain_text(value))
