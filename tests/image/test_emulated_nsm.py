"""
The emulated enclave's NSM: its documents pass the product's verifier when they are signed, under
the twin's root alone, and are refused when they are not. Its PCRs come from QEMU's own code.
"""

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.protocol.asker.attestation import verify_attestation
from app.protocol.asker.nitro_root import NITRO_ROOT
from app.protocol.errors import AttestationError, NsmError
from image.kits.nitro import CMDLINE
from local.emulator.machine import Place, boot, enclave_socket, write_signer
from local.signers.nsm import make_pcrs
from local.signers.pki import MODULE_ID, make_chain, make_root
from tests.image.conftest import RunningProbe
from tests.image.probe import AUTHORITIES, wait_for_probe
from tests.integration.twin_account import (
    spki,
)

NONCE = b"n" * 32
PLAIN = {"nosuid", "nodev", "noexec"}
MOUNTS = {
    "/dev": ("devtmpfs", {"nosuid", "noexec"}),
    "/dev/pts": ("devpts", {"nosuid", "noexec"}),
    "/dev/shm": ("tmpfs", PLAIN),  # noqa: S108 - the enclave's
    "/proc": ("proc", PLAIN),
    "/run": ("tmpfs", PLAIN),
    "/sys": ("sysfs", PLAIN),
    "/tmp": ("tmpfs", PLAIN),  # noqa: S108 - the enclave's
}


def now() -> datetime:
    return datetime.now(UTC)


def test_document_passes_the_products_verifier(running: RunningProbe) -> None:
    """
    A document with all three fields verifies, and says what it was asked to.

    All sixteen PCRs are those expected: 0 to 2 by `image.eif.measure`, 3 and 4 the twin's parent.
    """
    document = running.probe.nsm.attest(user_data=b"u" * 100, nonce=NONCE, public_key=spki())
    attestation = verify_attestation(
        document, root=running.root.certificate, now=now(), nonce=NONCE
    )
    assert attestation.pcrs == make_pcrs(running.measurements)
    assert attestation.module_id == MODULE_ID
    assert (attestation.user_data, attestation.nonce) == (b"u" * 100, NONCE)
    assert attestation.public_key == spki()


def test_many_documents(running: RunningProbe) -> None:
    """
    Signatures whose numbers are short or begin with a set bit come out right, too.
    """
    for number in range(100):
        document = running.probe.nsm.attest(user_data=bytes([number]), nonce=None, public_key=None)
        verify_attestation(document, root=running.root.certificate, now=now(), nonce=None)


def test_another_root_is_not_trusted(running: RunningProbe) -> None:
    """
    Neither AWS's root nor another twin's vouches for the documents.
    """
    document = running.probe.nsm.attest(user_data=None, nonce=NONCE, public_key=None)
    for root in (NITRO_ROOT, make_root(now=now()).certificate):
        with pytest.raises(AttestationError, match="another root"):
            verify_attestation(document, root=root, now=now(), nonce=NONCE)


def test_chain_is_read_for_each_document(running: RunningProbe) -> None:
    """
    A renewed chain signs the next document.
    """
    signer = running.place.signer
    assert signer is not None
    good = signer.read_bytes()
    other = make_root(now=now())
    write_signer(signer, make_chain(other, now=now()))
    document = running.probe.nsm.attest(user_data=None, nonce=NONCE, public_key=None)
    verify_attestation(document, root=other.certificate, now=now(), nonce=NONCE)
    signer.write_bytes(good)


def test_twins_authority_is_in_place(running: RunningProbe) -> None:
    """
    The kit's certificate authority has taken the place of the image's, and nothing else has.
    """
    assert running.probe.read_file(f"/{AUTHORITIES}") == b"the twin's authority\n"
    assert running.probe.read_file("/more") == b""


def test_mounts_are_those_of_amazons_init(running: RunningProbe) -> None:
    """
    Flags as in aws-nitro-enclaves-sdk-bootstrap, init/init.c: nothing is run from what is written.
    """
    mounts = {}
    for line in running.probe.read_file("/proc/mounts").decode().splitlines():
        _, place, kind, flags, *_ = line.split()
        mounts[place] = kind, set(flags.split(","))
    for place, (kind, flagged) in MOUNTS.items():
        assert mounts[place][0] == kind
        assert mounts[place][1] >= flagged


def test_what_is_given_up_is_memory_again(running: RunningProbe) -> None:
    """
    A file in memory that is cut takes less of it: the enclave gives up weights like that.
    """
    assert running.probe.cut_hole() == (2**20, 2**19)


def test_command_line_is_amazons(running: RunningProbe) -> None:
    """
    Devices come from the command line, which QEMU extends: there is no ACPI to find them by.
    """
    line = running.probe.read_file("/proc/cmdline").decode()
    assert line.startswith(CMDLINE)
    assert "virtio_mmio.device=" in line


def test_console_is_free_of_content(running: RunningProbe) -> None:
    """
    The console holds the init's sentences, and none of what went over the probe's connections.
    """
    with running.probe.connect(b"e" + b"CANARY") as stream:
        assert stream.recv(6) == b"CANARY"
    console = running.machine.log.read_text()
    assert "the application is started" in console
    assert "CANARY" not in console


def test_unsigned_document_is_refused(place: Place, probe_eif: Path) -> None:
    """
    Without a signer QEMU's documents are what upstream makes: the verifier refuses them.
    """
    with ExitStack() as stack:
        boot(stack, probe_eif, place, print)
        probe = wait_for_probe(enclave_socket(place.sockets))
        document = probe.nsm.attest(user_data=None, nonce=NONCE, public_key=None)
    with pytest.raises(AttestationError, match="headers are not exactly those of ES384"):
        verify_attestation(document, root=NITRO_ROOT, now=now(), nonce=NONCE)


def test_broken_signer_signs_nothing(place: Place, probe_eif: Path) -> None:
    """
    A signer without key or chain gives no document at all, rather than an unsigned one.
    """
    signer = place.sockets / "signer.pem"
    signer.write_text("no key\n")
    with ExitStack() as stack:
        machine = boot(
            stack, probe_eif, Place(place.qemu, place.sockets, place.logs, signer), print
        )
        probe = wait_for_probe(enclave_socket(place.sockets))
        probe.patience = 3
        with pytest.raises((NsmError, OSError, AssertionError)):
            probe.nsm.attest(user_data=None, nonce=NONCE, public_key=None)
        assert "no key and chain to sign with" in machine.log.read_text()
