"""
The built image, booted in the emulated enclave, asked through the whole pipeline.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.chatbot.session.session import Session
from app.protocol.asker.attestation import require_pcrs
from app.protocol.errors import PcrMismatchError
from app.protocol.question import Options
from image.eif.measure import measure_eif
from local.twin.twin import Twin
from tests.support import make_release

QUESTION = "I can't access my email. My user name is jdoe."


@pytest.fixture
def session(twin: Twin) -> Iterator[Session]:
    """A verified session."""
    session = twin.connect()
    yield session
    session.close()


def test_question_is_answered(session: Session) -> None:
    """
    The image answers; the receipt, which its NSM signed, verifies.
    """
    answer = "".join(session.ask(QUESTION, Options(max_tokens=40)))
    assert "password" in answer or "sign in" in answer
    assert session.evidence is not None
    assert session.evidence.receipt.completion_tokens > 0
    assert session.enclave.release.kit == "debian"


def test_pcrs_are_those_of_the_file(twin: Twin, built: Path, session: Session) -> None:
    """
    What QEMU's NSM attests is what `image.eif.measure` reads from the file; PCR2 is that of the
    image built, whatever its boot kit.
    """
    booted = measure_eif(twin.folder / "enclave.eif")
    attested = session.enclave.attestation.measurements
    assert (attested.pcr0, attested.pcr1, attested.pcr2) == (booted.pcr0, booted.pcr1, booted.pcr2)
    assert attested.pcr2 == measure_eif(built / "enclave.eif").pcr2


def test_another_release_is_refused(session: Session) -> None:
    """
    On a list without this image the chatbot refuses it, and says which PCRs differ.
    """
    with pytest.raises(PcrMismatchError, match=r"PCR0 is .*PCR1 is .*PCR2 is "):
        require_pcrs(session.enclave.attestation, [make_release()])
