"""What a proxy tells the service manager that started it; nothing when none did.

The protocol is systemd's: a datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET`
names, a path or, after `@`, a name in the abstract namespace. Source: sd_notify(3).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def tell_manager(state: str) -> None:
    """Send one state (`READY=1`, `STATUS=...`). A manager that can't be told is no fault."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(state.encode("utf-8", "replace"), address)
