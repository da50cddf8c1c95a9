"""
The place of a stack: its Region, with what is named after its partition.
"""

from aws_cdk import Stack
from constructs import Construct

from app.protocol.regions import REGIONS, Region


def place_of(construct: Construct) -> Region:
    """Give the Region of the stack that *construct* is in, which `app` has checked."""
    return REGIONS[Stack.of(construct).region]


def arn_of(construct: Construct, service: str, resource: str) -> str:
    """Give the ARN of *resource* of *service*, in the account and Region of its stack."""
    stack = Stack.of(construct)
    return f"arn:{place_of(stack).partition}:{service}:{stack.region}:{stack.account}:{resource}"


def object_arn(construct: Construct, bucket: str, key: str) -> str:
    """Give the ARN of the object *key* of an S3 bucket, which names neither account nor Region."""
    return f"arn:{place_of(construct).partition}:s3:::{bucket}/{key}"
