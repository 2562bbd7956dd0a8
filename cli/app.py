"""The `llm-cache` program: the list of its commands, and the one place where an error becomes a
line on stderr and an exit code.

Exit codes: 0 success, 1 a failed check or operation, 2 wrong usage, 130 Ctrl-C. There is no
traceback, whatever happens: an error is one line, and one more for each of several things that
are wrong at once. What looks like a key is masked in it. `CACHE_LOG_LEVEL=debug` shows the
traceback of a fault of our own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from llm_cache import __version__
from llm_cache.cli import (
    completion,
    demo,
    exec,
    explore,
    inspect,
    lifecycle,
    monitor,
    presets,
    service,
    setup,
    stats,
    token,
    validate,
)
from llm_cache.errors import LlmCacheError
from llm_cache.masking import without_keys

app = typer.Typer(
    name="llm-cache",
    help="A local caching proxy for LLM APIs: the same request is answered again, byte for byte, "
    "with no upstream call.\n\nExample: llm-cache on && "
    "export ANTHROPIC_BASE_URL=http://localhost:4000",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _name, _command in (
    ("on", lifecycle.on),
    ("off", lifecycle.off),
    ("restart", lifecycle.restart),
    ("stop", lifecycle.stop),
    ("run", lifecycle.run),
    ("status", lifecycle.status),
    ("stats", stats.stats),
    ("monitor", monitor.monitor),
    ("explore", explore.explore),
    ("validate", validate.validate),
    ("setup", setup.setup),
    ("install", service.install),
    ("uninstall", service.uninstall),
    ("key", inspect.key),
    ("price", inspect.price),
    ("usage", inspect.usage),
    ("presets", presets.presets),
    ("demo", demo.demo),
):
    app.command(_name)(_command)
# From the command's name on, nothing is an option of ours.
app.command("exec", context_settings={"allow_interspersed_args": False})(exec.exec_)
app.add_typer(token.app, name="token")
app.add_typer(completion.app, name="completion")
app.command("_complete", hidden=True)(completion.complete)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version and exit.")
    ] = False,
) -> int:
    if version:
        print(f"llm-cache {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit
    return 0


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that can't show a letter shows "?"
    try:
        command = typer.main.get_command(app)
        _name_values(command)
        given = sys.argv[1:] if arguments is None else list(arguments)
        with command.make_context("llm-cache", given) as context:
            code = command.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.Exit as done:
        return done.exit_code
    except typer.TyperException as error:
        return _failed(f"{error.format_message()} (see --help)", error.exit_code)
    except LlmCacheError as error:
        return _failed(error.heading or str(error), error.exit_code, error.details)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # whoever read our output has enough
        _give_up_stdout()
        return 0
    except OSError as error:
        _give_up_stdout()
        what = f"{error.filename}: " if error.filename else ""
        return _failed(f"{what}{error.strerror or type(error).__name__}", 1)
    except Exception as error:
        if os.environ.get("CACHE_LOG_LEVEL") == "debug":
            raise
        return _failed(
            f"a fault in llm-cache itself ({type(error).__name__}); "
            "set CACHE_LOG_LEVEL=debug to see where",
            1,
        )


def _name_values(command: Any) -> None:
    """Let help call an option's value by a word (`--host HOST`), not by Python's type
    (`--host <str>`)."""
    for parameter in command.params:
        option = parameter.param_type_name == "option"
        if option and parameter.metavar is None and not parameter.is_flag:
            parameter.metavar = str(parameter.name).upper().rpartition("_")[2]
    for one in getattr(command, "commands", {}).values():
        _name_values(one)


def _open_what_is_closed() -> None:
    """Whoever started us may have closed stdin, stdout or stderr (`>&-`): nothing else that is
    opened later, such as the store, may get their numbers and what is printed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # so that what we start has all three as well
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _give_up_stdout() -> None:
    """What stdout still holds goes nowhere: Python would fail once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(message: str, code: int, details: Sequence[str] = ()) -> int:
    lines = [f"llm-cache: {message}{':' if details else ''}", *details]
    text = "\n  ".join(without_keys(" ".join(line.split())) for line in lines)
    print(text, file=sys.stderr, flush=True)
    return code
