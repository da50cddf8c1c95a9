from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest

from ops.placement import services
from tests.infra.deployment import ACCOUNT, REGION, Json, Template, make_stack, synthesise

HOST_ENDPOINTS = {
    "cloudformation": {"cloudformation:SignalResource"},
    "logs": {"logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"},
    "ssm": {"ssm:UpdateInstanceInformation"},
    "ssmmessages": {
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    },
}
GATEWAYS = (
    "EC2::NatGateway",
    "EC2::InternetGateway",
    "EC2::EgressOnlyInternetGateway",
    "EC2::VPNGateway",
    "EC2::TransitGatewayAttachment",
    "EC2::VPCPeeringConnection",
    "EC2::EIP",
    "EC2::Route",
)


def endpoints(template: Template) -> dict[str, Json]:
    """Give the endpoints' properties by service, their policies in place of their documents."""
    found = {}
    for properties in template.all("EC2::VPCEndpoint"):
        resolved = template.resolve(properties)
        service = resolved["ServiceName"].removeprefix(f"com.amazonaws.{REGION}.")
        found[service] = resolved
    return found


def private_subnets(template: Template) -> list[str]:
    return template.ids("EC2::Subnet", "NetworkVpcPrivate")


def test_nothing_leads_out_of_a_private_network(template: Template) -> None:
    """
    Without `public` there is no gateway of any kind, and no route but those inside.
    """
    assert {kind: template.ids(kind) for kind in GATEWAYS} == {kind: [] for kind in GATEWAYS}


def test_only_the_load_balancers_subnets_lead_out_of_a_public_one(
    variant: Callable[[str], Template],
) -> None:
    """
    With `public` there is an internet gateway for the load balancer; hosts have no way to it.
    """
    template = variant("public")
    assert template.ids("EC2::NatGateway") == template.ids("EC2::EIP") == []
    routes = template.all("EC2::Route")
    assert {route["GatewayId"]["Ref"] for route in routes} == {template.id("EC2::InternetGateway")}
    tables = {route["RouteTableId"]["Ref"] for route in routes}
    subnets = {
        association["SubnetId"]["Ref"]
        for association in template.all("EC2::SubnetRouteTableAssociation")
        if association["RouteTableId"]["Ref"] in tables
    }
    assert len(subnets) == 2
    assert subnets == set(template.ids("EC2::Subnet", "NetworkVpcFront"))
    balancer = template.one("ElasticLoadBalancingV2::LoadBalancer")
    assert {subnet["Ref"] for subnet in balancer["Subnets"]} == subnets
    group = template.one("AutoScaling::AutoScalingGroup")
    assert not subnets & {subnet["Ref"] for subnet in group["VPCZoneIdentifier"]}


def test_no_subnet_gives_public_addresses(each: Template) -> None:
    """
    Nothing gets a public address by being in a subnet.
    """
    assert [s["MapPublicIpOnLaunch"] for s in each.all("EC2::Subnet") if s] == [False] * len(
        each.ids("EC2::Subnet")
    )


def test_two_zones_are_chosen_at_deployment(each: Template) -> None:
    """
    Subnets lie in the first two zones that the Region has for this account.
    """
    for prefix in ("NetworkVpcPrivate", "NetworkVpcFront"):
        zones = [subnet["AvailabilityZone"] for subnet in each.all("EC2::Subnet", prefix)]
        assert zones in ([], [{"Fn::Select": [n, {"Fn::GetAZs": ""}]} for n in (0, 1)])
    assert len(private_subnets(each)) == 2


@pytest.mark.parametrize("public", ["false", "true"])
def test_the_smallest_network_holds_the_largest_fleet(public: str, root: Path) -> None:
    """
    Half of 24 instances, five endpoints, the load balancer's eight and AWS's own five addresses
    fit each private subnet, however small the network and whatever else is in it.
    """
    context = {"vpc_cidr": "10.1.0.0/25", "fleet_size": 20, "public": public}
    template = synthesise(*make_stack(root, context))
    sizes = {
        name: ip_network(template.resources[name]["Properties"]["CidrBlock"]).num_addresses
        for name in template.ids("EC2::Subnet")
    }
    assert all(sizes[name] >= 12 + 5 + 8 + 5 for name in private_subnets(template))
    assert min(sizes.values()) >= 8 + 5


def test_the_host_reaches_these_services_and_no_other(each: Template) -> None:
    """
    Five services have an endpoint in both private subnets with private names, and S3 a gateway.
    """
    found = endpoints(each)
    assert set(found) == {"kms", "s3", *HOST_ENDPOINTS}
    assert set(services(fips=False)) == {"kms", *HOST_ENDPOINTS}  # whose zones the doctor looks at
    group = each.id("EC2::SecurityGroup", "NetworkEndpoints")
    for service in ("kms", *HOST_ENDPOINTS):
        endpoint = found[service]
        assert endpoint["VpcEndpointType"] == "Interface"
        assert endpoint["PrivateDnsEnabled"] is True
        assert endpoint["SecurityGroupIds"] == [f"{{{group}.GroupId}}"]
        assert endpoint["SubnetIds"] == [f"{{{name}}}" for name in private_subnets(each)]
    assert found["s3"]["VpcEndpointType"] == "Gateway"
    tables = each.ids("EC2::RouteTable", "NetworkVpcPrivate")
    assert found["s3"]["RouteTableIds"] == [f"{{{name}}}" for name in tables]


