import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.chatbot.session.trust import VerifiedEnclave
from app.protocol.errors import AttestationError, KmsError, UnavailableError
from ops.host_check import _nobody, require_running, wait_for_host
from tests.support import Clock

GOOD = {"at": 1000, "state": "RUNNING", "up": True}


def test_running(tmp_path: Path) -> None:
    """
    A supervisor that has just seen the enclave running and heard from it is enough.
    """
    path = tmp_path / "status.json"
    path.write_text(json.dumps(GOOD))
    require_running(path, now=1060)


def test_kms_by_the_name_that_the_way_leads_to() -> None:
    """
    The question that nobody asked goes to the one name of KMS that the instance lets through.
    """
    asked = _nobody("us-gov-west-1", fips=True)
    assert asked.key_arn.text.startswith("arn:aws-us-gov:kms:us-gov-west-1:")
    assert asked.kms_host == "kms-fips.us-gov-west-1.amazonaws.com"
    assert _nobody("eu-central-1", fips=False).kms_host == "kms.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (None, "has said nothing yet"),
        ("junk", "has said nothing yet"),
        ([], "other fields"),
        (GOOD | {"at": "now"}, "other fields"),
        (GOOD | {"at": 939}, "last looked 61 s ago"),
        (GOOD | {"up": False}, "is running and gives no counts yet"),
        (GOOD | {"state": "absent", "up": False}, "is absent"),
        (GOOD | {"state": "TERMINATING"}, "is terminating"),
    ],
)
def test_not_running(tmp_path: Path, status: object, words: str) -> None:
    """
    Anything else is said.
    """
    path = tmp_path / "status.json"
    if status is not None:
        path.write_text(status if isinstance(status, str) else json.dumps(status))
    with pytest.raises(UnavailableError, match=words):
        require_running(path, now=1000)


def wait(errors: list[Exception], seconds: float = 35) -> int:
    """Wait for an enclave whose checks raise *errors* in turn, then go on with the last."""
    clock = Clock()
    turns: Iterator[Exception] = iter(errors)
    last = errors[-1]

    def check() -> VerifiedEnclave:
        raise next(turns, last)

    def sleep(pause: float) -> None:
        clock.now += pause

    return wait_for_host(check, seconds=seconds, sleep=sleep, clock=clock)


def test_time_runs_out(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Until the time is over it tries again, and says each time what is missing.
    """
    assert wait([UnavailableError("not running"), KmsError("no KMS")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in lines] == [
        "not yet: not running",
        "not yet: no KMS",
        "not yet: no KMS",
        "not yet: no KMS",
        "not proven within 35 s",
    ]


def test_not_trusted(capsys: pytest.CaptureFixture[str]) -> None:
    """
    An enclave that is not the approved one is not waited for.
    """
    assert wait([AttestationError("PCR0 is another")]) == 3
    assert "not trusted: PCR0 is another" in capsys.readouterr().out
