"""The running proxy as other processes of this machine see it: who it is, where it listens,
asking it, starting it and stopping it.

What always holds: the proxy of a home is the process that holds the lock on `proxy.pid`, and
nothing else is. A pid in a file that nobody holds means nothing, so a stale file heals itself, and
no signal goes to a process that isn't the holder. Nothing secret is put on a command line.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import select
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from llm_cache import env_file
from llm_cache.errors import LlmCacheError, NotRunningError, SettingsError
from llm_cache.host import starting
from llm_cache.server import holder
from llm_cache.settings import (
    LOCALHOST,
    Settings,
    home_folder,
    load_settings,
    review_settings,
)

START_SEC = 20.0
"""How long a proxy may take from its start to its first answer, in seconds."""
STOP_SEC = 45.0
"""How long the proxy may take to end, in seconds: above the 30 s it gives answers in flight."""

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a proxy can be reached from this machine."""

    host: str
    port: int
    tls: bool = False

    @property
    def url(self) -> str:
        """The base URL for a client: localhost where that leads here (not to 127.0.0.2)."""
        name = "localhost" if self.host.lower() in LOCALHOST else self.host
        name = f"[{name}]" if ":" in name else name
        return f"{'https' if self.tls else 'http'}://{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that holds its home's lock. `address` is None while it answers nowhere."""

    pid: int
    address: Address | None = None
    health: Mapping[str, Any] | None = None

    @property
    def cache(self) -> str:
        """`on` or `off`; empty when it doesn't answer."""
        return str((self.health or {}).get("cache", ""))


def settings_beside_it() -> tuple[Settings, SettingsError | None]:
    """The settings; while a proxy of this home runs, as many of them as are right, and what is
    wrong with the others. Raises SettingsError for wrong ones when none runs."""
    try:
        return load_settings(), None
    except SettingsError as error:
        plain = Settings(home_folder())
        if holder(plain.pid_file) is None:
            raise
        said = env_file.as_far_as_it_reads(plain.env_file)
        return review_settings(env_file=said).settings, error


def find(settings: Settings) -> Running | None:
    """The running proxy of this home, asked where it is really listening, or None."""
    pid = holder(settings.pid_file)
    if pid is None:
        return None
    host = _from_here(settings.host)
    places = [(_from_here(name), port) for name, port in listening(pid)]
    if settings.port and (host, settings.port) not in places:
        places.append((host, settings.port))
    for name, port in places:
        address = Address(name, port, settings.tls)
        with suppress(LlmCacheError):
            health = ask(settings, address, "GET", "/health", timeout_sec=2.0)
            if isinstance(health, dict) and health.get("pid") == pid:
                return Running(pid, address, health)
    return Running(pid)


def ask(
    settings: Settings,
    address: Address,
    method: str,
    path: str,
    body: object = None,
    *,
    timeout_sec: float = 10.0,
) -> Any:
    """The JSON answer of the running proxy. Raises NotRunningError when there is none and
    LlmCacheError when it is a refusal."""
    with _request(settings, address, method, path, body, timeout_sec) as answer:
        try:
            return json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            raise NotRunningError(f"what answers at {address.url} is no llm-cache") from None


def follow(settings: Settings, address: Address, path: str) -> Iterator[bytes]:
    """The lines of a stream of the running proxy, as they come, until it ends."""
    answer = _request(settings, address, "GET", path, None, None)
    with answer, suppress(OSError, http.client.HTTPException, ValueError):
        yield from answer


