"""
The built image with one byte changed, its CRC made right again: it boots, attests and answers
nobody.
"""

import json
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.chatbot.evidence.advice import EXIT_NOT_TRUSTED
from app.protocol.constants import KMS_PROXY_PORT
from app.protocol.errors import DeniedError
from app.protocol.releases import Measurements, Release, encode_releases
from image.eif.cpio_reader import read_cpio
from image.eif.diff import diff_eifs
from image.eif.eif import HEADER_BYTES, encode_header, open_eif, parse_structure, start_crc
from image.eif.measure import measure_eif
from local.emulator.enclave import EmulatedEnclave
from local.emulator.machine import parent_socket
from local.processes.ready import wait_until_ready
from local.signers.tls import TlsFiles
from local.twin.twin import Twin, _free_url, _socket_folder, start_parent
from tests.image.chat import chat

MODULE = "rootfs/usr/lib/python3/dist-packages/app/enclave/main.py"
QUESTION = "I can't access my email."


@dataclass(frozen=True, slots=True)
class Altered:
    """The altered image, running beside the twin's with a parent of its own."""

    url: str
    eif: Path
    release: Release


def alter(eif: Path, target: Path) -> None:
    """
    Copy *eif* with one bit of a module's description changed and the CRC made right.

    The enclave runs the byte-code beside the module, so it starts as ever.
    """
    with open_eif(eif) as file:
        structure = parse_structure(file)
        ramdisk = structure.ramdisks[-1]
        members = read_cpio(file, ramdisk.start, ramdisk.size)
        place = next(item.start for item in members if item.name == MODULE)
    data = bytearray(eif.read_bytes())
    data[place + len('"""\n')] ^= 1
    crc = zlib.crc32(data[HEADER_BYTES:], start_crc(bytes(data[:HEADER_BYTES])))
    header = replace(structure.header, crc32=crc)
    data[:HEADER_BYTES] = encode_header(header, structure.sections)
    target.write_bytes(data)


@pytest.fixture(scope="module")
def altered(twin: Twin, qemu: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Altered]:
    """The altered image, booted where it reaches the same KMS and signs under the same root."""
    folder = tmp_path_factory.mktemp("altered")
    for name in ("logs", "parent_saw"):
        (folder / name).mkdir()
    (folder / "tls").symlink_to(twin.folder / "tls")
    eif = folder / "enclave.eif"
    alter(twin.folder / "enclave.eif", eif)
    measured = measure_eif(eif)
    pcrs = Measurements(measured.pcr0, measured.pcr1, measured.pcr2)
    now = datetime.now(UTC)
    release = Release("altered", "debian", pcrs, twin.release.weights_sha256, now)
    tls = TlsFiles(folder / "tls" / "ca.pem", folder / "tls" / "server.pem")
    with ExitStack() as stack:
        sockets = _socket_folder(stack)
        stack.enter_context(twin.aws.serve_unix(parent_socket(sockets, KMS_PROXY_PORT), tls=tls))
        config = replace(twin.config, url=_free_url())
        parent = start_parent(stack, folder, sockets, config)
        emulated = EmulatedEnclave(folder, eif, qemu, release)
        enclave = emulated.start(stack, sockets, twin.nsm.chain, print, console=False)
        wait_until_ready(config, (enclave, parent), print, emulated=True)
        yield Altered(config.url, eif, release)


def test_one_byte_is_another(twin: Twin, altered: Altered) -> None:
    """
    It is an intact EIF of the same size, of which one file's content differs.
    """
    assert altered.eif.stat().st_size == (twin.folder / "enclave.eif").stat().st_size
    found = diff_eifs(twin.folder / "enclave.eif", altered.eif)
    assert (found["section"], found["file"]) == ("ramdisk 1", MODULE)
    assert isinstance(found["fields"], dict)
    assert list(found["fields"]) == ["sha256"]


def test_the_chatbot_says_which_pcrs_differ(
    twin: Twin, altered: Altered, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    bin/chat refuses it before a word is sent: PCR0 and PCR2 are others, PCR1, the boot's, is not.
    """
    seen = set(altered.eif.parent.joinpath("parent_saw").iterdir())
    releases = twin.folder / "releases.json"
    assert chat(twin, releases, "ask", QUESTION, url=altered.url) == EXIT_NOT_TRUSTED
    said = capsys.readouterr().err
    assert twin.release.measurements.pcr0.hex()[:8] in said
    assert re.search(r"PCR0 is .*PCR2 is ", said)
    assert "PCR1" not in said
    assert set(altered.eif.parent.joinpath("parent_saw").iterdir()) == seen


def test_kms_says_which_image_it_refused(
    twin: Twin, altered: Altered, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    An asker whose own list was tampered with seals a question to it, and KMS does not open that.

    KMS's audit trail has the PCR0 of the refused image, as CloudTrail's events do. The image that
    is approved opens the same asker's next question.
    """
    tampered = tmp_path / "releases.json"
    tampered.write_bytes(encode_releases([twin.release, altered.release]))
    known = len(twin.aws.audit.events)
    assert chat(twin, tampered, "ask", "--json", QUESTION, url=altered.url) == 1
    assert json.loads(capsys.readouterr().out)["error"] == DeniedError.code
    events = twin.aws.audit.events[known:]
    refused = [event for event in events if event.error_code == "AccessDeniedException"]
    assert [(event.event_name, event.pcr0) for event in refused] == [
        ("Decrypt", altered.release.measurements.pcr0.hex())
    ]
    assert chat(twin, tampered, "ask", QUESTION) == 0
    opened = [event.pcr0 for event in twin.aws.audit.events[known:] if event.pcr0]
    assert opened[-1] == twin.release.measurements.pcr0.hex()
