"""
The enclave image as the deployment carries it: the EIF in the bootstrap bucket, unzipped.
"""

from aws_cdk import AssetHashType
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from infra.approved_image import ApprovedImage


class EnclaveImage(Construct):
    """The EIF of *image* as an asset."""

    def __init__(self, scope: Construct, name: str, *, image: ApprovedImage) -> None:
        super().__init__(scope, name)
        self.image = image
        # Named by the digest that measuring has found: the CDK would read all of it once more.
        self.asset = assets.Asset(
            self,
            "Eif",
            path=str(image.path),
            asset_hash=image.eif_sha256.hex(),
            asset_hash_type=AssetHashType.CUSTOM,
        )
