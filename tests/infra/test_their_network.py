from collections.abc import Callable

import pytest

from tests.infra.conftest import PLACES
from tests.infra.deployment import Json, Template

VPC = PLACES["their-network"]["vpc_id"]
SUBNETS = str(PLACES["their-network"]["subnet_ids"]).split(",")
BALANCER = "ElasticLoadBalancingV2::LoadBalancer"


@pytest.fixture
def theirs(variant: Callable[[str], Template]) -> Template:
    """
    Give the template of a stack in a VPC that is there.
    """
    return variant("their-network")


def test_it_makes_no_network(theirs: Template) -> None:
    """
    Neither VPC nor subnets, routes, gateways or flow logs are made where there are some.
    """
    kinds = ("VPC", "Subnet", "RouteTable", "Route", "InternetGateway", "NatGateway", "FlowLog")
    assert [kind for kind in kinds if theirs.ids(f"EC2::{kind}")] == []


def test_everything_lies_in_theirs(theirs: Template) -> None:
    """
    Instances, balancer and endpoints are in the subnets named, security groups in the VPC.
    """
    assert theirs.one("AutoScaling::AutoScalingGroup")["VPCZoneIdentifier"] == SUBNETS
    assert theirs.one(BALANCER)["Subnets"] == SUBNETS
    assert theirs.one(BALANCER)["Scheme"] == "internal"
    assert {group["VpcId"] for group in theirs.all("EC2::SecurityGroup")} == {VPC}
    for endpoint in theirs.all("EC2::VPCEndpoint"):
        assert endpoint["VpcId"] == VPC
        assert endpoint.get("SubnetIds", SUBNETS) == SUBNETS


def test_endpoints_that_are_there_are_not_made(theirs: Template) -> None:
    """
    Each endpoint is made but those that the VPC has, S3's on its route table.
    """
    made = {e["ServiceName"]: e for e in map(theirs.resolve, theirs.all("EC2::VPCEndpoint"))}
    names = {name.rpartition(".")[2]: endpoint for name, endpoint in made.items()}
    assert set(names) == {"kms", "cloudformation", "logs", "s3"}
    assert names["s3"]["RouteTableIds"] == [PLACES["their-network"]["route_table_ids"]]


def test_privatelink_is_for_those_named(theirs: Template) -> None:
    """
    Consumers are who is listed, at once; rules by address pass over them, who have none here.
    """
    service = theirs.one("EC2::VPCEndpointService")
    assert service["NetworkLoadBalancerArns"] == [{"Ref": theirs.id(BALANCER)}]
    assert service["AcceptanceRequired"] is False
    allowed = theirs.one("EC2::VPCEndpointServicePermissions")["AllowedPrincipals"]
    assert allowed == ["arn:aws:iam::444455556666:root"]
    assert theirs.one(BALANCER)["EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic"] == "off"


def test_without_consumers_there_is_no_privatelink(each: Template) -> None:
    """
    Where nobody is listed, there is no service, and rules by address bind whoever comes.
    """
    assert each.ids("EC2::VPCEndpointService") == []
    assert each.one(BALANCER)["EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic"] == "on"


def test_their_name_is_the_askers_address(theirs: Template) -> None:
    """
    Askers are told the name chosen; what it has to lead to is an output.
    """
    outputs: dict[str, Json] = {
        name: theirs.resolve(output["Value"]) for name, output in theirs.value["Outputs"].items()
    }
    assert outputs["Url"] == "https://ask.example.org:5001"
    assert '"url":"https://ask.example.org:5001"' in outputs["ChatJson"]
    assert outputs["BalancerName"] == f"{{{theirs.id(BALANCER)}.DNSName}}"
    assert outputs["EndpointService"].startswith("com.amazonaws.vpce.eu-central-1.")
