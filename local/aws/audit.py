"""
The audit trail: what CloudTrail would record of each authenticated call.

Never a plaintext, a key, a ciphertext or a credential. An encryption context is public, at AWS
too, which is why nothing secret goes into it.
"""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Final

MOST_EVENTS: Final = 16_384  # about 10 MB, and more than any test looks back


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """
    One call.

    Attributes:
        pcr0: Of the attestation document that came with it, in hex; None without a genuine one.

        error_code: None if the call succeeded.

        host: The name under which KMS was called, CloudTrail's `clientProvidedHostHeader`.
    """

    event_time: str
    event_name: str
    principal_arn: str
    source_identity: str | None
    key_arn: str | None
    encryption_context: Mapping[str, str] | None
    pcr0: str | None
    error_code: str | None
    host: str | None = None


class AuditTrail:
    """Events in the order in which their calls ended: the latest here, all as lines of a file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._events: deque[AuditEvent] = deque(maxlen=MOST_EVENTS)
        self._lock = Lock()

    @property
    def events(self) -> tuple[AuditEvent, ...]:
        """The latest events, all of them unless there were very many."""
        with self._lock:
            return tuple(self._events)

    def append(self, event: AuditEvent) -> None:
        """Record *event*."""
        with self._lock:
            self._events.append(event)
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps(asdict(event)) + "\n")


def event_time(now: datetime) -> str:
    """Write a time as CloudTrail does."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
