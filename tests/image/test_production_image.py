"""
The production image itself, booted: what Nitro starts, bit for bit, with nothing of the twin's.
"""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from app.chatbot.session.session import connect
from app.chatbot.session.transport import Transport
from app.protocol.errors import KmsError
from app.protocol.releases import PRODUCTION_KITS, encode_releases, parse_releases
from image.eif.cpio_reader import read_cpio
from image.eif.eif import SectionKind, open_eif, parse_structure, read_section
from image.eif.measure import measure_eif
from image.eif.record import parse_build_record
from image.kits.nitro import AUTHORITY, CMDLINE
from local.signers.tls import TlsFiles
from local.twin.twin import Twin
from tests.image.beside import Beside, run_beside
from tests.image.chat import chat

QUESTION = "I can't access my email."


class Refused:
    """Stands where KMS does, with the twin's certificate; keeps why each handshake failed."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    @contextmanager
    def serve(self, path: Path, tls: TlsFiles) -> Iterator[None]:
        """Serve at the Unix socket *path*."""
        context = tls.server_context()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            thread = threading.Thread(target=self._accept, args=(listener, context), daemon=True)
            thread.start()
            yield
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()

    def _accept(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        with suppress(OSError):
            while True:
                stream, _ = listener.accept()
                try:
                    with context.wrap_socket(stream, server_side=True) as secure:
                        self.reasons.append(f"none, it said {secure.recv(1)!r}")
                except ssl.SSLError as error:
                    self.reasons.append(str(error.reason))


@pytest.fixture(scope="module")
def kms() -> Refused:
    """What stands in KMS's place."""
    return Refused()


@pytest.fixture(scope="module")
def production(
    twin: Twin,
    qemu: Path,
    built: Path,
    kms: Refused,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Beside]:
    """The built image, as it is."""
    folder = tmp_path_factory.mktemp("production")
    eif = built / "enclave.eif"
    with run_beside(twin, qemu, folder, eif, kit="nitro", serve_kms=kms.serve) as running:
        yield running


def test_it_attests_what_a_release_lists(production: Beside, built: Path, twin: Twin) -> None:
    """
    PCR0, 1 and 2 of the NSM are those that the build recorded and that production's list takes.
    """
    record = parse_build_record((built / "measurements.json").read_bytes())
    (release,) = parse_releases(encode_releases([production.release]), kits=PRODUCTION_KITS)
    trust = replace(twin.trust, releases=(release,))
    transport = Transport(production.url, tls_ca=twin.config.tls_ca, any_certificate=False)
    key = twin.config.key_arn
    with connect(transport, twin.access(), key_arn=key, trust=trust) as session:
        attested = session.enclave.attestation.measurements
    expected = record.measurements
    assert (attested.pcr0, attested.pcr1, attested.pcr2) == (
        expected.pcr0,
        expected.pcr1,
        expected.pcr2,
    )
    assert measure_eif(production.eif) == expected


def test_it_refuses_the_twins_kms(
    production: Beside,
    twin: Twin,
    kms: Refused,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    The twin's certificate is none that AWS's authorities vouch for: nothing is said to its KMS.
    """
    listed = tmp_path / "releases.json"
    listed.write_bytes(encode_releases([production.release]))
    assert chat(twin, listed, "ask", "--json", QUESTION, url=production.url) == 1
    assert json.loads(capsys.readouterr().out)["error"] == KmsError.code
    assert set(kms.reasons) == {"TLSV1_ALERT_UNKNOWN_CA"}


def test_the_twins_image_is_that_and_one_file(production: Beside, twin: Twin) -> None:
    """
    What answers in the emulator differs by the twin's authority alone: kernel, command line and
    application are equal, and the boot ramdisk begins with the same bytes.
    """
    one, other = (take_apart_measured(eif) for eif in (production.eif, twin.folder / "enclave.eif"))
    assert one[:2] == other[:2]
    assert one[1] == CMDLINE.encode()
    assert other[2].startswith(one[2])
    more = BytesIO(other[2][len(one[2]) :])
    assert [item.name for item in read_cpio(more, 0, len(more.getvalue()))] == [AUTHORITY]
    assert twin.release.kit == "twin"
    assert twin.release.measurements.pcr2 == production.release.measurements.pcr2


def take_apart_measured(eif: Path) -> list[bytes]:
    """Give kernel, command line and boot ramdisk."""
    with open_eif(eif) as file:
        structure = parse_structure(file)
        kernel, cmdline = map(structure.find, (SectionKind.KERNEL, SectionKind.CMDLINE))
        assert kernel is not None
        assert cmdline is not None
        return [read_section(file, item) for item in (kernel, cmdline, structure.ramdisks[0])]
