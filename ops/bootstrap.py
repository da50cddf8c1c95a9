"""
The CDK bootstrap stack: the bucket and roles that a deployment goes through.
"""

from collections.abc import Mapping
from typing import Final

import boto3

from ops.aws import AwsError, asking
from ops.finding import Finding, ok, problem

_AWS_KEY: Final = "alias/aws/s3"
NEEDED: Final = 6  # requiresBootstrapStackVersion of the synthesised stack; aws-cdk-lib 2.275


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


def read_bucket_key(session: boto3.Session, qualifier: str, account: str) -> str | None:
    """
    Read the key that somebody made for the bootstrap bucket; None where it is AWS's own.

    Raises:
        AwsError: As `asking`.
    """
    bucket = f"cdk-{qualifier}-assets-{account}-{session.region_name}"
    key = read_encryption(session, bucket, account).get("SSEKMSKeyId")
    return None if key is None or key.endswith(_AWS_KEY) else key


def read_encryption(session: boto3.Session, bucket: str, account: str) -> Mapping[str, str]:
    """
    Read how what *bucket* holds is encrypted, in the words that an upload gives; none if it is not.

    Raises:
        AwsError: As `asking`.
    """
    try:
        with asking("s3:GetEncryptionConfiguration"):
            answer = session.client("s3").get_bucket_encryption(
                Bucket=bucket, ExpectedBucketOwner=account
            )
    except AwsError as error:
        if error.code != "ServerSideEncryptionConfigurationNotFoundError":
            raise
        return {}
    rules = answer["ServerSideEncryptionConfiguration"]["Rules"]
    found = [rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules]
    names = {"ServerSideEncryption": "SSEAlgorithm", "SSEKMSKeyId": "KMSMasterKeyID"}
    return {
        name: str(item[theirs])
        for item in found
        for name, theirs in names.items()
        if theirs in item
    }


def check_bucket_key(key: str | None, account: str, region: str) -> Finding:
    """Check that a host can read what the bucket holds: it has no right on any key."""
    check = "bootstrap bucket"
    if key is not None:
        return problem(
            check,
            f"it is encrypted with {key}, and hosts have no right on keys: they could not fetch "
            "their files",
            f"give it AWS's own key: bin/cdk bootstrap aws://{account}/{region} "
            '--no-bootstrap-customer-key --app "", or bootstrap under another qualifier',
        )
    return ok(check, "it is encrypted with a key of AWS's, so that hosts can fetch their files")


def check_bootstrap(version: str | None, account: str, region: str) -> Finding:
    """Check that the account is bootstrapped in the Region, and recently enough."""
    check = "CDK bootstrap"
    remedy = f'run bin/cdk bootstrap aws://{account}/{region} --app ""'
    if version is None:
        return problem(check, f"account {account} is not bootstrapped in {region}", remedy)
    if not version.isdecimal() or int(version) < NEEDED:
        return problem(check, f"its version is {version}, expected {NEEDED} or later", remedy)
    return ok(check, f"version {version} is there, {NEEDED} is needed")
