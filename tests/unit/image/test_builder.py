from pathlib import Path

import pytest

from image.container import builder
from image.container.builder import Builder, find_builder


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


def test_layers_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Buildah and podman are told to keep layers as folders: in a container, whose files lie in layers
    themselves, what they would choose cannot be mounted.
    """
    for name in ("buildah", "podman"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        found = find_builder(tmp_path / "storage", (name,))
        assert found.storage[0] == "--storage-driver=vfs"
