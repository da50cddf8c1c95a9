"""
A Region: its partition, and the names under which KMS answers there. SPEC.md section 9.

Source: aws-nitro-enclaves-cli 1.5.0, vsock_proxy/configs/vsock-proxy.yaml, for where there are
Nitro Enclaves; AWS general reference, "AWS KMS endpoints and quotas", for FIPS, as botocore has it.
"""

from dataclasses import dataclass
from typing import Final

from app.protocol.errors import ProtocolError

_NAMES: Final = {
    ("aws", "amazonaws.com"): (
        "af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 "
        "ap-south-2 ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 "
        "ap-southeast-6 ap-southeast-7 ca-central-1 ca-west-1 eu-central-1 eu-central-2 "
        "eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3 il-central-1 "
        "me-central-1 me-south-1 mx-central-1 sa-east-1 us-east-1 us-east-2 us-west-1 us-west-2"
    ),
    ("aws-us-gov", "amazonaws.com"): "us-gov-east-1 us-gov-west-1",
    ("aws-cn", "amazonaws.com.cn"): "cn-north-1 cn-northwest-1",
}
_NO_FIPS: Final = frozenset({"ap-east-2", "ap-southeast-6", "cn-north-1", "cn-northwest-1"})


@dataclass(frozen=True, slots=True)
class Region:
    """One Region."""

    name: str
    partition: str
    dns_suffix: str

    def kms_host(self, *, fips: bool) -> str:
        """
        Give the name of KMS.

        Raises:
            ProtocolError: FIPS is asked for where there is none.
        """
        if fips and self.name in _NO_FIPS:
            raise ProtocolError(f"KMS has no FIPS endpoint in {self.name}")
        return f"{'kms-fips' if fips else 'kms'}.{self.name}.{self.dns_suffix}"


REGIONS: Final = {
    name: Region(name, *place) for place, names in _NAMES.items() for name in names.split()
}
