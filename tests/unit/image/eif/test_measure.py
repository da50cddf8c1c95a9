import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from image.eif.eif import SectionKind, parse_structure
from image.eif.measure import (
    ImageMeasurements,
    MeasuredFile,
    measure,
    measure_eif,
    measure_file,
)
from image.eif.signature import verify_signature
from image.errors import ImageError
from local.signers.pki import make_root
from tests.eifs import APPLICATION, BOOT, make_eif, pcr, sign

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIGNER = make_root(now=NOW)
KEY = SIGNER.key
assert isinstance(KEY, ec.EllipticCurvePrivateKey)
OTHER_KEY = ec.derive_private_key(7, ec.SECP384R1())
PCR0 = pcr(b"kernel", b"console=ttyS0", BOOT, APPLICATION)


def signature(pcr0: bytes = PCR0, **more: object) -> bytes:
    return sign(pcr0, KEY, SIGNER.certificate, **more)  # type: ignore[arg-type]


def measured(eif: bytes) -> ImageMeasurements:
    file = BytesIO(eif)
    return measure(file, parse_structure(file))


def test_pcrs(tmp_path: Path) -> None:
    """
    PCR0 covers all that runs, PCR1 what boots, PCR2 the application, as written out by hand.
    """
    path = tmp_path / "a.eif"
    path.write_bytes(make_eif())
    assert measure_eif(path) == ImageMeasurements(
        pcr0=PCR0, pcr1=pcr(b"kernel", b"console=ttyS0", BOOT), pcr2=pcr(APPLICATION)
    )


@pytest.mark.parametrize("ramdisk", [b"", b"1", bytes(2_000_000)], ids=["empty", "small", "large"])
def test_file_is_digested_in_the_same_pass(tmp_path: Path, ramdisk: bytes) -> None:
    """
    What is measured on the way has the size and the SHA-256 of all bytes of the file.
    """
    path = tmp_path / "a.eif"
    sections = {
        SectionKind.KERNEL: (b"k",),
        SectionKind.CMDLINE: (b"c",),
        SectionKind.RAMDISK: (b"0", ramdisk),
    }
    path.write_bytes(make_eif(sections))
    digest = hashlib.sha256(path.read_bytes()).digest()
    assert measure_file(path) == MeasuredFile(measure_eif(path), path.stat().st_size, digest)


def test_more_ramdisks() -> None:
    """
    Every ramdisk behind the first counts into PCR2.
    """
    got = measured(
        make_eif(
            {
                SectionKind.KERNEL: (b"k",),
                SectionKind.CMDLINE: (b"c",),
                SectionKind.RAMDISK: (b"0", b"1", b"2"),
            }
        )
    )
    assert got.pcr0 == pcr(b"kc012")
    assert got.pcr1 == pcr(b"kc0")
    assert got.pcr2 == pcr(b"12")


def test_metadata_is_not_measured() -> None:
    """
    Metadata changes no PCR.
    """
    assert measured(make_eif(metadata=b"{}")) == measured(make_eif())


def test_signed() -> None:
    """
    A signed EIF has PCR8, the digest of its certificate; the other PCRs are as without.
    """
    got = measured(make_eif(signature=signature()))
    assert got.pcr8 == pcr(SIGNER.certificate.public_bytes(Encoding.DER))
    assert replace(got, pcr8=None) == measured(make_eif())


ES256 = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (b"", "signature section is not CBOR"),
        (signature() + b"\0", "signature section is not"),
        (cbor2.dumps([]), "not one certificate with one signature"),
        (cbor2.dumps([{"signing_certificate": [256], "signature": []}]), "signing_certificate is"),
        (cbor2.dumps([{"signing_certificate": [1], "signature": [0]}]), "untagged COSE_Sign1"),
        (signature(bytes(48)), "signature is over PCR0 0000000000000000"),
        (signature(index=1), "not the value of PCR0"),
        (signature(protected=b"\xa1\x01\x26"), "exactly those of ES384"),
        (sign(PCR0, OTHER_KEY, SIGNER.certificate), "does not verify"),
        (sign(PCR0, ES256, SIGNER.certificate), "signature has 64 bytes, expected 96"),
    ],
)
def test_bad_signature(section: bytes, message: str) -> None:
    """
    A signature that is malformed or another's makes the EIF one to refuse.
    """
    with pytest.raises(ImageError, match=message):
        measured(make_eif(signature=section))


@given(data=st.binary(max_size=80), at=st.integers(0, len(signature())))
def test_any_bytes(data: bytes, at: int) -> None:
    """
    Any bytes in place of a signature, or of a part of one, give a digest or the one error.

    Nobody signs the certificate: with other names in it, it gives another PCR8.
    """
    real = signature()
    for section in (data, real[:at] + data + real[at + len(data) :]):
        try:
            digest = verify_signature(section, PCR0)
        except ImageError:
            continue
        assert len(digest) == 48


def test_length() -> None:
    """
    A PCR has 48 bytes.
    """
    with pytest.raises(ImageError, match="pcr1 has 47 bytes, expected 48"):
        ImageMeasurements(bytes(48), bytes(47), bytes(48))
