"""
A twin's PKI and NSM for any test: one root and one set of measurements, made once.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final

from app.enclave.nsm import NsmClient
from app.protocol.releases import Kit, Measurements, Release
from local.signers.nsm import SoftwareNsm
from local.signers.pki import Identity, make_root

MEASUREMENTS: Final = Measurements(b"\x10" * 48, b"\x11" * 48, b"\x12" * 48)
WEIGHTS_SHA256: Final = b"\x3d" * 32


@dataclass
class Clock:
    """A clock that a test sets, in seconds."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now


@cache
def twin_root() -> Identity:
    """Give the root of all tests: `twin_root().certificate` is the anchor to verify under."""
    return make_root(now=datetime.now(UTC))


def make_nsm(
    measurements: Measurements = MEASUREMENTS, *, root: Identity | None = None, debug: bool = False
) -> SoftwareNsm:
    """Make an NSM under the tests' root; `SoftwareNsm` itself has more to bend."""
    return SoftwareNsm(root or twin_root(), measurements, debug=debug)


def make_nsm_client(nsm: SoftwareNsm | None = None) -> NsmClient:
    """Make what the enclave sees of it, in this process."""
    return NsmClient((nsm or make_nsm()).exchange)


def make_release(
    name: str = "test", *, kit: Kit = "process", measurements: Measurements = MEASUREMENTS
) -> Release:
    """Make a release; by default the one whose measurements `make_nsm` attests."""
    approved_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Release(name, kit, measurements, WEIGHTS_SHA256, approved_at)
