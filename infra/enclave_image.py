"""
The enclave image as the deployment carries it: the EIF in the bootstrap bucket, unzipped, and
beside it the files of its weights, where they are not inside.

The CDK brings the EIF there. It zips folders and stops at 2 GB, so bin/deploy brings the others.
"""

from aws_cdk import AssetHashType
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from infra.approved_image import ApprovedImage
from infra.place import object_arn
from infra.weights_files import WeightsFile


class EnclaveImage(Construct):
    """
    The EIF of *image* as an asset, and its weights as objects beside it.

    Attributes:
        object_arns: Of the one and the others: all that a host fetches of the image.
    """

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
        self._bucket = self.asset.s3_bucket_name
        keys = (self.asset.s3_object_key, *dict.fromkeys(file.key for file in image.weights))
        self.object_arns = tuple(object_arn(self, self._bucket, key) for key in keys)

    def url_of(self, file: WeightsFile) -> str:
        """Give the s3:// URL that *file* has, named by its digest."""
        return f"s3://{self._bucket}/{file.key}"
