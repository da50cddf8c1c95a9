"""
The kernel and init of the `nitro` kit, without building one: what is asked for, kept and refused.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from image.debian import root
from image.errors import ImageError
from image.kits import init, kernel
from image.kits.kernel import CONFIG, require_honoured

MADE = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_N=128\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "enclave-llm"


def building(content: bytes, runs: list[str]) -> Callable[..., Path]:
    """Give what builds a file of *content*, and notes that it ran."""

    def build(folder: Path, *_: object) -> Path:
        runs.append(folder.name)
        (folder / "made").write_bytes(content)
        return folder / "made"

    return build


@pytest.mark.parametrize("line", ["CONFIG_A=y", "CONFIG_B=n", "CONFIG_C=n", "CONFIG_N=128"])
def test_what_is_asked_for_is_there(line: str) -> None:
    """
    A line that the kernel took is fine, and so is one that asks for what there is not to be.
    """
    require_honoured(f"# why\n{line}\n", MADE)


@pytest.mark.parametrize("line", ["CONFIG_A=n", "CONFIG_B=y", "CONFIG_C=y", "CONFIG_N=64"])
def test_what_is_dropped_is_told(line: str) -> None:
    """
    The kernel drops what depends on what is not there, without a word; we don't.
    """
    with pytest.raises(ImageError, match=f"does not take all of kernel.config: {line}"):
        require_honoured(line, MADE)


def test_configuration() -> None:
    """
    Nothing is asked for twice. There is vsock, the NSM, devices on the command line, and control
    groups without a controller; no modules, network, disks, PCI or ACPI.
    """
    lines = re.findall(r"(?m)^(CONFIG_\w+)=(\w+)$", CONFIG.read_text())
    asked = dict(lines)
    assert len(asked) == len(lines)
    for name in ("NSM", "HW_RANDOM", "VIRTIO_VSOCKETS", "VIRTIO_MMIO_CMDLINE_DEVICES"):
        assert asked[f"CONFIG_{name}"] == "y"
    assert asked["CONFIG_CGROUPS"] == "y"  # Amazon's init mounts a folder for them
    for name in ("MODULES", "INET", "BLOCK", "PCI", "ACPI", "DEVMEM", "COREDUMP"):
        assert asked[f"CONFIG_{name}"] == "n"
    for name in ("MEMCG", "CGROUP_SCHED", "CPUSETS"):
        assert asked[f"CONFIG_{name}"] == "n"


def test_kernel_is_kept(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """
    It is built once. A file in the cache that is not the pinned kernel is built anew.
    """
    runs: list[str] = []
    monkeypatch.setattr(kernel, "build_kernel", building(b"kernel", runs))
    digest = "d22f31a6ecd5b8ae8f8d9e2ba4b1e3f8ea5f2fbd3b4fbc92f1bb1e1f3a5d3c5e"
    monkeypatch.setattr(kernel, "KERNEL_SHA256", digest)
    with pytest.raises(ImageError, match=r"has SHA-256 \w{64}, expected d22f31a6") as caught:
        kernel.ensure_kernel(print)
    found = re.search(r"SHA-256 (\w{64})", str(caught.value))
    assert found
    monkeypatch.setattr(kernel, "KERNEL_SHA256", found[1])
    target = kernel.ensure_kernel(print)
    assert target.is_relative_to(cache)
    assert kernel.ensure_kernel(print) == target
    assert len(runs) == 2
    target.write_bytes(b"altered")
    assert kernel.ensure_kernel(print).read_bytes() == b"kernel"
    assert [path.name for path in target.parent.iterdir()] == ["bzImage"]


def test_init_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What compiles to other bytes than those recorded is refused.
    """
    runs: list[str] = []
    monkeypatch.setattr(init, "build_init", building(b"init", runs))
    with pytest.raises(ImageError, match=r"the init built here has SHA-256 (\w{64})") as caught:
        init.ensure_init(print)
    found = re.search(r"SHA-256 (\w{64})", str(caught.value))
    assert found
    monkeypatch.setattr(init, "INIT_SHA256", found[1])
    assert init.ensure_init(print) == init.ensure_init(print)
    assert len(runs) == 2


def test_another_source_is_refused(tmp_path: Path) -> None:
    """
    A saved source package must be the pinned one, and be there.
    """
    with pytest.raises(ImageError, match="there is no kernel source"):
        kernel.build_kernel(tmp_path, print, tmp_path / "none.deb")
    (tmp_path / "other.deb").write_bytes(b"other")
    with pytest.raises(ImageError, match=r"other.deb has SHA-256 .* it is not linux-source-6.12="):
        kernel.build_kernel(tmp_path, print, tmp_path / "other.deb")


class Archive:
    """An archive that has a later version only."""

    def __init__(self, *_: object) -> None:
        pass

    def update(self) -> None:
        """Fetch nothing."""

    def newest(self, package: str) -> str:
        """Give another version than the pinned one."""
        return f"{package.rpartition('-')[2]}.999-1"

    def fetch(self, package: str, _: Path) -> Path:
        """Say that there is none."""
        raise ImageError(f"Version of {package} was not found")


def test_source_that_is_gone(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """
    Once the archive has a later version only, the message names it and the way out.
    """
    monkeypatch.setattr(kernel, "Archive", Archive)
    with pytest.raises(ImageError, match=r"newest is 6\.12\.999-1: .*--kernel-source FILE"):
        kernel.ensure_source(print)
    assert list(cache.iterdir()) == []


def test_no_root_to_compile_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Without mmdebstrap it says what installs it.
    """
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="no mmdebstrap to compile in: bin/setup-system"):
        init.build_init(tmp_path, print)


def test_a_root_is_debian_12s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    The suite is named, whatever this machine runs; the script has no network.
    """
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/mmdebstrap")
    monkeypatch.setattr(root, "source_line", lambda *suite: " ".join(suite))
    monkeypatch.setattr(root, "run", lambda command, **_: commands.append(command))
    root.build_in_root(("gcc",), "true", given={"a.c": tmp_path}, made={"a": tmp_path / "a"})
    (command,) = commands
    assert command[-3:] == ("bookworm", "/dev/null", "deb bookworm main")
    assert f'--customize-hook=upload "{tmp_path}" /build/a.c' in command
    assert any("unshare --net" in part for part in command)
