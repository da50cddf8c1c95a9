import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from app.chatbot.evidence.words import describe_change
from app.chatbot.session.exchange import Answer, Evidence, Exchange
from app.chatbot.session.trust import VerifiedEnclave
from app.protocol.asker.attestation import Attestation
from app.protocol.manifest import Manifest
from app.protocol.receipt import Receipt
from app.protocol.releases import Release
from tests.support import make_release


def enclave(name: str, model: str = "a model") -> VerifiedEnclave:
    """Give an enclave that runs the release *name*, as if verified."""
    return VerifiedEnclave(
        release=make_release(name),
        attestation=cast("Attestation", None),
        manifest=Manifest(model, "", bytes(32), 2048),
        public_key=bytes(32),
        verified_at=datetime.now(UTC),
        document=b"",
    )


@pytest.fixture
def exchange() -> Exchange:
    return Exchange(time.monotonic())


def answered(by: VerifiedEnclave, replaced: Release | None) -> Evidence:
    """Give the evidence of an answer."""
    return Evidence(cast("Receipt", None), by, b"", 0, 0.0, 0.0, replaced)


def test_same_release(exchange: Exchange) -> None:
    """
    An enclave that is verified again, or another one of the same release, changes nothing.
    """
    first = enclave("one")
    exchange.verify(first, first)
    exchange.verify(first, replace(first, public_key=b"\1" * 32))
    assert exchange.replaced is None
    assert describe_change(answered(first, exchange.replaced)) is None


def test_another_release_is_told(exchange: Exchange) -> None:
    """
    When the question goes to another approved release than was verified before, even after
    several attempts, the answer's evidence and the terminal name both.
    """
    one, two = enclave("one"), enclave("two")
    exchange.verify(one, one)
    exchange.verify(one, two)
    exchange.verify(two, two)
    assert exchange.replaced == one.release
    line = describe_change(answered(two, exchange.replaced))
    assert line is not None
    assert "two answered, not one as before" in line


def test_back_again_is_no_change(exchange: Exchange) -> None:
    """
    An attempt at another release in between, and then the first one again, is no change.
    """
    one, two = enclave("one"), enclave("two")
    exchange.verify(one, two)
    exchange.verify(two, one)
    assert exchange.replaced is None


def test_an_answer_says_whom_it_is_asked_of(exchange: Exchange) -> None:
    """
    The model's name comes from the enclave that the question is sealed to.
    """
    answer = Answer(iter(()), exchange)  # type: ignore[arg-type] # nobody iterates
    before = answer.enclave
    exchange.verify(enclave("one"), enclave("two", "another model"))
    after = answer.enclave
    assert before is None
    assert after is not None
    assert after.manifest.model == "another model"
