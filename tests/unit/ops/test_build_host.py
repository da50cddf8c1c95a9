import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from ops.build_host import BuildHostError, build_host

ROOT = Path(__file__).parents[3]
# Everything of ours that reaches an instance. Nothing of the enclave, the twin or the stack.
FOLDERS = {
    *("app", "app/chatbot", "app/chatbot/session", "app/parent", "app/protocol"),
    "app/protocol/asker",
    *("ops", "systemd", "wheels"),
}


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "flask-0-py3-none-any.whl").write_bytes(b"wheel")
    return folder


def test_the_same_bytes(tmp_path: Path, wheels: Path) -> None:
    """
    Two builds of the same inputs have the same files with the same bytes and modes.
    """
    first = build_host(tmp_path / "first", wheels=wheels)
    assert build_host(tmp_path / "second", wheels=wheels) == first
    assert build_host(tmp_path / "first", wheels=wheels) == first
    diff = ["diff", "-r", str(tmp_path / "first"), str(tmp_path / "second")]
    subprocess.run(diff, check=True)
    modes = {path.stat().st_mode & 0o111 for path in (tmp_path / "first").rglob("*.py")}
    assert modes == {0}


def test_the_manifest(tmp_path: Path, wheels: Path) -> None:
    """
    It lists every file but itself, as sha256sum does, and its digest is what is given.
    """
    out = tmp_path / "host"
    digest = build_host(out, wheels=wheels)
    manifest = out / "MANIFEST.sha256"
    assert hashlib.sha256(manifest.read_bytes()).hexdigest() == digest
    check = ["sha256sum", "--check", "--strict", "--quiet", manifest.name]
    subprocess.run(check, cwd=out, check=True)
    listed = {line.split("  ")[1] for line in manifest.read_text().splitlines()}
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert listed == files - {manifest.name}


def test_only_what_belongs_there(tmp_path: Path, wheels: Path) -> None:
    """
    No folder but those above, and no module that the instance does not use.
    """
    out = tmp_path / "host"
    build_host(out, wheels=wheels)
    folders = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_dir()}
    assert {folder for folder in folders if not folder.startswith("systemd/")} == FOLDERS
    session = {path.name for path in (out / "app/chatbot/session").iterdir()}
    assert session == {"__init__.py", "cut_off.py", "proxy.py", "transport.py", "trust.py"}
    chatbot = {path.name for path in (out / "app/chatbot").iterdir()}
    assert chatbot == {"__init__.py", "errors.py", "session"}
    assert {path.name for path in (out / "ops").iterdir()} == {"__init__.py", "host_check.py"}


@pytest.mark.parametrize(
    "program", ["app.parent.main", "app.parent.supervisor", "app.parent.host_files"]
)
def test_the_programs_run_from_there(tmp_path: Path, wheels: Path, program: str) -> None:
    """
    What is built is whole: each program finds all that it imports.
    """
    run_help(tmp_path, wheels, program)


@pytest.mark.parametrize("program", ["app.parent.allocator", "ops.host_check"])
def test_the_checks_run_from_there(tmp_path: Path, wheels: Path, program: str) -> None:
    """
    So do the checks, and none of them needs boto3.
    """
    assert "boto" not in run_help(tmp_path, wheels, program)


def run_help(folder: Path, wheels: Path, program: str) -> str:
    build_host(folder / "host", wheels=wheels)
    code = (
        f"import runpy, sys; sys.argv = ['x', '--help']; sys.modules['boto3'] = None; "
        f"runpy.run_module('{program}', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(folder / "host")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        (
            "Connection broken by 'NewConnectionError(...)'\nERROR: No matching distribution",
            "cannot be reached: connect, or give --wheels",
        ),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n",
            "a wheel is not the one that requirements/host.txt lists",
        ),
        ("ERROR: No matching distribution found for flask", "could not fetch .*No matching"),
        ("", "no reason given"),
    ],
)
def test_why_wheels_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, words: str
) -> None:
    """
    Being offline, a changed wheel and a missing one are told apart, and nothing is left behind.
    """

    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(BuildHostError, match=words):
        build_host(tmp_path / "host")
    assert not (tmp_path / "host").exists()


def test_wheels_are_those_of_the_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever the machine here, wheels are asked for by hash, for CPython 3.11 on x86-64 Linux.
    """
    asked: list[str] = []

    def succeed(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.extend(command)
        (tmp_path / "host.new/wheels").mkdir()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", succeed)
    build_host(tmp_path / "host")
    assert {"--require-hashes", "--only-binary=:all:", "--python-version=3.11"} <= set(asked)
    assert "--platform=manylinux_2_34_x86_64" in asked
