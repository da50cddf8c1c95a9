"""What docs/deploy.md counts, against the template."""

import re

from infra.front import DRAIN_TIME
from tests.figures import DEPLOY, OPERATIONS, word
from tests.infra.deployment import Template
from tests.written import ROOT


def test_what_is_paid_for_is_what_is_made(template: Template) -> None:
    """The table of costs has each endpoint, key and alarm of the smallest stack."""
    endpoints = template.all("EC2::VPCEndpoint")
    interfaces = [e for e in endpoints if e.get("VpcEndpointType") == "Interface"]
    keys, alarms = template.all("KMS::Key"), template.all("CloudWatch::Alarm")
    table = (ROOT / DEPLOY).read_text().partition("## What it costs")[2]
    for count, what in (
        (len(interfaces), "interface endpoints in two zones"),
        (len(keys), "KMS keys"),
        (len(alarms), "alarms"),
    ):
        assert re.search(rf"\b{word(count)} {what}", table), (count, what)


def test_hosts_drain_as_long_as_the_docs_say() -> None:
    """The time to drain is in docs/operations.md."""
    page = (ROOT / OPERATIONS).read_text()
    assert f"Each drains for {DRAIN_TIME.to_seconds():.0f} seconds" in page
