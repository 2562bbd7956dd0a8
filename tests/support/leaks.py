"""What a running proxy holds: open files, connections of clients, flights, memory.

Needs /proc (Linux).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.proxy import Proxy
from support.upstream import wait_until


def open_files(proxy: Proxy) -> int:
    """How many descriptors the proxy's process holds, without its pooled upstream connections:
    those come and go by their own clock."""
    pooled = {inode for inode, port in _connections(proxy) if port != proxy.port}
    held = 0
    for entry in Path(f"/proc/{proxy.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            held += str(entry.readlink()) not in pooled
    return held


def client_connections(proxy: Proxy) -> int:
    """How many accepted connections the proxy's process holds."""
    return sum(port == proxy.port for _, port in _connections(proxy))


def _connections(proxy: Proxy) -> Iterator[tuple[str, int]]:
    """Descriptor name and local port of each TCP connection on this machine that has an owner."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{proxy.pid}/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            listening, inode = columns[3] == "0A", int(columns[9])  # inode 0: nobody's any more
            if not listening and inode != 0:
                yield f"socket:[{inode}]", int(columns[1].rpartition(":")[2], 16)


def peak_memory(proxy: Proxy) -> int:
    """The most memory the process had since `forget_peak`, in bytes."""
    for line in Path(f"/proc/{proxy.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def forget_peak(proxy: Proxy) -> int:
    """Begin a new measurement; the memory in use now, in bytes."""
    Path(f"/proc/{proxy.pid}/clear_refs").write_text("5")
    return peak_memory(proxy)


@contextmanager
def nothing_left_behind(proxy: Proxy) -> Iterator[None]:
    """Whatever happens in the block: afterwards the proxy answers a new client, and holds no
    flight, no connection and no open file that it didn't hold before."""
    assert proxy.healthy()
    wait_until(lambda: client_connections(proxy) == 0, "a quiet start")
    files = open_files(proxy)
    yield
    assert proxy.healthy()
    wait_until(lambda: client_connections(proxy) == 0, "every client's connection to be closed")
    wait_until(lambda: open_files(proxy) <= files, "every file to be closed")
    with proxy.connect() as connection:
        answer = connection.request("GET", "/stats", [("x-cache-auth", _token(proxy))])
        assert b'"in_flight": 0' in answer.read_all(), answer.body


def _token(proxy: Proxy) -> str:
    return proxy.settings.get("CACHE_AUTH_TOKEN", "none")
