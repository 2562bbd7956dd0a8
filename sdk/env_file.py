"""Changing an `.env` file: some values, and not one byte besides.

What holds: comments, order, blank lines, line endings and names this program doesn't know stay as
they are, byte for byte; what was read back after a change is what was meant. The file is replaced
whole or not at all, and only its user may read it. Reading one is `settings.read_env_file`.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llm_cache.errors import SettingsError

_BOM = b"\xef\xbb\xbf"

# A binding as python-dotenv reads it (dotenv/parser.py): what is before the value, and the value.
_BEFORE_VALUE = re.compile(r"\s*(?:export[^\S\r\n]+)?(?:'[^']+'|[^=#\s]+)[^\S\r\n]*=[^\S\r\n]*")
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_UNQUOTED = re.compile(r"[^\r\n]*")
_COMMENT = re.compile(r"\s+#.*")
_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z0-9_./:@%+,=~-]+")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the file: a binding with the blank lines before it, or what is none."""

    text: str
    name: str | None


def changed(data: bytes, values: Mapping[str, str | None]) -> bytes:
    """The bytes of an `.env` file with these names set, None: taken away.

    A name that is there is changed where it stands (the last time it does: that one counts); a new
    one is added at the end. Raises SettingsError for a file that isn't UTF-8 or has a line that
    can't be understood.
    """
    mark = _BOM if data.startswith(_BOM) else b""
    text = _decoded(data[len(mark) :])
    end = "\r\n" if "\r\n" in text else "\n"
    pieces = list(_pieces(text))
    last = {piece.name: index for index, piece in enumerate(pieces)}
    kept: list[str] = []
    for index, piece in enumerate(pieces):
        if piece.name is None or piece.name not in values:
            kept.append(piece.text)
            continue
        value = values[piece.name]
        if value is None:
            kept.append(_blank_lines(piece.text))
        else:
            kept.append(_with_value(piece.text, value) if index == last[piece.name] else piece.text)
    whole = "".join(kept)
    for name, value in values.items():
        if value is not None and name not in last:
            if whole and not whole.endswith(("\n", "\r")):
                whole += end
            whole += f"{name}={_quoted(value)}{end}"
    meant = {
        name: value for name, value in (_values(text) | dict(values)).items() if value is not None
    }
    if _values(whole) != meant:
        raise SettingsError(".env has lines that can't be changed safely: edit it by hand")
    return mark + whole.encode("utf-8")


def mended(data: bytes) -> bytes:
    """The bytes of an `.env` file with each line that can't be understood made a comment; what
    isn't UTF-8 in such a line is replaced. A file that is well comes back as it is."""
    from dotenv.parser import parse_stream

    mark = _BOM if data.startswith(_BOM) else b""
    text = "".join(_readable(line) for line in data[len(mark) :].splitlines(keepends=True))
    kept: list[str] = []
    for binding in parse_stream(io.StringIO(text, newline="")):
        original = binding.original.string
        if binding.error or (binding.key is not None and binding.value is None):
            start = len(original) - len(original.lstrip())
            original = f"{original[:start]}# {original[start:]}"
        kept.append(original)
    return mark + "".join(kept).encode("utf-8")


def as_far_as_it_reads(path: Path) -> dict[str, str]:
    """The names and values of those lines that can be understood; nothing of a file that can't be
    read at all."""
    try:
        values = _values(mended(read_bytes(path)).decode("utf-8-sig"))
    except SettingsError:
        return {}
    return {name: value for name, value in values.items() if value is not None}


def _readable(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return "# " + line.decode("utf-8", "replace")


def write_private(path: Path, data: bytes) -> None:
    """Replace a file by `data` in one step, 0600 whatever the umask. A link stays a link.

    Raises SettingsError, and then the file is as it was.
    """
    draft: str | None = None
    try:
        target = Path(os.path.realpath(path))
        descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=".env-")  # 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(target)
        draft = None
    except OSError as error:
        raise SettingsError(f"{path}: can't be written: {error.strerror}") from None
    finally:
        if draft is not None:
            with suppress(OSError):
                Path(draft).unlink()


def read_bytes(path: Path) -> bytes:
    """The bytes of the file, none when it isn't there. Raises SettingsError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SettingsError(f"{path}: can't be read: {error.strerror}") from None


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise SettingsError(".env isn't UTF-8 text") from None


def _pieces(text: str) -> Iterator[_Piece]:
    from dotenv.parser import parse_stream

    at = 0
    # newline="": line endings come through as they are.
    for binding in parse_stream(io.StringIO(text, newline="")):
        original = binding.original.string
        if binding.error or (binding.key is not None and binding.value is None):
            line = text.count("\n", 0, at + len(original) - len(original.lstrip())) + 1
            raise SettingsError(f".env, line {line}: must be NAME=value, a comment or empty")
        at += len(original)
        yield _Piece(original, binding.key)
    if at != len(text):
        raise SettingsError(".env can't be understood to its end")


def _values(text: str) -> dict[str, str | None]:
    from dotenv.parser import parse_stream

    bindings = parse_stream(io.StringIO(text, newline=""))
    return {binding.key: binding.value for binding in bindings if binding.key is not None}


def _blank_lines(binding: str) -> str:
    """What stands before a binding and isn't a part of it."""
    before = binding[: len(binding) - len(binding.lstrip())]
    return before[: before.rfind("\n") + 1]


def _with_value(binding: str, value: str) -> str:
    before = _BEFORE_VALUE.match(binding)
    if before is None:
        raise SettingsError(".env has a line whose value can't be changed")
    start = before.end()
    rest = binding[start:]
    if rest.startswith("#") and before[0][-1].isspace():  # `NAME= # a comment`: the value is empty
        start = binding.index("=") + 1
        return binding[:start] + _quoted(value) + binding[start:]
    old = _QUOTED.match(rest)
    line = _UNQUOTED.match(rest)
    length = old.end() if old else len(_COMMENT.sub("", line[0] if line else "").rstrip())
    return binding[:start] + _quoted(value) + rest[length:]


def _quoted(value: str) -> str:
    """The value as python-dotenv, a shell and systemd's EnvironmentFile= all read it back."""
    if _NEEDS_NO_QUOTES.fullmatch(value):
        return value
    if "'" not in value and "\\" not in value:
        return f"'{value}'"
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
