"""
A weights policy in words: which releases open which package, on whose hosts, and who seals.

Pure. As `policy_words` reads the service key's: whatever differs from what this project makes of
the same values is shown as it stands.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from infra.attested_policy import KeyPolicyError
from infra.weights_policy import DIGEST_KEY, PRINCIPAL_KEY, ApprovedWeights, weights_policy
from ops.policy_words import (
    describe_strangeness,
    find_strangeness,
    normal_statements,
    read_account,
    read_pcrs,
)

_OPEN: Final = "OpenWeights"
_SHOWN: Final = 8  # hex digits that stand for a digest


@dataclass(frozen=True, slots=True)
class WeightsReading:
    """
    What a weights policy says.

    Attributes:
        releases: Those that open weights, each with the package it may open.

        account, sealers, host_roles: Whose key, who seals, and whose hosts open; empty where the
            policy does not say so in our way.

        foreign: Statements that are not of our making, as JSON.

        absent: Names of statements that ours has, and this one lacks.
    """

    releases: tuple[ApprovedWeights, ...]
    account: str
    sealers: tuple[str, ...]
    host_roles: tuple[str, ...]
    foreign: tuple[str, ...]
    absent: tuple[str, ...]

    @property
    def ours(self) -> bool:
        """Tell whether it is of our making, to the last statement."""
        return not self.foreign and not self.absent


def read_weights_policy(policy: Mapping[str, object]) -> WeightsReading:
    """Read *policy*, from wherever it comes; what is not understood is told as foreign."""
    statements = normal_statements(policy)
    opening = [found for item in statements if (found := _opening(item)) is not None]
    releases = tuple(release for release, _ in opening)
    hosts = tuple(sorted({role for _, roles in opening for role in roles}))
    account = read_account("".join(_principals(statements, "Administer")))
    sealers = _principals(statements, "SealWeights")
    try:
        made = weights_policy(account=account, sealers=sealers, host_roles=hosts, releases=releases)
        foreign, absent = find_strangeness(statements, normal_statements(made))
    except KeyPolicyError as error:
        foreign, absent = tuple(statements), (f"all of ours: {error}",)
    return WeightsReading(releases, account, sealers, hosts, foreign, absent)


def describe_weights(reading: WeightsReading) -> Iterator[str]:
    """Say who can open what under a weights policy."""
    for release in reading.releases:
        pcrs = release.pcrs
        yield (
            f"opens weights        {release.digest[:_SHOWN]}…: release {pcrs.name} (pcr0 "
            f"{pcrs.pcr0.lower()[:_SHOWN]}…), in its enclave alone"
        )
    if not reading.releases:
        yield "opens weights        no release at all: nothing sealed under this key opens"
    if reading.ours:
        for role in reading.host_roles:
            yield f"hands over the call  {role}, which without an enclave's document opens nothing"
        for sealer in reading.sealers:
            yield f"seals                {sealer}, and can open nothing"
        yield f"runs the key         administrators of account {reading.account}, without using it"
        yield "everyone else        is denied, with any other image or with none"
    yield from describe_strangeness(reading.foreign, reading.absent)


def _opening(statement: str) -> tuple[ApprovedWeights, Sequence[str]] | None:
    """Give the release that *statement* lets open weights, and on whose hosts."""
    match json.loads(statement):
        case {
            "Sid": str(sid),
            "Effect": "Allow",
            "Action": "kms:Decrypt",
            "Condition": {
                "StringEquals": {**context},
                "StringEqualsIgnoreCase": {**pcrs},
                "ArnEquals": {**principals},
            },
        } if sid.startswith(_OPEN):
            found = read_pcrs(sid[len(_OPEN) :], pcrs)
            if found is not None:
                digest = str(context.get(DIGEST_KEY, ""))
                return ApprovedWeights(found, digest), _texts(principals.get(PRINCIPAL_KEY))
    return None


def _principals(statements: Sequence[str], sid: str) -> tuple[str, ...]:
    for statement in statements:
        match json.loads(statement):
            case {"Sid": found, "Principal": {"AWS": arns}} if found == sid:
                return _texts(arns)
    return ()


def _texts(value: object) -> tuple[str, ...]:
    """Give one text or several; none of anything else."""
    found = value if isinstance(value, list) else [value]
    return tuple(text for text in found if isinstance(text, str))
