"""
Boots that fail and enclaves that are left: bounded, explained, nothing left behind.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.protocol.errors import UnavailableError
from image.eif.kit import BootKit
from image.files import sha256
from image.kits.init import INIT_SHA256, build_init
from image.kits.kernel import KERNEL_SHA256, build_kernel
from image.kits.nitro import nitro_kit
from local.emulator import machine
from local.emulator.machine import BOOTS, Place, boot
from local.processes.supervise import ROOT
from tests.image.probe import pack_probe
from tests.patience import PATIENCE_SECONDS, wait_until

_BOOT = """
import sys
from contextlib import ExitStack
from pathlib import Path
from local.emulator.machine import Place, boot
qemu, eif, sockets, logs = map(Path, sys.argv[1:])
with ExitStack() as stack:
    print(boot(stack, eif, Place(qemu, sockets, logs, None), print).pid, flush=True)
    sys.stdin.read()
"""


def children() -> set[str]:
    """Give the processes that this one has."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


def test_corrupt_image_does_not_boot(place: Place, probe_eif: Path) -> None:
    """
    An image with a wrong CRC is tried twice and given up, with the console's end.
    """
    before = children()
    corrupt = place.logs / "corrupt.eif"
    data = bytearray(probe_eif.read_bytes())
    data[-1] ^= 1
    corrupt.write_bytes(data)
    notes: list[str] = []
    with ExitStack() as stack, pytest.raises(UnavailableError, match="CRC"):
        boot(stack, corrupt, place, notes.append)
    assert len(notes) == BOOTS - 1
    assert children() == before


def test_image_without_authorities_does_not_boot(place: Place, authority_kit: BootKit) -> None:
    """
    The init finds no file that the twin's authority could take the place of, and says so.
    """
    eif = pack_probe(place.logs, authority_kit, authorities="lib/other.pem")
    with (
        ExitStack() as stack,
        pytest.raises(UnavailableError, match="no file of certificate authorities in the image"),
    ):
        boot(stack, eif, place, print)


def test_hanging_boot_is_bounded(
    place: Place, probe_eif: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A machine that says nothing is given up after its time, twice, and is gone.
    """
    before = children()
    monkeypatch.setattr(machine, "BOOT_SECONDS", 0.1)
    started = time.monotonic()
    with ExitStack() as stack, pytest.raises(UnavailableError, match=r"not ready after \d s"):
        boot(stack, probe_eif, place, print)
    assert time.monotonic() - started < PATIENCE_SECONDS
    assert children() == before


def test_enclave_dies_with_the_twin(place: Place, probe_eif: Path) -> None:
    """
    When the twin is killed, so that it cannot clean up, the machine ends all the same.
    """
    paths = (place.qemu, probe_eif, place.sockets, place.logs)
    command = (sys.executable, "-c", _BOOT, *map(str, paths))
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as twin:
        assert twin.stdout is not None
        pid = int(twin.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        twin.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_kit_is_the_same_each_time(kit: BootKit, authority_kit: BootKit, tmp_path: Path) -> None:
    """
    The boot ramdisk has the same bytes wherever it is made; the authority is all that differs.
    """
    again = nitro_kit(tmp_path / "again", note=print)
    ramdisk = kit.ramdisk.read_bytes()
    assert again.ramdisk.read_bytes() == ramdisk
    assert authority_kit.ramdisk.read_bytes().startswith(ramdisk)
    assert b"the twin's authority" in authority_kit.ramdisk.read_bytes()
    assert b"the twin's authority" not in ramdisk
    assert (kit.kernel, kit.cmdline) == (authority_kit.kernel, authority_kit.cmdline)


@pytest.mark.skipif(
    not os.environ.get("ENCLAVE_LLM_BUILD_TWICE"),
    reason="kernel and init are built anew where ENCLAVE_LLM_BUILD_TWICE is set: ten minutes",
)
@pytest.mark.parametrize(
    ("build", "digest"), [(build_kernel, KERNEL_SHA256), (build_init, INIT_SHA256)]
)
def test_what_is_compiled_is_the_same_each_time(
    build: Callable[..., Path], digest: str, qemu: Path, tmp_path: Path
) -> None:
    """
    Built two times, each in a root of its own, kernel and init have the recorded digests.
    """
    del qemu  # only so that it is skipped as one
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert sha256(build(tmp_path / name, print)) == digest
