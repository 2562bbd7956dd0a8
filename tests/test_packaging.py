"""The wheel: every module and data file of every room and nothing else at top level; and it works
where nothing but it and its dependencies is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from support.proxy import clean_environment

import llm_cache

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ROOMS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
NOT_SHIPPED = {"__pycache__", ".DS_Store"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy so that nothing is left in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for room in ROOMS.values():
        shutil.copytree(
            ROOT / room,
            source / room,
            ignore=shutil.ignore_patterns(*NOT_SHIPPED),
            dirs_exist_ok=True,  # a room inside a room was copied with it
        )
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
            *("--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source),
        ],
        check=True,
    )
    [built] = folder.glob("*.whl")
    return built


def shipped(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_every_room_and_no_other(wheel: Path) -> None:
    expected = {
        f"{package.replace('.', '/')}/{path.relative_to(ROOT / room)}"
        for package, room in ROOMS.items()
        for path in (ROOT / room).glob("*")
        if path.is_file() and not NOT_SHIPPED & set(path.parts)
    }
    found = {name for name in shipped(wheel) if ".dist-info/" not in name}
    assert found == expected
    assert "llm_cache/py.typed" in found


def test_the_wheel_has_one_package_at_top_level(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in shipped(wheel)}
    assert tops == {"llm_cache", f"llm_cache-{llm_cache.__version__}.dist-info"}


def test_every_folder_with_modules_is_a_listed_package() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert listed == set(ROOMS)
    for package, room in ROOMS.items():
        for init in (ROOT / room).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / room).parts
            assert ".".join((package, *inner)) in listed


def test_no_folder_at_the_root_shadows_the_package() -> None:
    assert not (ROOT / "llm_cache").exists()


def test_the_wheel_names_its_command_and_its_licence(wheel: Path) -> None:
    info = f"llm_cache-{llm_cache.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        metadata = message_from_bytes(archive.read(f"{info}/METADATA"))
    assert "llm-cache = llm_cache.__main__:main" in entry_points
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    # An extra or a test tool that slipped into what every user installs would show here.
    required = {
        line.split(">")[0].split(";")[0].strip() for line in metadata.get_all("Requires-Dist")
    }
    assert required.isdisjoint({"pytest", "mypy", "ruff", "hypothesis", "setuptools"})


@pytest.mark.timeout(300)
def test_the_demo_runs_from_the_wheel_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    python = place / "bin" / "python"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
            *("--disable-pip-version-check", "--no-index", "--no-deps", wheel),
        ],
        check=True,
    )
    # Dependencies come from where the tests run, behind the venv's own packages: there is no
    # network here to install them from.
    [packages] = place.glob("lib/python3*/site-packages")
    around = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "around.pth").write_text("\n".join(sorted(around)) + "\n")

    env = clean_environment(tmp_path / "home")
    where = "import llm_cache.cli.app; print(llm_cache.cli.app.__file__)"
    imported = subprocess.run(
        [python, "-c", where], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(imported.stdout.strip()).is_relative_to(place)

    result = subprocess.run(
        [place / "bin" / "llm-cache", "demo"],
        env={**env, "PATH": os.defpath},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "the same " in result.stdout
    assert not (tmp_path / "home").exists()  # the demo's home is its own
