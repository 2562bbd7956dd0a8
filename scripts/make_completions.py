"""Make completions/ from the command line itself.

    python scripts/make_completions.py           writes the three scripts
    python scripts/make_completions.py --check   exit code 1 when one of them isn't what it would be

What holds in every script: nothing but our own options and commands, file names and the words of
`llm-cache _complete` is offered, and none of these words is ever evaluated by the shell. The bash
script needs no bash-completion package and runs in bash 3.2, which macOS has.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import typer

from llm_cache.cli.app import app
from llm_cache.cli.completion import SCRIPTS
from llm_cache.cli.inspect import TIERS
from llm_cache.exchange.browse import ORDERS
from llm_cache.settings import LogLevel, Mode
from llm_cache.wire.registry import PROVIDERS

FOLDER = Path(__file__).resolve().parents[1] / "completions"

Words = tuple[str, ...]
KEYS, MODELS, FILES, COMMAND = "keys", "models", "files", "command"
"""What can't be listed here: told by `_complete`, by the file system, by the rest of the shell."""

OPTION_VALUES: dict[str, Words | str] = {
    "--home": FILES,
    "--invalidate": KEYS,
    "--log-file": FILES,
    "--log-level": get_args(LogLevel),
    "--mode": get_args(Mode),
    "--provider": tuple(sorted(provider.name for provider in PROVIDERS)),
    "--scope": ("credential", "shared"),
    "--shell": tuple(SCRIPTS),
    "--sort": tuple(order.name for order in ORDERS),
    "--system": ("systemd", "launchd"),
    "--tier": TIERS,
    "--view": KEYS,
}
ARGUMENT_VALUES: dict[str, Words | str] = {"price": MODELS, "exec": COMMAND}


@dataclass(frozen=True, slots=True)
class Option:
    """`names` are its spellings; `value` is what may follow, () = anything, None for a switch."""

    names: Words
    help: str
    value: Words | str | None


@dataclass(frozen=True, slots=True)
class Command:
    """One command by its words (`completion`, `install`); `argument` as an option's value."""

    words: Words
    help: str
    options: tuple[Option, ...]
    argument: Words | str | None
    children: Words

    @property
    def name(self) -> str:
        return " ".join(self.words)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    stale = []
    for name, text in made().items():
        path = FOLDER / name
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, "utf-8")
    for name in stale:
        print(f"completions/{name}: {'is stale; run this without --check' if check else 'written'}")
    return 1 if check and stale else 0


def made() -> dict[str, str]:
    """The scripts by file name, as they should be."""
    program, *commands = _commands(typer.main.get_command(app), ())
    return {
        SCRIPTS["bash"]: bash(program, commands),
        SCRIPTS["zsh"]: zsh(program, commands),
        SCRIPTS["fish"]: fish(program, commands),
    }


def _commands(command: Any, words: Words) -> Iterator[Command]:
    """The command and all that are below it."""
    children = {
        name: child for name, child in getattr(command, "commands", {}).items() if not child.hidden
    }
    options = [Option(("-h", "--help"), "Show how it is used.", None)]
    argument: Words | str | None = None
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            argument = ARGUMENT_VALUES.get(words[-1], ())
        elif not parameter.hidden:
            names = (*parameter.opts, *parameter.secondary_opts)
            value = None if parameter.is_flag else OPTION_VALUES.get(parameter.opts[0], ())
            options.append(Option(names, parameter.help or "", value))
    text = " ".join((command.help or "").partition("\n\n")[0].split())
    yield Command(words, text, tuple(options), argument, tuple(children))
    for name, child in children.items():
        yield from _commands(child, (*words, name))


def _head(mark: str = "#") -> str:
    return f"{mark} Made by scripts/make_completions.py from the command line; not to be edited.\n"


# bash


def bash(program: Command, commands: list[Command]) -> str:
    everything = [program, *commands]
    lines = []
    for command in everything:
        names = " ".join(name for option in command.options for name in option.names)
        words = names if command.argument is None and not command.children else ""
        lines.append(f"        {_pattern(command.name)})")
        lines.append(f"            options='{names}'")
        if command.children:
            lines.append(f"            words='{' '.join(command.children)}'")
        elif isinstance(command.argument, str):
            lines.append(f"            kind={command.argument}")
        elif words == "":
            lines.append("            kind=files")
        lines += [*_bash_values(command), "            ;;"]
    groups = "|".join(_pattern(command.name) for command in commands if command.children)
    return _BASH.format(head=_head(), groups=groups, cases="\n".join(lines))


def _bash_values(command: Command) -> Iterator[str]:
    valued = [option for option in command.options if option.value is not None]
    if not valued:
        return
    yield "            case $option in"
    for option in valued:
        value = option.value
        if isinstance(value, str):
            then = f"kind={value}"
        else:
            then = f"kind=words words='{' '.join(value)}'" if value else "kind=files"
        yield f"                {'|'.join(option.names)}) {then} ;;"
    yield "                *) option= ;;"
    yield "            esac"


