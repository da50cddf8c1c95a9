"""
The build stack: a CodeBuild project that makes an image of a commit, and the bucket for what goes
there and comes back. It stands apart from every deployment, and none depends on it.

It is an app of its own, `python -m infra.build_stack NAME ACCOUNT REGION`, which the CDK command
line starts for `bin/build-eif --in-account`.
"""

import re
import sys
from typing import Final

from aws_cdk import App, CfnOutput, Duration, Environment, RemovalPolicy, Stack
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3

from app.protocol.errors import ConfigError
from app.protocol.regions import REGIONS
from infra.acknowledged import Acknowledged, acknowledge
from infra.building import (
    BUCKET_OUTPUT,
    DEBIAN,
    KEPT_DAYS,
    MINUTES,
    PROJECT_OUTPUT,
    RESULTS,
    SOURCES,
    SPECIFICATION,
)
from infra.feature_flags import FEATURE_FLAGS
from infra.place import arn_of
from infra.policy_json import Json, document, statement

_COMPUTE: Final = "BUILD_GENERAL1_MEDIUM"  # 4 vCPUs; the kernel takes most of the time
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,47}", re.ASCII)
_BUCKET_ID: Final = "Bucket83908E77"  # as the CDK names it in templates
_NIST_AND_HIPAA: Final = ("NIST.800.53.R5", "HIPAA.Security")
_HIPAA: Final = ("HIPAA.Security",)
_SOLUTIONS: Final = ("AwsSolutions",)

ACKNOWLEDGED: Final = (
    Acknowledged(
        "Project",
        _SOLUTIONS,
        "CB5",
        "Images are made in Debian 12, whose archive the base root and the compilers come from. No "
        "image of CodeBuild's is one, and no bit of the result depends on it.",
    ),
    Acknowledged(
        "Role",
        _NIST_AND_HIPAA,
        "IAMNoInlinePolicy",
        "One policy for one role: inline, it cannot be attached to anything else, nor be changed "
        "or detached apart from the role.",
    ),
    *(
        Acknowledged(
            "Role",
            _SOLUTIONS,
            f"IAM5[Resource::<{_BUCKET_ID}.Arn>/{folder}/*]",
            "Each build has objects of its own, below the one folder that it reads, or the one "
            "that it writes. Their names are known once it is started.",
        )
        for folder in (SOURCES, RESULTS)
    ),
    Acknowledged(
        "Project",
        _HIPAA,
        "CodeBuildProjectSourceRepoUrl",
        "There is no repository to log in to: the source is a version of an object in the stack's "
        "own bucket, which the role may read.",
    ),
    Acknowledged(
        "Log",
        _NIST_AND_HIPAA,
        "CloudWatchLogGroupEncrypted",
        "CloudWatch encrypts it under a key of its own. It has the names of packages, and nothing "
        "that anybody asked or was answered.",
    ),
    Acknowledged(
        "Bucket",
        _SOLUTIONS,
        "S1",
        "One project and its operator use it, and what lies there is gone in a week. CloudTrail "
        "can log its objects where somebody wants that.",
    ),
    Acknowledged(
        "Bucket",
        _NIST_AND_HIPAA,
        "S3BucketLoggingEnabled",
        "One project and its operator use it, and what lies there is gone in a week. CloudTrail "
        "can log its objects where somebody wants that.",
    ),
    Acknowledged(
        "Bucket",
        _NIST_AND_HIPAA,
        "S3BucketReplicationEnabled",
        "What lies there is brought home at once and can be built again: a copy elsewhere would "
        "only be one more place to guard.",
    ),
)


