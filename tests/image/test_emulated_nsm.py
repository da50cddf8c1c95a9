"""
The emulated enclave's NSM: its documents pass the product's verifier when they are signed, under
the twin's root alone, and are refused when they are not. Its PCRs come from QEMU's own code.
"""

import shutil
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.chatbot.trust import Trust, verify_enclave
from app.protocol.attestation import encode_user_data, verify_attestation
from app.protocol.errors import AttestationError, NsmError, PcrMismatchError
from app.protocol.manifest import Manifest
from app.protocol.nitro_root import NITRO_ROOT
from app.protocol.releases import Release
from image.kit import BootKit
from local.emulator.machine import Place, boot, enclave_socket, write_signer
from local.nsm import make_pcrs
from local.pki import MODULE_ID, make_chain, make_root
from tests.image.conftest import RunningProbe
from tests.image.probe import AUTHORITIES, pack_probe, wait_for_probe
from tests.integration.twin_account import (
    approve,
    opened,
    recipient_of,
    refused,
    spki,
    twin_account,
)

NONCE = b"n" * 32
MANIFEST = Manifest(model="m", label="demo model", weights_sha256=bytes(32), context_tokens=1)
CONTEXT = {"purpose": "question", "conversation": "ab" * 16}


def now() -> datetime:
    return datetime.now(UTC)


def test_document_passes_the_products_verifier(running: RunningProbe) -> None:
    """
    A document with all three fields verifies, and says what it was asked to.

    All sixteen PCRs are those expected: 0 to 2 by `image.measure`, 3 and 4 the twin's parent.
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


def test_altered_image_is_refused(place: Place, kit: BootKit, running: RunningProbe) -> None:
    """
    An image with one byte changed, packed again with the right CRC, boots and attests.

    KMS refuses it the question key; the chatbot refuses it and says which PCRs differ.
    """
    assert running.place.signer is not None
    signer = shutil.copy(running.place.signer, place.sockets / "signer.pem")
    altered = pack_probe(place.logs, kit, more=b"x")
    with ExitStack() as stack:
        signed = Place(place.qemu, place.sockets, place.logs, Path(signer))
        boot(stack, altered, signed, print)
        nsm = wait_for_probe(enclave_socket(place.sockets)).nsm
        user_data = encode_user_data("attest", MANIFEST.digest)
        document = nsm.attest(user_data=user_data, nonce=NONCE, public_key=bytes(32))
        for_kms = nsm.attest(user_data=None, nonce=None, public_key=spki())
    release = Release("good", "debian", running.measurements, bytes(32), now())
    trust = Trust(running.root.certificate, "twin", (release,))
    with pytest.raises(PcrMismatchError, match=r"PCR0 is .*PCR2 is ") as caught:
        verify_enclave(document, MANIFEST.encode(), nonce=NONCE, now=now(), trust=trust)
    assert "PCR1" not in str(caught.value)
    good = running.probe.nsm.attest(user_data=None, nonce=None, public_key=spki())
    require_kms_tells_apart(running, good=good, altered=for_kms)


def require_kms_tells_apart(running: RunningProbe, *, good: bytes, altered: bytes) -> None:
    """Have KMS, under the product's policy for the probe, open a question key for each."""
    with twin_account(nsm_root=running.root) as account:
        key = account.aws.add_key(account.policy(approve("good", running.measurements)))
        kms = account.kms(account.assume(account.asker))
        made = kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)

        def decrypt(document: bytes) -> bytes:
            return opened(
                kms.decrypt(
                    KeyId=key,
                    CiphertextBlob=made["CiphertextBlob"],
                    EncryptionContext=CONTEXT,
                    Recipient=recipient_of(document),
                )
            )

        assert decrypt(good) == made["Plaintext"]
        with refused("AccessDeniedException"):
            decrypt(altered)
