import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.trail import KINDS, Kind, Trail, logged_events, read_trails
from tests.stubbed import ACCOUNT, REGION, StubbedAws

BOTH = set(KINDS)
KMS = "kms.amazonaws.com"
MANAGEMENT = {"Field": "eventCategory", "Equals": ["Management"]}


def advanced(*fields: object) -> dict[str, object]:
    return {"AdvancedEventSelectors": [{"FieldSelectors": list(fields)}]}


def basic(**selector: object) -> dict[str, object]:
    return {"EventSelectors": [{"IncludeManagementEvents": True, **selector}]}


SELECTORS: list[tuple[dict[str, object], set[Kind]]] = [
    (basic(ReadWriteType="All"), BOTH),
    (basic(ReadWriteType="ReadOnly"), {"read"}),
    (basic(ReadWriteType="WriteOnly"), {"write"}),
    (basic(ExcludeManagementEventSources=[KMS]), set()),
    (basic(ExcludeManagementEventSources=["rdsdata.amazonaws.com"]), BOTH),
    (basic(IncludeManagementEvents=False), set()),
    (advanced(MANAGEMENT), BOTH),
    (advanced(MANAGEMENT, {"Field": "eventSource", "NotEquals": [KMS]}), set()),
    (advanced(MANAGEMENT, {"Field": "eventSource", "NotStartsWith": ["km"]}), set()),
    (advanced(MANAGEMENT, {"Field": "eventSource", "NotEquals": ["rds.amazonaws.com"]}), BOTH),
    (advanced(MANAGEMENT, {"Field": "eventSource", "Equals": ["rds.amazonaws.com"]}), set()),
    (advanced(MANAGEMENT, {"Field": "eventSource", "EndsWith": [".amazonaws.com"]}), BOTH),
    (advanced(MANAGEMENT, {"Field": "readOnly", "Equals": ["false"]}), {"write"}),
    (advanced(MANAGEMENT, {"Field": "readOnly", "Equals": ["true"]}), {"read"}),
    # Whatever else narrows it may keep the events of the key out.
    (advanced(MANAGEMENT, {"Field": "eventName", "Equals": ["Decrypt"]}), set()),
    (advanced({"Field": "eventCategory", "Equals": ["Data"]}), set()),
    (advanced({"Field": "eventSource", "Equals": [KMS]}), set()),
    ({"AdvancedEventSelectors": [], "EventSelectors": []}, set()),
]


@pytest.mark.parametrize(("selectors", "expected"), SELECTORS)
def test_logged_events(selectors: dict[str, object], expected: set[Kind]) -> None:
    """
    A trail counts for reads and writes of KMS exactly where its selectors let all of them in.
    """
    assert logged_events(selectors) == expected


@given(
    selectors=st.dictionaries(
        st.sampled_from(["AdvancedEventSelectors", "EventSelectors"]),
        st.recursive(
            st.none() | st.booleans() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    )
)
def test_malformed_selectors_log_nothing(selectors: dict[str, object]) -> None:
    """
    Whatever is not understood logs nothing.
    """
    assert logged_events(selectors) == set()


def test_trails_of_other_regions_do_not_count(aws: StubbedAws) -> None:
    """
    A trail counts in its own Region, or in all of them.
    """
    arn = f"arn:aws:cloudtrail:{REGION}:{ACCOUNT}:trail/"
    trails = [
        {"Name": "far", "TrailARN": f"{arn}far", "HomeRegion": "us-east-1"},
        {"Name": "near", "TrailARN": f"{arn}near", "HomeRegion": REGION},
    ]
    aws.answers("cloudtrail", "describe_trails", {"trailList": trails})
    aws.answers("cloudtrail", "get_trail_status", {"IsLogging": True})
    aws.answers("cloudtrail", "get_event_selectors", basic())
    assert read_trails(aws.session) == (Trail("near", logging=True, events=frozenset(BOTH)),)
