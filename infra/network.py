"""
The network: private subnets without a way out, and endpoints to what the host needs of AWS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aws_cdk import Fn
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from constructs import Construct

from app.protocol.constants import PURPOSE_WEIGHTS
from infra.attested_policy import for_purpose
from infra.logs import Logs
from infra.place import object_arn
from infra.policy_json import Json, statement
from infra.vpc import ExistingVpc

HTTPS_PORT: Final = 443
ZONES: Final = 2

# The services that a host calls, each through an endpoint of its own.
_HOST_SERVICES: Final = {
    "CloudFormation": (
        ec2.InterfaceVpcEndpointAwsService.CLOUDFORMATION,
        ("cloudformation:SignalResource",),
    ),
    "Logs": (
        ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
        ("logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"),
    ),
    "Ssm": (ec2.InterfaceVpcEndpointAwsService.SSM, ("ssm:UpdateInstanceInformation",)),
    "SsmMessages": (
        ec2.InterfaceVpcEndpointAwsService.SSM_MESSAGES,
        (
            "ssmmessages:CreateControlChannel",
            "ssmmessages:CreateDataChannel",
            "ssmmessages:OpenControlChannel",
            "ssmmessages:OpenDataChannel",
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class KmsUse:
    """
    What is asked of KMS from inside enclaves.

    Attributes:
        key_arn: Of the key that askers' sessions, of the chat role, use.

        weights_key: ARN of the key that weights are sealed under, opened with the host role's
            credentials, which are lent to the enclave; None where weights lie in clear.
    """

    key_arn: str
    chat_role_arn: str
    weights_key: str | None
    host_role_arn: str


class Network(Construct):
    """
    The VPC with its flow logs, or one that is there; security groups and endpoints.

    Nothing in one of the stack's own reaches the internet: there is no NAT, and an internet gateway
    only, for the load balancer alone, when *public*.

    Args:
        vpc: Addresses for one of the stack's own, or one that is there.

    Attributes:
        private: Where instances and endpoints lie.
    """

    def __init__(
        self, scope: Construct, name: str, *, vpc: str | ExistingVpc, public: bool, logs: Logs
    ) -> None:
        super().__init__(scope, name)
        if isinstance(vpc, ExistingVpc):
            self.vpc: ec2.IVpc = _find_vpc(self, vpc)
            self._existing = vpc.endpoints
        else:
            self.vpc = _make_vpc(self, vpc, public=public, logs=logs)
            self._existing = frozenset[str]()
        self.private = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
        self.hosts = self._security_group("Hosts", "enclave-llm: parent instances")
        self._endpoints = self._security_group("Endpoints", "enclave-llm: endpoints of AWS")
        # Endpoints and S3 are all that routes lead to.
        self.hosts.add_egress_rule(
            ec2.Peer.any_ipv4(), ec2.Port.tcp(HTTPS_PORT), "AWS, through endpoints"
        )
        self._endpoints.add_ingress_rule(
            self.hosts, ec2.Port.tcp(HTTPS_PORT), "Parent instances, and enclaves through them"
        )

    def _security_group(self, name: str, description: str) -> ec2.SecurityGroup:
        return ec2.SecurityGroup(
            self, name, vpc=self.vpc, description=description, allow_all_outbound=False
        )

    def add_host_endpoints(self, host_role_arn: str) -> None:
        """Let the host call what it needs, and no other principal anything."""
        only_hosts: Json = {"ArnEquals": {"aws:PrincipalArn": host_role_arn}}
        for name, (service, actions) in _HOST_SERVICES.items():
            self._add_endpoint(name, service, actions, "*", only_hosts)

    def add_kms_endpoint(self, use: KmsUse, *, fips: bool) -> None:
        """Let nobody make another call to KMS than *use* has."""
        services = ec2.InterfaceVpcEndpointAwsService
        endpoint = self._add_endpoint(
            "KmsFips" if fips else "Kms",
            services.KMS_FIPS if fips else services.KMS,
            ("kms:Decrypt", "kms:GenerateDataKey"),
            use.key_arn,
            {"ArnEquals": {"aws:PrincipalArn": use.chat_role_arn}},
        )
        if use.weights_key and endpoint:
            hosts: Json = {"ArnEquals": {"aws:PrincipalArn": use.host_role_arn}}
            condition = {**for_purpose(PURPOSE_WEIGHTS), **hosts}
            _allow(endpoint, "WeightsOnly", ("kms:Decrypt",), [use.weights_key], condition)

    def _add_endpoint(
        self,
        name: str,
        service: ec2.InterfaceVpcEndpointAwsService,
        actions: Sequence[str],
        resource: str,
        condition: Json,
    ) -> ec2.InterfaceVpcEndpoint | None:
        """Give the endpoint that is made; None where the VPC has one."""
        if service.short_name in self._existing:
            return None
        endpoint = self.vpc.add_interface_endpoint(
            name,
            service=service,
            open=False,
            private_dns_enabled=True,
            security_groups=[self._endpoints],
            subnets=self.private,
        )
        _allow(endpoint, f"{name}Only", actions, [resource], condition)
        return endpoint

    def add_s3_endpoint(
        self, *, host_role_arn: str, file_arns: Sequence[str], packages_bucket: str
    ) -> None:
        """Let the host fetch the stack's own files, and anybody AL2023's packages."""
        if "s3" in self._existing:
            return
        endpoint = self.vpc.add_gateway_endpoint(
            "S3", service=ec2.GatewayVpcEndpointAwsService.S3, subnets=[self.private]
        )
        only_hosts: Json = {"ArnEquals": {"aws:PrincipalArn": host_role_arn}}
        _allow(endpoint, "Assets", ("s3:GetObject",), file_arns, only_hosts)
        # dnf signs no requests, so there is no principal to name.
        repositories = object_arn(self, packages_bucket, "*")
        _allow(endpoint, "Packages", ("s3:GetObject",), [repositories], None)


def _make_vpc(network: Construct, cidr: str, *, public: bool, logs: Logs) -> ec2.Vpc:
    vpc = ec2.Vpc(
        network,
        "Vpc",
        ip_addresses=ec2.IpAddresses.cidr(cidr),
        max_azs=ZONES,
        nat_gateways=0,
        subnet_configuration=_subnets(public=public),
    )
    vpc.add_flow_log("FlowLog", destination=ec2.FlowLogDestination.to_cloud_watch_logs(logs.flows))
    return vpc


def first_zones(count: int) -> list[str]:
    """Give the first zones of the Region, chosen at deployment: synth asks nobody."""
    return [Fn.select(index, Fn.get_azs()) for index in range(count)]


def _find_vpc(network: Construct, vpc: ExistingVpc) -> ec2.IVpc:
    """Give a VPC that is there; which zones its subnets lie in, synth need not know."""
    count = len(vpc.subnet_ids)
    tables = list(vpc.route_table_ids)
    return ec2.Vpc.from_vpc_attributes(
        network,
        "Vpc",
        vpc_id=vpc.vpc_id,
        availability_zones=first_zones(count),
        isolated_subnet_ids=list(vpc.subnet_ids),
        isolated_subnet_route_table_ids=tables * (count // len(tables)) if tables else None,
    )


def _subnets(*, public: bool) -> list[ec2.SubnetConfiguration]:
    mask = 28  # the least there is; the load balancer needs 8 free addresses: its user guide
    private = ec2.SubnetConfiguration(name="Private", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
    if not public:
        return [private]
    front = ec2.SubnetConfiguration(
        name="Front",
        subnet_type=ec2.SubnetType.PUBLIC,
        cidr_mask=mask,
        map_public_ip_on_launch=False,
    )
    return [front, private]


def _allow(
    endpoint: ec2.InterfaceVpcEndpoint | ec2.GatewayVpcEndpoint,
    sid: str,
    actions: Sequence[str],
    resources: Sequence[str],
    condition: Json | None,
) -> None:
    value = statement(sid, list(actions), list(resources), principal="*", condition=condition)
    endpoint.add_to_policy(iam.PolicyStatement.from_json(dict(value)))
