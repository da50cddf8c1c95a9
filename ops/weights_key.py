"""
The weights key: who can open the weights that a deployment is to run, as far as can be seen here.
"""

from collections.abc import Iterator
from typing import Final, get_args

import boto3

from app.protocol.errors import ConfigError
from app.protocol.releases import Kit, Release
from infra.attested_policy import approved_pcrs
from infra.parameters import Parameters
from ops.build_outputs import find_release
from ops.finding import Finding, ok, problem, warning
from ops.live_stack import read_key_policy
from ops.principal import Principal
from ops.weights_words import WeightsReading, describe_weights, read_weights_policy

_CHECK: Final = "weights key"
_KITS: Final = frozenset(get_args(Kit))


def check_weights_key(
    session: boto3.Session, parameters: Parameters, principal: Principal, *, key_arn: str, name: str
) -> Finding:
    """
    Say who can open what is sealed under the key *key_arn*.

    KMS tells a key's policy to its owner's account alone. In another account's place it can be said
    who is to ask, and what the owner has to have allowed.

    Args:
        name: Of the stack.

    Raises:
        AwsError: As `asking`.
    """
    _, partition, _, region, owner, _ = key_arn.split(":")
    host_role = f"arn:{partition}:iam::{principal.account}:role/{name}-host-{region}"
    release = _find_release(parameters)
    if owner != principal.account:
        wanted = f"release {release.name}" if release else "the release that is deployed"
        return warning(
            _CHECK,
            f"it is account {owner}'s, and who opens weights is theirs to say and to see: here "
            f"{host_role} may ask KMS, and gets nothing without an approved enclave's document",
            f"have the owner allow {wanted} to that role (bin/weights-policy): else none starts",
        )
    reading = read_weights_policy(read_key_policy(session, key_arn))
    wrong = next(_faults(reading, host_role, release), None)
    if wrong is not None:
        return problem(_CHECK, wrong, "put the policy in force that bin/weights-policy prints")
    return ok(_CHECK, "; ".join(" ".join(line.split()) for line in describe_weights(reading)))


def _find_release(parameters: Parameters) -> Release | None:
    """Give the release that is to be deployed; None where another check says what is wrong."""
    try:
        return find_release(parameters.eif, parameters.releases, kits=_KITS)
    except ConfigError:
        return None


def _faults(reading: WeightsReading, host_role: str, release: Release | None) -> Iterator[str]:
    """Give what keeps a deployment from starting, or lets somebody else open its weights."""
    for statement in reading.foreign:
        yield f"its policy has a statement that is not of our making: {statement}"
    for sid in reading.absent:
        yield f"its policy lacks {sid}"
    if host_role not in reading.host_roles:
        yield f"its policy does not name {host_role}, so no enclave of this stack opens weights"
    if release is None:
        return
    pcrs, digest = approved_pcrs(release), release.weights_sha256.hex()
    if not any(
        (one.pcrs.pcr0, one.pcrs.pcr1, one.pcrs.pcr2, one.digest)
        == (pcrs.pcr0, pcrs.pcr1, pcrs.pcr2, digest)
        for one in reading.releases
    ):
        yield f"its policy does not let release {release.name} open the weights {digest[:8]}…"
