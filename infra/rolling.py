"""
Rolling: how many instances are replaced at a time.
"""

from typing import Final

_ROUNDS: Final = 5  # each takes a boot and a drain, half an hour or so


def batch_size(fleet_size: int) -> int:
    """Give how many of *fleet_size* instances are replaced at a time, on top of which they run."""
    return -(-fleet_size // _ROUNDS)
