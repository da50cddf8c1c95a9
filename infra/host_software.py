"""
The host's software as the deployment carries it: what bin/build-host made, zipped by CDK.
"""

from pathlib import Path

from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from infra.host_files import require_host_software
from infra.place import object_arn


class HostSoftware(Construct):
    """
    The folder *path* as an asset.

    Attributes:
        manifest_sha256: Hex digest of the manifest, which has a digest of every other file.

        object_arn: Of the one object that it is in the bootstrap bucket.
    """

    def __init__(self, scope: Construct, name: str, *, path: Path) -> None:
        super().__init__(scope, name)
        self.manifest_sha256 = require_host_software(path)
        self.asset = assets.Asset(self, "Files", path=str(path))
        self.object_arn = object_arn(self, self.asset.s3_bucket_name, self.asset.s3_object_key)
