"""
The bill: what a deployment costs an hour and a month, at list prices. Pure.

Prices are of us-east-1, on demand, written from memory in November 2026, as in docs/deploy.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from infra.parameters import Parameters
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


@dataclass(frozen=True, slots=True)
class Bill:
    """In US dollars."""

    hour: float
    month: int


def make_bill(parameters: Parameters) -> Bill | None:
    """Give the bill of *parameters*, at the least size of the fleet; None for a type not priced."""
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
    return Bill(month / HOURS_A_MONTH, month)


def _count_endpoints(parameters: Parameters) -> int:
    """Count the endpoints that the stack makes, each once a zone; S3's is free."""
    wanted, vpc = frozenset(services(fips=parameters.fips)), parameters.vpc
    if isinstance(vpc, ExistingVpc):
        return len(wanted - vpc.endpoints) * len(vpc.subnet_ids)
    return len(wanted) * _ZONES


def describe_bill(parameters: Parameters) -> str:
    """Say what it costs, in a sentence without its full stop."""
    bill = make_bill(parameters)
    if bill is None:
        name = parameters.sizes.instance_type.name
        return f"{name} is not in our list of prices: look it up before you go on"
    fleet = parameters.fleet
    more = f", with {fleet.least} of up to {fleet.most} hosts," if fleet.scales else ","
    return (
        f"from the stack on about ${bill.hour:.2f} an hour, ${bill.month:,} a month{more} at list "
        "prices of us-east-1 (docs/deploy.md), until bin/destroy"
    )
