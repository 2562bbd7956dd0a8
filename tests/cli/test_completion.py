"""Completions, tried in real shells: they know every command and option, keys and models, and they
never drift from the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import anthropic_wire as wire
from support.command import Cli
from support.proxy import anthropic_headers
from support.raw import exchange
from support.replies import json_reply
from support.terminal import Terminal
from support.upstream import Upstream, unused_port

ROOT = Path(__file__).resolve().parents[2]
MODEL = "claude-sonnet-4-5"
ODD_MODEL = "anthropic.claude-3:0/x"
EMPTIED = ("\x01", "\x0b")
"""Keys that take away what stands at a prompt: to its begin, and cut to its end."""
EVIL_MODELS = ("$(touch evil)", "`touch evil`", "a b", "-rf", "x;y", "'q", "new\nline")


def needs(shell: str) -> pytest.MarkDecorator:
    missing = shutil.which(shell) is None
    return pytest.mark.skipif(missing, reason=f"{shell} isn't installed here")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cli, list[str]]:
    """A home with an entry for each of some models, and the keys; its proxy has ended."""
    keys = []
    with Upstream() as upstream:
        settings = {"CACHE_PORT": str(unused_port()), "CACHE_UPSTREAM_ANTHROPIC": upstream.url}
        cli = Cli(tmp_path_factory.mktemp("filled") / "home", settings)
        cli.ok("on")
        try:
            for model in (MODEL, ODD_MODEL, *EVIL_MODELS):
                upstream.default = json_reply(wire.message(model=model))
                port, body = int(settings["CACHE_PORT"]), wire.request(model=model)
                answer = exchange(port, "POST", "/v1/messages", anthropic_headers(), body)
                keys.append(answer.header("x-cache-key") or "")
        finally:
            cli.ok("stop")
    return cli, keys


@pytest.fixture
def shell(filled: tuple[Cli, list[str]], tmp_path: Path) -> dict[str, str]:
    """The environment of a shell in which `llm-cache` is this one, with the filled home; the
    user's own home is the test's."""
    cli, _ = filled
    programs = tmp_path / "programs"
    programs.mkdir()
    command = programs / "llm-cache"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llm_cache "$@"\n')
    command.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    return {**cli.environment, "PATH": path, "HOME": str(tmp_path), "TERM": "xterm"}


def test_the_scripts_are_those_of_the_command_line() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "scripts/make_completions.py", "--check"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, (
        f"{result.stdout}run scripts/make_completions.py\n{result.stderr}"
    )


def test_a_drift_would_be_seen(tmp_path: Path) -> None:
    """The check itself, on a copy with one option missing from one script."""
    for folder in ("scripts", "completions"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    script = tmp_path / "completions/llm-cache.fish"
    script.write_text(script.read_text().replace("-l fail-on-miss", "-l fail-on-mis"))
    result = subprocess.run(
        [sys.executable, tmp_path / "scripts/make_completions.py", "--check"],
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout.split(":")[0]) == (1, "completions/llm-cache.fish")


# The words only the store knows


def test_keys_are_those_of_the_store(filled: tuple[Cli, list[str]]) -> None:
    cli, keys = filled
    assert sorted(cli.ok("_complete", "keys").split()) == sorted(keys)
    some = keys[0][:6]
    wanted = sorted(key for key in keys if key.startswith(some))
    assert sorted(cli.ok("_complete", "keys", some).split()) == wanted
    assert cli.ok("_complete", "keys", "no-hex") == ""


def test_models_are_those_that_were_asked_and_no_more_than_words(
    filled: tuple[Cli, list[str]],
) -> None:
    cli, _ = filled
    assert cli.ok("_complete", "models").split("\n") == [ODD_MODEL, MODEL, ""]
    assert cli.ok("_complete", "models", "claude").split() == [MODEL]


def test_nothing_to_offer_is_no_error(cli: Cli) -> None:
    for kind in ("keys", "models", "bogus"):
        assert cli.ok("_complete", kind) == ""
    assert not cli.home.exists()
    wrong = cli("_complete", "keys", CACHE_PORT="99999")
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (0, "", "")


def test_the_words_command_is_not_listed(cli: Cli) -> None:
    assert "_complete" not in cli.ok("--help")
    for script in (ROOT / "completions").glob("*llm-cache*"):
        assert "-a _complete" not in script.read_text()


# Which words where: (line, some that are offered, some that aren't)


CASES = [
    ("llm-cache st", ["stats", "status", "stop"], ["on", "restart"]),
    ("llm-cache completion ", ["install", "show"], ["on"]),
    ("llm-cache completion show --sh", ["--shell"], []),
    ("llm-cache completion show --shell ", ["bash", "zsh", "fish"], []),
    ("llm-cache on --log", ["--log-level"], ["--port"]),
    ("llm-cache on --log-level ", ["silent", "error", "info", "debug"], ["--port"]),
    ("llm-cache on --port 4100 --mo", ["--mode"], []),
    ("llm-cache exec --mode re", ["replay"], ["cache"]),
    ("llm-cache exec --mode replay --fail", ["--fail-on-miss"], []),
    ("llm-cache install --system ", ["systemd", "launchd"], []),
    ("llm-cache explore --sort to", ["tokens"], ["size"]),
    ("llm-cache key --tier n", ["normalized"], ["exact"]),
    ("llm-cache price clau", [MODEL], []),
]


def bash_offers(
    line: str, environment: dict[str, str], breaks: str = " \t\n\"'><=;|&(:"
) -> set[str]:
    """What bash offers; COMP_WORDS is cut as bash cuts it."""
    program = r"""
        source "$1"; COMP_LINE=$2; COMP_POINT=${#COMP_LINE}; COMP_WORDBREAKS=$3
        COMP_WORDS=(llm-cache); COMP_CWORD=0
        _llm_cache; printf '%s\n' "${COMPREPLY[@]}"
    """
    result = subprocess.run(
        [
            "bash",
            "--norc",
            "-c",
            program,
            "bash",
            ROOT / "completions/llm-cache.bash",
            line,
            breaks,
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    return set(result.stdout.split())


@needs("bash")
def test_bash_offers_what_fits(shell: dict[str, str], filled: tuple[Cli, list[str]]) -> None:
    for line, wanted, unwanted in CASES:
        offered = bash_offers(line, shell)
        assert offered.issuperset(wanted), line
        assert offered.isdisjoint(unwanted), line
    _, keys = filled
    assert bash_offers(f"llm-cache explore --view {keys[0][:9]}", shell) == {keys[0]}
    assert bash_offers(f"llm-cache explore --invalidate={keys[0][:9]}", shell) == {keys[0]}


@needs("bash")
def test_bash_replaces_only_what_follows_a_break(shell: dict[str, str]) -> None:
    assert bash_offers("llm-cache price anthropic.claude-3:", shell) == {"0/x"}
    assert bash_offers("llm-cache price anth", shell) == {ODD_MODEL}
    assert bash_offers("llm-cache price anthropic.claude-3:", shell, " \t\n") == {ODD_MODEL}
    assert bash_offers("llm-cache exec --mode=re", shell) == {"replay"}
    assert bash_offers("llm-cache exec --mode=re", shell, " \t\n") == {"--mode=replay"}


@needs("bash")
def test_bash_completes_the_command_of_exec_as_a_command(shell: dict[str, str]) -> None:
    assert "printf" in bash_offers("llm-cache exec -- print", shell)
    assert "printf" in bash_offers("llm-cache exec --mode replay print", shell)
    assert bash_offers("llm-cache exec -- ls --mo", shell) == set()


@needs("fish")
def test_fish_offers_what_fits(shell: dict[str, str], filled: tuple[Cli, list[str]]) -> None:
    _, keys = filled
    cases = [
        *CASES,
        (f"llm-cache explore --view {keys[0][:9]}", [keys[0]], keys[1:]),
        ("llm-cache price anthropic.claude-3:", [ODD_MODEL], []),
        ("llm-cache exec -- printe", ["printenv"], ["--mode"]),
    ]
    program = "source $argv[1]; for line in $argv[2..-1]; complete -C $line; echo ==; end"
    result = subprocess.run(
        ["fish", "-c", program, ROOT / "completions/llm-cache.fish", *(case[0] for case in cases)],
        env=shell,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    for (line, wanted, unwanted), told in zip(cases, result.stdout.split("==\n"), strict=False):
        offered = {row.split("\t")[0] for row in told.splitlines()}
        assert offered.issuperset(wanted), (line, offered)
        assert offered.isdisjoint(unwanted), (line, offered)


# In front of a terminal


@contextmanager
def at_prompt(command: list[str], environment: dict[str, str], *lines: str) -> Iterator[Terminal]:
    """A shell at its prompt, which is `>`, after some lines."""
    with Terminal(command, {**environment, "PS1": "> "}, columns=160, lines=50) as terminal:
        for line in (*lines, "PS1='> '; clear"):
            terminal.type(f"{line}\r")
        terminal.type("echo re''ady\r")
        terminal.wait("\nready\n>")
        yield terminal


def tries(terminal: Terminal, filled: tuple[Cli, list[str]], tabs: str) -> None:
    """Type, press Tab, and see."""
    _, keys = filled
    for line, wanted, _ in CASES:
        terminal.type(line, tabs)
        terminal.wait(*(word for word in wanted))
        terminal.type(*EMPTIED, "clear\r")
        terminal.wait_gone(line)
    for line, whole in (
        (f"llm-cache explore --view {keys[0][:9]}", keys[0]),
        ("llm-cache price anthropic.claude-3:", ODD_MODEL),
        ("llm-cache unin", "llm-cache uninstall"),
        ("llm-cache exec --mode replay -- printe", "-- printenv"),
    ):
        terminal.type(line, tabs)
        terminal.wait(whole)
        terminal.type(*EMPTIED, "clear\r")
        terminal.wait_gone(line)


@needs("bash")
def test_bash_at_a_prompt(shell: dict[str, str], filled: tuple[Cli, list[str]]) -> None:
    script = ROOT / "completions/llm-cache.bash"
    with at_prompt(["bash", "--norc", "-i"], shell, f"source {script}") as terminal:
        tries(terminal, filled, "\t\t")


@needs("zsh")
def test_zsh_at_a_prompt(shell: dict[str, str], filled: tuple[Cli, list[str]]) -> None:
    with at_prompt(
        ["zsh", "-f", "-i"],
        shell,
        "unsetopt menu_complete auto_menu; PROMPT_EOL_MARK=",
        f"fpath=({ROOT / 'completions'} $fpath); autoload -Uz compinit; compinit -u -D",
    ) as terminal:
        tries(terminal, filled, "\t")


# completion install


def test_install_puts_each_script_where_its_shell_looks(cli: Cli) -> None:
    home = cli.home.parent
    for shell, place in (
        ("bash", ".local/share/bash-completion/completions/llm-cache"),
        ("zsh", ".local/share/zsh/site-functions/_llm-cache"),
        ("fish", ".config/fish/completions/llm-cache.fish"),
    ):
        said = cli.ok("completion", "install", SHELL=f"/usr/bin/{shell}")
        assert said.startswith(f"installed: {home / place}\n")
        assert (home / place).read_text() == cli.ok("completion", "show", "--shell", shell)
        assert cli.ok("completion", "install", "--shell", shell) == said  # again


def test_install_goes_where_the_environment_says(cli: Cli, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    for shell, variable in (
        ("bash", "BASH_COMPLETION_USER_DIR"),
        ("zsh", "XDG_DATA_HOME"),
        ("fish", "XDG_CONFIG_HOME"),
    ):
        said = cli.ok("completion", "install", "--shell", shell, **{variable: str(elsewhere)})
        assert said.startswith(f"installed: {elsewhere}/")
        assert f"'{elsewhere}" in said  # quoted for the shell


def test_a_shell_without_completions_is_wrong_usage(cli: Cli) -> None:
    assert "$SHELL is tcsh" in cli.fails(2, "completion", "install", SHELL="/bin/tcsh")
    assert "$SHELL is not set" in cli.fails(2, "completion", "install", SHELL="")
    assert "--shell tcsh: there are" in cli.fails(2, "completion", "show", "--shell", "tcsh")


def test_a_place_that_cannot_be_written_is_told(cli: Cli) -> None:
    (cli.home.parent / ".config").write_text("a file")
    assert "can't be written" in cli.fails(1, "completion", "install", "--shell", "fish")


def told_lines(said: str) -> list[str]:
    """What the user is told to run."""
    return [line.strip() for line in said.splitlines() if line.startswith("  ")]


@needs("zsh")
def test_zsh_completes_after_what_it_is_told_to_do(shell: dict[str, str], cli: Cli) -> None:
    lines = told_lines(cli.ok("completion", "install", "--shell", "zsh"))
    (cli.home.parent / ".zshrc").write_text("\n".join([*lines, ""]))
    with at_prompt(["zsh", "-i"], {**shell, "ZSH_DISABLE_COMPFIX": "true"}) as terminal:
        terminal.type("llm-cache unin\t")
        terminal.wait("llm-cache uninstall")


@needs("bash")
def test_bash_completes_after_what_it_is_told_to_do(shell: dict[str, str], cli: Cli) -> None:
    [line] = told_lines(cli.ok("completion", "install", "--shell", "bash"))
    (cli.home.parent / ".bashrc").write_text(line + "\n")
    with at_prompt(["bash", "-i"], shell) as terminal:
        terminal.type("llm-cache unin\t")
        terminal.wait("llm-cache uninstall")


@needs("fish")
def test_fish_completes_after_install_alone(shell: dict[str, str], cli: Cli) -> None:
    cli.ok("completion", "install", "--shell", "fish")
    result = subprocess.run(
        ["fish", "-c", "complete -C 'llm-cache unin'"], env=shell, capture_output=True, text=True
    )
    assert result.stdout.startswith("uninstall\t")
