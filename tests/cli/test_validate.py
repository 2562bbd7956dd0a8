"""validate: everything that can be wrong is told, each with its mending; and nothing changes."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import anthropic_wire as wire
from support.child import child
from support.command import Cli
from support.managers import stand_ins, unit_path
from support.proxy import anthropic_headers
from support.raw import exchange
from support.replies import json_reply
from support.upstream import Upstream, unused_port

from llm_cache.store.local.index import FORMAT

SECRETS = {
    "ANTHROPIC_API_KEY_REAL": "sk-ant-api03-canary-one",
    "OPENAI_API_KEY_REAL": "sk-proj-canary-two",
    "CACHE_AUTH_TOKEN": "canary-three-and-a-tail",
}


@pytest.fixture
def made(cli: Cli) -> Cli:
    """A command whose home is there, and private."""
    cli.home.mkdir(mode=0o700)
    return cli


def report(cli: Cli, **settings: str) -> dict[str, Any]:
    result = cli("validate", "--json", **settings)
    assert result.stderr == ""
    parsed: dict[str, Any] = json.loads(result.stdout)
    levels = [check["status"] for check in parsed["checks"]]
    assert parsed["errors"] == levels.count("error")
    assert parsed["warnings"] == levels.count("warning")
    assert parsed["ok"] is (parsed["errors"] == 0)
    assert result.returncode == (0 if parsed["ok"] else 1)
    for check in parsed["checks"]:
        assert check["message"]
        assert check["status"] == "ok" or check["fix"], check  # what is wrong can be mended
    return parsed


def found(cli: Cli, name: str, **settings: str) -> dict[str, Any]:
    """The one check of that name."""
    checks = [check for check in report(cli, **settings)["checks"] if check["name"] == name]
    assert len(checks) == 1, checks
    one: dict[str, Any] = checks[0]
    return one


def write_env(cli: Cli, text: str, mode: int = 0o600) -> None:
    (cli.home / ".env").write_text(text)
    (cli.home / ".env").chmod(mode)


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file with its mode and content. A WAL's -shm is memory that its users share."""
    return {
        str(path): (
            path.lstat().st_mode,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in folder.rglob("*")
        if not path.name.endswith("-shm")
    }


# The report


def test_a_fresh_machine_passes_and_nothing_is_made(cli: Cli) -> None:
    before = snapshot(cli.home.parent)
    result = cli("validate")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "== llm-cache validate =="
    assert lines[-1] == "Result: all checks passed ✓"
    port = cli.settings["CACHE_PORT"]
    assert f"  ✓ CACHE_PORT={port} — from the environment" in lines
    assert f"  ✓ port {port} — free" in lines
    assert "  ✓ CACHE_HOST=127.0.0.1 — default" in lines
    assert snapshot(cli.home.parent) == before


def test_each_line_of_the_report_has_its_mark(made: Cli) -> None:
    write_env(made, "CACHE_TTL_SEC=soon\nCACHE_PROT=1\n")
    result = made("validate")
    assert result.returncode == 1
    told = [line for line in result.stdout.splitlines() if line.startswith("  ")]
    assert {line[2] for line in told} == {"✓", "!", "✗"}
    assert result.stdout.endswith("Result: 1 error, 1 warning ✗\n")


def test_marks_are_letters_where_the_terminal_has_no_others(cli: Cli) -> None:
    result = cli("validate", PYTHONIOENCODING="ascii", CACHE_TTL_SEC="soon")
    assert "  + CACHE_HOST" in result.stdout
    assert "  x CACHE_TTL_SEC" in result.stdout


# Settings


@pytest.mark.parametrize("port", ["99999", "-1", "http", "4000.5", "١٢", "9" * 5000])
def test_a_wrong_port_is_a_line_and_not_a_crash(cli: Cli, port: str) -> None:
    check = found(cli, "CACHE_PORT", CACHE_PORT=port)
    assert check["status"] == "error"
    assert "must be 1 to 65535" in check["message"]
    assert check["fix"] == "change CACHE_PORT in the environment"


def test_every_wrong_setting_has_a_line_of_its_own(made: Cli) -> None:
    write_env(made, "CACHE_TTL_SEC=soon\nCACHE_MODE=cash\n")
    wrong = [check for check in report(made, CACHE_MAX_BYTES="huge")["checks"] if check["fix"]]
    assert {check["name"]: check["status"] for check in wrong} == dict.fromkeys(
        ("CACHE_TTL_SEC", "CACHE_MODE", "CACHE_MAX_BYTES"), "error"
    )
    [mode] = [check for check in wrong if check["name"] == "CACHE_MODE"]
    assert mode["value"] == "cash"
    assert "must be cache, fresh, bypass or replay" in mode["message"]
    assert str(made.home / ".env") in mode["fix"]


def test_settings_that_do_not_go_together_are_told(made: Cli) -> None:
    check = found(made, "CACHE_HOST", CACHE_HOST="0.0.0.0")
    assert check["status"] == "error"
    assert "CACHE_AUTH_TOKEN must be set" in check["message"]
    certificate = made.home / "cert.pem"
    certificate.write_text("")
    check = found(made, "CACHE_TLS_KEYFILE", CACHE_TLS_CERTFILE=str(certificate))
    assert check["status"] == "error"


def test_a_home_that_nobody_knows_is_told(cli: Cli) -> None:
    assert (
        found(cli, "LLM_CACHE_HOME", LLM_CACHE_HOME="~nobody-of-that-name/x")["status"] == "error"
    )


def test_unknown_names_are_told_with_the_nearest(made: Cli) -> None:
    write_env(made, "CACHE_PROT=4100\nUNRELATED=1\n")
    check = found(made, "CACHE_PROT")
    assert check["status"] == "warning"
    assert check["fix"] == "did you mean CACHE_PORT?"
    assert found(made, "LLM_CACHE_PORT", LLM_CACHE_PORT="1")["fix"] == "did you mean CACHE_PORT?"
    check = found(made, "CACHE_MAX_ENTRYS", CACHE_MAX_ENTRYS="1")
    assert check["fix"] == "did you mean CACHE_MAX_ENTRIES?"
    names = {check["name"] for check in report(made)["checks"]}
    assert "UNRELATED" not in names


def test_an_upstream_of_no_provider_is_told(cli: Cli) -> None:
    check = found(cli, "CACHE_UPSTREAM_ANTROPIC", CACHE_UPSTREAM_ANTROPIC="http://127.0.0.1:1")
    assert check["status"] == "error"
    assert "there is no provider antropic" in check["message"]


def test_an_open_host_without_tls_or_with_a_short_token_is_a_warning(cli: Cli) -> None:
    told = report(cli, CACHE_HOST="0.0.0.0", CACHE_AUTH_TOKEN="short")
    wrong = [check["name"] for check in told["checks"] if check["status"] == "warning"]
    assert wrong == ["TLS", "CACHE_AUTH_TOKEN"]


# Keys


@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        ("ANTHROPIC_API_KEY_REAL", "sk-proj-canary", "must begin with sk-ant-"),
        ("ANTHROPIC_API_KEY_REAL", "canary-of-no-form", "must begin with sk-ant-"),
        ("ANTHROPIC_API_KEY_REAL", "sk-ant-oat01-canary", "subscription"),
        ("ANTHROPIC_API_KEY_REAL", "sk-ant-admin01-canary", "admin key"),
        ("ANTHROPIC_API_KEY_REAL", "sk-ant-...", "placeholder"),
        ("OPENAI_API_KEY_REAL", "sk-ant-api03-canary", "another provider's"),
        ("GEMINI_API_KEY_REAL", "sk-canary", "must begin with AIza"),
        ("ANTHROPIC_API_KEY_REAL", "can ary", "must be visible ASCII"),
    ],
)
def test_a_key_of_a_wrong_form_is_an_error(cli: Cli, name: str, key: str, words: str) -> None:
    del cli.settings["CACHE_UPSTREAM_ANTHROPIC"]
    check = found(cli, name, **{name: key})
    assert check["status"] == "error"
    assert words in check["message"]
    assert "canary" not in json.dumps(check)


