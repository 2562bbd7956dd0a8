"""Changing `.env`: what was meant changes, and not one byte besides."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.env_file import changed, mended, write_private
from llm_cache.errors import SettingsError
from llm_cache.settings import read_env_file

OLD = b"""\
# what this machine uses
export CACHE_PORT = 4000   # the port

FOO="a b" # somebody else's
  CACHE_HOST='127.0.0.1'  # loopback
\tWEIRD\t=\tvalue with spaces\t
#CACHE_TTL_SEC=1
EMPTY=
"""


def test_only_the_value_changes() -> None:
    new = changed(OLD, {"CACHE_PORT": "4100", "CACHE_HOST": "0.0.0.0"})
    assert new == OLD.replace(b"4000", b"4100").replace(b"'127.0.0.1'", b"0.0.0.0")


def test_a_new_name_goes_to_the_end() -> None:
    assert changed(OLD, {"CACHE_MAX_BYTES": "2 GiB"}) == OLD + b"CACHE_MAX_BYTES='2 GiB'\n"


def test_a_file_without_a_last_newline_gets_one_before_what_is_new() -> None:
    assert changed(b"A=1", {"B": "2"}) == b"A=1\nB=2\n"
    assert changed(b"A=1", {"A": "2"}) == b"A=2"
    assert changed(b"", {"B": "2"}) == b"B=2\n"


def test_line_endings_and_the_byte_order_mark_stay() -> None:
    old = b"\xef\xbb\xbfA=1\r\n# c\r\nB=2\r\n"
    assert changed(old, {"A": "3", "C": "4"}) == b"\xef\xbb\xbfA=3\r\n# c\r\nB=2\r\nC=4\r\n"


def test_a_name_is_taken_away_wherever_it_stands() -> None:
    assert changed(b"# c\n\nA=1\nB=2\nexport A=3 # x\n", {"A": None}) == b"# c\n\nB=2\n"


def test_of_a_name_that_stands_twice_the_last_one_changes() -> None:
    assert changed(b"A=1\nA=2\n", {"A": "3"}) == b"A=1\nA=3\n"


def test_an_empty_value_before_a_comment_gets_one() -> None:
    assert changed(b"A= # none yet\n", {"A": "1"}) == b"A=1 # none yet\n"


@pytest.mark.parametrize("line", ["what is this", "A", "A='open", 'B="open\nC=1'])
def test_a_line_that_cannot_be_understood_is_named_and_its_text_is_not(line: str) -> None:
    with pytest.raises(SettingsError) as error:
        changed(f"X=1\n\n{line}\n".encode(), {"X": "2"})
    assert "line 3" in str(error.value)
    assert "what is this" not in str(error.value)


def test_a_file_that_is_not_text_is_refused() -> None:
    with pytest.raises(SettingsError, match="UTF-8"):
        changed(b"A=\xff\n", {"A": "1"})


TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
LINES = st.sampled_from(
    ["# comment", "", "  ", "A=1", "export B = 2  # b", "C='x y'", 'D="a\\"b" # d', "E=", "é=ü"]
)


@given(st.lists(LINES), st.sampled_from(["\n", "\r\n"]), TEXTS, st.sampled_from("ABCDEF"))
def test_every_value_is_read_back_and_every_other_stays(
    lines: list[str], end: str, value: str, name: str
) -> None:
    old = end.join(lines).encode()
    new = changed(old, {name: value})
    before, after = read(old), read(new)
    assert after == before | {name: value}
    kept = [line for line in lines if not line.removeprefix("export ").startswith(name)]
    for line in kept:
        assert line.encode() in new
    if name in before:
        assert new.count(end.encode()) == old.count(end.encode())
    assert read(changed(new, {name: None})) == {k: v for k, v in before.items() if k != name}


def read(data: bytes) -> dict[str, str]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder, ".env")
        path.write_bytes(data)
        return read_env_file(path)


def test_the_file_is_private_whatever_the_umask_and_the_old_mode(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        write_private(path, b"A=2\n")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"A=2\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles.env", tmp_path / ".env"
    real.write_text("A=1\n")
    link.symlink_to(real)
    write_private(link, b"A=2\n")
    assert link.is_symlink()
    assert real.read_bytes() == b"A=2\n"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(SettingsError, match="No space left"):
        write_private(path, b"A=2\n")
    assert path.read_text() == "A=1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        write_private(tmp_path / "none" / ".env", b"")


def test_lines_that_cannot_be_understood_become_comments_and_no_other_byte_changes() -> None:
    data = b"\xef\xbb\xbfA=1\r\n\r\nwhat is this\r\nB='x y' # z\r\n\xff=2\r\nC\r\nD=3"
    whole = mended(data)
    meant = "\ufeffA=1\r\n\r\n# what is this\r\nB='x y' # z\r\n# \ufffd=2\r\n# C\r\nD=3"
    assert whole == meant.encode()
    assert mended(whole) == whole
