from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest

from app.chatbot.evidence.proof import prove_enclave
from app.chatbot.evidence.words import describe_receipt
from app.chatbot.session.exchange import Evidence
from app.chatbot.session.session import Session
from app.chatbot.session.trust import VerifiedEnclave, verify_enclave
from app.protocol.receipt import Receipt
from app.protocol.releases import Kit
from tests.support import make_release
from tests.unit.chatbot.session.test_trust import MANIFEST, NONCE, TRUST, document


def verified() -> VerifiedEnclave:
    now = datetime.now(UTC)
    return verify_enclave(document(), MANIFEST.encode(), nonce=NONCE, now=now, trust=TRUST)


@pytest.mark.parametrize(
    ("kit", "hardware"), [("aws", True), ("debian", False), ("process", False)]
)
def test_software_is_not_called_hardware(kit: Kit, *, hardware: bool) -> None:
    """Where a kit of production runs a Nitro Secure Module signed; on the twin software did."""
    enclave = replace(verified(), release=make_release(kit=kit))
    session = cast(
        "Session", SimpleNamespace(enclave=enclave, root_name="a root", is_demo=not hardware)
    )
    steps = {step.name: step.says for step in prove_enclave(session)}
    assert steps["signature"].startswith("A Nitro Secure Module signed") == hardware
    assert ("software" in steps["signature"]) != hardware
    assert ("runs exactly" in steps["image"]) == (kit != "process")


@pytest.mark.parametrize(("finish", "whole"), [("stop", True), ("length", False)])
def test_an_answer_that_was_cut_short_is_not_called_whole(finish: str, *, whole: bool) -> None:
    """An answer that met its limit of tokens is verified, and is not the whole of it."""
    receipt = Receipt(
        bytes(32),
        bytes(32),
        bytes(32),
        conversation=bytes(16),
        key_arn="the key",
        padding="constant",
        prompt_tokens=1,
        completion_tokens=2,
        finishes=(finish,),  # type: ignore[arg-type]
    )
    line = describe_receipt(Evidence(receipt, verified(), b"", 0, 0.1, 0.2))
    assert line.startswith("receipt   verified: this answer to this question, 2 tokens")
    assert line.endswith(", whole") == whole
    assert ("cut short" in line) != whole
