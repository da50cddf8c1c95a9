"""
Acknowledged findings: rules of cdk-nag that this stack breaks knowingly, each with its reason.

Whoever adds a rule pack of cdk-nag to the app sees them as acknowledged. The tests do, and fail
when a rule is broken anywhere else, or an entry here is no longer needed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from aws_cdk import Acknowledgment, Stack, Validations
from constructs import IConstruct

_NIST_AND_HIPAA: Final = ("NIST.800.53.R5", "HIPAA.Security")
_SOLUTIONS: Final = ("AwsSolutions",)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """
    One rule, broken knowingly below one construct.

    Attributes:
        at: Path of the construct inside the stack.

        rule: Its name without that of its pack.
    """

    at: str
    packs: tuple[str, ...]
    rule: str
    reason: str

    def ids(self) -> Iterator[str]:
        """Give the rule as cdk-nag names it, in each pack."""
        return (f"{pack}::{pack}-{self.rule}" for pack in self.packs)


ACKNOWLEDGED: Final = (
    Acknowledged(
        "HostRole",
        _SOLUTIONS,
        "IAM5[Resource::*]",
        "The five actions of Session Manager's agent have no resource type that could be named. "
        "Every other statement names its resources.",
    ),
    Acknowledged(
        "HostRole",
        _NIST_AND_HIPAA,
        "IAMNoInlinePolicy",
        "One policy for one role: inline, it cannot be attached to anything else, nor be changed "
        "or detached apart from the role.",
    ),
    Acknowledged(
        "Network/Vpc/FlowLog",
        _NIST_AND_HIPAA,
        "IAMNoInlinePolicy",
        "CDK's own, for one role of one service, with three actions on one log group.",
    ),
    Acknowledged(
        "Network/Vpc",
        _NIST_AND_HIPAA,
        "VPCDefaultSecurityGroupClosed",
        "CloudFormation cannot change it; a custom resource would need rights on all security "
        "groups. Nothing is in it: instances, endpoints and load balancer name their own.",
    ),
    Acknowledged(
        "Network/Vpc",
        _NIST_AND_HIPAA,
        "VPCNoUnrestrictedRouteToIGW",
        "Only where the operator asks for a public load balancer, and only for its two subnets, "
        "in which nothing else is.",
    ),
    Acknowledged(
        "Fleet/Group",
        _SOLUTIONS,
        "AS3",
        "Deployments wait for each instance's signal and roll back; a fleet that scales does so by "
        "design, and the dashboard shows it. The TooFewParents alarm tells of instances that went "
        "otherwise.",
    ),
    Acknowledged(
        "Fleet/Group",
        _NIST_AND_HIPAA,
        "AutoScalingGroupELBHealthCheckRequired",
        "An enclave that fails is restarted by its supervisor in minutes, and the load balancer "
        "uses it no longer meanwhile. Ending the instance would take its EIF along, and longer.",
    ),
    Acknowledged(
        "Front/Clients",
        _SOLUTIONS,
        "EC23",
        "Only where the operator overrides the refusal of 0.0.0.0/0 with allow_any_client=true, "
        "and is warned.",
    ),
    Acknowledged(
        "Front/Balancer",
        _SOLUTIONS,
        "ELB2",
        "Network Load Balancers log TLS handshakes only, and none where TLS passes through. Flow "
        "logs have every connection, accepted or not, in all cases.",
    ),
    Acknowledged(
        "Front/Balancer",
        _NIST_AND_HIPAA,
        "ELBLoggingEnabled",
        "Network Load Balancers log TLS handshakes only, and none where TLS passes through. Flow "
        "logs have every connection, accepted or not, in all cases.",
    ),
    Acknowledged(
        "Front/Balancer",
        _NIST_AND_HIPAA,
        "ELBDeletionProtectionEnabled",
        "It holds nothing that could be lost, and the stack must be removable by one command.",
    ),
    Acknowledged(
        "Front/Balancer",
        _NIST_AND_HIPAA,
        "ELBv2ACMCertificateRequired",
        "Without a certificate, TLS passes through to the instance. Neither end of TLS is trusted "
        "with anything: askers seal what they send to a key that they have seen attested.",
    ),
)


def acknowledge(stack: Stack, items: Iterable[Acknowledged] = ACKNOWLEDGED) -> None:
    """Record on the constructs of *stack* what is acknowledged, for rule packs to read."""
    for item in items:
        if (construct := _find(stack, item.at)) is not None:
            rules = [Acknowledgment(id=rule, reason=item.reason) for rule in item.ids()]
            Validations.of(construct).acknowledge(*rules)


def _find(stack: Stack, path: str) -> IConstruct | None:
    """Give the construct at *path*; None where this stack makes none, as in an existing VPC."""
    construct: IConstruct | None = stack
    for name in path.split("/"):
        if construct is not None:
            construct = construct.node.try_find_child(name)
    return construct