def test_a_key_for_another_host_may_look_like_anything(cli: Cli) -> None:
    assert found(cli, "ANTHROPIC_API_KEY_REAL", ANTHROPIC_API_KEY_REAL="k")["status"] == "ok"


def test_a_key_of_no_provider_is_told_with_the_nearest(cli: Cli) -> None:
    check = found(cli, "ANTROPIC_API_KEY_REAL", ANTROPIC_API_KEY_REAL="k")
    assert check["status"] == "warning"
    assert check["fix"] == "did you mean ANTHROPIC_API_KEY_REAL?"


def test_no_secret_is_ever_printed(made: Cli, upstream: Upstream) -> None:
    write_env(made, "".join(f"{name}={value}\n" for name, value in SECRETS.items()), 0o644)
    also = {
        "CACHE_AUTH_TOKN": "canary-typo",
        "GEMINI_API_KEY_REAL": "canary four",
        "CACHE_UPSTREAM": "https://user:canary-five@gateway.example/?key=canary-six",
        "CACHE_UPSTREAMS": "mine=http://127.0.0.1:1 key=canary-seven",
    }
    for arguments in (("validate",), ("validate", "--json")):
        result = made(*arguments, **also)
        assert result.returncode == 1
        assert "canary" not in result.stdout + result.stderr
    made.settings |= {"CACHE_UPSTREAM_OPENAI": upstream.url}
    made.ok("on")
    assert "canary" not in made("validate").stdout


