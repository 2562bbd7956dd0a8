"""The systems that bench/hits.py compares: how each is started on loopback, in a folder of its own.

What always holds here: a system writes nowhere but into the folder it was given, listens on
127.0.0.1 only, and is ended by the pid it was started with. All log at their default level, to
their own file, as their users run them. A system that isn't installed raises `NotInstalled`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

from support.proxy import Proxy
from support.upstream import Upstream, unused_port

PEER = "llm-cache-proxy"
PEER_VERSION = "2.0.6"
START_DEADLINE = 30.0
STOP_DEADLINE = 10.0


class NotInstalled(Exception):
    """The system can't run here; the message says why."""


@dataclass(frozen=True, slots=True)
class System:
    """A started system. `hit_label` is its `x-cache` on a hit; None when it has no cache."""

    name: str
    version: str
    port: int
    hit_label: str | None


Starter: TypeAlias = Callable[[Path, Upstream], AbstractContextManager[System]]


@contextmanager
def llm_cache(folder: Path, upstream: Upstream) -> Iterator[System]:
    """This project, as `llm-cache run` starts it."""
    proxy = Proxy(folder / "home", {"CACHE_UPSTREAM_ANTHROPIC": upstream.url})
    with proxy:
        version = proxy.get("/health").json()["version"]
        yield System("llm-cache", version, proxy.port, "HIT")
    if proxy.trouble():
        raise RuntimeError("\n".join(proxy.trouble()))


@contextmanager
def llm_cache_proxy(folder: Path, upstream: Upstream) -> Iterator[System]:
    """llm-cache-proxy from npm, installed into `folder`."""
    node, npm = _tool("node"), _tool("npm")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    command += ["--prefix", str(folder), f"{PEER}@{PEER_VERSION}"]
    install = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    package = folder / "node_modules" / PEER
    if install.returncode or not package.is_dir():
        reason = (install.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NotInstalled(f"npm install {PEER}@{PEER_VERSION} failed: {reason}")
    version = json.loads((package / "package.json").read_text())["version"]
    port = unused_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ANTHROPIC_API_KEY_REAL": "sk-ant-bench",
        "CACHE_PORT": str(port),
        "CACHE_UPSTREAM_HOST": "127.0.0.1",
        "CACHE_UPSTREAM_PORT": str(upstream.port),
        "CACHE_UPSTREAM_PROTO": "http",
    }
    with _process([node, str(package / "proxy-a.mjs")], port, folder, environment):
        yield System(PEER, version, port, "HIT")


@contextmanager
def bare_hypercorn(folder: Path, upstream: Upstream) -> Iterator[System]:
    """Hypercorn with uvloop and an app that does nothing: one process, no log."""
    port = unused_port()
    command = [sys.executable, "-m", "hypercorn", "--worker-class", "uvloop", "--workers", "0"]
    command += ["--bind", f"127.0.0.1:{port}", f"{Path(__file__).with_name('bare_app.py')}:app"]
    version = metadata.version("hypercorn")
    with _process(command, port, folder, dict(os.environ)):
        yield System("bare Hypercorn", version, port, None)


@contextmanager
def nginx(folder: Path, upstream: Upstream) -> Iterator[System]:
    """nginx `proxy_cache` with the request's body in the key; one worker, access log on."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise NotInstalled("nginx is not on the PATH (Debian: nginx-light)")
    shown = subprocess.run([program, "-v"], capture_output=True, text=True, check=True, timeout=10)
    version = shown.stderr.strip().rpartition("/")[2]
    port = unused_port()
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream.url, user=user))
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
    with _process(command, port, folder, dict(os.environ)):
        yield System("nginx", version, port, "HIT")


SYSTEMS: Mapping[str, Starter] = {
    "llm-cache": llm_cache,
    PEER: llm_cache_proxy,
    "hypercorn": bare_hypercorn,
    "nginx": nginx,
}
"""By the name `--only` takes."""

_NGINX = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=answers:10m;
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 64m; client_body_buffer_size 1m; client_body_in_single_buffer on;
    location / {{
      proxy_pass {upstream};
      proxy_cache answers; proxy_cache_methods POST; proxy_cache_valid 200 1h;
      proxy_cache_key "$request_method $request_uri $http_x_api_key $request_body";
      add_header x-cache $upstream_cache_status;
    }}
  }}
}}
"""


@contextmanager
def _process(
    command: Sequence[str], port: int, folder: Path, environment: Mapping[str, str]
) -> Iterator[None]:
    """Run a server until the block is left; `port` accepts connections inside of it."""
    output = folder / "output.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_DEADLINE
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{output.read_text()}")
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotInstalled(f"{name} is not on the PATH")
    return found
