import json

from app.protocol.releases import Release
from infra.key_events import key_events
from tests.infra.deployment import REGION, Files, Json, Template

COUNTS = {
    "Answered",
    "AnswerErrors",
    "AnswersAtOnce",
    "AnswersWaiting",
    "EnclaveUp",
    "EnclaveStarts",
    "RequestsRefused",
}


def board(template: Template) -> Json:
    body = template.resolve(template.one("CloudWatch::Dashboard")["DashboardBody"])
    return json.loads(body)


def test_it_shows_every_count_of_the_hosts(each: Template) -> None:
    """
    Each count that hosts emit is on it, this stack's alone, and each kind of event of the key.
    """
    name = each.one("CloudWatch::Dashboard")["DashboardName"]
    assert name.endswith(f"-{REGION}")
    stack = name.removesuffix(f"-{REGION}")
    shown = [
        m for widget in board(each)["widgets"] for m in widget["properties"].get("metrics", ())
    ]
    ours = {metric[1]: metric[2:4] for metric in shown if metric[0] == "EnclaveLLM"}
    assert set(ours) == COUNTS
    assert all(dimension == ["Stack", stack] for dimension in ours.values())
    labels = {m[-1]["label"] for m in shown if m[0] == "AWS/Events"}
    assert labels == {event.name for event in key_events("arn", "id")}


def test_it_names_what_runs(template: Template, deployment: tuple[Files, list[Release]]) -> None:
    """
    The release in service and its PCR0 are on it.
    """
    release = deployment[1][0]
    (text,) = [
        w["properties"]["markdown"] for w in board(template)["widgets"] if w["type"] == "text"
    ]
    assert f"**{release.name}**" in text
    assert release.measurements.pcr0.hex() in text


def test_it_tells_nothing_of_lengths(each: Template) -> None:
    """
    No count of tokens or bytes is on it: of one asker alone it would be the length of an answer.
    """
    text = json.dumps(board(each)).lower()
    assert "token" not in text
    assert "byte" not in text