def status_under(settings: Settings, address: Address, host: str, path: str) -> int:
    """The status the running proxy answers with to a request that calls it `host`."""
    connection = _connection(settings, address, 10.0)
    try:
        connection.request("GET", path, headers={"host": host, "connection": "close"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise NotRunningError(f"nothing answers at {address.url}: {type(error).__name__}") from None
    finally:
        connection.close()


def _request(
    settings: Settings,
    address: Address,
    method: str,
    path: str,
    body: object,
    timeout_sec: float | None,
) -> http.client.HTTPResponse:
    headers = {"connection": "close"}
    if settings.auth_token:
        headers["x-cache-auth"] = settings.auth_token
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers["content-type"] = "application/json"
    connection = _connection(settings, address, timeout_sec)
    try:
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise NotRunningError(f"nothing answers at {address.url}: {reason}") from None
    if answer.status == 401:
        connection.close()
        raise LlmCacheError(
            f"the proxy at {address.url} refuses this CACHE_AUTH_TOKEN; "
            "it was started with another one"
        )
    if answer.status >= 400:
        connection.close()
        raise LlmCacheError(f"the proxy at {address.url} answered {answer.status} to {path}")
    return answer  # with "connection: close" it owns the socket and closes it at its end


def _connection(
    settings: Settings, address: Address, timeout_sec: float | None
) -> http.client.HTTPConnection:
    if not address.tls or settings.tls_certfile is None:
        return http.client.HTTPConnection(address.host, address.port, timeout=timeout_sec)
    # Trusted is exactly the certificate the settings name. No authority and no host name decides:
    # it is asked for on a loopback address, for which it wasn't made.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(
        address.host, address.port, timeout=timeout_sec, context=context
    )
    try:
        connection.connect()
        pem = settings.tls_certfile.read_text("ascii", "replace")
        first = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.S)
        if isinstance(connection.sock, ssl.SSLSocket) and first is not None:
            shown = connection.sock.getpeercert(binary_form=True)
            if shown == ssl.PEM_cert_to_DER_cert(first[0]):
                return connection
    except (OSError, ValueError) as error:
        connection.close()
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise NotRunningError(f"nothing answers at {address.url}: {reason}") from None
    connection.close()
    raise LlmCacheError(
        f"{address.url} shows another certificate than {settings.tls_certfile}; "
        "restart the proxy if the file was renewed"
    )


def start(
    settings: Settings,
    overrides: Mapping[str, str],
    *,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Running:
    """Start the proxy in the background, in a session of its own, and wait for its first answer.

    `flags` (setting name to text) stand above everything, `overrides` above `environ` (default:
    this process's). Raises LlmCacheError as the proxy told it when it ends before it answers;
    nothing is left running then.
    """
    settings.make_home()
    env = {**(os.environ if environ is None else environ), **overrides}
    env["LLM_CACHE_HOME"] = str(settings.home)
    with _error_file(settings) as errors, _pipe() as (told, to_tell):
        begin = errors.seek(0, os.SEEK_END)
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "llm_cache", "run"],  # -P: import nothing from the home
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the proxy writes its log file itself
            stderr=errors,
            cwd=settings.home,
            env={**env, **starting.to_hand(flags or {}, to_tell)},
            pass_fds=(to_tell,),
            start_new_session=True,
        )
        os.close(to_tell)  # or `told` would never end
        deadline = time.monotonic() + START_SEC
        try:
            while True:
                code = child.poll()
                running = find(settings)
                if running is not None and running.address:
                    if running.pid != child.pid:  # somebody's start at the same time was faster
                        child.kill()  # or it would come up later, when that one has been stopped
                        child.wait()
                    return running
                if running is None and code is not None:
                    errors.seek(begin)
                    raise _failure(starting.heard(told), errors.read(), code)
                if time.monotonic() > deadline:
                    raise LlmCacheError(
                        f"the proxy didn't answer within {START_SEC:.0f} s and was stopped; "
                        f"its log: {settings.log_file or 'none (CACHE_LOG_FILE=none)'}"
                    )
                time.sleep(0.02)
        except BaseException:
            with suppress(OSError):
                child.kill()
            child.wait()
            raise


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """A pipe: the end to read, closed in the end, and the end to write, closed by the caller."""
    to_read, to_write = os.pipe()
    try:
        yield to_read, to_write
    finally:
        os.close(to_read)


def _error_file(settings: Settings) -> IO[bytes]:
    """Where what the proxy writes to stderr goes: its log file, if it has one."""
    path = settings.log_file
    if path is None:
        return tempfile.TemporaryFile()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "r+b")
    except OSError as error:
        raise LlmCacheError(f"CACHE_LOG_FILE={path}: can't be written: {error.strerror}") from None


def _failure(told: LlmCacheError | None, written: bytes, code: int) -> LlmCacheError:
    """Why a proxy ended: what it told, or (it was killed, or couldn't even begin) its exit code
    and the last line it wrote to stderr."""
    if told is None:
        said = [line for line in written.decode("utf-8", "replace").splitlines() if line.strip()]
        last = f": {said[-1].strip()}" if said else ""
        return LlmCacheError(f"the proxy ended with code {code} before it answered{last}")
    return with_owner(told)


def with_owner(error: LlmCacheError) -> LlmCacheError:
    """The error, and, when it is that of a taken port, who listens there if that is known."""
    owner = port_owner(error.port) if error.kind == "port_taken" and error.port else None
    if owner is None:
        return error
    return LlmCacheError.heard(
        error.told() | {"error": f"{error} (who listens on port {error.port}: {owner})"}
    )


