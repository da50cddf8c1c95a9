import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Final

import pytest

from ops import setup
from ops.setup import Environment, SetupError, describe_sizes, find_version, set_up
from tests.patience import PATIENCE_SECONDS

GROUP: Final = "probe"
VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
HALF_MADE: Final[dict[str, Callable[[Path], object]]] = {
    "interrupted while packages were installed": lambda folder: (folder / ".installing").touch(),
    "interrupted while it was made": lambda folder: (folder / f".installed-{GROUP}").unlink(),
    "its interpreter is gone": lambda folder: relink(folder / "bin/python", "/nowhere/python3"),
    "its interpreter has become another": lambda folder: next(folder.glob("lib/python3*")).rename(
        folder / "lib/python3.1"
    ),
}


def relink(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


def write_wheel(folder: Path) -> str:
    """Write the wheel of a package that has a version, and give its line of a lock."""
    wheel = folder / "probe-1.0-py3-none-any.whl"
    about = "probe-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("probe.py", "VERSION = '1.0'\n")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "probe.py,,\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"probe==1.0 \\\n    --hash=sha256:{digest}\n"


@pytest.fixture(scope="module")
def requirements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of locks with one group, whose package lies beside it."""
    folder = tmp_path_factory.mktemp("requirements")
    (folder / f"{GROUP}.txt").write_text(write_wheel(folder))
    (folder / "torch.txt").write_text("torch==0\n")
    (folder / "sizes.txt").write_text(f"# a comment\n{GROUP} 30 270\n")
    return folder


@pytest.fixture(autouse=True)
def pip(requirements: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(requirements, monkeypatch)


def point_at(requirements: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have set-up and pip look into that folder, and nowhere else."""
    monkeypatch.setattr(setup, "REQUIREMENTS", requirements)
    monkeypatch.setattr(setup, "_TORCH", requirements / "torch.txt")
    for name in [name for name in os.environ if name.startswith("PIP_")] + ["PYTHON"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(requirements))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, requirements: Path) -> Path:
    """An environment that was set up, for tests to copy."""
    folder = tmp_path_factory.mktemp("made") / "env"
    with pytest.MonkeyPatch.context() as patch:
        point_at(requirements, patch)
        set_up(Environment(folder, GROUP))
    return folder


@pytest.fixture
def environment(made: Path, tmp_path: Path) -> Environment:
    shutil.copytree(made, tmp_path / "env", symlinks=True)
    return Environment(tmp_path / "env", GROUP)


def test_what_is_set_up_is_left_alone(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    Where nothing has changed nothing is done, nor said; its mark names the Python.
    """
    command = (environment.python, "-I", "-c", "import probe; print(probe.VERSION)")
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"1.0\n"
    assert environment.installed.read_text().endswith(f" python {VERSION}\n")
    monkeypatch.setattr(setup, "_make", lambda _: pytest.fail("made anew"))
    monkeypatch.setattr(setup, "_install_group", lambda *_: pytest.fail("installed again"))
    set_up(environment)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", HALF_MADE)
def test_half_made_is_not_whole(environment: Environment, name: str) -> None:
    """
    What was interrupted at whatever step, or has lost its interpreter, does not count as made.
    """
    assert environment.is_whole()
    HALF_MADE[name](environment.folder)
    assert not environment.is_whole()
    assert not environment.is_current()


def test_half_made_heals(environment: Environment, capfd: pytest.CaptureFixture[str]) -> None:
    """
    It is made anew by the next set-up, without what was in it.
    """
    left = environment.folder / "lib" / f"python{VERSION}" / "site-packages" / "half.py"
    left.touch()
    shutil.rmtree(left.parent / "pip")
    relink(environment.folder / "bin/python", "/nowhere/python3")
    set_up(environment)
    assert environment.is_current()
    assert not left.exists()
    assert f"making {environment.folder} anew" in capfd.readouterr().err


def test_another_python_is_asked_for(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An environment of another version than that of PYTHON is not the one that is wanted.
    """
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 3.99\n")
    other.chmod(0o755)
    monkeypatch.setenv("PYTHON", sys.executable)
    assert environment.is_current()
    monkeypatch.setenv("PYTHON", str(other))
    assert find_version(other) == "3.99"
    assert not environment.is_current()


@pytest.mark.parametrize("held", ["thesis.txt", "bin/thesis.txt"])
def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, held: str) -> None:
    """
    A folder that is no environment, and no beginning of one, is not emptied.
    """
    folder = tmp_path / "folder"
    (folder / "bin").mkdir(parents=True)
    (folder / held).write_text("years of work")
    (folder / "notes").mkdir()
    with pytest.raises(SetupError, match="holds other things than an environment"):
        set_up(Environment(folder, GROUP))
    assert (folder / held).read_text() == "years of work"


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Where nothing can be written, one line names the place and the reason.
    """
    monkeypatch.setenv("VENV", str(tmp_path / "nowhere" / "env"))
    assert setup.main([GROUP]) == 1
    assert capsys.readouterr().err == (
        f"setup: {tmp_path}/nowhere/env.lock: No such file or directory\n"
    )


def test_python_without_venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Debian's Python without python3-venv is told in one line, which names the package.
    """
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SetupError, match=r"^\S+ cannot make environments: install python3-venv$"):
        set_up(Environment(tmp_path / "env", GROUP))
    assert not (tmp_path / "env").exists()