# Files


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_an_env_file_that_others_can_read_is_an_error(made: Cli, mode: int) -> None:
    write_env(made, "CACHE_TTL_SEC=1\n", mode)
    check = found(made, ".env")
    assert check["status"] == "error"
    assert check["fix"] == f"chmod 600 {made.home / '.env'}"
    (made.home / ".env").chmod(0o600)
    assert found(made, ".env")["status"] == "ok"


def test_a_line_of_the_env_file_that_cannot_be_understood_is_told(made: Cli) -> None:
    write_env(made, "CACHE_TTL_SEC=1\nthe canary is here\n")
    check = found(made, ".env")
    assert check["status"] == "error"
    assert "line 2" in check["message"]
    assert "canary" not in made("validate").stdout
    assert found(made, "CACHE_HOST")["status"] == "ok"  # the others are looked at all the same


@pytest.mark.parametrize(("mode", "status"), [(0o755, "warning"), (0o777, "error"), (0o700, "ok")])
def test_a_home_that_is_not_private_is_told(cli: Cli, mode: int, status: str) -> None:
    cli.home.mkdir()
    cli.home.chmod(mode)
    check = found(cli, str(cli.home))
    assert check["status"] == status
    assert status == "ok" or check["fix"] == f"chmod 700 {cli.home}"


def test_a_home_that_is_a_file_is_told(cli: Cli) -> None:
    cli.home.write_text("")
    wrong = [one for one in report(cli)["checks"] if one["status"] == "error"]
    assert [(one["name"], one["message"]) for one in wrong] == [(str(cli.home), "isn't a folder")]
    for command in ("on", "run", "stop", "status", "stats", "monitor"):
        told = cli.fails(2, command)
        assert told == f"llm-cache: {cli.home}: isn't a folder; set LLM_CACHE_HOME to one"
    cli.home.unlink()


def test_what_the_system_does_not_let_be_looked_at_is_told(cli: Cli) -> None:
    """A name longer than a system allows stands for every error of a file system."""
    told = report(cli, LLM_CACHE_HOME=str(cli.home.parent / ("x" * 300)))["checks"]
    wrong = [one for one in told if one["status"] == "error"]
    assert {one["section"] for one in wrong} >= {"files", "store"}
    assert any("can't be looked at: File name too long" in one["message"] for one in wrong)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"systemstrip": []}', "unknown field 'systemstrip'"),
        ('{"suffix_turns": 0}', "suffix_turns is 0"),
        ('{"system_strip": ["(open"]}', "system_strip[0] '(open' is not a regular expression"),
    ],
)
def test_what_is_wrong_in_normalize_json_is_told(made: Cli, text: str, words: str) -> None:
    (made.home / "normalize.json").write_text(text)
    check = found(made, "normalize.json")
    assert check["status"] == "error"
    assert words in check["message"]


