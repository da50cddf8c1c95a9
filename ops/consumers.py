"""
The consumers of a deployment: who is connected to it through PrivateLink.
"""

from collections.abc import Iterator
from typing import Final

import boto3

from ops.aws import AwsError, asking
from ops.live_stack import LiveStack

_KIND: Final = "AWS::EC2::VPCEndpointService"
_CONNECTED: Final = ("available", "pendingAcceptance")


def let_go(session: boto3.Session, live: LiveStack) -> Iterator[str]:
    """
    Reject whoever is connected to the service of *live*, and give a line for each.

    EC2 deletes no endpoint service that has connections. What may not be done is said, and the
    deletion then shows whether it mattered.

    Source: AWS PrivateLink guide, "Delete an endpoint service".
    """
    for service in live.of_kind(_KIND):
        try:
            for endpoint in _reject(session, service):
                yield f"rejected  endpoint {endpoint}, which was connected to {service}"
        except AwsError as error:
            yield f"whoever is connected to {service} stays so: {error}"


def _reject(session: boto3.Session, service: str) -> list[str]:
    client = session.client("ec2")
    chosen = [
        {"Name": "service-id", "Values": [service]},
        {"Name": "vpc-endpoint-state", "Values": list(_CONNECTED)},
    ]
    with asking("ec2:DescribeVpcEndpointConnections"):
        pages = client.get_paginator("describe_vpc_endpoint_connections").paginate(Filters=chosen)
        endpoints = [
            item["VpcEndpointId"] for page in pages for item in page["VpcEndpointConnections"]
        ]
    if endpoints:
        with asking("ec2:RejectVpcEndpointConnections"):
            client.reject_vpc_endpoint_connections(ServiceId=service, VpcEndpointIds=endpoints)
    return endpoints
