"""
`bin/build-eif --in-container` up to docker: what it has docker do.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from image.container.context import ROOT
from tests.patience import PATIENCE_SECONDS

TOOLS = ("bash", "sh", "dirname", "readlink", "sed")
DOCKER = '#!/bin/sh\nfor word in "$@"; do echo "$word"; done >>"$CALLS"\necho . >>"$CALLS"\n'


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder of the few programs that every machine has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name) or name)
    return folder


def build(tools: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Call the command where nothing but *tools* is installed."""
    return subprocess.run(
        (shutil.which("bash") or "bash", ROOT / "bin" / "build-eif", "--in-container", *arguments),
        env={"PATH": str(tools), "CALLS": str(tools / "calls")},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def test_docker_is_all_it_needs(tools: Path) -> None:
    """
    It builds a container for x86-64 and runs it there, on this repository, with the options given.
    """
    (tools / "docker").write_text(DOCKER)
    (tools / "docker").chmod(0o755)
    done = build(tools, "--kit", "nitro", "--weights", "a folder")
    assert (done.returncode, done.stderr) == (0, "")
    made, ran, _ = ((tools / "calls").read_text()).split(".\n")
    assert made.splitlines()[:2] == ["build", "--platform=linux/amd64"]
    assert made.splitlines()[-1] == str(ROOT / "image")
    assert ran.splitlines()[0] == "run"
    assert "--platform=linux/amd64" in ran.splitlines()
    assert f"{ROOT}:/src" in ran.splitlines()
    assert ran.splitlines()[-4:] == ["--kit", "nitro", "--weights", "a folder"]


def test_neither_docker_nor_podman(tools: Path) -> None:
    """
    Without docker and podman it says so.
    """
    done = build(tools)
    assert done.returncode == 1
    assert done.stderr == "build-eif: neither docker nor podman is here: install one\n"


def test_out_is_fixed(tools: Path) -> None:
    """
    Where the image goes cannot be chosen: only the repository is shared with the container.
    """
    for given in (("--out", "elsewhere"), ("--out=elsewhere",)):
        done = build(tools, "--kit", "nitro", *given)
        assert done.returncode == 2
        assert done.stderr == "build-eif: what is built in a container goes to build/\n"


def test_help(tools: Path) -> None:
    """
    --help teaches, whatever is installed.
    """
    done = build(tools, "--help")
    assert done.returncode == 0
    assert "bin/build-eif --in-container" in done.stdout


def test_scripts_are_programs() -> None:
    """
    What docker and the specification start may be run.
    """
    for name in ("build", "inside", "packages"):
        assert os.access(ROOT / "image" / "container" / name, os.X_OK)
