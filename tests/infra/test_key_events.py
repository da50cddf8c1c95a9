"""
The alarms' rules, as they stand in the template, against events as CloudTrail writes them.
"""

from copy import deepcopy

import pytest

from app.protocol.constants import SMOKE_CONVERSATION_PREFIX
from infra.key_events import key_events
from tests.infra.deployment import ACCOUNT, REGION, Json, Template
from tests.infra.event_pattern import matches

KEY_ID = "1234abcd-12ab-34cd-56ef-1234567890ab"
KEY_ARN = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{KEY_ID}"
OTHER_ARN = KEY_ARN.replace("1234abcd", "5678abcd")
CONVERSATION = "9f" * 16
SMOKE = SMOKE_CONVERSATION_PREFIX.hex() + "00" * 11
QUESTION = {"purpose": "question", "conversation": CONVERSATION}
ANSWER = {"purpose": "answer", "conversation": CONVERSATION}
ATTESTED = {
    "recipient": {
        "attestationDocumentModuleId": "i-0123456789abcdef0-enc0123456789abcdef",
        "attestationDocumentEnclaveImageDigest": "a0" * 48,
        "attestationDocumentEnclavePCR1": "a1" * 48,
    }
}


@pytest.fixture
def patterns(template: Template) -> dict[str, Json]:
    """
    The patterns by rule, with the key's ARN and id filled in as the deployment would.
    """
    key = template.id("KMS::Key", "Key")
    return {
        rule["Name"].removeprefix("enclave-llm-"): _fill_in(
            template.resolve(rule["EventPattern"]), key
        )
        for rule in template.all("Events::Rule")
    }


def _fill_in(node: Json, key: str) -> Json:
    if isinstance(node, dict):
        return {name: _fill_in(value, key) for name, value in node.items()}
    if isinstance(node, list):
        return [_fill_in(item, key) for item in node]
    if isinstance(node, str):
        return node.replace(f"{{{key}.Arn}}", KEY_ARN).replace(f"{{{key}}}", KEY_ID)
    return node


def event(name: str, *, key: str = KEY_ARN, **detail: Json) -> Json:
    """Give one event as CloudTrail hands it to EventBridge; *detail* replaces its fields."""
    return {
        "version": "0",
        "source": "aws.kms",
        "detail-type": "AWS API Call via CloudTrail",
        "account": ACCOUNT,
        "region": REGION,
        "resources": [],
        "detail": {
            "eventVersion": "1.11",
            "userIdentity": {"type": "AssumedRole", "accountId": ACCOUNT},
            "eventSource": "kms.amazonaws.com",
            "eventName": name,
            "requestParameters": {"keyId": key},
            "responseElements": None,
            "readOnly": name in {"Decrypt", "GenerateDataKey"},
            "resources": [{"accountId": ACCOUNT, "type": "AWS::KMS::Key", "ARN": key}],
            "eventType": "AwsApiCall",
            "managementEvent": True,
            **detail,
        },
    }


def use(name: str, context: Json, *, key: str = KEY_ARN, **detail: Json) -> Json:
    """Give the event of a use of the key that KMS granted."""
    parameters = {"keyId": key, "encryptionContext": context}
    return event(name, key=key, requestParameters=parameters, **detail)


def refused(name: str, context: Json, *, key: str = KEY_ARN) -> Json:
    """Give the event of a use that KMS refused: nothing is in `resources`."""
    value = use(name, context, key=key)
    del value["detail"]["resources"]
    return _refuse(value, name, key)


def refused_unread(name: str, *, key: str = KEY_ARN) -> Json:
    """Give the event of a use refused before its parameters were noted."""
    value = event(name, key=key, requestParameters=None)
    del value["detail"]["resources"]
    return _refuse(value, name, key)


def _refuse(value: Json, name: str, key: str) -> Json:
    value["detail"]["errorCode"] = "AccessDenied"
    value["detail"]["errorMessage"] = (
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/enclave-llm-chat/x is not authorized to "
        f"perform: kms:{name} on resource: {key} with an explicit deny in a resource-based policy"
    )
    return value


def by_id(value: Json) -> Json:
    """Give the same event for a call that named the key by its id alone."""
    changed = deepcopy(value)
    changed["detail"]["requestParameters"]["keyId"] = KEY_ID
    return changed