def _pattern(name: str) -> str:
    return f"'{name}'"


_BASH = """\
{head}
_llm_cache() {{
    local IFS=$' \\t\\n' line current tail prefix breaks= path= option= options= words= kind=words
    local -a given=() found=()
    local i word
    COMPREPLY=()

    # The words up to the cursor, cut at white space alone: bash cuts at = and : as well.
    line=${{COMP_LINE:0:COMP_POINT}}
    line="${{line#*"${{COMP_WORDS[0]}}"}}"
    read -r -a given <<<"$line"
    case $line in *[[:space:]]) given+=("") ;; esac
    [ ${{#given[@]}} -gt 0 ] || return 0
    current=${{given[${{#given[@]}} - 1]}}

    # The command, and the option whose value comes now.
    for ((i = 0; i < ${{#given[@]}} - 1; i++)); do
        word=${{given[i]}}
        option=
        case $path in
            exec)
                case $word in
                    --)
                        _llm_cache_rest $((i + 1))
                        return
                        ;;
                    --*=*) ;;
                    -*) option=$word ;;
                    *)
                        case ${{given[i - 1]}} in
                            --mode | --namespace | --scope | --home | --log-file) ;;
                            *)
                                _llm_cache_rest "$i"
                                return
                                ;;
                        esac
                        ;;
                esac
                ;;
            *)
                case $word in
                    --*=*) ;;
                    -*) option=$word ;;
                    *)
                        case $path in
                            '' | {groups}) path="${{path:+$path }}$word" ;;
                        esac
                        ;;
                esac
                ;;
        esac
    done
    prefix=
    case $current in
        --*=*)
            option=${{current%%=*}}
            prefix=$option=
            ;;
    esac

    case $path in
{cases}
        *) return 0 ;;
    esac
    if [ -z "$option" ] || [ "$kind$words" = words ]; then
        case $current in
            -*)
                [ -z "$prefix" ] || return 0
                kind=words words=$options
                ;;
        esac
    fi

    case $kind in
        words) for word in $words; do found+=("$word"); done ;;
        keys | models)
            while read -r word; do found+=("$word"); done < <(
                llm-cache _complete "$kind" "${{current#"$prefix"}}" 2>/dev/null
            )
            ;;
        command)
            while read -r word; do found+=("$word"); done < <(compgen -c -- "$current")
            ;;
        *)
            [ -n "$prefix" ] || return 0 # readline offers files by itself
            while read -r word; do found+=("$word"); done < <(
                compgen -f -- "${{current#"$prefix"}}"
            )
            ;;
    esac

    # What goes into the line replaces only what follows the last break.
    case $COMP_WORDBREAKS in *=*) breaks+='=' ;; esac
    case $COMP_WORDBREAKS in *:*) breaks+=':' ;; esac
    tail=$current
    [ -z "$breaks" ] || tail=${{current##*[$breaks]}}
    for word in ${{found[@]+"${{found[@]}}"}}; do
        word=$prefix$word
        case $word in "$current"*) COMPREPLY+=("${{word#"${{current%"$tail"}}"}}") ;; esac
    done
}}

# The command that exec runs, from the word with this number on: as its own completion has it.
_llm_cache_rest() {{
    if declare -F _command_offset >/dev/null; then
        _command_offset $(($1 + 1))
    elif [ "$1" -eq $((${{#given[@]}} - 1)) ]; then
        while read -r word; do COMPREPLY+=("$word"); done < <(compgen -c -- "$current")
    fi
}}

complete -o bashdefault -o default -F _llm_cache llm-cache
"""


# zsh


def zsh(program: Command, commands: list[Command]) -> str:
    functions = []
    for command in [program, *commands]:
        functions.append(_zsh_function(command, commands))
    return _ZSH.format(head=_head(), functions="\n".join(functions))


def _zsh_function(command: Command, commands: list[Command]) -> str:
    name = "_".join(["_llm_cache", *(word.replace("-", "_") for word in command.words)])
    specs = [_zsh_option(option) for option in command.options]
    lines = [f"{name}() {{"]
    if command.children:
        specs += ["'1: :->command'", "'*:: :->rest'"]
        lines += [
            '    local curcontext="$curcontext" state state_descr line',
            "    local -a below  # not `commands`: those of zsh are called so",
            "    typeset -A opt_args",
            f"    _arguments -C \\\n        {_zsh_joined(specs)}",
            "    case $state in",
            "        command)",
            "            below=(",
        ]
        below = [one for one in commands if one.words[:-1] == command.words]
        lines += [
            f"                {_single(f'{one.words[-1]}:{_zsh_text(one.help)}')}" for one in below
        ]
        lines += [
            "            )",
            "            _describe -t commands command below",
            "            ;;",
            "        rest)",
            "            case $words[1] in",
        ]
        for one in below:
            called = "_".join(["_llm_cache", *(word.replace("-", "_") for word in one.words)])
            lines.append(f"                {one.words[-1]}) {called} ;;")
        lines += ["            esac", "            ;;", "    esac"]
    else:
        if command.argument == COMMAND:
            lines += _ZSH_REST
            specs.append("'(-)*:: : _normal'")
        elif command.argument is not None:
            specs.append(
                f"'1:{'model' if command.argument == MODELS else 'text'}:"
                f"{_zsh_action(command.argument)}'"
            )
        lines.append(f"    _arguments -S \\\n        {_zsh_joined(specs)}")
    return "\n".join([*lines, "}", ""])


