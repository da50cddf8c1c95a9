"""What docs/deploy.md counts, against the template."""

import re

from infra.front import DRAIN_TIME
from infra.instances import parse_instance_type
from tests.figures import DEPLOY, HOURS, OPERATIONS, add_costs, word
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


def test_each_machine_of_the_table_is_reckoned_right() -> None:
    """
    What the table of machines says follows from price, processor and memory: the sum with all else
    that a deployment costs, the share, and the speed of one answer.
    """
    page = (ROOT / DEPLOY).read_text()
    rows = re.findall(r"^\| (r\w+\.8xlarge) \|((?: \S+ \|){6})$", page, re.MULTILINE)
    assert [name.partition(".")[0] for name, _ in rows] == ["r5", "r6i", "r7i", "r8i"]
    _, month = add_costs("r5.8xlarge")
    besides = month - round(float("2.016") * HOURS)
    for name, cells in rows:
        cost, total, vcpus, memory, share, speed = (
            cells.replace("$", "").replace(",", "").split("|")[:6]
        )
        assert int(total) == round(float(cost) * HOURS) + besides, name
        part = float(memory) * parse_instance_type(name).vcpus / float(vcpus)
        assert int(share) == round(part), name
        assert int(speed) == round(part / 8), name


def test_hosts_drain_as_long_as_the_docs_say() -> None:
    """The time to drain is in docs/operations.md."""
    page = (ROOT / OPERATIONS).read_text()
    assert f"Each drains for {DRAIN_TIME.to_seconds():.0f} seconds" in page
