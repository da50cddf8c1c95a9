"""
The volume key: what EBS encrypts an instance's disk with where nobody names a key.
"""

import boto3

from ops.aws import asking
from ops.finding import Finding, ok, warning

AWS_KEY = "alias/aws/ebs"
_AUTO_SCALING = "AWSServiceRoleForAutoScaling"


def read_volume_key(session: boto3.Session) -> str:
    """
    Read which key EBS takes by default.

    Raises:
        AwsError: As `asking`.
    """
    with asking("ec2:GetEbsDefaultKmsKeyId"):
        return str(session.client("ec2").get_ebs_default_kms_key_id()["KmsKeyId"])


def admits_auto_scaling(session: boto3.Session, key_id: str) -> bool:
    """
    Tell whether the key is AWS's own, or its policy names Auto Scaling's role.

    Raises:
        AwsError: As `asking`.
    """
    client = session.client("kms")
    with asking("kms:DescribeKey"):
        key = client.describe_key(KeyId=key_id)["KeyMetadata"]
    if key.get("KeyManager") == "AWS":
        return True
    with asking("kms:GetKeyPolicy"):
        policy = client.get_key_policy(KeyId=key["KeyId"], PolicyName="default")
    return _AUTO_SCALING in policy["Policy"]


def check_volume_key(session: boto3.Session) -> Finding:
    """
    Check that Auto Scaling may start instances with encrypted disks.

    Raises:
        AwsError: As `asking`.
    """
    check = "EBS key"
    key_id = read_volume_key(session)
    if key_id.endswith(AWS_KEY):
        return ok(check, "EBS encrypts with its own key")
    if admits_auto_scaling(session, key_id):
        return ok(check, f"EBS encrypts with {key_id} by default, which Auto Scaling may use")
    return warning(
        check,
        f"EBS encrypts with {key_id} by default, and its policy does not name {_AUTO_SCALING}: "
        "unless a grant does, instances end as soon as they start",
        'let that role use the key: EC2 Auto Scaling user guide, "Required AWS KMS key policy for '
        'use with encrypted volumes"',
    )
