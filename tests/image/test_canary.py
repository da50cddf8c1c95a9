"""
The canary on the booted image: all that is asked of the enclave's process in
`tests/integration/test_canary.py`, every failure included, and the same searches.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import pytest

from app.protocol.package import MANIFEST_NAME
from local.emulator.machine import write_signer
from local.signers.pki import make_chain, make_root
from local.twin.twin import DEMO_WEIGHTS, Twin
from tests.integration.canary import Canaries, family
from tests.integration.canary_stage import Stage
from tests.integration.test_canary import (
    test_every_error_was_forced,
    test_every_refusal_was_forced,
    test_every_secret_is_searched_for,
    test_logs_have_only_names_and_numbers,
    test_no_secret_in_arguments_or_environment,
    test_no_secret_in_files,
    test_no_secret_in_http,
    test_no_secret_in_open_files,
    test_no_secret_in_the_parents_memory,
    test_no_secret_in_what_the_chatbot_says_of_errors,
    test_search_finds_what_the_parent_does_hold,
    test_what_is_sent_in_clear_is_not_repeated,
)

__all__ = [  # the same tests, each collected here with the stage below
    "test_every_error_was_forced",
    "test_every_refusal_was_forced",
    "test_every_secret_is_searched_for",
    "test_logs_have_only_names_and_numbers",
    "test_no_secret_in_arguments_or_environment",
    "test_no_secret_in_files",
    "test_no_secret_in_http",
    "test_no_secret_in_open_files",
    "test_no_secret_in_the_parents_memory",
    "test_no_secret_in_what_the_chatbot_says_of_errors",
    "test_search_finds_what_the_parent_does_hold",
    "test_what_is_sent_in_clear_is_not_repeated",
]

# QEMU's NSM cannot be told to answer with an error; it can sign under a root that nobody trusts.
DIFFERS: Final[Mapping[str, str | int]] = {
    "NSM fails before the receipt": "receipt",
    "attestation without NSM": 200,
}


@pytest.fixture(scope="module")
def stage(twin: Twin) -> Iterator[Stage]:
    """Everything asked of the booted image, everything failed; nothing searched yet but memory."""
    excused = {twin.folder / "enclave.eif": "it was there before the first question"}
    stage = Stage(
        twin,
        twin.connect(),
        twin.folder.parent,
        lambda: _failing_nsm(twin),
        excused=excused,
        differs=DIFFERS,
        console=True,
        max_tokens=16,
    )
    with pytest.MonkeyPatch.context() as patch:
        stage.perform(patch)
        yield stage


@contextmanager
def _failing_nsm(twin: Twin) -> Iterator[None]:
    """Have QEMU's NSM sign with a chain of another root."""
    signer = twin.sockets / "signer.pem"
    now = datetime.now(UTC)
    write_signer(signer, make_chain(make_root(now=now), now=now))
    yield
    write_signer(signer, twin.nsm.chain())


def test_no_weights_but_in_the_enclave(stage: Stage) -> None:
    """
    No piece of the sealed weights is in the image, in another file, or in the memory of the relay
    or of the server of weights.
    """
    canaries = Canaries()
    for path in DEMO_WEIGHTS.iterdir():
        if path.name != MANIFEST_NAME:
            canaries.add_pieces(path.name, path.read_bytes(), 2)
    assert canaries.find_in_files(stage.twin.folder, but={}) == {}
    pids = [*family(stage.twin.parent.pid), *family(stage.twin.sender.pid)]
    assert canaries.find_in_memory(*pids) == {}
    assert stage.twin.owner is not None
    assert stage.twin.owner.package == stage.twin.folder / "sealed"
