"""`token`: what clients of a shared proxy send, to hand on and to change."""

from __future__ import annotations

import typer

from llm_cache.cli.output import note, say
from llm_cache.errors import LlmCacheError
from llm_cache.host import process
from llm_cache.settings import load_settings

app = typer.Typer(
    help="Show or change the token that clients send.\n\nExample: llm-cache token show",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def show() -> None:
    """Print the token (CACHE_AUTH_TOKEN), and nothing else.

    Example: llm-cache token show
    """
    token = load_settings().auth_token
    if token is None:
        raise LlmCacheError("there is no token: `llm-cache token new` makes one")
    say(token)


@app.command()
def new() -> None:
    """Make a new token, write it into .env and print it.

    It counts from the next `llm-cache restart` on; the old one is refused then.

    Example: llm-cache token new
    """
    from llm_cache.host import configure

    now = configure.present()
    token = configure.new_token()
    answers = {"CACHE_AUTH_TOKEN": token}
    if configure.overridden(now, answers):
        raise LlmCacheError(
            "CACHE_AUTH_TOKEN is set in the environment, which counts before .env: change it there"
        )
    configure.write(now, answers)
    note(f"written: {now.path} (only you can read it)")
    if process.find(now.review.settings) is not None:
        note("it counts from `llm-cache restart` on")
    say(token)