def stop(settings: Settings, *, patience_sec: float = STOP_SEC) -> str:
    """End the proxy of this home: `stopped`, `killed` (it didn't end in time) or `not running`.

    Only the process that holds the lock is signalled. Where the system has process descriptors
    (Linux) the signal can't reach another process even if the pid is used again meanwhile.
    """
    pid = holder(settings.pid_file)
    if pid is None:
        return "not running"
    descriptor = _open_process(pid)
    try:
        # Read again a moment later: a proxy that took the lock over an old file writes its pid a
        # moment after the lock, and until then the file names some process of the past.
        time.sleep(0.05)
        if holder(settings.pid_file) != pid:
            return stop(settings, patience_sec=patience_sec)
        _signal(pid, descriptor, signal.SIGTERM)
        if _ended(settings, pid, descriptor, patience_sec):
            return "stopped"
        if holder(settings.pid_file) == pid:
            _signal(pid, descriptor, signal.SIGKILL)
        if not _ended(settings, pid, descriptor, 5.0):
            raise LlmCacheError(f"the proxy (pid {pid}) doesn't end, not even when killed")
        return "killed"
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open_process(pid: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, or the process has just ended
        return None


def _signal(pid: int, descriptor: int | None, number: signal.Signals) -> None:
    try:
        if descriptor is not None and sys.platform == "linux":
            signal.pidfd_send_signal(descriptor, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has just ended
    except PermissionError:
        raise LlmCacheError(f"the proxy (pid {pid}) belongs to another user") from None


def _ended(settings: Settings, pid: int, descriptor: int | None, patience_sec: float) -> bool:
    if descriptor is not None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(patience_sec * 1000))
    deadline = time.monotonic() + patience_sec
    while holder(settings.pid_file) == pid:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def port_owner(port: int) -> str | None:
    """Who listens on a TCP port of this machine: `nginx (pid 812)`, or None when unknown."""
    if (_PROC / "net/tcp").exists():
        wanted = {inode for inode, place in _listening_sockets().items() if place[1] == port}
        for folder in _PROC.iterdir() if wanted else ():
            if folder.name.isdigit() and wanted & _sockets_of(int(folder.name)):
                with suppress(OSError):
                    return f"{(folder / 'comm').read_text().strip()} (pid {folder.name})"
        return None
    fields = _lsof(f"-iTCP:{port}")
    pids = [line[1:] for line in fields if line.startswith("p")]
    names = [line[1:] for line in fields if line.startswith("c")]
    return f"{names[0]} (pid {pids[0]})" if pids and names else None


def listening(pid: int) -> list[tuple[str, int]]:
    """The TCP addresses a process of this user listens on; empty when the system doesn't tell."""
    if (_PROC / "net/tcp").exists():
        own = _sockets_of(pid)
        return [place for inode, place in _listening_sockets().items() if inode in own]
    places = []
    for line in _lsof("-a", "-p", str(pid), "-iTCP"):
        name, colon, port = line[1:].rpartition(":")
        if line.startswith("n") and colon and port.isdigit():
            places.append((name.strip("[]").replace("*", "0.0.0.0"), int(port)))  # noqa: S104
    return places


def _listening_sockets() -> dict[str, tuple[str, int]]:
    """Inode to (address, port) of all listening TCP sockets; format: proc_net_tcp of Linux."""
    found: dict[str, tuple[str, int]] = {}
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / name).read_text().splitlines()[1:]:
                columns = line.split()
                if len(columns) > 9 and columns[3] == "0A":  # TCP_LISTEN
                    address, _, port = columns[1].partition(":")
                    packed = bytes.fromhex(address)
                    words = [packed[at : at + 4][::-1] for at in range(0, len(packed), 4)]
                    if sys.byteorder == "big":
                        words = [word[::-1] for word in words]
                    host = str(ipaddress.ip_address(b"".join(words)))
                    found[columns[9]] = (host, int(port, 16))
    return found


def _sockets_of(pid: int) -> set[str]:
    inodes: set[str] = set()
    with suppress(OSError):  # gone, or another user's
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    return inodes


def _lsof(*selection: str) -> list[str]:
    program = shutil.which("lsof")
    if program is None:
        return []
    result = subprocess.run(
        [program, "-nP", *selection, "-sTCP:LISTEN", "-Fpcn"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return result.stdout.splitlines()


def _from_here(host: str) -> str:
    """The address under which this machine reaches a listener on `host`."""
    if host in {"0.0.0.0", "localhost"}:  # noqa: S104
        return "127.0.0.1"
    return "::1" if host == "::" else host
