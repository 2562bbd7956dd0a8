"""The wizard on a real terminal: arrow keys, hidden keys, and Ctrl-C that leaves everything be."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from support import anthropic_wire as wire
from support.command import Cli
from support.proxy import anthropic_headers
from support.raw import exchange
from support.replies import json_reply
from support.terminal import Terminal
from support.upstream import Upstream, unused_port

from llm_cache.settings import Settings, load_settings

KEY = "sk-ant-api03-canary"
OLD = "# mine\nCACHE_TTL_SEC=60\nANYTHING='else' # kept\n"

WHOSE, PROVIDER, TYPED = "Whose API keys go upstream?", "Of which provider?", "Anthropic API key:"
TRY, ANOTHER, CLIENTS = "one free call", "another provider as well?", "Whose are the clients?"
PORT, WHO, LIMITS, WRITE = "Port:", "Who may use it?", "Change how much", "Write this to"
SPAN, ENTRIES, ROOM = "How long are answers kept?", "Most answers kept", "Most room on disk"

TO_THE_END = (
    *((WHOSE, ("down", "enter")), (PROVIDER, ("enter",)), (TYPED, (KEY, "enter"))),
    *((TRY, ("n",)), (ANOTHER, ("n",)), (PORT, ("enter",)), (WHO, ("enter",)), (LIMITS, ("y",))),
    *((SPAN, ("up", "enter")), (ENTRIES, ("enter",)), (ROOM, ("enter",)), (WRITE, ("enter",))),
)
"""Every question, and keys that answer it."""


def terminal(cli: Cli, *arguments: str, **settings: str) -> Terminal:
    # This terminal doesn't tell where its cursor is; without the variable the wizard waits for it.
    environment = {**cli.environment, **settings, "PROMPT_TOOLKIT_NO_CPR": "1"}
    return Terminal(cli.command(*arguments), environment, columns=100, lines=50)


def answer(screen: Terminal, *steps: tuple[str, tuple[str, ...]]) -> None:
    """Press keys when the question they answer is the last one on the screen."""
    for question, keys in steps:
        screen.wait(is_asked(question))
        screen.type(*keys)


def is_asked(question: str) -> Callable[[str], bool]:
    """Whether the last question on a screen is this one."""

    def told(screen: str) -> bool:
        lines = [line for line in screen.splitlines() if line.startswith("? ")]
        return bool(lines) and question in lines[-1]

    return told


def write_env(cli: Cli, text: str) -> Path:
    cli.home.mkdir(mode=0o700, exist_ok=True)
    path = cli.home / ".env"
    path.write_text(text)
    path.chmod(0o600)
    return path


def written(cli: Cli) -> Settings:
    return load_settings({}, environ={"LLM_CACHE_HOME": str(cli.home)})


def test_enter_all_the_way_gives_the_defaults(cli: Cli) -> None:
    steps = ((question, ("enter",)) for question in (WHOSE, PORT, WHO, CLIENTS, LIMITS, WRITE))
    with terminal(cli, "setup") as screen:
        answer(screen, *steps)
        assert screen.ended() == 0
    settings = written(cli)
    assert settings.port == int(cli.settings["CACHE_PORT"])
    assert (settings.real_keys, settings.auth_token, settings.scope) == ({}, None, "shared")


def test_a_host_that_others_can_reach_keeps_each_clients_answers_apart(cli: Cli) -> None:
    with terminal(cli, "setup") as screen:
        answer(
            screen,
            *((WHOSE, ("enter",)), (PORT, ("enter",)), (WHO, ("down", "enter"))),
            *((question, ("enter",)) for question in (CLIENTS, LIMITS, WRITE)),
        )
        assert screen.ended() == 0
    settings = written(cli)
    assert (settings.host, settings.scope) == ("0.0.0.0", "credential")


def test_the_list_of_providers_filters_by_typing(cli: Cli) -> None:
    with terminal(cli, "setup") as screen:
        answer(
            screen,
            *((WHOSE, ("down", "enter")), (PROVIDER, ("deepse", "enter"))),
            *(("API key:", ("sk-canary-0123456789", "enter")), (TRY, ("n",)), (ANOTHER, ("n",))),
            *((question, ("enter",)) for question in (PORT, WHO, LIMITS, WRITE)),
        )
        assert screen.ended() == 0
    assert written(cli).real_keys == {"deepseek": "sk-canary-0123456789"}


def test_what_is_typed_and_chosen_is_written_and_a_key_is_never_seen(cli: Cli) -> None:
    port = str(unused_port())
    with terminal(cli, "setup") as screen:
        answer(
            screen,
            *((WHOSE, ("down", "enter")), (PROVIDER, ("enter",)), (TYPED, (KEY, "enter"))),
            *((TRY, ("n",)), (ANOTHER, ("y",)), (PROVIDER, ("down", "enter"))),
            *(("OpenAI API key:", ("sk-proj-canary", "enter")), (TRY, ("n",)), (ANOTHER, ("n",))),
            (PORT, (*["backspace"] * 5, port, "enter")),
            *((WHO, ("down", "enter")), (LIMITS, ("y",)), (SPAN, ("down", "enter"))),
            *((ENTRIES, ("0", "enter")), (ROOM, (*["backspace"] * 5, "500M", "enter"))),
            (WRITE, ("enter",)),
        )
        assert screen.ended() == 0
        assert b"canary" not in screen.written
        assert "export ANTHROPIC_BASE_URL=" in screen.text
    settings = written(cli)
    assert settings.real_keys == {"anthropic": KEY, "openai": "sk-proj-canary"}
    assert (settings.port, settings.host) == (int(port), "0.0.0.0")
    assert settings.auth_token is not None
    assert settings.auth_token.encode() not in screen.written
    assert (settings.ttl_sec, settings.max_entries, settings.max_bytes) == (
        *(30 * 86400, 50000, 500 << 20),
    )


@pytest.mark.parametrize("answered", range(len(TO_THE_END)))
def test_ctrl_c_at_any_question_leaves_everything_as_it_was(cli: Cli, answered: int) -> None:
    path = write_env(cli, OLD)
    with terminal(cli, "setup") as screen:
        answer(screen, *TO_THE_END[:answered], (TO_THE_END[answered][0], ("ctrl+c",)))
        assert screen.ended() == 130
        assert "nothing was changed" in screen.text
        assert "Traceback" not in screen.text
    assert path.read_text() == OLD
    assert list(cli.home.iterdir()) == [path]


@pytest.mark.parametrize("answered", [2, 5])
def test_ctrl_d_is_the_same(cli: Cli, answered: int) -> None:
    with terminal(cli, "setup") as screen:
        erased = ["backspace"] * 5 if answered == 5 else []
        answer(screen, *TO_THE_END[:answered], (TO_THE_END[answered][0], (*erased, "\x04")))
        assert screen.ended() == 130
    assert not cli.home.exists()


def test_no_at_the_last_question_changes_nothing(cli: Cli) -> None:
    with terminal(cli, "setup") as screen:
        answer(screen, *TO_THE_END[:-1], (WRITE, ("n",)))
        assert screen.ended() == 1
        assert "nothing was changed" in screen.text
    assert not cli.home.exists()


def test_comments_and_unknown_lines_stay(cli: Cli) -> None:
    path = write_env(cli, OLD)
    with terminal(cli, "setup", "--port", "4321", "--host", "127.0.0.1") as screen:
        answer(screen, (WHOSE, ("enter",)), (CLIENTS, ("enter",)), (LIMITS, ("y",)))
        answer(screen, (SPAN, ("enter",)), ("Seconds", (*["backspace"] * 2, "300", "enter")))
        answer(screen, (ENTRIES, ("enter",)), (ROOM, ("enter",)), (WRITE, ("enter",)))
        assert screen.ended() == 0
    assert path.read_text() == OLD.replace("60", "300") + "CACHE_PORT=4321\n"


def test_a_change_made_meanwhile_by_another_stays(cli: Cli) -> None:
    path = write_env(cli, OLD)
    with terminal(cli, "setup", "--no-key", "--port", "4321") as screen:
        answer(screen, (WHO, ("enter",)), (LIMITS, ("enter",)))
        screen.wait(WRITE)
        path.write_text(OLD + "MORE=1\n")
        screen.type("enter")
        assert screen.ended() == 0
    assert path.read_text() == OLD + "MORE=1\nCACHE_PORT=4321\n"


def test_what_a_flag_answers_is_not_asked(cli: Cli) -> None:
    with terminal(
        *(cli, "setup", "--no-key", "--port", "4321", "--host", "::1", "--ttl", "5"),
        *("--max-entries", "6", "--max-bytes", "7"),
    ) as screen:
        answer(screen, (WRITE, ("enter",)))
        assert screen.ended() == 0
        for question in (WHOSE, PORT, WHO, LIMITS):
            assert question not in screen.text


def test_yes_asks_nothing_on_a_terminal_either(cli: Cli) -> None:
    with terminal(cli, "setup", "--yes") as screen:
        assert screen.ended() == 0
        assert "?" not in screen.text.replace("?…", "")


def test_a_key_that_cannot_be_one_is_told_and_asked_again(cli: Cli) -> None:
    del cli.settings["CACHE_UPSTREAM_ANTHROPIC"]
    with terminal(cli, "setup") as screen:
        answer(screen, (WHOSE, ("down", "enter")), (PROVIDER, ("enter",)))
        answer(screen, (TYPED, ("sk-proj-canary", "enter")))
        answer(screen, ("Use it all the same?", ("enter",)))
        assert "must begin with sk-ant-" in screen.text
        answer(screen, (TYPED, (KEY, "enter")), (TRY, ("n",)), (ANOTHER, ("n",)))
        for question in (PORT, WHO, LIMITS, WRITE):
            answer(screen, (question, ("enter",)))
        assert screen.ended() == 0
    assert written(cli).real_keys == {"anthropic": KEY}


def test_a_key_in_the_environment_can_be_taken(cli: Cli) -> None:
    with terminal(cli, "setup", "--no-check-key", ANTHROPIC_API_KEY=KEY) as screen:
        answer(screen, (WHOSE, ("down", "enter")), (PROVIDER, ("enter",)))
        answer(screen, ("Which key of Anthropic?", ("enter",)), (ANOTHER, ("n",)))
        for question in (PORT, WHO, LIMITS, WRITE):
            answer(screen, (question, ("enter",)))
        assert screen.ended() == 0
        assert b"canary" not in screen.written
    assert written(cli).real_keys == {"anthropic": KEY}


@pytest.mark.parametrize("remove", [True, False])
def test_a_key_that_is_set_is_kept_or_removed(cli: Cli, remove: bool) -> None:
    write_env(cli, f"ANTHROPIC_API_KEY_REAL={KEY}\n")
    with terminal(cli, "setup") as screen:
        answer(screen, (WHOSE, ("enter",)), (PROVIDER, ("enter",)))
        answer(screen, ("Which key of Anthropic?", ("up", "enter") if remove else ("enter",)))
        answer(screen, (ANOTHER, ("n",)))
        for question in (PORT, WHO, LIMITS, WRITE):
            answer(screen, (question, ("enter",)))
        assert screen.ended() == 0
    assert written(cli).real_keys == ({} if remove else {"anthropic": KEY})


def test_a_refused_key_can_be_typed_again(cli: Cli, upstream: Upstream) -> None:
    upstream.script(
        json_reply(wire.error("authentication_error"), status=401), json_reply(b'{"data": []}')
    )
    with terminal(cli, "setup") as screen:
        answer(screen, (WHOSE, ("down", "enter")), (PROVIDER, ("enter",)))
        answer(screen, (TYPED, ("sk-ant-wrong-canary", "enter")), (TRY, ("enter",)))
        answer(screen, ("Use it all the same?", ("enter",)))
        assert "refuses the key (401)" in screen.text
        answer(screen, (TYPED, (KEY, "enter")), (TRY, ("enter",)), (ANOTHER, ("n",)))
        assert "accepts the key" in screen.text
        for question in (PORT, WHO, LIMITS, WRITE):
            answer(screen, (question, ("enter",)))
        assert screen.ended() == 0
    assert written(cli).real_keys == {"anthropic": KEY}


def test_a_taken_port_is_told_and_the_next_free_one_proposed(cli: Cli) -> None:
    port = cli.settings["CACHE_PORT"]
    free = str(unused_port())
    with (
        socket.create_server(("127.0.0.1", int(port))),
        terminal(cli, "setup", "--no-key") as screen,
    ):
        screen.wait(f"port {port} on 127.0.0.1 is taken by another program", PORT)
        screen.type(*["backspace"] * 5, "99999", "enter")
        screen.wait("must be 1 to 65535")
        screen.type(*["backspace"] * 5, port, "enter")
        screen.wait(lambda text: text.count("is taken by") == 2)
        screen.type(*["backspace"] * 5, free, "enter")
        for question in (WHO, LIMITS, WRITE):
            answer(screen, (question, ("enter",)))
        assert screen.ended() == 0
    assert written(cli).port == int(free)


# The first `on`


def test_the_first_on_asks_and_then_starts(cli: Cli, upstream: Upstream) -> None:
    upstream.default = json_reply(wire.message())
    with terminal(cli, "on") as screen:
        screen.wait("isn't configured yet")
        answer(screen, *TO_THE_END)
        assert screen.ended() == 0
        port = cli.settings["CACHE_PORT"]
        assert f"llm-cache is on: http://localhost:{port} (pid {cli.pid()})" in screen.text
        assert f"export ANTHROPIC_BASE_URL=http://localhost:{port}" in screen.text
    sent = exchange(
        int(port), "POST", "/v1/messages", anthropic_headers(), wire.request(), deadline=20
    )
    assert sent.status == 200
    assert upstream.wait_for_calls(1)[0].request.header("x-api-key") == KEY


def test_the_first_on_writes_every_flag_that_it_was_given(cli: Cli, upstream: Upstream) -> None:
    flags = ("--upstream", upstream.url, "--mode", "replay", "--scope", "shared", "--verbose")
    with terminal(cli, "on", *flags) as screen:
        screen.wait("isn't configured yet")
        answer(screen, *TO_THE_END)
        assert screen.ended() == 0
    said = (cli.home / ".env").read_text()
    for line in (
        f"CACHE_UPSTREAM={upstream.url}",
        "CACHE_MODE=replay",
        "CACHE_SCOPE=shared",
        "CACHE_LOG_LEVEL=debug",
    ):
        assert f"{line}\n" in said
    cli.ok("stop")
    cli.ok("on")
    report = cli.json("status")
    assert (report["mode"], report["upstreams"]["*"]) == ("replay", upstream.url)


def test_ctrl_c_in_the_first_on_starts_nothing(cli: Cli) -> None:
    with terminal(cli, "on") as screen:
        answer(screen, *TO_THE_END[:2], (TYPED, ("ctrl+c",)))
        assert screen.ended() == 130
    assert cli.pid() is None
    assert not cli.home.exists()


def test_once_configured_on_asks_nothing(cli: Cli) -> None:
    write_env(cli, "CACHE_TTL_SEC=60\n")
    with terminal(cli, "on") as screen:
        assert screen.ended() == 0
        assert "llm-cache is on" in screen.text


def test_a_key_in_the_environment_is_a_configuration(cli: Cli) -> None:
    with terminal(cli, "on", ANTHROPIC_API_KEY_REAL=KEY) as screen:
        assert screen.ended() == 0
        assert "llm-cache is on" in screen.text
