"""
The front: the load balancer that askers connect to.
"""

from collections.abc import Sequence
from typing import Final

from aws_cdk import (
    Annotations,
    Duration,
)
from aws_cdk import (
    aws_autoscaling as autoscaling,
)
from aws_cdk import (
    aws_ec2 as ec2,
)
from aws_cdk import (
    aws_elasticloadbalancingv2 as elb,
)
from aws_cdk import (
    aws_iam as iam,
)
from constructs import Construct

from app.protocol.constants import MAX_CONNECTION_SECONDS, PARENT_HTTP_PORT
from infra.network import Network
from infra.parameters import EVERYONE

# Longer than the longest answer, so that a request under way ends before its instance does.
DRAIN_TIME: Final = Duration.seconds(MAX_CONNECTION_SECONDS + 50)


class Front(Construct):
    """
    A Network Load Balancer on port 5001, inside the network or, when *public*, before it.

    Args:
        certificate_arn: TLS ends here and starts anew towards the instance; None passes TLS
            through to it. Neither is trusted with anything: what crosses is sealed.

        hostname: What askers call the balancer; None is its own name.

        privatelink_principals: Who may connect through PrivateLink; with none there is no such way.

    Attributes:
        service: What they connect to; None without them.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        network: Network,
        client_cidrs: Sequence[str],
        public: bool,
        certificate_arn: str | None,
        group: autoscaling.AutoScalingGroup,
        hostname: str | None,
        privatelink_principals: Sequence[str],
    ) -> None:
        super().__init__(scope, name)
        front = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC)
        self.balancer = elb.NetworkLoadBalancer(
            self,
            "Balancer",
            vpc=network.vpc,
            vpc_subnets=front if public else network.private,
            internet_facing=public,
            # A zone without an instance still answers: clients may resolve to either.
            cross_zone_enabled=True,
            security_groups=[self._security_group(network, client_cidrs)],
            # Consumers of PrivateLink come with addresses of their own networks, which mean nothing
            # here: who they are is checked when they make their endpoint, and these rules are for
            # everybody else.
            enforce_security_group_inbound_rules_on_private_link_traffic=not privatelink_principals,
        )
        # Becoming public replaces the balancer, and while both are there neither may have the
        # other's targets: one balancer a target group, Elastic Load Balancing quotas.
        self.target_group = self._target_group(
            "PublicParents" if public else "Parents",
            network,
            group,
            tls=certificate_arn is not None,
        )
        self._listen(certificate_arn)
        self.url = f"https://{hostname or self.balancer.load_balancer_dns_name}:{PARENT_HTTP_PORT}"
        self.service = self._offer(privatelink_principals) if privatelink_principals else None

    def _offer(self, principals: Sequence[str]) -> ec2.VpcEndpointService:
        return ec2.VpcEndpointService(
            self,
            "Service",
            vpc_endpoint_service_load_balancers=[self.balancer],
            acceptance_required=False,  # who may is in the list
            allowed_principals=[iam.ArnPrincipal(arn) for arn in principals],
        )

    def _security_group(self, network: Network, client_cidrs: Sequence[str]) -> ec2.SecurityGroup:
        port = ec2.Port.tcp(PARENT_HTTP_PORT)
        front = ec2.SecurityGroup(
            self,
            "Clients",
            vpc=network.vpc,
            description="enclave-llm: the networks that may ask",
            allow_all_outbound=False,
        )
        if str(EVERYONE) in client_cidrs:
            Annotations.of(self).add_warning_v2(
                "enclave-llm:any-client",
                f"port {PARENT_HTTP_PORT} is open to {EVERYONE}: anyone can take up its capacity",
            )
        for cidr in client_cidrs:
            front.add_ingress_rule(ec2.Peer.ipv4(cidr), port, "Askers")
        front.add_egress_rule(network.hosts, port, "Parent instances")
        network.hosts.add_ingress_rule(front, port, "The load balancer")
        return front

    def _target_group(
        self, name: str, network: Network, group: autoscaling.AutoScalingGroup, *, tls: bool
    ) -> elb.NetworkTargetGroup:
        return elb.NetworkTargetGroup(
            self,
            name,
            vpc=network.vpc,
            port=PARENT_HTTP_PORT,
            protocol=elb.Protocol.TLS if tls else elb.Protocol.TCP,
            targets=[group],
            deregistration_delay=DRAIN_TIME,
            health_check=elb.HealthCheck(
                protocol=elb.Protocol.HTTPS,  # load balancers check no certificates
                path="/readyz",
                interval=Duration.seconds(10),
                timeout=Duration.seconds(6),  # below the interval; the default is 10 here
                healthy_threshold_count=2,
                unhealthy_threshold_count=3,
            ),
        )

    def _listen(self, certificate_arn: str | None) -> None:
        if certificate_arn is None:
            self.balancer.add_listener(
                "Listener", port=PARENT_HTTP_PORT, default_target_groups=[self.target_group]
            )
            return
        self.balancer.add_listener(
            "Listener",
            port=PARENT_HTTP_PORT,
            protocol=elb.Protocol.TLS,
            certificates=[elb.ListenerCertificate.from_arn(certificate_arn)],
            ssl_policy=elb.SslPolicy.TLS13_13,
            default_target_groups=[self.target_group],
        )