def test_one_thing_that_is_wrong_in_a_file_hides_no_other(made: Cli) -> None:
    rules = {"strip": [], "suffix_turns": 0, "system_strip": ["fine", "(", "["], "suffix_only": 1}
    (made.home / "normalize.json").write_text(json.dumps(rules))
    (made.home / "prices.json").write_text('{"one": 1, "two": [1, 2], "three": [-1, 2]}')
    wrong = [one for one in report(made)["checks"] if one["status"] == "error"]
    assert [(one["name"], one["message"].split()[0]) for one in wrong] == [
        *(("normalize.json", word) for word in ("unknown", "suffix_only", "suffix_turns")),
        *(("normalize.json", f"system_strip[{at}]") for at in (1, 2)),
        *(("prices.json", name) for name in ("'one'", "'three'")),
    ]
    (made.home / "prices.json").unlink()
    for command in (("on",), ("run",), ("restart",), ("exec", "--", "true")):
        told = made(*command)
        assert told.returncode == 2, command
        first, *others = told.stderr.splitlines()[-6:]
        assert first == f"llm-cache: {made.home / 'normalize.json'}: 5 things are wrong:"
        assert [line.split()[0] for line in others] == [
            *("unknown", "suffix_only", "suffix_turns", "system_strip[1]", "system_strip[2]")
        ]


def test_what_normalize_json_says_is_told(made: Cli) -> None:
    rules = {
        "system_strip": ["Current date[^\\n]*", "Session-ID: [a-f0-9-]+"],
        "message_strip": ["<tool_result>[\\s\\S]*?</tool_result>"],
    }
    (made.home / "normalize.json").write_text(json.dumps(rules))
    expected = "valid JSON (2 system_strip, 1 message_strip patterns; suffix_only=false)"
    assert found(made, "normalize.json")["message"] == expected
    assert report(made)["warnings"] == 0  # the documented patterns are quick


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(x+x+)+y", "(\\w+\\s?)*!", "(é+)+;", "(foo|fo+)*bar", "(.*a){20}"]
)
def test_a_pattern_that_would_stall_is_named(made: Cli, pattern: str) -> None:
    rules = {"system_strip": ["Date: [0-9-]+"], "message_strip": ["x", pattern]}
    (made.home / "normalize.json").write_text(json.dumps(rules))
    check = found(made, "normalize.json message_strip[1]")
    assert check["status"] == "error"
    assert repr(pattern) in check["message"]
    assert found(made, "normalize.json system_strip[0]")["status"] == "ok"


def test_what_is_wrong_in_prices_json_is_told(made: Cli) -> None:
    prices = made.home / "prices.json"
    prices.write_text('{"haiku": [0.8e-6, 4e-6]}')
    assert found(made, "prices.json")["message"] == "valid JSON (1 models)"
    prices.write_text('{"haiku": "cheap"}')
    check = found(made, "prices.json")
    assert (check["status"], "haiku" in check["message"]) == ("error", True)


def test_a_log_that_cannot_be_written_is_told(cli: Cli) -> None:
    assert found(cli, "log", CACHE_LOG_FILE=str(cli.home.parent))["status"] == "error"


# Store


@pytest.fixture
def stored(cli: Cli, upstream: Upstream) -> Cli:
    """A command whose store holds two answers; its proxy is down."""
    cli.ok("on")
    for prompt in ("one", "two"):
        upstream.script(json_reply(wire.message(prompt)))
        answer = exchange(
            *(int(cli.settings["CACHE_PORT"]), "POST", "/v1/messages", anthropic_headers()),
            wire.request(prompt),
            deadline=20,
        )
        assert answer.status == 200
    cli.ok("stop")
    return cli


def test_a_store_is_looked_at_and_left_as_it_is(stored: Cli) -> None:
    before = snapshot(stored.home)
    result = stored("validate")
    assert result.returncode == 0, result.stdout
    assert "✓ entries — 2 of 5,000" in result.stdout
    assert f"✓ format — {FORMAT}" in result.stdout
    assert "✓ integrity — index and 2 answers are sound" in result.stdout
    assert snapshot(stored.home) == before


def test_a_store_in_use_is_looked_at_and_left_as_it_is(stored: Cli) -> None:
    stored.ok("on")
    before = snapshot(stored.home / "store")
    assert "2 answers are sound" in stored.ok("validate")
    assert snapshot(stored.home / "store") == before


