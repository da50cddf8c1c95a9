"""
The CDK bootstrap stack: the bucket and roles that a deployment goes through.
"""

import boto3

from ops.aws import AwsError, asking
from ops.finding import Finding, ok, problem

NEEDED = 6  # requiresBootstrapStackVersion of the synthesised stack; aws-cdk-lib 2.275


def read_bootstrap(session: boto3.Session, qualifier: str) -> str | None:
    """
    Read the bootstrap stack's version, None where there is no such stack.

    Raises:
        AwsError: As `asking`.
    """
    name = f"/cdk-bootstrap/{qualifier}/version"
    try:
        with asking("ssm:GetParameter"):
            return str(session.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])
    except AwsError as error:
        if error.code != "ParameterNotFound":
            raise
        return None


def check_bootstrap(version: str | None, account: str, region: str) -> Finding:
    """Check that the account is bootstrapped in the Region, and recently enough."""
    check = "CDK bootstrap"
    remedy = f'run bin/cdk bootstrap aws://{account}/{region} --app ""'
    if version is None:
        return problem(check, f"account {account} is not bootstrapped in {region}", remedy)
    if not version.isdecimal() or int(version) < NEEDED:
        return problem(check, f"its version is {version}, expected {NEEDED} or later", remedy)
    return ok(check, f"version {version} is there, {NEEDED} is needed")
