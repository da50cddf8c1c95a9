"""
A trail: what CloudTrail must log, or the alarms on the key stay silent.

EventBridge passes on management events only where a trail logs them, read-only ones (Decrypt and
GenerateDataKey among them) no less than writes (PutKeyPolicy).
Source: CloudTrail user guide, "Logging management events", "Advanced event selectors".
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import boto3

from ops.aws import NotAllowedError, asking
from ops.finding import Finding, ok, warning

WITHOUT_TRAIL: Final = "--without-trail"
Kind = Literal["read", "write"]
KINDS: Final[tuple[Kind, ...]] = ("read", "write")
_KMS: Final = "kms.amazonaws.com"
_TYPES: Final[Mapping[str, frozenset[Kind]]] = {
    "All": frozenset(KINDS),
    "ReadOnly": frozenset({"read"}),
    "WriteOnly": frozenset({"write"}),
}
_MATCHES: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "Equals": str.__eq__,
    "StartsWith": str.startswith,
    "EndsWith": str.endswith,
}


@dataclass(frozen=True, slots=True)
class Trail:
    """
    One trail.

    Attributes:
        events: Which of KMS's management events it logs in this Region; None if we may not see.
    """

    name: str
    logging: bool
    events: frozenset[Kind] | None


def read_trails(session: boto3.Session) -> tuple[Trail, ...]:
    """
    Read the trails that cover this Region.

    Raises:
        AwsError: As `asking`.
    """
    client = session.client("cloudtrail")
    with asking("cloudtrail:DescribeTrails"):
        found = client.describe_trails(includeShadowTrails=True)["trailList"]
    trails = []
    for trail in found:
        if not (trail.get("IsMultiRegionTrail") or trail.get("HomeRegion") == session.region_name):
            continue
        arn = trail["TrailARN"]
        with asking("cloudtrail:GetTrailStatus"):
            logging = bool(client.get_trail_status(Name=arn)["IsLogging"])
        try:
            with asking("cloudtrail:GetEventSelectors"):
                events = logged_events(client.get_event_selectors(TrailName=arn))
        except NotAllowedError:
            # Usual for an organisation's trail, whose account alone may look.
            events = None
        trails.append(Trail(trail["Name"], logging, events))
    return tuple(trails)


def logged_events(selectors: Mapping[str, object]) -> frozenset[Kind]:
    """Give which of KMS's management events pass *selectors*, an answer of GetEventSelectors."""
    match selectors:
        case {"AdvancedEventSelectors": [*advanced]} if advanced:
            return frozenset().union(*map(_advanced_events, advanced))
        case {"EventSelectors": [*basic]}:
            return frozenset().union(*map(_basic_events, basic))
        case _:
            return frozenset()


def _basic_events(selector: object) -> frozenset[Kind]:
    match selector:
        case {"IncludeManagementEvents": True, **rest}:
            excluded = rest.get("ExcludeManagementEventSources")
            if isinstance(excluded, list) and _KMS in excluded:
                return frozenset()
            return _TYPES.get(str(rest.get("ReadWriteType", "All")), frozenset())
        case _:
            return frozenset()


def _advanced_events(selector: object) -> frozenset[Kind]:
    match selector:
        case {"FieldSelectors": [*fields]}:
            return frozenset(kind for kind in KINDS if _admits(fields, kind))
        case _:
            return frozenset()


def _admits(fields: Iterable[object], kind: Kind) -> bool:
    """Tell whether *fields* admit every KMS event of *kind*; an unknown one may keep some out."""
    event = {
        "eventCategory": "Management",
        "eventSource": _KMS,
        "readOnly": "true" if kind == "read" else "false",
    }
    seen = set()
    for field in fields:
        if not isinstance(field, Mapping):
            return False
        name = str(field.get("Field"))
        seen.add(name)
        if name not in event or not _field_admits(field, event[name]):
            return False
    return "eventCategory" in seen


def _field_admits(field: Mapping[str, object], value: str) -> bool:
    for operator, matches in _MATCHES.items():
        wanted, unwanted = field.get(operator), field.get(f"Not{operator}")
        if isinstance(wanted, list) and not any(matches(value, item) for item in wanted):
            return False
        if isinstance(unwanted, list) and any(matches(value, item) for item in unwanted):
            return False
    return True


def check_trails(trails: Iterable[Trail], region: str) -> Finding:
    """Check that somebody logs what the alarms on the key need."""
    check = "CloudTrail"
    logging = [trail for trail in trails if trail.logging]
    covered = frozenset[Kind]().union(*(trail.events or frozenset() for trail in logging))
    missing = [kind for kind in KINDS if kind not in covered]
    if not missing:
        names = " and ".join(trail.name for trail in logging if trail.events)
        return ok(check, f"trail {names} logs KMS's management events, read and write, in {region}")
    hidden = [trail.name for trail in logging if trail.events is None]
    if hidden:
        return warning(
            check,
            f"whether trail {' and '.join(hidden)} logs KMS's management events may not be seen: "
            "cloudtrail:GetEventSelectors was refused",
            "ask whoever runs it: without read and write events of KMS, the alarms on the key "
            "stay silent",
        )
    names = ", ".join(trail.name for trail in logging)
    return warning(
        check,
        f"no trail in {region} logs KMS's {' and '.join(missing)} management events"
        + (f" (there is {names})" if names else "")
        + ", so the alarms on the key stay silent",
        "make one, or let one log management events, all of them, without excluding "
        f"{_KMS}: aws cloudtrail put-event-selectors; for a trial bin/deploy asks whether to go on "
        f"({WITHOUT_TRAIL} in a script)",
        consent=WITHOUT_TRAIL,
    )
