"""
The key policy in words: which releases open questions, and what another policy would change.

Pure. Words are only said of a policy that is, statement by statement, of this project's making:
it is made again from the releases found in it, and whatever differs is shown as it stands.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from infra.attested_policy import ApprovedPcrs, KeyPolicyError
from infra.key_policy import key_policy

Json = Mapping[str, object]

_OPEN: Final = "OpenQuestions"
_PCR: Final = re.compile(r"kms:RecipientAttestation:PCR([012])")
_ROOT: Final = re.compile(r"arn:[a-z-]{3,16}:iam::([0-9]{12}):root")
_SHOWN: Final = 8  # hex digits of PCR0 that stand for a release


@dataclass(frozen=True, slots=True)
class PolicyReading:
    """
    What a key policy says.

    Attributes:
        releases: Those that open questions, by PCR0 in hex.

        account, chat_role_arn: Whose key, and who asks; empty where the policy is not ours.

        foreign: Statements that are not of our making, as JSON.

        absent: Names of statements that ours has, and this one lacks.
    """

    releases: Mapping[str, ApprovedPcrs]
    account: str
    chat_role_arn: str
    foreign: tuple[str, ...]
    absent: tuple[str, ...]

    @property
    def ours(self) -> bool:
        """Tell whether it is of our making, to the last statement."""
        return not self.foreign and not self.absent


def read_policy(policy: Json) -> PolicyReading:
    """Read *policy*, from wherever it comes; what is not understood is told as foreign."""
    statements = normal_statements(policy)
    releases = tuple(release for item in statements if (release := _release(item)) is not None)
    account, role = _principals(statements)
    try:
        made = key_policy(account=account, chat_role_arn=role, releases=releases)
    except KeyPolicyError as error:
        return PolicyReading(
            releases={release.pcr0.lower(): release for release in releases},
            account="",
            chat_role_arn="",
            foreign=tuple(statements),
            absent=(f"all of ours: {error}",),
        )
    foreign, absent = find_strangeness(statements, normal_statements(made))
    return PolicyReading(
        releases={release.pcr0.lower(): release for release in releases},
        account=account,
        chat_role_arn=role,
        foreign=foreign,
        absent=absent,
    )


def describe_policy(reading: PolicyReading, names: Mapping[str, str]) -> Iterator[str]:
    """
    Say what a policy allows.

    Args:
        names: Of releases by PCR0 in hex; others are called as their statements are.
    """
    for release in reading.releases.values():
        yield f"opens questions      {_name(release, names)}"
    if not reading.releases:
        yield "opens questions      no release at all: every question is refused"
    if reading.ours:
        yield f"asks                 {reading.chat_role_arn}, and whoever may assume it"
        yield f"runs the key         administrators of account {reading.account}, without using it"
        yield "everyone else        is denied, with any other image or with none"
    yield from describe_strangeness(reading.foreign, reading.absent)


@dataclass(frozen=True, slots=True)
class Deployed:
    """
    What is deployed already.

    Attributes:
        live: The policy that KMS has now.

        written: The one of the deployed template.

        running: PCR0 in hex of the releases that its hosts run.
    """

    live: PolicyReading
    written: PolicyReading
    running: Sequence[str] = ()

    @property
    def changed_by_hand(self) -> bool:
        """Tell whether KMS has another policy than CloudFormation wrote."""
        return not self.live.ours or self.live != self.written


def stays_changed(deployed: Deployed | None, new: PolicyReading) -> bool:
    """Tell whether a policy changed by hand outlives *new*: CloudFormation compares templates."""
    return deployed is not None and deployed.changed_by_hand and deployed.written == new


def compare_policies(
    deployed: Deployed | None, new: PolicyReading, names: Mapping[str, str]
) -> Iterator[str]:
    """
    Say which releases open questions after *new* is deployed, and what changes.

    Args:
        deployed: None where nothing is.

        names: As `describe_policy` takes them.
    """
    yield "After this deployment"
    yield from (f"  {line}" for line in describe_policy(new, names))
    if deployed is None:
        yield "Nothing is deployed yet: no release loses anything."
        return
    live = deployed.live
    removed = _without(live, new)
    yield "Compared with the policy that is live"
    yield from (f"  {line}" for line in _describe_changes(live, new, names))
    for release in removed:
        yield from _warn_of_removal(release, names, deployed.running)
    if deployed.changed_by_hand:
        yield "!! The live policy is not the deployed template's: somebody changed it by hand."
        yield from (f"  {line}" for line in describe_strangeness(live.foreign, live.absent))
    if stays_changed(deployed, new):
        yield "!! CloudFormation sees no change and would leave it so."


def _describe_changes(
    live: PolicyReading, new: PolicyReading, names: Mapping[str, str]
) -> Iterator[str]:
    lines = [
        *(f"added                {_name(release, names)}" for release in _without(new, live)),
        *(f"removed              {_name(release, names)}" for release in _without(live, new)),
    ]
    if live.chat_role_arn != new.chat_role_arn:
        lines.append(f"who asks changes     from {live.chat_role_arn or 'nobody known'}")
    if not lines:
        lines = ["nothing changes" if live == new else "the same releases, written otherwise"]
    yield from lines


def _without(one: PolicyReading, other: PolicyReading) -> list[ApprovedPcrs]:
    """Give the releases of *one* whose PCRs are not all in *other*."""
    known = {_pcrs(release) for release in other.releases.values()}
    return [release for release in one.releases.values() if _pcrs(release) not in known]


def _pcrs(release: ApprovedPcrs) -> tuple[str, str, str]:
    return release.pcr0.lower(), release.pcr1.lower(), release.pcr2.lower()


def _warn_of_removal(
    release: ApprovedPcrs, names: Mapping[str, str], running: Sequence[str]
) -> Iterator[str]:
    name = _name(release, names)
    yield f"!! Hosts that still run {name} are cut off: KMS opens nothing more for them"
    yield "   within minutes, and nothing at all 15 minutes later."
    if release.pcr0.lower() in running:
        yield "!! The deployed hosts run it NOW: no question is answered until they are replaced."


def describe_strangeness(foreign: Sequence[str], absent: Sequence[str]) -> Iterator[str]:
    """Show the statements that are not of our making, and name those that are missing."""
    for statement in foreign:
        yield f"NOT OURS             {statement}"
    for sid in absent:
        yield f"MISSING              {sid}"


def _name(release: ApprovedPcrs, names: Mapping[str, str]) -> str:
    pcr0 = release.pcr0.lower()
    return f"release {names.get(pcr0, release.name)} (pcr0 {pcr0[:_SHOWN]}…)"


def normal_statements(policy: Mapping[str, object]) -> list[str]:
    """Give the statements of *policy* as JSON, in the one spelling that they are compared in."""
    found = policy.get("Statement", [])
    return [_normal(statement) for statement in (found if isinstance(found, list) else [found])]


def find_strangeness(
    statements: Sequence[str], expected: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give which *statements* are not *expected*, and the names of those that are not there."""
    foreign = tuple(item for item in statements if item not in expected)
    return foreign, tuple(_sid(item) for item in expected if item not in statements)


