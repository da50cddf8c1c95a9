"""
The asset store: what deployments of a stack left in the CDK's bootstrap bucket.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import boto3

from infra.weights_files import SUFFIX
from ops.aws import AwsError, asking
from ops.live_stack import LiveStack, read_template, read_user_data

_BATCH: Final = 1000  # S3 DeleteObjects, Objects
_GONE: Final = ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS")  # stacks without a template that counts


@dataclass(frozen=True, slots=True, order=True)
class AssetObject:
    """One object of the bootstrap bucket."""

    bucket: str
    key: str

    def __str__(self) -> str:
        """Give its URL."""
        return f"s3://{self.bucket}/{self.key}"


def find_objects(text: str, *, account: str, region: str) -> frozenset[AssetObject]:
    """Find the EIFs, zips and weights of the account's bootstrap bucket that *text* fetches."""
    url = re.compile(
        rf"s3://(cdk-[a-z0-9]{{1,10}}-assets-{re.escape(f'{account}-{region}')})/"
        rf"([0-9a-f]{{64}}(?:\.eif|\.zip|{re.escape(SUFFIX)}))"
    )
    return frozenset(AssetObject(bucket, key) for bucket, key in url.findall(text))


def find_own_objects(
    session: boto3.Session, live: LiveStack, *, account: str
) -> frozenset[AssetObject]:
    """
    Find the objects of every deployment of *live*, by its hosts' user data, old and new.

    Raises:
        AwsError: As `asking`.
    """
    templates = live.of_kind("AWS::EC2::LaunchTemplate")
    old = (text for template_id in templates for text in read_user_data(session, template_id))
    return frozenset().union(
        *(
            find_objects(text, account=account, region=session.region_name)
            for text in (json.dumps(live.template), *old)
        )
    )


def without_shared(
    session: boto3.Session, objects: frozenset[AssetObject], *, stack_id: str
) -> tuple[frozenset[AssetObject], frozenset[AssetObject]]:
    """
    Part *objects* into those that only this stack uses, and those that another's template names.

    Raises:
        AwsError: As `asking`; a template that may not be read could name any of them.
    """
    others = "".join(
        json.dumps(read_template(session, other)) for other in _other_stacks(session, stack_id)
    )
    shared = frozenset(item for item in objects if item.key in others)
    return objects - shared, shared


def _other_stacks(session: boto3.Session, stack_id: str) -> Iterator[str]:
    pages = session.client("cloudformation").get_paginator("describe_stacks")
    with asking("cloudformation:DescribeStacks"):
        for page in pages.paginate():
            for stack in page["Stacks"]:
                if stack["StackId"] != stack_id and stack["StackStatus"] not in _GONE:
                    yield stack["StackId"]


def remove_objects(
    session: boto3.Session, objects: Iterable[AssetObject], *, account: str
) -> Iterator[tuple[AssetObject, str]]:
    """Remove *objects* with all their versions; give each with what went wrong, or nothing."""
    for item in sorted(objects):
        try:
            yield item, _remove(session, item, account)
        except AwsError as error:
            yield item, str(error)


def find_unfinished(session: boto3.Session, item: AssetObject, *, account: str) -> tuple[str, ...]:
    """
    Find the uploads of *item* that broke off, by their ids, the last begun at the end.

    Raises:
        AwsError: As `asking`.
    """
    pages = session.client("s3").get_paginator("list_multipart_uploads")
    with asking("s3:ListBucketMultipartUploads"):
        found = [
            (upload["Initiated"], upload["UploadId"])
            for page in pages.paginate(
                Bucket=item.bucket, Prefix=item.key, ExpectedBucketOwner=account
            )
            for upload in page.get("Uploads", [])
            if upload["Key"] == item.key
        ]
    return tuple(upload_id for _, upload_id in sorted(found))


def _remove(session: boto3.Session, item: AssetObject, account: str) -> str:
    found = find_versions(session, item.bucket, account=account, prefix=item.key)
    versions = [version for version in found if version["Key"] == item.key]
    if failure := remove_versions(session, item.bucket, versions, account=account):
        return f"{failure.get('Code')}: {failure.get('Message')}"
    if item.key.endswith(SUFFIX):  # the CDK sends all else in one piece
        s3 = session.client("s3")
        for upload_id in find_unfinished(session, item, account=account):
            with asking("s3:AbortMultipartUpload"):
                s3.abort_multipart_upload(
                    Bucket=item.bucket,
                    Key=item.key,
                    UploadId=upload_id,
                    ExpectedBucketOwner=account,
                )
    return ""


def find_versions(
    session: boto3.Session, bucket: str, *, account: str, prefix: str = ""
) -> list[dict[str, str]]:
    """
    Find all versions, and markers of deletion, of what *bucket* has under names with *prefix*.

    Raises:
        AwsError: As `asking`.
    """
    pages = session.client("s3").get_paginator("list_object_versions")
    with asking("s3:ListBucketVersions"):
        return [
            {"Key": version["Key"], "VersionId": version["VersionId"]}
            for page in pages.paginate(Bucket=bucket, Prefix=prefix, ExpectedBucketOwner=account)
            for version in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
        ]


def remove_versions(
    session: boto3.Session, bucket: str, versions: Sequence[Mapping[str, str]], *, account: str
) -> Mapping[str, str]:
    """
    Remove *versions*, until one cannot be; give what S3 says of that one, nothing where all went.

    Raises:
        AwsError: As `asking`.
    """
    s3 = session.client("s3")
    for start in range(0, len(versions), _BATCH):
        with asking("s3:DeleteObjectVersion"):
            done = s3.delete_objects(
                Bucket=bucket,
                ExpectedBucketOwner=account,
                Delete={"Objects": versions[start : start + _BATCH], "Quiet": True},
            )
        errors: Sequence[Mapping[str, str]] = done.get("Errors", ())
        if errors:
            return errors[0]
    return {}
