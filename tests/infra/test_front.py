from collections.abc import Callable
from pathlib import Path

import pytest

from app.parent.config import ParentConfig
from app.protocol.constants import FRAME_COUNT_BUCKETS
from infra.front import DRAIN_TIME
from tests.infra.conftest import OFFICES
from tests.infra.deployment import CERTIFICATE, Json, Template, make_stack

BALANCER = "ElasticLoadBalancingV2::LoadBalancer"
LISTENER = "ElasticLoadBalancingV2::Listener"
TARGETS = "ElasticLoadBalancingV2::TargetGroup"
BEATS_PER_SECOND = 20


def attributes(properties: Json, name: str) -> dict[str, str]:
    return {item["Key"]: item["Value"] for item in properties[name]}


def admitted(template: Template) -> list[Json]:
    """Give the inbound rules of the load balancer."""
    front = template.one("EC2::SecurityGroup", "FrontClients")
    apart = {"Fn::GetAtt": [template.id("EC2::SecurityGroup", "FrontClients"), "GroupId"]}
    rules = [r for r in template.all("EC2::SecurityGroupIngress") if r["GroupId"] == apart]
    return [*front.get("SecurityGroupIngress", []), *rules]


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("private", "internal"), ("small", "internal"), ("public", "internet-facing")],
)
def test_it_faces_the_network_it_is_told_to(
    name: str, scheme: str, variant: Callable[[str], Template]
) -> None:
    """
    The load balancer is internal; it faces the internet where `public` says so.
    """
    balancer = variant(name).one(BALANCER)
    assert balancer["Type"] == "network"
    assert balancer["Scheme"] == scheme
    assert len(balancer["Subnets"]) == 2
    assert attributes(balancer, "LoadBalancerAttributes")["load_balancing.cross_zone.enabled"] == (
        "true"
    )


@pytest.mark.parametrize(
    ("name", "cidrs"),
    [("private", ["10.0.0.0/8"]), ("public", OFFICES.split(",")), ("anyone", ["0.0.0.0/0"])],
)
def test_it_is_open_to_the_given_networks_only(
    name: str, cidrs: list[str], variant: Callable[[str], Template]
) -> None:
    """
    Port 5001 is open to the networks that the operator names; anyone's only by override.
    """
    template = variant(name)
    rules = admitted(template)
    assert [rule["CidrIp"] for rule in rules] == cidrs
    assert {(r["IpProtocol"], r["FromPort"], r["ToPort"]) for r in rules} == {("tcp", 5001, 5001)}
    group = template.id("EC2::SecurityGroup", "FrontClients")
    groups = [{"Fn::GetAtt": [group, "GroupId"]}]
    assert template.one(BALANCER)["SecurityGroups"] == groups


def test_opening_it_to_anyone_is_warned_about(root: Path) -> None:
    """
    Whoever overrides is warned at synth; nobody else is.
    """
    for cidrs, expected in (("0.0.0.0/0", 1), ("10.0.0.0/8", 0)):
        app, stack = make_stack(root, {"client_cidrs": cidrs, "allow_any_client": "true"})
        messages = app.synth().get_stack_artifact(stack.artifact_id).messages
        warnings = [message.entry.data for message in messages if "5001" in str(message.entry.data)]
        assert len(warnings) == expected


@pytest.mark.parametrize("name", ["private", "anyone"])
def test_without_a_certificate_tls_passes_through(
    name: str, variant: Callable[[str], Template]
) -> None:
    """
    Without a certificate, the load balancer forwards TCP, and TLS is between asker and parent.
    """
    template = variant(name)
    listener, targets = template.one(LISTENER), template.one(TARGETS)
    assert (listener["Port"], listener["Protocol"]) == (5001, "TCP")
    assert "Certificates" not in listener
    assert (targets["Port"], targets["Protocol"]) == (5001, "TCP")


def test_with_a_certificate_both_sides_are_tls(variant: Callable[[str], Template]) -> None:
    """
    With a certificate, TLS 1.3 ends at the load balancer, which speaks TLS to the parent.
    """
    template = variant("public")
    listener, targets = template.one(LISTENER), template.one(TARGETS)
    assert (listener["Port"], listener["Protocol"]) == (5001, "TLS")
    assert listener["Certificates"] == [{"CertificateArn": CERTIFICATE}]
    assert listener["SslPolicy"] == "ELBSecurityPolicy-TLS13-1-3-2021-06"
    assert (targets["Port"], targets["Protocol"]) == (5001, "TLS")


def test_it_asks_parents_whether_they_are_ready(each: Template) -> None:
    """
    Health checks ask for /readyz by HTTPS, and give up before the next one begins.
    """
    targets = each.one(TARGETS)
    assert targets["HealthCheckProtocol"] == "HTTPS"
    assert targets["HealthCheckPath"] == "/readyz"
    assert "HealthCheckPort" not in targets
    assert targets["HealthCheckTimeoutSeconds"] < targets["HealthCheckIntervalSeconds"]
    group = each.one("AutoScaling::AutoScalingGroup")
    assert group["TargetGroupARNs"] == [{"Ref": each.id(TARGETS)}]


def test_a_balancer_that_takes_anothers_place_has_targets_of_its_own(
    variant: Callable[[str], Template],
) -> None:
    """
    Public or not decides over the target group, too: a deployment that changes it makes the new
    balancer while the old one is there, and one target group cannot be of both.
    """
    private, public = (variant(name).id(TARGETS) for name in ("private", "public"))
    assert private != public


def test_draining_lets_answers_finish(each: Template) -> None:
    """
    An instance is ended after the longest answer that it may have begun.
    """
    drain = attributes(each.one(TARGETS), "TargetGroupAttributes")
    seconds = int(drain["deregistration_delay.timeout_seconds"])
    assert seconds == DRAIN_TIME.to_seconds()
    assert seconds > ParentConfig().answer_seconds > FRAME_COUNT_BUCKETS[-1] / BEATS_PER_SECOND
