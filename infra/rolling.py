"""
The numbers of a fleet: how busy its enclaves may be, and how many instances are replaced at a time.
"""

from typing import Final

# Of the 16 that an enclave works on at once: room for what comes while the next instance boots.
# benchmarks/scaling has the days that decided it: at 4, hosts cost a quarter more; at 12, one asker
# in twenty waits for half a minute.
ANSWERS_AN_ENCLAVE: Final = 8
_ROUNDS: Final = 5  # each takes a boot and a drain, half an hour or so


def batch_size(fleet_size: int) -> int:
    """Give how many of *fleet_size* instances are replaced at a time."""
    return -(-fleet_size // _ROUNDS)
