"""Another image, booted beside the twin's with a parent of its own."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from app.protocol.constants import KMS_PROXY_PORT
from app.protocol.releases import Kit, Measurements, Release
from image.eif.measure import measure_eif
from local.emulator.enclave import EmulatedEnclave
from local.emulator.machine import parent_socket
from local.processes.ready import wait_until_ready
from local.signers.tls import TlsFiles
from local.twin.parties import start_parent, start_weights_server
from local.twin.twin import DEMO_WEIGHTS, Twin, _free_url, _socket_folder

ServeKms = Callable[[Path, TlsFiles], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Beside:
    """The other image, running."""

    url: str
    folder: Path
    eif: Path
    release: Release


@contextmanager
def run_beside(
    twin: Twin, qemu: Path, folder: Path, eif: Path, *, kit: Kit, serve_kms: ServeKms
) -> Iterator[Beside]:
    """
    Boot *eif*, whose NSM signs under the twin's root, with *folder* for what its parent saw.

    Args:
        serve_kms: Serves at the socket given, with the twin's certificate for KMS.
    """
    for name in ("logs", "parent_saw"):
        (folder / name).mkdir()
    (folder / "tls").symlink_to(twin.folder / "tls")
    measured = measure_eif(eif)
    pcrs = Measurements(measured.pcr0, measured.pcr1, measured.pcr2)
    release = Release("beside", kit, pcrs, twin.release.weights_sha256, datetime.now(UTC))
    tls = TlsFiles(folder / "tls" / "ca.pem", folder / "tls" / "server.pem")
    with ExitStack() as stack:
        sockets = _socket_folder(stack)
        stack.enter_context(serve_kms(parent_socket(sockets, KMS_PROXY_PORT), tls))
        config = replace(twin.config, url=_free_url())
        parent = start_parent(stack, folder, sockets, config)
        start_weights_server(stack, folder, sockets, DEMO_WEIGHTS)
        emulated = EmulatedEnclave(folder, eif, qemu, release)
        enclave = emulated.start(stack, sockets, twin.nsm.chain, print, console=False)
        wait_until_ready(config, (enclave, parent), print, emulated=True)
        yield Beside(config.url, folder, eif, release)