def read_pcrs(name: str, condition: Mapping[object, object]) -> ApprovedPcrs | None:
    """Give the release whose three PCRs *condition* has, each equal; None where it has not."""
    found = ((_PCR.fullmatch(str(key)), str(pcr)) for key, pcr in condition.items())
    values = {match[1]: pcr for match, pcr in found if match}
    if set(values) != {"0", "1", "2"}:
        return None
    return ApprovedPcrs(name, values["0"], values["1"], values["2"])


def read_account(arn: str) -> str:
    """Give the account whose root *arn* is; empty where it is another's."""
    root = _ROOT.fullmatch(arn)
    return root[1] if root else ""


def _normal(statement: object) -> str:
    """Give one spelling: all sorted, and a value instead of a list with only that."""
    return json.dumps(_unwrap(statement), sort_keys=True)


def _unwrap(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _unwrap(item) for name, item in value.items()}
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            value = sorted(value)  # any order means the same
        return _unwrap(value[0]) if len(value) == 1 else [_unwrap(item) for item in value]
    return value


def _sid(statement: str) -> str:
    value = json.loads(statement)
    return str(value.get("Sid", "without a name")) if isinstance(value, dict) else "malformed"


def _release(statement: str) -> ApprovedPcrs | None:
    """Give the release that *statement* lets open questions; None where it is of another kind."""
    match json.loads(statement):
        case {
            "Sid": str(sid),
            "Effect": "Allow",
            "Action": "kms:Decrypt",
            "Condition": {"StringEqualsIgnoreCase": {**pcrs}},
        } if sid.startswith(_OPEN):
            return read_pcrs(sid[len(_OPEN) :], pcrs)
    return None


def _principals(statements: Sequence[str]) -> tuple[str, str]:
    """Give account and chat role as the statements of these names have them."""
    found = {"Administer": "", "SealQuestions": ""}
    for statement in statements:
        match json.loads(statement):
            case {"Sid": str(sid), "Principal": {"AWS": str(arn)}} if sid in found:
                found[sid] = arn
    return read_account(found["Administer"]), found["SealQuestions"]