def test_what_pip_cannot_install(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    When pip fails the environment stays as whole as it was, and the error names what failed.
    """
    environment.installed.write_text("an older lock")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    shutil.rmtree(next(environment.folder.glob("lib/python3*/site-packages/probe-1.0.dist-info")))
    with pytest.raises(SetupError, match="pip could not install 1 locked packages"):
        set_up(environment)
    assert environment.is_whole()
    assert not environment.is_current()


def test_two_at_once(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    A second set-up waits for the first, and then has nothing left to do.
    """
    wanted = environment.installed.read_text()
    environment.installed.unlink()
    monkeypatch.setattr(setup, "_make", lambda _: pytest.fail("made again"))
    lock = os.open(f"{environment.folder}.lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    wait = fcntl.flock

    def finish_first(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:  # it waits: the first one ends
            environment.installed.write_text(wanted)
            wait(lock, fcntl.LOCK_UN)
        wait(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", finish_first)
    set_up(environment)
    os.close(lock)
    assert "waiting for another setup" in capfd.readouterr().err


def test_ended_while_it_installs(environment: Environment, requirements: Path) -> None:
    """
    Ended by a signal, it ends pip, and leaves a mark that what it leaves is not whole.
    """
    environment.installed.write_text("an older lock")
    package = next(environment.folder.glob("lib/python3*/site-packages/pip"))
    (package / "__main__.py").write_text(
        "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    )
    program = (
        "import sys; from pathlib import Path; from ops import setup; import signal; "
        "signal.signal(signal.SIGTERM, setup._end); setup.REQUIREMENTS = Path(sys.argv[1]); "
        "setup.set_up(setup.Environment(Path(sys.argv[2]), sys.argv[3]))"
    )
    command = (sys.executable, "-c", program, str(requirements), str(environment.folder), GROUP)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pip_pid = int(process.stdout.readline())
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(pip_pid, 0)
    assert not environment.is_whole()


def test_sizes_are_told() -> None:
    """
    How much is fetched, what it takes on disk and how long that lasts is said before it begins.
    """
    assert describe_sizes(GROUP) == " (at most 30 MB to fetch, 270 MB on disk, about 1 min)"
    assert describe_sizes("of nobody") == ""


@pytest.mark.parametrize("group", ["chatbot", "dev", "image", "infra", "local", "ops"])
def test_sizes_are_true(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is said of a group's size on disk is what its packages take here, or nearly.
    """
    monkeypatch.undo()
    lock = (setup.REQUIREMENTS / f"{group}.txt").read_text()
    taken = 0
    for name in re.findall(r"^([a-z0-9._-]+)==", lock, re.MULTILINE):
        try:
            paths = [Path(str(file.locate())) for file in files(name) or ()]
        except PackageNotFoundError:
            continue  # locked for other machines
        taken += sum(path.stat().st_size for path in paths if path.exists())
    told = re.search(r"(\d+) MB on disk", describe_sizes(group))
    assert told
    assert 0.75 < int(told[1]) / (taken / 1e6) < 1.35
