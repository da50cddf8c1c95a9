"""
The volume of a parent instance: how large it is, and how fast, for the image and its weights. Pure.
"""

from dataclasses import dataclass
from typing import Final

_GIB: Final = 1024**3
_MIB: Final = 1024**2
# AL2023 with packages and logs, and the EIF while it is fetched, checked and loaded.
_SYSTEM_GIB: Final = 30
_EIF_COPIES: Final = 3
# gp3's own, at no further cost; and a quarter of its 3,000 operations a second, which it may have.
# Source: EBS user guide, "General Purpose SSD volumes".
BASE_MIB_A_SECOND: Final = 125
_MOST_MIB_A_SECOND: Final = 750
# Ours: weights are written and read once each within half of a first boot's 30 minutes.
_FETCH_SECONDS: Final = 450


@dataclass(frozen=True, slots=True)
class Volume:
    """One gp3 volume."""

    gib: int
    mib_a_second: int


def volume_of(*, eif_bytes: int, weights_bytes: int) -> Volume:
    """Give the volume that holds an image and the files of its weights, and writes them in time."""
    gib = _SYSTEM_GIB + _EIF_COPIES * -(-eif_bytes // _GIB) + -(-weights_bytes // _GIB)
    wanted = -(-weights_bytes // (_MIB * _FETCH_SECONDS))
    return Volume(gib, min(max(wanted, BASE_MIB_A_SECOND), _MOST_MIB_A_SECOND))
