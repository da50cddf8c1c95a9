"""
The base root, with a stand-in for mmdebstrap.
"""

import re
import shutil
from pathlib import Path

import pytest

from image.debian import base
from image.debian.base import make_base


def test_how_much_is_fetched_is_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The size is said before anything is fetched, and the root is there afterwards.
    """
    (tmp_path / "sources").touch()
    said: list[str] = []

    def mmdebstrap(command: tuple[str, ...]) -> str:
        (note,) = said
        assert re.search(r"[1-9]\d+ MB to fetch$", note)
        Path(next(part for part in command if part.endswith(".part.tar"))).touch()
        return ""

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/mmdebstrap")
    monkeypatch.setattr(base, "_SOURCES", (tmp_path / "sources",))
    monkeypatch.setattr(base, "run", mmdebstrap)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    make_base(tmp_path / "base.tar", note=said.append)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tar"] == ["base.tar"]
