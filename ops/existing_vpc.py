"""
A VPC that is there: whether its subnets and endpoints are what the parameters say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import boto3

from infra.vpc import ExistingVpc
from ops.aws import asking
from ops.finding import Finding, ok, problem, warning


@dataclass(frozen=True, slots=True)
class Subnet:
    """What EC2 says of a subnet."""

    subnet_id: str
    vpc_id: str
    zone: str
    free_addresses: int


def read_subnets(session: boto3.Session, vpc: ExistingVpc) -> tuple[Subnet, ...]:
    """
    Read the subnets that *vpc* names, in its order.

    Raises:
        AwsError: As `asking`; one that does not exist is such an error, too.
    """
    with asking("ec2:DescribeSubnets"):
        answer = session.client("ec2").describe_subnets(SubnetIds=list(vpc.subnet_ids))
    found = {
        item["SubnetId"]: Subnet(
            item["SubnetId"],
            item["VpcId"],
            item["AvailabilityZone"],
            item["AvailableIpAddressCount"],
        )
        for item in answer["Subnets"]
    }
    return tuple(found[name] for name in vpc.subnet_ids)


def read_endpoints(session: boto3.Session, vpc: ExistingVpc) -> frozenset[str]:
    """
    Read to which services *vpc* has endpoints that take over their names, S3's gateway among them.

    Raises:
        AwsError: As `asking`.
    """
    pages = session.client("ec2").get_paginator("describe_vpc_endpoints")
    with asking("ec2:DescribeVpcEndpoints"):
        items = [
            item
            for page in pages.paginate(Filters=[{"Name": "vpc-id", "Values": [vpc.vpc_id]}])
            for item in page["VpcEndpoints"]
        ]
    return frozenset(
        item["ServiceName"].rpartition(".")[2]
        for item in items
        if item.get("PrivateDnsEnabled") or item["VpcEndpointType"] == "Gateway"
    )


def read_names(session: boto3.Session, vpc: ExistingVpc) -> tuple[str, ...]:
    """
    Read which settings keep *vpc* from giving an endpoint its service's name.

    Raises:
        AwsError: As `asking`.
    """
    client = session.client("ec2")
    with asking("ec2:DescribeVpcAttribute"):
        resolves = client.describe_vpc_attribute(VpcId=vpc.vpc_id, Attribute="enableDnsSupport")
        names = client.describe_vpc_attribute(VpcId=vpc.vpc_id, Attribute="enableDnsHostnames")
    settings = {
        "enableDnsSupport": resolves["EnableDnsSupport"],
        "enableDnsHostnames": names["EnableDnsHostnames"],
    }
    return tuple(name for name, setting in settings.items() if not setting.get("Value"))


def check_names(off: Sequence[str], vpc: ExistingVpc) -> Finding:
    """
    Check that endpoints can take over their services' names, without which EC2 makes none.

    Args:
        off: As `read_names`.
    """
    check = "VPC names"
    if off:
        return problem(
            check,
            f"{vpc.vpc_id} has {' and '.join(off)} off, which endpoints with private DNS need",
            f"aws ec2 modify-vpc-attribute --vpc-id {vpc.vpc_id} "
            f"--{'enable-dns-support' if off[0] == 'enableDnsSupport' else 'enable-dns-hostnames'}"
            + ("; then the same with --enable-dns-hostnames" if len(off) > 1 else ""),
        )
    return ok(check, f"{vpc.vpc_id} lets endpoints take over their services' names")


def read_tables(session: boto3.Session, vpc: ExistingVpc) -> tuple[str, ...]:
    """
    Read the route table of each of *vpc*'s subnets, in their order.

    Raises:
        AwsError: As `asking`.
    """
    pages = session.client("ec2").get_paginator("describe_route_tables")
    with asking("ec2:DescribeRouteTables"):
        tables = [
            table
            for page in pages.paginate(Filters=[{"Name": "vpc-id", "Values": [vpc.vpc_id]}])
            for table in page["RouteTables"]
        ]
    by_subnet: dict[str, str] = {}
    main = ""
    for table in tables:
        for association in table["Associations"]:
            if subnet := association.get("SubnetId"):
                by_subnet[subnet] = table["RouteTableId"]
            elif association.get("Main"):
                main = table["RouteTableId"]
    return tuple(by_subnet.get(subnet, main) for subnet in vpc.subnet_ids)


def check_tables(tables: Sequence[str], vpc: ExistingVpc) -> Finding:
    """
    Check that the endpoint to S3 gets the route tables that the subnets have.

    Args:
        tables: As `read_tables`.
    """
    check = "route tables"
    if "s3" in vpc.endpoints:
        return ok(check, "the endpoint to S3 is there already")
    if missing := sorted(set(tables) - set(vpc.route_table_ids)):
        return problem(
            check,
            f"the subnets' route tables are {', '.join(dict.fromkeys(tables))}, and "
            f"route_table_ids lacks {', '.join(missing)}: hosts there would not reach S3",
            f"give -c route_table_ids={','.join(_one_or_each(tables))}",
        )
    return ok(check, f"those of the subnets, {', '.join(dict.fromkeys(tables))}")


def _one_or_each(tables: Sequence[str]) -> Sequence[str]:
    return tables[:1] if len(set(tables)) == 1 else tables


def check_subnets(subnets: Sequence[Subnet], vpc: ExistingVpc, *, least_free: int) -> Finding:
    """
    Check that the subnets are of the VPC, each in a zone of its own, with room.

    Args:
        least_free: Addresses that each has to have left.
    """
    check, remedy = "subnets", "choose others (-c subnet_ids=…)"
    if strange := [item.subnet_id for item in subnets if item.vpc_id != vpc.vpc_id]:
        return problem(check, f"{', '.join(strange)} is not of {vpc.vpc_id}", remedy)
    zones = [item.zone for item in subnets]
    if len(set(zones)) < len(zones):
        return problem(
            check,
            f"two of the subnets are in one zone ({', '.join(zones)}), and an endpoint takes one "
            "subnet a zone",
            remedy,
        )
    if full := [item for item in subnets if item.free_addresses < least_free]:
        item = full[0]
        text = f"{item.subnet_id} has {item.free_addresses} free addresses"
        return problem(check, f"{text}, expected at least {least_free}", remedy)
    return ok(check, f"{len(zones)} of {vpc.vpc_id}, in {', '.join(zones)}")


def check_endpoints(
    there: frozenset[str], vpc: ExistingVpc, wanted: Sequence[str], *, ours: bool
) -> Finding:
    """
    Check that what is there is what *vpc* says, and whom the stack's own endpoints would bind.

    Args:
        wanted: The services that hosts call, and S3.

        ours: The stack is there, so that its own endpoints are, too.
    """
    check = "VPC endpoints"
    if missing := sorted(vpc.endpoints - there):
        return problem(
            check,
            f"{vpc.vpc_id} has no endpoint with private DNS to {', '.join(missing)}",
            "leave it out of existing_endpoints, and the stack makes it",
        )
    made = [name for name in wanted if name not in vpc.endpoints]
    if (double := [name for name in made if name in there]) and not ours:
        return problem(
            check,
            f"{vpc.vpc_id} has an endpoint to {', '.join(double)} already",
            f"add -c existing_endpoints={','.join(sorted({*double, *vpc.endpoints}))}; what its "
            "policy has to let through: docs/deploy.md",
        )
    if made:
        return warning(
            check,
            f"endpoints to {', '.join(made)} are made for all of {vpc.vpc_id}, and let nothing "
            "through but what this deployment needs: whatever else calls those services from this "
            "VPC is refused",
            "use a VPC of its own, or make endpoints yourself and name them (docs/deploy.md)",
        )
    return ok(check, f"{vpc.vpc_id} has all that are needed")
