"""
The bill: what a deployment costs an hour and a month, at list prices. Pure.

Prices are of us-east-1, on demand, written from memory in November 2026, as in docs/deploy.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from infra.parameters import Parameters
from infra.volume import volume_of
from infra.vpc import ExistingVpc
from ops.placement import services

HOURS_A_MONTH: Final = 730
_HOURLY: Final[Mapping[str, float]] = {
    "m5.xlarge": 0.192,
    "r5.8xlarge": 2.016,
    "r6i.8xlarge": 2.016,
    "r7i.8xlarge": 2.117,
    "r8i.8xlarge": 2.223,
}
_ENDPOINT: Final = 0.01  # an hour and zone
_ZONES: Final = 2  # of a VPC of the stack's own
_BALANCER: Final = 0.0225
_PUBLIC_ADDRESS: Final = 0.005  # one a zone
# A month: 33 GiB of disk, and detailed monitoring, of each instance; two keys; alarms and metrics.
_AN_INSTANCE: Final = 3 + 2
_A_STACK: Final = 2 + 3
# A month and GiB of weights: on each instance's disk, and once in the bootstrap bucket; and what
# each MiB a second of disk costs above gp3's own.
_DISK_GIB: Final = 0.08
_STORED_GIB: Final = 0.023
_DISK_MIB_A_SECOND: Final = 0.04


@dataclass(frozen=True, slots=True)
class Bill:
    """In US dollars."""

    hour: float
    month: int


def make_bill(parameters: Parameters, *, weights_bytes: int = 0) -> Bill | None:
    """
    Give the bill of *parameters*, at the least size of the fleet; None for a type not priced.

    Args:
        weights_bytes: Of what each host fetches beside its image.
    """
    instance = _HOURLY.get(parameters.sizes.instance_type.name)
    if instance is None:
        return None
    count = parameters.fleet.least
    hourly = (
        instance * count,
        _ENDPOINT * _count_endpoints(parameters),
        _BALANCER,
        _PUBLIC_ADDRESS * _ZONES * parameters.public,
    )
    month = sum(round(price * HOURS_A_MONTH) for price in hourly) + _AN_INSTANCE * count + _A_STACK
    month += _price_weights(weights_bytes, count)
    return Bill(month / HOURS_A_MONTH, month)


def _price_weights(weights_bytes: int, count: int) -> int:
    """Give what the weights of *count* hosts cost a month."""
    volume, bare = (volume_of(eif_bytes=0, weights_bytes=size) for size in (weights_bytes, 0))
    gib = volume.gib - bare.gib
    faster = volume.mib_a_second - bare.mib_a_second
    return round((gib * _DISK_GIB + faster * _DISK_MIB_A_SECOND) * count + gib * _STORED_GIB)


def _count_endpoints(parameters: Parameters) -> int:
    """Count the endpoints that the stack makes, each once a zone; S3's is free."""
    wanted, vpc = frozenset(services(fips=parameters.fips)), parameters.vpc
    if isinstance(vpc, ExistingVpc):
        return len(wanted - vpc.endpoints) * len(vpc.subnet_ids)
    return len(wanted) * _ZONES


def describe_bill(parameters: Parameters, *, weights_bytes: int = 0) -> str:
    """Say what it costs, in a sentence without its full stop; as `make_bill`."""
    bill = make_bill(parameters, weights_bytes=weights_bytes)
    if bill is None:
        name = parameters.sizes.instance_type.name
        return f"{name} is not in our list of prices: look it up before you go on"
    fleet = parameters.fleet
    more = f", with {fleet.least} of up to {fleet.most} hosts," if fleet.scales else ","
    return (
        f"from the stack on about ${bill.hour:.2f} an hour, ${bill.month:,} a month{more} at list "
        "prices of us-east-1 (docs/deploy.md), until bin/destroy"
    )