def test_endpoints_serve_the_host_role_with_what_it_needs(each: Template) -> None:
    """
    Through the host's endpoints the host role, and nobody else, calls what it may call.
    """
    role = f"{{{each.id('IAM::Role', 'HostRole')}.Arn}}"
    for service, actions in HOST_ENDPOINTS.items():
        (statement,) = endpoints(each)[service]["PolicyDocument"]["Statement"]
        given = statement["Action"]
        assert set([given] if isinstance(given, str) else given) == actions
        assert statement["Condition"] == {"ArnEquals": {"aws:PrincipalArn": role}}


def test_kms_is_reached_with_this_key_by_the_chat_role(each: Template) -> None:
    """
    Through the endpoint of KMS, the chat role's sessions use this key, and nobody any other.
    """
    (statement,) = endpoints(each)["kms"]["PolicyDocument"]["Statement"]
    name = each.one("IAM::Role", "ChatRole")["RoleName"]
    role = f"arn:aws:iam::{ACCOUNT}:role/{name}"
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert statement["Resource"] == f"{{{each.id('KMS::Key', 'Key')}.Arn}}"
    assert statement["Condition"] == {"ArnEquals": {"aws:PrincipalArn": role}}


def test_s3_gives_the_stacks_files_and_packages(each: Template) -> None:
    """
    Through the gateway, the host role fetches its two files, and anybody packages of AL2023.
    """
    assets, packages = endpoints(each)["s3"]["PolicyDocument"]["Statement"]
    (policy,) = each.one("IAM::Role", "HostRole")["Policies"]
    (fetch,) = (s for s in policy["PolicyDocument"]["Statement"] if s["Sid"] == "FetchAssets")
    assert assets["Resource"] == fetch["Resource"]
    assert assets["Condition"]["ArnEquals"]["aws:PrincipalArn"].startswith("{HostRole")
    assert packages["Resource"] == f"arn:aws:s3:::al2023-repos-{REGION}-de612dc2/*"
    assert {assets["Action"], packages["Action"]} == {"s3:GetObject"}


def test_every_flow_is_logged(each: Template) -> None:
    """
    Flow logs have what is accepted and what is refused, in the whole network.
    """
    flow_log = each.one("EC2::FlowLog")
    assert flow_log["TrafficType"] == "ALL"
    assert flow_log["ResourceType"] == "VPC"
    assert flow_log["ResourceId"] == {"Ref": each.id("EC2::VPC")}
    assert flow_log["LogGroupName"] == {"Ref": each.id("Logs::LogGroup", "LogsFlows")}


def test_hosts_are_reached_by_the_load_balancer_only(each: Template) -> None:
    """
    A host accepts port 5001 from the load balancer, and connects to endpoints by TLS only.
    """
    hosts = each.one("EC2::SecurityGroup", "NetworkHosts")
    assert "SecurityGroupIngress" not in hosts
    (egress,) = hosts["SecurityGroupEgress"]
    assert (egress["IpProtocol"], egress["FromPort"], egress["ToPort"]) == ("tcp", 443, 443)
    host_group = {"Fn::GetAtt": [each.id("EC2::SecurityGroup", "NetworkHosts"), "GroupId"]}
    (ingress,) = (
        rule for rule in each.all("EC2::SecurityGroupIngress") if rule["GroupId"] == host_group
    )
    front = each.id("EC2::SecurityGroup", "FrontClients")
    assert ingress["SourceSecurityGroupId"] == {"Fn::GetAtt": [front, "GroupId"]}
    assert (ingress["FromPort"], ingress["ToPort"]) == (5001, 5001)


def test_endpoints_are_reached_by_hosts_only(each: Template) -> None:
    """
    Endpoints accept TLS from hosts, and connect to nothing.
    """
    group = each.one("EC2::SecurityGroup", "NetworkEndpoints")
    assert "SecurityGroupIngress" not in group
    assert [rule["CidrIp"] for rule in group["SecurityGroupEgress"]] == ["255.255.255.255/32"]
    name = each.id("EC2::SecurityGroup", "NetworkEndpoints")
    rules = [
        rule
        for rule in each.all("EC2::SecurityGroupIngress")
        if rule["GroupId"] == {"Fn::GetAtt": [name, "GroupId"]}
    ]
    assert [rule["FromPort"] for rule in rules] == [443]
    hosts = each.id("EC2::SecurityGroup", "NetworkHosts")
    assert rules[0]["SourceSecurityGroupId"] == {"Fn::GetAtt": [hosts, "GroupId"]}
