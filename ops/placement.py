"""
Placement: whether this account may start the fleet's instances where the stack would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import boto3

from infra.instances import InstanceType
from infra.parameters import FleetSize
from infra.rolling import batch_size
from ops.aws import AwsError, asking
from ops.finding import Finding, ok, problem

ZONES: Final = 2  # infra.network's: the first ones that Fn::GetAZs gives
_ELSEWHERE: Final = "subnets in other zones (-c subnet_ids=…), or another Region (--region)"
_HOST_SERVICES: Final = ("cloudformation", "logs", "ssm", "ssmmessages")  # infra.network's
_QUOTA: Final = "L-1216C47A"  # Service Quotas: Running On-Demand Standard instances, in vCPUs


@dataclass(frozen=True, slots=True)
class EnclaveSupport:
    """What EC2 says of an instance type."""

    supported: bool
    vcpus: int
    threads_a_core: int
    memory_mib: int


def read_zones(session: boto3.Session) -> tuple[str, ...]:
    """
    Read the zones that the stack takes: the first ones that Fn::GetAZs gives, in its order.

    Source: CloudFormation template reference, Fn::GetAZs: only zones with a default subnet, unless
        there is none.

    Raises:
        AwsError: As `asking`.
    """
    ec2 = session.client("ec2")
    with asking("ec2:DescribeAvailabilityZones"):
        available = ec2.describe_availability_zones(
            Filters=[
                {"Name": "state", "Values": ["available"]},
                {"Name": "zone-type", "Values": ["availability-zone"]},
            ]
        )["AvailabilityZones"]
    with asking("ec2:DescribeSubnets"):
        subnets = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])
    names = {str(zone["ZoneName"]) for zone in available}
    preferred = names & {str(subnet["AvailabilityZone"]) for subnet in subnets["Subnets"]}
    return tuple(sorted(preferred or names))[:ZONES]


def read_offerings(session: boto3.Session, instance_type: str) -> frozenset[str]:
    """
    Read the zones that offer *instance_type*.

    Raises:
        AwsError: As `asking`.
    """
    with asking("ec2:DescribeInstanceTypeOfferings"):
        answer = session.client("ec2").describe_instance_type_offerings(
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": [instance_type]}],
        )
    return frozenset(offering["Location"] for offering in answer["InstanceTypeOfferings"])


def check_zones(
    taken: Sequence[str], offering: frozenset[str], instance_type: str, region: str
) -> Finding:
    """
    Check that the zones which the stack takes offer the instance type.

    Args:
        taken: As `read_zones`, or those of the subnets chosen.
    """
    check = "zones"
    missing = [zone for zone in taken if zone not in offering]
    if len(taken) < ZONES:
        return problem(
            check,
            f"{region} has {len(taken)} zone for this account, and the stack takes {ZONES}",
            "choose another Region (--region)",
        )
    if missing:
        return problem(
            check,
            f"the stack takes {' and '.join(taken)}, and {instance_type} is not offered in "
            f"{' and '.join(missing)}, only in {', '.join(sorted(offering)) or 'no zone'}",
            f"choose another type (-c instance_type=…), {_ELSEWHERE}",
        )
    return ok(check, f"{instance_type} is offered in {' and '.join(taken)}, which the stack takes")


def services(*, fips: bool) -> tuple[str, ...]:
    """Name the services that the stack makes endpoints to."""
    return ("kms-fips" if fips else "kms", *_HOST_SERVICES)


def read_endpoint_zones(session: boto3.Session, *, fips: bool) -> Mapping[str, frozenset[str]]:
    """
    Read in which zones each of `services` can have an endpoint.

    Raises:
        AwsError: As `asking`.
    """
    # In China some are called so and some otherwise; a filter takes names that are not there.
    names = [
        f"{prefix}.{session.region_name}.{name}"
        for prefix in ("com.amazonaws", "cn.com.amazonaws")
        for name in services(fips=fips)
    ]
    with asking("ec2:DescribeVpcEndpointServices"):
        answer = session.client("ec2").describe_vpc_endpoint_services(
            Filters=[{"Name": "service-name", "Values": names}]
        )
    return {
        str(item["ServiceName"]).rpartition(".")[2]: frozenset(item["AvailabilityZones"])
        for item in answer["ServiceDetails"]
    }


def check_endpoint_zones(
    taken: Sequence[str],
    offered: Mapping[str, frozenset[str]],
    *,
    fips: bool,
    there: frozenset[str] = frozenset(),
) -> Finding:
    """
    Check that every endpoint can be in the zones that the stack takes.

    Args:
        there: Services to which the VPC has one, so that the stack makes none.
    """
    check = "endpoints"
    made = [service for service in services(fips=fips) if service not in there]
    missing = [
        f"{service} in {zone}"
        for service in made
        for zone in taken
        if zone not in offered.get(service, frozenset())
    ]
    if missing:
        return problem(
            check,
            f"there can be no endpoint of {', '.join(missing)}, and the stack makes one in each "
            "zone that it takes",
            f"choose {_ELSEWHERE}",
        )
    return ok(check, f"{', '.join(made) or 'none'} can have theirs in {' and '.join(taken)}")


def read_enclave_support(session: boto3.Session, instance_type: str) -> EnclaveSupport:
    """
    Read what EC2 says of *instance_type*.

    Raises:
        AwsError: As `asking`.
    """
    with asking("ec2:DescribeInstanceTypes"):
        answer = session.client("ec2").describe_instance_types(InstanceTypes=[instance_type])
    found = answer["InstanceTypes"][0]
    return EnclaveSupport(
        supported=found.get("NitroEnclavesSupport") == "supported",
        vcpus=found["VCpuInfo"]["DefaultVCpus"],
        threads_a_core=found["VCpuInfo"]["DefaultThreadsPerCore"],
        memory_mib=found["MemoryInfo"]["SizeInMiB"],
    )


def check_enclave_support(support: EnclaveSupport, instance: InstanceType) -> Finding:
    """Check that EC2 knows *instance* as we do, and that it can be a parent."""
    check = "instance type"
    if not support.supported:
        return problem(
            check,
            f"EC2 says that {instance.name} does not support Nitro Enclaves",
            "choose another type (-c instance_type=…)",
        )
    found = (support.vcpus, support.threads_a_core, support.memory_mib)
    expected = (instance.vcpus, instance.threads_a_core, instance.memory_mib)
    if found != expected:
        return problem(
            check,
            f"EC2 says that {instance.name} has {_describe(*found)}; sizes are reckoned with "
            f"{_describe(*expected)}",
            "choose another type, and report this: infra/instances.py is wrong about it",
        )
    return ok(check, f"{instance.name} supports Nitro Enclaves and has {_describe(*found)}")


def _describe(vcpus: int, threads: int, memory_mib: int) -> str:
    return f"{vcpus} vCPUs, {threads} a core, {memory_mib:,} MiB"


def read_quota(session: boto3.Session) -> int:
    """
    Read how many vCPUs of On-Demand standard instances may run.

    Raises:
        AwsError: As `asking`.
    """
    client = session.client("service-quotas")
    try:
        with asking("servicequotas:GetServiceQuota"):
            quota = client.get_service_quota(ServiceCode="ec2", QuotaCode=_QUOTA)
    except AwsError as error:
        if error.code != "NoSuchResourceException":
            raise
        with asking("servicequotas:GetAWSDefaultServiceQuota"):  # nobody ever changed it
            quota = client.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=_QUOTA)
    return int(quota["Quota"]["Value"])


def check_quota(quota: int, *, fleet: FleetSize, instance: InstanceType, region: str) -> Finding:
    """Check that the fleet fits, and what is started first during an update."""
    batch = 0 if fleet.scales else batch_size(fleet.most)
    check, needed = "vCPU quota", (fleet.most + batch) * instance.vcpus
    reckoning = f"{fleet.most} + {batch} of {instance.name} need {needed} vCPUs"
    if quota < needed:
        return problem(
            check,
            f"{reckoning}, and the quota for On-Demand standard instances is {quota}",
            f"ask for more: aws service-quotas request-service-quota-increase --region {region} "
            f"--service-code ec2 --quota-code {_QUOTA} --desired-value {needed}",
        )
    return ok(
        check,
        f"{reckoning} of the {quota} that this account may run; what else runs counts, too",
    )
