from pathlib import Path

import pytest

from image.container import builder
from image.container.builder import Builder


def test_both_builds_are_for_x86_64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The base is imported and the application built for the processors that enclaves run on, also
    where the builder runs on another, as on Apple silicon.
    """
    calls: list[tuple[str, ...]] = []

    def run(command: tuple[str, ...], *, seconds: float) -> None:
        assert seconds > 0
        calls.append(command)
        (tmp_path / "root.tar").touch()

    monkeypatch.setattr(builder, "run", run)
    here = Builder("buildah", ("--root", "layers"))
    base = tmp_path / "base.tar"
    base.touch()
    name = here.import_base(base, tmp_path / "import")
    here.export(tmp_path, tmp_path / "root.tar", base=name)
    assert [call[:4] for call in calls] == [("buildah", "--root", "layers", "build")] * 2
    assert all("--platform=linux/amd64" in call for call in calls)
