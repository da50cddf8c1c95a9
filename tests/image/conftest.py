"""
What the tests of the emulated enclave share: QEMU, the boot kit, and one probe that runs.

Where this machine cannot emulate one, they are skipped, loudly; never where CI is set.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.protocol.errors import ConfigError
from app.protocol.releases import Measurements
from image.build import main
from image.container.builder import find_builder
from image.container.context import ROOT
from image.container.wheels import fetch_wheels
from image.debian.archive import cache_folder
from image.eif.kit import BootKit
from image.eif.measure import measure_eif
from image.errors import ImageError
from image.kits.nitro import nitro_kit, twin_kit
from local.emulator.build_qemu import build_qemu, require_packages
from local.emulator.machine import Place, boot, enclave_socket, require_platform, write_signer
from local.processes.supervise import Child
from local.signers.pki import Identity, make_chain, make_root
from local.twin.twin import Twin, run_twin
from tests.image.probe import Probe, pack_probe, wait_for_probe

_HERE = Path(__file__).parent
_SECONDS = 1800  # the first test may build QEMU


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Give the tests here more time than others: what they share takes minutes to make.

    The canary's come last, since the enclave that all share does not survive them.
    """
    for item in items:
        if item.path.parent == _HERE:
            item.add_marker(pytest.mark.timeout(_SECONDS))
    items.sort(key=lambda item: item.path == _HERE / "test_canary.py")


@dataclass
class RunningProbe:
    """A probe that runs in an emulated enclave."""

    probe: Probe
    machine: Child
    place: Place
    root: Identity
    eif: Path
    measurements: Measurements


@pytest.fixture(scope="session")
def qemu() -> Path:
    """QEMU, from the cache or built now."""
    try:
        require_platform()
        require_packages()
    except (ConfigError, ImageError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"!! NO EMULATED ENCLAVE ON THIS MACHINE: {error}")
    return build_qemu(print)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The folder of an image of the demo model under the nitro kit, built two times and equal.

    Wheels are kept in build/, as an operator's are; the base root is made anew.
    """
    try:
        find_builder(tmp_path_factory.mktemp("builder"))
    except ImageError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"!! NO IMAGE CAN BE BUILT ON THIS MACHINE: {error}")
    (ROOT / "build").mkdir(exist_ok=True)
    folder = tmp_path_factory.mktemp("image")
    arguments = [
        "--kit=nitro",
        f"--wheels={fetch_wheels(ROOT / 'build', note=print)}",
        f"--out={folder}",
    ]
    weights = ROOT / "local" / "demo_model" / "weights"
    assert main([*arguments, f"--weights={weights}", "--twice"]) == 0
    return folder


@pytest.fixture(scope="session")
def kit(qemu: Path, tmp_path_factory: pytest.TempPathFactory) -> BootKit:
    """The nitro kit."""
    del qemu  # only so that it is skipped as one
    return nitro_kit(tmp_path_factory.mktemp("kit"), note=print)


@pytest.fixture(scope="session")
def authority_kit(kit: BootKit, tmp_path_factory: pytest.TempPathFactory) -> BootKit:
    """The twin kit, with a certificate authority in it."""
    folder = tmp_path_factory.mktemp("twin-kit")
    ca = folder / "authority"
    ca.write_bytes(b"the twin's authority\n")
    return twin_kit(kit, folder, ca=ca)


@pytest.fixture(scope="session")
def probe_eif(authority_kit: BootKit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe's image."""
    return pack_probe(tmp_path_factory.mktemp("probe"), authority_kit)


@pytest.fixture
def place(qemu: Path, tmp_path: Path) -> Iterator[Place]:
    """Where to boot an enclave whose NSM has no signer."""
    with make_place(qemu, tmp_path) as made:
        yield made


def make_place(qemu: Path, logs: Path) -> "_ShortFolder":
    """Give a place with short paths for sockets, until its block ends."""
    return _ShortFolder(qemu, logs)


class _ShortFolder:
    """The path of a Unix socket has at most 107 bytes; pytest's folders may take most of them."""

    def __init__(self, qemu: Path, logs: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="probe-", dir="/tmp")
        self._place = Place(qemu, Path(self._folder.name), logs, None)

    def __enter__(self) -> Place:
        return self._place

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


@pytest.fixture(scope="session")
def running(
    qemu: Path, probe_eif: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningProbe]:
    """One probe, running, with a signer under a root of its own."""
    root = make_root(now=datetime.now(UTC))
    with ExitStack() as stack:
        bare = stack.enter_context(make_place(qemu, tmp_path_factory.mktemp("running")))
        signer = bare.sockets / "signer.pem"
        write_signer(signer, make_chain(root, now=datetime.now(UTC)))
        place = Place(qemu, bare.sockets, bare.logs, signer)
        machine = boot(stack, probe_eif, place, print)
        probe = wait_for_probe(enclave_socket(place.sockets))
        measured = measure_eif(probe_eif)
        pcrs = Measurements(measured.pcr0, measured.pcr1, measured.pcr2)
        yield RunningProbe(probe, machine, place, root, probe_eif, pcrs)


@pytest.fixture(scope="session")
def twin(qemu: Path, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    """
    All parties, the enclave emulated: the built image, booted once for all tests, with weights that
    an owner in another account has sealed.

    The folder around its own is home and place for temporary files of all its processes.
    """
    del qemu  # only so that it is skipped as one
    folder = tmp_path_factory.mktemp("emulated")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_folder().parent))
        for name in ("HOME", "TMPDIR"):
            (folder / name).mkdir()
            patch.setenv(name, str(folder / name))
        image = built / "enclave.eif"
        parties = run_twin(folder / "twin", image=image, sealed=True, note=print)
        running = stack.enter_context(parties)
        patch.undo()
        yield running