def test_a_damaged_answer_is_told(stored: Cli) -> None:
    blob = max((stored.home / "store/blobs").rglob("*.zst"), key=lambda path: path.stat().st_size)
    kept = blob.read_bytes()
    for damaged in (kept[:-1], kept[:-3] + bytes(3)):
        blob.write_bytes(damaged)
        before = snapshot(stored.home)
        told = [one for one in report(stored)["checks"] if one["status"] == "error"]
        assert [one["name"] for one in told] == ["integrity"]
        assert blob.stem in told[0]["message"]
        assert told[0]["fix"] == "a damaged answer is a miss, and goes at its next use"
        assert snapshot(stored.home) == before


def test_an_index_that_is_none_is_told(stored: Cli) -> None:
    (stored.home / "store/index.sqlite").write_bytes(b"no database" * 100)
    assert found(stored, "index")["status"] == "error"


def test_a_newer_format_is_told(stored: Cli) -> None:
    with closing(sqlite3.connect(stored.home / "store/index.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    check = found(stored, "format")
    assert check["status"] == "error"
    assert "has format 99" in check["message"]
    assert "newer llm-cache" in check["fix"]


def test_a_store_above_its_limits_is_told(stored: Cli) -> None:
    assert found(stored, "entries", CACHE_MAX_ENTRIES="1")["status"] == "warning"
    assert found(stored, "size", CACHE_MAX_BYTES="10")["status"] == "warning"
    assert found(stored, "size", CACHE_MAX_BYTES="0")["status"] == "ok"


def test_a_limit_beyond_the_free_disk_is_told(cli: Cli) -> None:
    check = found(cli, "disk", CACHE_MAX_BYTES="8000T")
    assert check["status"] == "warning"
    assert "CACHE_MAX_BYTES" in check["fix"]
    assert found(cli, "disk", CACHE_MAX_ENTRY_BYTES="8000T")["status"] == "error"


def test_a_store_that_is_a_file_is_told(made: Cli) -> None:
    (made.home / "store").write_text("")
    (made.home / "store").chmod(0o600)
    assert found(made, str(made.home / "store"))["status"] == "error"


def test_what_others_may_read_in_the_store_is_told(stored: Cli) -> None:
    (stored.home / "store/index.sqlite").chmod(0o644)
    (stored.home / "store/blobs").chmod(0o777)
    assert found(stored, str(stored.home / "store/index.sqlite"))["status"] == "warning"
    assert found(stored, str(stored.home / "store/blobs"))["status"] == "error"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written_is_told(stored: Cli) -> None:
    (stored.home / "store/blobs").chmod(0o500)
    try:
        assert found(stored, str(stored.home / "store/blobs"))["status"] == "error"
    finally:
        (stored.home / "store/blobs").chmod(0o700)


# Runtime


def test_with_the_proxy_up_its_answers_are_checked(cli: Cli) -> None:
    cli.ok("on")
    lines = cli.ok("validate").splitlines()
    port = cli.settings["CACHE_PORT"]
    assert f"  ✓ port {port} — ours: http://localhost:{port} (pid {cli.pid()})" in lines
    assert any(line.startswith("  ✓ /health — 200 (version ") for line in lines)
    assert "  ✓ /stats — 200 (0 calls, 0 hits, 0.0% hit rate, cache on)" in lines
    assert "  ✓ /metrics — 200 (Prometheus text, the expected metrics are there)" in lines
    assert "  ✓ Host check — a foreign Host gets 403" in lines
    assert lines[-1] == "Result: all checks passed ✓"


def test_the_proxy_is_asked_with_the_token(cli: Cli) -> None:
    cli.settings["CACHE_AUTH_TOKEN"] = SECRETS["CACHE_AUTH_TOKEN"]
    cli.ok("on")
    cli.ok("validate")
    check = found(cli, "/stats", CACHE_AUTH_TOKEN="another-canary-token")
    assert check["status"] == "error"
    assert "refuses this CACHE_AUTH_TOKEN" in check["message"]


def test_a_proxy_on_another_port_than_the_settings_is_told(cli: Cli) -> None:
    cli.ok("on")
    port = cli.settings["CACHE_PORT"]
    check = found(cli, f"port {port}", CACHE_PORT=str(unused_port()))
    assert (check["status"], check["fix"]) == ("warning", "llm-cache restart")


def test_a_proxy_out_of_step_with_the_settings_is_told(cli: Cli) -> None:
    cli.ok("on")
    assert found(cli, "/stats")["status"] == "ok"
    other = {"CACHE_MODE": "replay", "CACHE_UPSTREAM": "http://127.0.0.1:9"}
    for settings, words in (
        ({"CACHE_MODE": "replay"}, "with mode other than"),
        (other, "with mode and upstreams other than"),
    ):
        check = found(cli, "/stats", **settings)
        assert (check["status"], check["fix"]) == ("warning", "llm-cache restart")
        assert words in check["message"]


def test_a_taken_port_is_told_with_its_owner(cli: Cli) -> None:
    port = cli.settings["CACHE_PORT"]
    with socket.create_server(("127.0.0.1", int(port))):
        check = found(cli, f"port {port}")
    assert check["status"] == "error"
    if sys.platform == "linux":
        assert f"(pid {os.getpid()})" in check["message"]


def test_a_proxy_that_answers_any_host_or_without_figures_is_told(made: Cli) -> None:
    with impostor(made):
        told = {check["name"]: check for check in report(made)["checks"]}
    assert told["Host check"]["status"] == "error"
    assert "gets 200 instead of 403" in told["Host check"]["message"]
    assert told["/stats"]["status"] == told["/metrics"]["status"] == "error"
    assert told["/health"]["status"] == "warning"
    assert "by version 0.0.0" in told["/health"]["message"]


def test_a_process_that_holds_the_lock_and_does_not_answer_is_told(made: Cli) -> None:
    with impostor(made, "deaf"):
        check = found(made, "proxy")
    assert (check["status"], check["fix"]) == ("error", "llm-cache restart")


@contextmanager
def impostor(cli: Cli, *arguments: str) -> Iterator[None]:
    """A process that holds the home's lock, and answers everything with one JSON object."""
    command = [sys.executable, "-c", IMPOSTOR, str(cli.home / "proxy.pid")]
    with child(
        [*command, cli.settings["CACHE_PORT"], *arguments], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield


IMPOSTOR = """
import fcntl, http.server, json, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
os.write(fd, b"%d\\n" % os.getpid())
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"status": "ok", "pid": os.getpid(), "version": "0.0.0"}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
if sys.argv[3:]:
    print("ready", flush=True)
    signal.pause()
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Answer)
print("ready", flush=True)
server.serve_forever()
"""


# The service


def test_a_service_in_step_and_one_out_of_step_are_told(cli: Cli) -> None:
    port = cli.settings.pop("CACHE_PORT")
    upstream = cli.settings.pop("CACHE_UPSTREAM_ANTHROPIC")
    cli.home.mkdir(mode=0o700)
    write_env(cli, f"CACHE_PORT={port}\nCACHE_UPSTREAM_ANTHROPIC={upstream}\n")
    stand_ins(cli, "systemctl", "loginctl")
    assert "not installed" in found(cli, "boot service")["message"]
    cli.ok("install")
    check = found(cli, "boot service")
    assert check["status"] == "ok"
    assert check["message"] == f"{unit_path(cli)} is in step with the settings"
    told = report(cli, CACHE_TTL_SEC="5")["checks"]
    [only_here] = [one for one in told if one["status"] == "warning"]
    assert only_here["message"] == "doesn't see what only this shell has: CACHE_TTL_SEC"
    unit = unit_path(cli)
    unit.write_text(unit.read_text().replace(sys.executable, "/gone/python"))
    check = found(cli, "boot service")
    assert (check["status"], check["fix"]) == ("warning", "llm-cache install")
    cli.ok("uninstall")


def test_a_key_is_shown_by_its_maker_and_its_end(cli: Cli) -> None:
    key = "sk-ant-api03-0123456789abcdefa1b2"
    said = cli("validate", ANTHROPIC_API_KEY_REAL=key).stdout
    assert "ANTHROPIC_API_KEY_REAL=sk-ant-…a1b2" in said
    assert key[:-4] not in said
