import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.enclave.engine.cache import PrefixName
from app.enclave.engine.interface import Finish
from app.enclave.preflight import (
    PreflightError,
    require_answer,
    require_clock,
    require_hardware_entropy,
    seed,
    unverified_timestamp,
    utc_now,
)
from app.protocol.asker.attestation import verify_attestation
from app.protocol.constants import MAX_START_DRIFT_SECONDS
from app.protocol.errors import WIRE_ERRORS, ClockError, ProtocolError
from app.protocol.piece import Piece
from app.protocol.question import FinishReason, Question
from tests.support import make_nsm_client, twin_root


@dataclass
class FixedNsm:
    """Gives these bytes at random, one after the other, and this document."""

    draws: list[bytes] = field(default_factory=list)
    document: bytes = b""

    def attest(
        self, *, user_data: bytes | None, nonce: bytes | None, public_key: bytes | None
    ) -> bytes:
        assert (user_data, nonce, public_key) == (None, None, None)
        return self.document

    def random(self) -> bytes:
        return self.draws.pop(0)


@pytest.mark.parametrize("content", ["nsm-hwrng\n", "nsm-hwrng"])
def test_entropy_from_the_nsm(tmp_path: Path, content: str) -> None:
    """
    The kernel draws from the NSM: all is well.
    """
    (tmp_path / "rng_current").write_text(content)
    require_hardware_entropy(tmp_path / "rng_current")


@pytest.mark.parametrize("content", ["", "none", "virtio_rng.0", "nsm-hwrng-not", None])
def test_entropy_from_elsewhere(tmp_path: Path, content: str | None) -> None:
    """
    Another source, one that the parent controls, or none at all, is refused.
    """
    if content is not None:
        (tmp_path / "rng_current").write_text(content)
    with pytest.raises(PreflightError, match="random source"):
        require_hardware_entropy(tmp_path / "rng_current")


def test_seed(tmp_path: Path) -> None:
    """
    Two draws of the NSM go into the kernel's pool.
    """
    pool = tmp_path / "random"
    seed(FixedNsm([b"a" * 64, b"b" * 64]), pool)
    assert pool.read_bytes() == b"a" * 64 + b"b" * 64


@pytest.mark.parametrize("draws", [[bytes(64), bytes(64)], [b"a" * 15, b"b" * 15]])
def test_seed_that_is_none(tmp_path: Path, draws: list[bytes]) -> None:
    """
    An NSM that repeats itself, or gives next to nothing, seeds no pool.
    """
    with pytest.raises(PreflightError, match="not random"):
        seed(FixedNsm(draws), tmp_path / "random")
    assert not (tmp_path / "random").exists()


@pytest.mark.parametrize("drift", [-50, 0, 50])
def test_clock(drift: int) -> None:
    """
    A clock near the NSM's is fine, and its drift is given.
    """
    found = require_clock(make_nsm_client(), now=utc_now() + timedelta(seconds=drift))
    assert found == pytest.approx(abs(drift), abs=3)


@pytest.mark.parametrize("drift", [MAX_START_DRIFT_SECONDS + 5, -MAX_START_DRIFT_SECONDS - 5])
def test_clock_that_is_off(drift: int) -> None:
    """
    A clock that the parent set to another time is refused.
    """
    with pytest.raises(ClockError, match="off the NSM's"):
        require_clock(make_nsm_client(), now=utc_now() + timedelta(seconds=drift))


def test_document_that_is_none() -> None:
    """
    Where the NSM gives no document there is no clock to trust.
    """
    with pytest.raises(ProtocolError):
        require_clock(FixedNsm(document=b"no document"), now=datetime.now(UTC))


def test_time_of_a_document() -> None:
    """
    The time that is read is the one that verifying the document gives, tagged or not.
    """
    document = make_nsm_client().attest(user_data=None, nonce=None, public_key=None)
    attestation = verify_attestation(
        document, root=twin_root().certificate, now=utc_now(), nonce=None
    )
    for form in (document, b"\xd2" + document):
        assert unverified_timestamp(form) == attestation.timestamp


@given(document=st.binary(max_size=200))
def test_time_of_any_bytes(document: bytes) -> None:
    """
    Bytes of any kind are refused by the one documented error.
    """
    real = make_nsm_client().attest(user_data=None, nonce=None, public_key=None)
    for prefix in (b"", b"\x84", real[:9], real[:200]):
        with pytest.raises(ProtocolError):
            unverified_timestamp(prefix + document)


@dataclass
class FixedEngine:
    """Ends after some polls with *reason*; a generation itself."""

    reason: FinishReason
    polls: int = 3
    deadline: float = 0

    def is_alive(self) -> bool:
        return True

    place = 0

    def start(
        self,
        question: Question,
        *,
        deadline: float,
        prefix: PrefixName | None = None,
        require_wanted: Callable[[], None] = lambda: None,
    ) -> "FixedEngine":
        del require_wanted
        assert prefix is None
        assert question.messages[-1].text
        self.deadline = deadline
        return self

    @property
    def finish(self) -> Finish | None:
        return None if self.polls else Finish((self.reason,), 4, 4)

    def take(self, timeout_seconds: float) -> list[Piece]:
        assert timeout_seconds > 0
        self.polls -= 1
        return [Piece("yes")]

    def wait_until_over(self, timeout_seconds: float) -> None:
        raise AssertionError(timeout_seconds)

    def cancel(self) -> None:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_self_prompt(reason: FinishReason) -> None:
    """
    A model that answers our own question within a minute may serve.
    """
    engine = FixedEngine(reason)
    require_answer(engine)
    assert engine.polls == 0
    assert engine.deadline - time.monotonic() <= 60


def test_self_prompt_that_fails() -> None:
    """
    A model that does not answer keeps the enclave from starting.
    """
    with pytest.raises(PreflightError, match="self-prompt"):
        require_answer(FixedEngine("error"))


def test_refusals_stay_inside() -> None:
    """
    What a preflight finds is no word of the wire.
    """
    assert PreflightError.code not in WIRE_ERRORS
