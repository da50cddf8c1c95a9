"""What `bin/test-client-pythons` runs, and what docs/clients.md says that it last saw."""

import re
from pathlib import Path

import pytest

from tests.clients.pythons.installation import WAYS, Place, read_commands
from tests.clients.pythons.interpreter import VERSIONS, Interpreter
from tests.clients.pythons.table import (
    NOT_RUN,
    RUN_HEAD,
    WHEELS_HEAD,
    WORKS,
    Trial,
    make_tables,
    put_tables,
    read_tables,
)
from tests.clients.pythons.wheels import FAILS, PLATFORMS, WHOLE
from tests.clients.table import PAGE

REMEDY = "stale: run bin/test-client-pythons"


def test_each_python_has_a_row() -> None:
    """The page has every Python and every way of installing, with these tools, and no failure."""
    (head, *rows), _ = read_tables(PAGE.read_text())
    assert head == RUN_HEAD, REMEDY
    assert tuple(".".join(row[0].split(".")[:2]) for row in rows) == VERSIONS, REMEDY
    for row in rows:
        assert set(row[2:]) in ({WORKS}, {NOT_RUN}), REMEDY


def test_each_platform_has_a_row() -> None:
    """The page says of each platform and Python whether all has a wheel, or what has none."""
    _, (head, *rows) = read_tables(PAGE.read_text())
    assert head == WHEELS_HEAD, REMEDY
    assert [row[0] for row in rows] == list(PLATFORMS), REMEDY
    for row in rows:
        assert all(re.fullmatch(rf"{WHOLE}|no [a-z-]+", cell) for cell in row[1:]), REMEDY


def test_what_fails_is_written() -> None:
    """A way that failed, a Python that was not there and a missing wheel are told apart."""
    trials = [
        Trial("3.11.7", "here", {**dict.fromkeys(WAYS, ""), "pipx": "it ended with 1"}),
        Trial("3.12", NOT_RUN, {}),
    ]
    wheels = {version: dict.fromkeys(PLATFORMS, "no regex") for version in VERSIONS}
    page = put_tables(PAGE.read_text(), make_tables(trials, wheels))
    (_, first, second), (_, *platforms) = read_tables(page)
    assert first == ("3.11.7", "here", WORKS, FAILS, WORKS)
    assert second == ("3.12", NOT_RUN, NOT_RUN, NOT_RUN, NOT_RUN)
    assert set(platforms[0][1:]) == {"no regex"}


@pytest.mark.parametrize("way", WAYS)
def test_the_pages_lines_are_found(way: str) -> None:
    """What is run is what the page shows for each way, and nothing for another one."""
    lines = read_commands(way, "install").splitlines()
    assert len(lines) == (3 if way == "pip" else 1)
    assert all(("uv " in line, "pipx " in line) == (way == "uv", way == "pipx") for line in lines)
    if way != "pip":
        assert read_commands(way, "uninstall").endswith(" uninstall enclave-llm")


@pytest.mark.parametrize("name", ["HOME", "PIPX_HOME", "UV_TOOL_DIR", "XDG_DATA_HOME"])
def test_nothing_is_installed_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever variables say, what is installed, and uninstalled, lies in the trial's own home."""
    monkeypatch.setenv(name, "/somebodys")
    place = Place(Interpreter("3.11.7", "python3", "here"), tmp_path, tmp_path, tmp_path)
    told = place.run("env", HOME="/own").splitlines()
    assert "HOME=/own" in told
    assert [line for line in told if line.endswith("=/somebodys")] == []
