"""
Waiting in tests for what must come: for the event itself, and never for a time that should do.

How long it may take says nothing here, since machines are shared and may be slow: a test gives up
only to be told apart from one that hangs. Where speed is what is required, a test compares it with
what would be wrong, many times as slow.
"""

import time
from collections.abc import Callable
from typing import Final

PATIENCE_SECONDS: Final = 100  # shorter than the deadline of an answer, which would end it, too


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until *condition* is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it does not come true in {seconds:.0f} s"
        time.sleep(0.01)
