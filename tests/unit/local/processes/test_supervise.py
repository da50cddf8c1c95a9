import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.protocol.errors import UnavailableError
from local.processes.supervise import Child
from tests.patience import PATIENCE_SECONDS

SLEEPS = "print('I sleep', flush=True); import time; time.sleep(600)"


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Child]:
    """A process that runs, and is never ready."""
    child = Child("sleeper", (sys.executable, "-c", SLEEPS), tmp_path)
    yield child
    child.kill()


def test_it_is_waited_for(sleeper: Child) -> None:
    """
    It is asked again and again, and waited for no longer than it takes.
    """
    answers = iter([False, False, True])
    sleeper.wait_until(lambda: next(answers), PATIENCE_SECONDS)
    assert list(answers) == []


def test_what_is_never_ready_is_told(sleeper: Child) -> None:
    """
    After its time the waiting is over, with the end of its log.
    """
    sleeper.wait_until(lambda: "I sleep" in sleeper.log_end(), PATIENCE_SECONDS)
    with pytest.raises(UnavailableError, match=r"sleeper is not ready after 0 s; .* ends: I sleep"):
        sleeper.wait_until(lambda: False, 0.1)


def test_what_ends_is_not_waited_for(tmp_path: Path) -> None:
    """
    A process that ends before it is ready is told at once, with its code.
    """
    child = Child("brief", (sys.executable, "-c", "raise SystemExit(3)"), tmp_path)
    with pytest.raises(UnavailableError, match="brief ended with 3"):
        child.wait_until(lambda: False, PATIENCE_SECONDS)
    child.stop()