CASES: list[tuple[str, Json, set[str]]] = [
    # Administration
    ("policy written", event("PutKeyPolicy"), {"KeyPolicyChanged"}),
    ("by key id", by_id(event("PutKeyPolicy")), {"KeyPolicyChanged"}),
    ("another key's policy", event("PutKeyPolicy", key=OTHER_ARN), set()),
    ("policy read", event("GetKeyPolicy"), set()),
    ("disabled", event("DisableKey"), {"KeyTakenAway"}),
    ("scheduled for deletion", event("ScheduleKeyDeletion"), {"KeyTakenAway"}),
    ("another key disabled", event("DisableKey", key=OTHER_ARN), set()),
    ("enabled", event("EnableKey"), set()),
    ("grant given", event("CreateGrant"), {"GrantAttempted"}),
    ("grant refused", _refuse(event("CreateGrant"), "CreateGrant", KEY_ARN), {"GrantAttempted"}),
    ("grant refused, unread", refused_unread("CreateGrant"), {"GrantAttempted"}),
    ("grant on another key", event("CreateGrant", key=OTHER_ARN), set()),
    # The service as it should be
    ("question sealed", use("GenerateDataKey", QUESTION), set()),
    ("question opened", use("Decrypt", QUESTION, additionalEventData=ATTESTED), set()),
    ("answer sealed", use("GenerateDataKey", ANSWER, additionalEventData=ATTESTED), set()),
    ("answer opened by its asker", use("Decrypt", ANSWER), set()),
    # Refusals
    ("question refused", refused("Decrypt", QUESTION), {"UseDenied"}),
    ("question refused, by id", by_id(refused("Decrypt", QUESTION)), {"UseDenied"}),
    ("answer key refused", refused("GenerateDataKey", ANSWER), {"UseDenied"}),
    ("answer refused", refused("Decrypt", ANSWER), {"UseDenied"}),
    ("no context, refused", refused("Decrypt", {}), {"UseDenied"}),
    ("context null, refused", refused("Decrypt", None), {"UseDenied"}),
    ("no conversation, refused", refused("Decrypt", {"purpose": "question"}), {"UseDenied"}),
    ("refused, unread", refused_unread("Decrypt"), {"UseDenied"}),
    ("with resources", _refuse(use("Decrypt", QUESTION), "Decrypt", KEY_ARN), {"UseDenied"}),
    ("another key's refusal", refused("Decrypt", QUESTION, key=OTHER_ARN), set()),
    ("another key's refusal, unread", refused_unread("Decrypt", key=OTHER_ARN), set()),
    ("smoke's own", refused("Decrypt", QUESTION | {"conversation": SMOKE}), set()),
    ("smoke's answer", refused("GenerateDataKey", ANSWER | {"conversation": SMOKE}), set()),
    (
        "smoke later in its name",
        refused("Decrypt", QUESTION | {"conversation": "00" + SMOKE[:-2]}),
        {"UseDenied"},
    ),
    ("malformed, not refused", use("Decrypt", QUESTION, errorCode="InvalidCiphertextException",
         additionalEventData=ATTESTED), set()),
    # What must never happen
    ("question opened bare", use("Decrypt", QUESTION), {"OpenedUnattested"}),
    ("other data", use("Decrypt", QUESTION, additionalEventData={"keyMaterialId": "1f"}),
     {"OpenedUnattested"}),
    ("smoke is no excuse", use("Decrypt", QUESTION | {"conversation": SMOKE}),
     {"OpenedUnattested"}),
    ("other purpose opened", use("Decrypt", {"purpose": "x"}), {"OpenedUnattested"}),
    ("no purpose opened", use("Decrypt", {}), {"OpenedUnattested"}),
    ("context null", use("Decrypt", None), {"OpenedUnattested"}),
    ("another key opened bare", use("Decrypt", QUESTION, key=OTHER_ARN), set()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CASES]
)
def test_an_event_sets_off_its_rules(
    value: Json, expected: set[str], patterns: dict[str, Json]
) -> None:
    """
    Each event sets off the alarms that it should, and no other.
    """
    assert {name for name, pattern in patterns.items() if matches(pattern, value)} == expected


def test_other_services_set_off_nothing(patterns: dict[str, Json]) -> None:
    """
    An event of another source that looks alike is no event of KMS.
    """
    for name in ("PutKeyPolicy", "CreateGrant", "Decrypt"):
        value = event(name) | {"source": "custom.kms"}
        assert not [name for name, pattern in patterns.items() if matches(pattern, value)]


def test_every_rule_says_what_to_do() -> None:
    """
    Whoever reads an alarm learns what happened; names are unique.
    """
    events = key_events(KEY_ARN, KEY_ID)
    assert len({item.name for item in events}) == len(events)
    assert all(item.meaning.endswith(".") and len(item.meaning) > 60 for item in events)


def test_patterns_are_short_enough(patterns: dict[str, Json]) -> None:
    """
    Every pattern is below EventBridge's 4,096 characters, with values filled in.
    """
    assert max(len(str(pattern)) for pattern in patterns.values()) < 4096
