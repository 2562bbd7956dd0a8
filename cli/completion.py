"""What the Tab key offers: `completion` puts a shell's script in place, `_complete` gives the words
that only the store knows.

The scripts are static, made from this program by scripts/make_completions.py; they ask `_complete`
for keys and models. Words with a character that a shell would take for more than itself are never
offered: what a client once named as its model must not become a command.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from llm_cache.cli.output import say
from llm_cache.errors import LlmCacheError, UsageError
from llm_cache.settings import Settings, load_settings

SCRIPTS = {"bash": "llm-cache.bash", "zsh": "_llm-cache", "fish": "llm-cache.fish"}
"""The file of each shell's script."""

_MOST = 100
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")

Shell = Annotated[str | None, typer.Option(help="bash, zsh or fish; that of $SHELL unless given.")]

app = typer.Typer(
    help="Complete commands, options, keys and models with the Tab key.\n\n"
    "Example: llm-cache completion install",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def install(shell: Shell = None) -> None:
    """Put the completion of a shell in place, and say what to do with it.

    Example: llm-cache completion install --shell zsh
    """
    name = _shell(shell)
    path = place(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script(name), "utf-8")
    except OSError as error:
        raise LlmCacheError(f"{path}: can't be written: {error.strerror}") from None
    say(f"installed: {path}")
    file, folder = shlex.quote(str(path)), shlex.quote(str(path.parent))
    if name == "bash":
        say("New shells have it where the bash-completion package is set up. Elsewhere, and in")
        say("this shell, this does it; it can go into ~/.bashrc:")
        say(f"  source {file}")
    elif name == "zsh":
        say("Put this into ~/.zshrc, where compinit is called already before that line:")
        say(f"  fpath=({folder} $fpath)")
        say("  autoload -Uz compinit && compinit")
    else:
        say("New shells have it. In this shell:")
        say(f"  source {file}")


@app.command()
def show(shell: Shell = None) -> None:
    """Print the completion script of a shell.

    Example: source <(llm-cache completion show --shell bash)
    """
    say(script(_shell(shell)).rstrip("\n"))


def complete(
    kind: Annotated[str, typer.Argument(help="keys or models.")],
    start: Annotated[str, typer.Argument(help="What they begin with.")] = "",
) -> None:
    """Print the words a shell may offer, one a line; none when they can't be had.

    Example: llm-cache _complete keys 3f
    """
    with suppress(Exception):  # who presses Tab is not helped by an error
        for word in {"keys": _keys, "models": _models}.get(kind, _none)(load_settings(), start):
            if _PLAIN.fullmatch(word) and word.startswith(start):
                say(word)


def script(shell: str) -> str:
    """The text of a shell's script."""
    from importlib import resources

    return resources.files("llm_cache.completions").joinpath(SCRIPTS[shell]).read_text("utf-8")


def place(shell: str) -> Path:
    """Where a shell looks for a user's completions."""
    data = _folder("XDG_DATA_HOME", ".local/share")
    if shell == "bash":
        return _folder("BASH_COMPLETION_USER_DIR", data / "bash-completion") / (
            "completions/llm-cache"
        )
    if shell == "zsh":
        return data / "zsh/site-functions/_llm-cache"
    return _folder("XDG_CONFIG_HOME", ".config") / "fish/completions/llm-cache.fish"


def _folder(variable: str, otherwise: str | Path) -> Path:
    named = os.environ.get(variable, "")
    return Path(named) if named.startswith("/") else Path.home() / otherwise


def _shell(given: str | None) -> str:
    name = given or Path(os.environ.get("SHELL", "")).name
    if name not in SCRIPTS:
        what = f"--shell {given}" if given else f"$SHELL is {name or 'not set'}"
        raise UsageError(f"{what}: there are completions for bash, zsh and fish; give --shell")
    return name


def _keys(settings: Settings, start: str) -> Iterator[str]:
    from llm_cache.cli.open_store import opened_store

    with opened_store(settings) as store:
        if store is None:
            return
        if start:
            yield from (key for key, _ in store.find(start, _MOST))
        else:
            yield from (key for _, (key, _) in zip(range(_MOST), store.entries(), strict=False))


def _models(settings: Settings, start: str) -> Iterator[str]:
    from llm_cache.cli.open_store import opened_store

    with opened_store(settings) as store:
        scopes = store.ledger.read() if store is not None else {}
    yield from sorted({json.loads(scope)[1] for scope in scopes})


def _none(settings: Settings, start: str) -> Iterator[str]:
    yield from ()
