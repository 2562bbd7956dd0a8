"""setup by flags: `.env` says what was answered and keeps what it doesn't know."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from support import anthropic_wire as wire
from support.command import Cli
from support.proxy import anthropic_headers
from support.raw import exchange
from support.replies import json_reply
from support.upstream import Upstream, unused_port

from llm_cache.host import configure
from llm_cache.settings import Settings, load_settings

KEY = "sk-ant-api03-canary"
OLD = """\
# mine
CACHE_PORT=4000  # the usual one
export SOMETHING='else'

CACHE_MODE=cache
"""


@pytest.fixture
def bare(cli: Cli) -> Cli:
    """A command with nothing configured at all, on a terminal or not."""
    cli.settings.clear()
    return cli


def env(cli: Cli) -> str:
    path = cli.home / ".env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path.read_text()


def write_env(cli: Cli, text: str) -> Path:
    cli.home.mkdir(mode=0o700, exist_ok=True)
    path = cli.home / ".env"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_the_defaults_written_are_the_defaults(bare: Cli) -> None:
    bare.ok("setup", "--yes", "--port", str(unused_port()))
    del (said := dict(configure.DEFAULTS))["CACHE_PORT"]
    for name, value in said.items():
        assert f"{name}={value}" in env(bare).replace("'", "")
    plain = Settings(bare.home)
    written = load_settings({}, environ={"LLM_CACHE_HOME": str(bare.home)})
    for name in ("host", "ttl_sec", "max_entries", "max_bytes", "real_keys", "auth_token"):
        assert getattr(written, name) == getattr(plain, name)


def test_without_a_terminal_what_is_missing_is_named_with_its_flag(bare: Cli) -> None:
    told = bare.fails(2, "setup")
    for flag in ("--key-env", "--key-stdin", "--no-key", "--yes"):
        assert flag in told
    told = bare.fails(2, "setup", "--port", "4100")
    assert "--key-env" in told
    assert not bare.home.exists()


@pytest.mark.parametrize("arguments", [("--yes",), ("--no-key",)])
def test_nothing_is_asked_when_nothing_is_missing(bare: Cli, arguments: tuple[str, ...]) -> None:
    bare.ok("setup", *arguments)
    assert "API_KEY_REAL" not in env(bare)


def test_every_answer_is_a_flag(bare: Cli) -> None:
    port = str(unused_port())
    bare.ok(
        *("setup", "--key-env", "K", "--port", port, "--host", "127.0.0.2", "--ttl", "60"),
        *("--max-entries", "7", "--max-bytes", "5 MiB", "--scope", "shared"),
        *("--upstream", "http://127.0.0.1:1", "--token-env", "T"),
        K=KEY,
        T="a-token-of-some-length",
    )
    settings = load_settings({}, environ={"LLM_CACHE_HOME": str(bare.home)})
    assert settings.real_keys == {"anthropic": KEY}
    assert (settings.port, settings.host, settings.ttl_sec) == (int(port), "127.0.0.2", 60)
    assert (settings.max_entries, settings.max_bytes) == (7, 5 << 20)
    assert (settings.scope, settings.upstream) == ("shared", "http://127.0.0.1:1")
    assert settings.auth_token == "a-token-of-some-length"


def test_what_is_not_known_stays_byte_for_byte(bare: Cli) -> None:
    write_env(bare, OLD)
    port = str(unused_port())
    bare.ok("setup", "--port", port, "--ttl", "60", "--no-key")
    assert env(bare) == OLD.replace("4000", port) + "CACHE_TTL_SEC=60\n"


def test_nothing_to_change_changes_nothing(bare: Cli) -> None:
    path = write_env(bare, f"CACHE_PORT={unused_port()}\n")
    before = path.read_bytes(), path.stat().st_ino
    assert "nothing to change" in bare.ok("setup", "--yes")
    assert (path.read_bytes(), path.stat().st_ino) == before
    path.chmod(0o644)
    assert "written" in bare.ok("setup", "--yes")  # and private again
    assert env(bare).encode() == before[0]


def test_what_is_wrong_gets_its_default(bare: Cli) -> None:
    write_env(bare, "CACHE_PORT=99999\nCACHE_TTL_SEC=soon # hm\nCACHE_MAX_BYTES=5M\n")
    bare.ok("setup", "--yes", "--port", "4321")
    assert env(bare) == "CACHE_PORT=4321\nCACHE_TTL_SEC=604800 # hm\nCACHE_MAX_BYTES=5M\n"


def test_what_setup_cannot_mend_is_told(bare: Cli) -> None:
    write_env(bare, "CACHE_MODE=cash\n")
    told = bare.fails(1, "setup", "--yes", "--ttl", "60")
    assert "the proxy won't start: CACHE_MODE=cash" in told


# Keys


@pytest.mark.parametrize(
    ("arguments", "variables", "written"),
    [
        (("--key-env", "MINE"), {"MINE": KEY}, {"ANTHROPIC_API_KEY_REAL": KEY}),
        (
            ("--key-env", "OPENAI_API_KEY"),
            {"OPENAI_API_KEY": "sk-x"},
            {"OPENAI_API_KEY_REAL": "sk-x"},
        ),
        (("--key-env", "groq=G"), {"G": "gsk_x"}, {"GROQ_API_KEY_REAL": "gsk_x"}),
        (("--key-env", "G", "--provider", "xai"), {"G": "xai-x"}, {"XAI_API_KEY_REAL": "xai-x"}),
        (
            ("--key-env", "A", "--key-env", "openai=B"),
            {"A": KEY, "B": "sk-x"},
            {"ANTHROPIC_API_KEY_REAL": KEY, "OPENAI_API_KEY_REAL": "sk-x"},
        ),
    ],
)
def test_keys_come_from_variables(
    bare: Cli, arguments: tuple[str, ...], variables: dict[str, str], written: dict[str, str]
) -> None:
    result = bare("setup", *arguments, **variables)
    assert result.returncode == 0, result.stderr
    for value in written.values():
        assert value not in result.stdout + result.stderr
    lines = [line for line in env(bare).splitlines() if "API_KEY_REAL" in line]
    assert lines == [f"{name}={value}" for name, value in written.items()]


def by_stdin(cli: Cli, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        cli.command("setup", "--key-stdin", *arguments),
        env=cli.environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_key_comes_from_stdin(bare: Cli) -> None:
    result = by_stdin(bare, f"{KEY}\n")
    assert result.returncode == 0, result.stderr
    assert f"ANTHROPIC_API_KEY_REAL={KEY}\n" in env(bare)
    assert "canary" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be one key on one line"),
        ("canary\nand another", "must be one key on one line"),
        ("sk-proj-canary", "must begin with sk-ant-"),
        ("sk-ant-cänary", "must be visible ASCII"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused(bare: Cli, text: str, words: str) -> None:
    result = by_stdin(bare, text)
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert "canary" not in result.stderr
    assert not bare.home.exists()


def test_a_key_for_another_host_may_look_like_anything(bare: Cli) -> None:
    assert by_stdin(bare, "k", "--upstream", "http://127.0.0.1:1").returncode == 0


def test_no_key_takes_the_keys_out_and_nothing_else(bare: Cli) -> None:
    write_env(bare, f"A=1\nANTHROPIC_API_KEY_REAL={KEY}\nMINE_KEY=2\nOPENAI_API_KEY_REAL=sk-x\n")
    bare.ok("setup", "--no-key")
    assert env(bare) == "A=1\nMINE_KEY=2\n"


def test_a_key_of_the_environment_is_not_copied_by_itself(bare: Cli) -> None:
    bare.ok("setup", "--yes", ANTHROPIC_API_KEY=KEY, OPENAI_API_KEY_REAL="sk-x")
    assert "KEY" not in env(bare)


def test_what_the_environment_says_besides_is_told(bare: Cli) -> None:
    result = bare("setup", "--yes", "--port", "4321", CACHE_PORT="4322")
    assert "CACHE_PORT is set in the environment as well" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no-key", "--key-env", "HOME"),
        ("--key-env", "NOT_SET"),
        ("--key-env", "nobody=HOME"),
        ("--provider", "nobody", "--key-env", "HOME"),
        ("--new-token", "--token-env", "HOME"),
        ("--yes", "--port", "99999"),
        ("--yes", "--host", "a b"),
        ("--yes", "--ttl", "soon"),
        ("--yes", "--max-entries", "-1"),
        ("--yes", "--max-bytes", "much"),
        ("--yes", "--scope", "all"),
        ("--yes", "--upstream", "gopher://x"),
    ],
)
def test_wrong_flags_are_exit_2_and_change_nothing(bare: Cli, arguments: tuple[str, ...]) -> None:
    path = write_env(bare, OLD)
    bare.fails(2, "setup", *arguments)
    assert path.read_text() == OLD


# One free call


def test_a_key_is_tried_with_one_free_call(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(b'{"data": []}')
    result = cli("setup", "--key-env", "K", "--check-key", K=KEY)
    assert result.returncode == 0, result.stderr
    assert f"{upstream.url} accepts the key" in result.stderr
    [call] = upstream.wait_for_calls(1)
    assert (call.request.method, call.request.target) == ("GET", "/v1/models")
    assert call.request.header("x-api-key") == KEY
    assert call.request.header("anthropic-version") == "2023-06-01"
    assert f"ANTHROPIC_API_KEY_REAL={KEY}\n" in env(cli)


def test_a_key_that_is_refused_is_not_written(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.error("authentication_error"), status=401)
    path = write_env(cli, OLD)
    told = cli.fails(1, "setup", "--key-env", "K", "--check-key", K=KEY)
    assert "refuses the key (401)" in told
    assert "canary" not in told
    assert path.read_text() == OLD


def test_a_key_that_nobody_answers_about_is_written_with_a_word(cli: Cli) -> None:
    nobody = f"http://127.0.0.1:{unused_port()}"
    cli.settings["CACHE_UPSTREAM_ANTHROPIC"] = nobody
    result = cli("setup", "--key-env", "K", "--check-key", K=KEY)
    assert result.returncode == 0
    assert f"upstream {nobody} can't be reached" in result.stderr
    assert f"ANTHROPIC_API_KEY_REAL={KEY}\n" in env(cli)


def test_no_call_is_made_unless_asked_for(cli: Cli, upstream: Upstream) -> None:
    cli.ok("setup", "--key-env", "K", K=KEY)
    assert upstream.call_count == 0


def test_tls_and_host_names_are_flags(bare: Cli) -> None:
    for name in ("own.crt", "own.key"):
        (bare.home.parent / name).write_text("PEM\n")
    flags = ("--tls-cert", "own.crt", "--tls-key", "own.key", "--allow-hosts", "llm.example,cache")
    bare.ok("setup", "--yes", "--host", "0.0.0.0", *flags)
    settings = load_settings({}, environ={"LLM_CACHE_HOME": str(bare.home)})
    assert settings.tls_certfile == bare.home.parent / "own.crt"
    assert settings.tls_keyfile == bare.home.parent / "own.key"
    assert settings.allow_hosts == ("llm.example", "cache")
    assert settings.auth_token is not None
    assert "--tls-cert" in bare.fails(2, "setup", "--yes", "--tls-cert", "no.crt")


def test_setup_mends_an_env_file_that_cannot_be_understood(bare: Cli) -> None:
    bare.home.mkdir(mode=0o700)
    lines = "ANTHROPIC_API_KEY_REAL=sk-ant-kept-0123456789\nwhat is this\nCACHE_PORT=four\n"
    (bare.home / ".env").write_text(lines)
    result = bare("setup", "--yes")
    assert result.returncode == 0, result.stderr
    assert ".env, line 2: must be NAME=value" in result.stderr
    said = env(bare)
    assert "ANTHROPIC_API_KEY_REAL=sk-ant-kept-0123456789\n# what is this\n" in said
    load_settings({}, environ={"LLM_CACHE_HOME": str(bare.home)})


# Ports and hosts


def test_a_first_configuration_gets_a_free_port(bare: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = bare("setup", "--yes", CACHE_PORT=str(port))
        assert "is taken by another program" in result.stderr
        assert f"CACHE_PORT={port}\n" in env(bare)  # named: it stays, with a word


def test_the_port_proposed_is_free(bare: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        now = configure.present({"LLM_CACHE_HOME": str(bare.home), "CACHE_PORT": port})
        assert configure.taken(now, port) is not None
        proposed = configure.free_port(now)
        assert int(port) < int(proposed) < int(port) + 50
        assert configure.taken(now, proposed) is None


def test_the_port_of_our_own_proxy_is_not_taken(cli: Cli) -> None:
    cli.ok("on")
    result = cli("setup", "--yes")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"CACHE_PORT={cli.settings['CACHE_PORT']}\n" in env(cli)
    assert "next: llm-cache restart" in result.stdout


def test_an_open_host_gets_a_token_that_is_not_shown(bare: Cli) -> None:
    printed = bare.ok("setup", "--yes", "--host", "0.0.0.0")
    settings = load_settings({}, environ={"LLM_CACHE_HOME": str(bare.home)})
    assert settings.auth_token is not None
    assert len(settings.auth_token) == 32
    assert settings.auth_token not in printed
    bare.ok("setup", "--yes", "--host", "0.0.0.0")
    again = load_settings({}, environ={"LLM_CACHE_HOME": str(bare.home)})
    assert again.auth_token == settings.auth_token  # one that is there stays
    bare.ok("setup", "--new-token", "--yes")
    newer = load_settings({}, environ={"LLM_CACHE_HOME": str(bare.home)})
    assert newer.auth_token != settings.auth_token


# What is said at the end, done


@pytest.mark.parametrize("kept", [True, False], ids=["kept key", "clients' keys"])
@pytest.mark.parametrize("token", [True, False], ids=["token", "no token"])
def test_what_is_said_for_curl_works_when_pasted(
    cli: Cli, upstream: Upstream, kept: bool, token: bool
) -> None:
    upstream.default = json_reply(wire.message())
    cli.home = cli.home.parent / "a home's"  # quoted as a shell needs it
    printed = cli.ok(
        *("setup", "--yes", *(("--key-env", "K") if kept else ("--no-key",))),
        *(("--new-token",) if token else ()),
        K=KEY,
    )
    try:
        cli.ok("on")
        lines = printed.splitlines()
        exports = [line.strip() for line in lines if line.startswith("  export ANTHROPIC_")]
        curl = "\n".join(lines[lines.index("curl:") + 1 :])
        result = subprocess.run(
            ["bash", "-euc", "\n".join([*exports, curl])],
            env={"PATH": os.environ["PATH"], "ANTHROPIC_API_KEY": "a-client's"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert '"type":"message"' in result.stdout.replace(" ", ""), result
    finally:
        cli.ok("stop")
    [call] = upstream.wait_for_calls(1)
    assert call.request.header("x-api-key") == (KEY if kept else "a-client's")
    assert call.request.header("x-cache-auth") is None


def test_what_is_said_for_openai_is_a_base_url_that_works(cli: Cli, upstream: Upstream) -> None:
    printed = cli.ok("setup", "--yes")
    [base] = [line.partition("=")[2] for line in printed.splitlines() if "OPENAI_BASE_URL" in line]
    port = cli.settings["CACHE_PORT"]
    assert base == f"http://localhost:{port}/openai/v1"
    cli.settings["CACHE_UPSTREAM_OPENAI"] = upstream.url
    upstream.default = json_reply(b'{"object": "list", "data": []}')
    cli.ok("on")
    answer = exchange(int(port), "GET", "/openai/v1/models", anthropic_headers(), deadline=20)
    assert answer.status == 200
    assert upstream.wait_for_calls(1)[0].request.target == "/v1/models"
