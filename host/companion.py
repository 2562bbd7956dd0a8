"""The proxy of one command: `llm-cache exec` starts it beside the command, on a free port.

    python -m llm_cache.host.companion

What always holds:
- It shares the store of its home and isn't the proxy of that home: it takes no lock and no pid
  file, so that several may run beside each other and beside the proxy that is there for all.
- stdout carries events as /monitor sends them: first `{"address": ...}` or an error in the form of
  `LlmCacheError.told`, then every call. None is dropped; a reader that is slow slows the proxy.
- It ends when its stdin does, which is when whoever started it has gone, however that came.
- It serves loopback only, without TLS: whatever the settings say is meant for the one of the home.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import replace

from llm_cache.errors import LlmCacheError
from llm_cache.server import Feed, Listener, serve
from llm_cache.settings import Settings, load_settings


def main() -> int:
    """Serve until stdin ends or a signal comes; the exit code."""
    try:
        return serve.run(own_settings(load_settings()), stdout=False, alone=False, ready=_ready)
    except LlmCacheError as error:
        _tell(error.told())
        return error.exit_code


def own_settings(settings: Settings) -> Settings:
    """The settings of the home, for a proxy that serves one command of this machine.

    A token guards real keys. Without one the command spends nothing but its own credentials, which
    couldn't pass through if a token stood in their place.
    """
    keys = settings.real_keys or any(named.key for named in settings.named_upstreams.values())
    return replace(
        settings,
        host="127.0.0.1",
        port=0,
        tls_certfile=None,
        tls_keyfile=None,
        auth_token=settings.auth_token if keys else None,
    )


class _ToStdout(Listener):
    """Passes every event on at once."""

    def push(self, line: bytes) -> None:
        with suppress(OSError):  # nobody reads any more: stdin has ended too
            while line:
                line = line[os.write(1, line) :]


def _ready(address: str, feed: Feed) -> None:
    _tell({"address": address})
    feed.listen(_ToStdout())
    threading.Thread(target=_end_with_stdin, daemon=True).start()


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _tell(event: dict[str, object]) -> None:
    _ToStdout().push(b"data: " + json.dumps(event).encode() + b"\n\n")


if __name__ == "__main__":
    sys.exit(main())