class BuildStack(Stack):
    """
    The project, its role, its log and its bucket.

    Args:
        account, region: Values, and no placeholders: the role's trust names them.
    """

    def __init__(self, scope: App, name: str, *, account: str, region: str) -> None:
        super().__init__(
            scope,
            name,
            env=Environment(account=account, region=region),
            description="enclave-llm: builds enclave images from commits; no deployment needs it",
        )
        bucket = self._bucket()
        log = logs.LogGroup(
            self,
            "Log",
            log_group_name=f"/enclave-llm/{name}",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = self._role(bucket, log)
        project = self._project(bucket, log, role)
        CfnOutput(self, BUCKET_OUTPUT, value=bucket.bucket_name)
        CfnOutput(self, PROJECT_OUTPUT, value=project.ref)

    def _bucket(self) -> s3.Bucket:
        return s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.KMS_MANAGED,
            enforce_ssl=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            versioned=True,  # so that a build names the version that was sent
            lifecycle_rules=[
                s3.LifecycleRule(
                    expiration=Duration.days(KEPT_DAYS),
                    noncurrent_version_expiration=Duration.days(1),
                    abort_incomplete_multipart_upload_after=Duration.days(1),
                )
            ],
            removal_policy=RemovalPolicy.DESTROY,  # emptied by whoever destroys the stack
        )

    def _role(self, bucket: s3.Bucket, log: logs.LogGroup) -> iam.Role:
        project = arn_of(self, "codebuild", f"project/{self.stack_name}")
        return iam.Role(
            self,
            "Role",
            description="Builds of enclave-llm: their source, their result, their log",
            assumed_by=iam.ServicePrincipal(
                "codebuild.amazonaws.com",
                conditions={
                    "StringEquals": {"aws:SourceAccount": self.account},
                    "ArnEquals": {"aws:SourceArn": project},
                },
            ),
            inline_policies={
                "build": iam.PolicyDocument.from_json(dict(document(*_permissions(bucket, log))))
            },
        )

    def _project(
        self, bucket: s3.Bucket, log: logs.LogGroup, role: iam.Role
    ) -> codebuild.CfnProject:
        kind = codebuild.CfnProject
        return kind(
            self,
            "Project",
            name=self.stack_name,
            description="Makes an enclave's image of the commit that it is sent",
            service_role=role.role_arn,
            source=kind.SourceProperty(
                type="S3", location=f"{bucket.bucket_name}/{SOURCES}/", build_spec=SPECIFICATION
            ),
            artifacts=kind.ArtifactsProperty(
                type="S3",
                location=bucket.bucket_name,
                path=RESULTS,
                namespace_type="BUILD_ID",
                name="image.zip",
                packaging="ZIP",  # whose SHA-256 CodeBuild tells
            ),
            environment=kind.EnvironmentProperty(
                type="LINUX_CONTAINER",
                compute_type=_COMPUTE,
                image=DEBIAN,
                image_pull_credentials_type="SERVICE_ROLE",  # none of CodeBuild's own images
                privileged_mode=True,
            ),
            logs_config=kind.LogsConfigProperty(
                cloud_watch_logs=kind.CloudWatchLogsConfigProperty(
                    status="ENABLED", group_name=log.log_group_name
                )
            ),
            encryption_key=arn_of(self, "kms", "alias/aws/s3"),
            timeout_in_minutes=MINUTES,
        )


def _permissions(bucket: s3.Bucket, log: logs.LogGroup) -> list[Json]:
    """Give what a build may do, and no more. Source: CodeBuild user guide, service role."""
    arn = bucket.bucket_arn
    return [
        statement("ReadSource", ["s3:GetObject", "s3:GetObjectVersion"], f"{arn}/{SOURCES}/*"),
        statement("WriteResult", "s3:PutObject", f"{arn}/{RESULTS}/*"),
        statement("KnowBucket", ["s3:GetBucketAcl", "s3:GetBucketLocation"], arn),
        statement("WriteLog", ["logs:CreateLogStream", "logs:PutLogEvents"], log.log_group_arn),
    ]


def make_build_app(
    name: str, *, account: str, region: str, outdir: str | None = None
) -> tuple[App, BuildStack]:
    """
    Make the app with its one stack.

    Args:
        outdir: The folder to write to; None leaves it to the CDK command line.

    Raises:
        ConfigError: *name* or *region* is not what it must be.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"name is {name!r}, expected a small letter, then small letters, digits and dashes, 48 "
            "at most"
        )
    if region not in REGIONS:
        raise ConfigError(f"region is {region!r}, expected one of {', '.join(REGIONS)}")
    app = App(context=dict(FEATURE_FLAGS), outdir=outdir)
    stack = BuildStack(app, name, account=account, region=region)
    acknowledge(stack, ACKNOWLEDGED)
    return app, stack


def main() -> None:
    """Synthesise where the CDK says."""
    name, account, region = sys.argv[1:]
    app, _ = make_build_app(name, account=account, region=region)
    app.synth()


if __name__ == "__main__":
    main()