_ZSH_REST = (
    "    local at=${words[(i)--]}",
    "    if (( at < CURRENT )); then",
    "        shift $at words",
    "        (( CURRENT -= at ))",
    "        _normal",
    "        return",
    "    fi",
)
"""What follows `--` is a command line of its own, of which _arguments doesn't know."""


def _zsh_joined(specs: list[str]) -> str:
    return " \\\n        ".join(specs)


def _zsh_option(option: Option) -> str:
    text = f"[{_zsh_text(option.help)}]"
    if option.value is not None:
        text += f":value:{_zsh_action(option.value)}"
    if len(option.names) == 1:
        equals = "=" if option.value is not None else ""
        return _single(f"{option.names[0]}{equals}{text}")
    equals = "=" if option.value is not None else ""
    spelled = ",".join(name + (equals if name.startswith("--") else "") for name in option.names)
    return _single(f"({' '.join(option.names)})") + "{" + spelled + "}" + _single(text)


def _zsh_action(value: Words | str) -> str:
    if value in (KEYS, MODELS):
        return f" _llm_cache_words {value}"  # the space: nothing is put between the two words
    if isinstance(value, tuple) and value:
        return f"({' '.join(value)})"
    return "_files"


def _zsh_text(text: str) -> str:
    for mark in "\\[]:":
        text = text.replace(mark, f"\\{mark}")
    return text


def _single(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_ZSH = """\
#compdef llm-cache
{head}
_llm_cache_words() {{
    local -a found
    found=(${{(f)"$(llm-cache _complete $1 ${{(Q)PREFIX}} 2>/dev/null)"}})
    compadd -a found
}}

{functions}
if [ "$funcstack[1]" = _llm-cache ]; then
    _llm_cache "$@"
else
    compdef _llm_cache llm-cache
fi
"""


# fish


def fish(program: Command, commands: list[Command]) -> str:
    lines = []
    for command in [program, *commands]:
        at = f"-n '__llm_cache_at {command.name}'" if command.words else "-n __llm_cache_at"
        for name in command.children:
            child = next(one for one in commands if one.words == (*command.words, name))
            lines.append(f"complete -c llm-cache {at} -a {name} -d {_fish_text(child.help)}")
        below = f"-n '__llm_cache_in {command.name}'" if command.words else at
        for option in command.options:
            for name in option.names:
                dashes = "-l" if name.startswith("--") else "-s"
                lines.append(
                    f"complete -c llm-cache {below} {dashes} {name.lstrip('-')}"
                    f"{_fish_value(option.value)} -d {_fish_text(option.help)}"
                )
        if command.argument == COMMAND:
            lines.append(f"complete -c llm-cache {below} -a '(__llm_cache_rest)'")
        elif command.argument is not None:
            given = _fish_value(command.argument).replace(" -x", "").replace(" -r", "")
            lines.append(f"complete -c llm-cache {below}{given or ' -F'}")
        lines.append("")
    return _FISH.format(head=_head(), lines="\n".join(lines).rstrip("\n"))


def _fish_value(value: Words | str | None) -> str:
    if value is None:
        return ""
    if value in (KEYS, MODELS):
        return f" -x -a '(llm-cache _complete {value} (commandline -ct) 2>/dev/null)'"
    if isinstance(value, tuple) and value:
        return f" -x -a '{' '.join(value)}'"
    return " -r -F" if value == FILES else " -x"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_FISH = """\
{head}
# The words of the command, without options.
function __llm_cache_words
    set -l given (commandline -opc)
    for word in $given[2..-1]
        string match -q -- '-*' $word; or echo $word
    end
end

# True when these words, and no more, were given.
function __llm_cache_at
    set -l given (__llm_cache_words)
    test "$given" = "$argv"
end

# True when the command begins with these words.
function __llm_cache_in
    set -l given (__llm_cache_words)
    set -l count (count $argv)
    test (count $given) -ge $count; and test "$given[1..$count]" = "$argv"
end

# The command that exec runs, as its own completion has it.
function __llm_cache_rest
    set -l given (commandline -opc)
    set -l at (contains -i -- -- $given); or return
    set -l rest
    test $at -lt (count $given); and set rest (string escape -- $given[(math $at + 1)..-1])
    set -l line (string join ' ' -- $rest (commandline -ct))
    complete -C "$line"
end

complete -c llm-cache -f
{lines}
"""


if __name__ == "__main__":
    sys.exit(main())
