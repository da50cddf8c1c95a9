"""Small EIFs for tests."""

import hashlib
from io import BytesIO
from pathlib import Path

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from image.eif.cpio import Entry, file_entry, write_cpio
from image.eif.eif import SectionKind
from image.eif.kit import BootKit
from image.eif.pack import write_eif

WEIGHTS = bytes(range(32))


def archive(*entries: Entry) -> bytes:
    """Give an archive of *entries*."""
    out = BytesIO()
    write_cpio(out, entries)
    return out.getvalue()


BOOT = archive(file_entry("init", b"boot", 0o755))
APPLICATION = archive(file_entry("cmd", b"run"), file_entry("rootfs/a", b"a" * 9))
PARTS = {
    SectionKind.KERNEL: (b"kernel",),
    SectionKind.CMDLINE: (b"console=ttyS0",),
    SectionKind.METADATA: (b'{"ImageName":"t"}',),
    SectionKind.RAMDISK: (BOOT, APPLICATION),
}


def make_eif(parts: dict[SectionKind, tuple[bytes, ...]] | None = None, **more: bytes) -> bytes:
    """Give an EIF of *parts*, those above by default, and of *more* by the kind's name."""
    contents = dict(PARTS if parts is None else parts)
    contents |= {SectionKind[name.upper()]: (content,) for name, content in more.items()}
    out = BytesIO()
    write_eif(out, [(kind, BytesIO(item)) for kind, items in contents.items() for item in items])
    return out.getvalue()


def pcr(*contents: bytes) -> bytes:
    """Compute a PCR as the specification says it, by other code than the product's."""
    return hashlib.sha384(bytes(48) + hashlib.sha384(b"".join(contents)).digest()).digest()


def make_kit(folder: Path, name: str = "aws", kernel: bytes = b"kernel") -> BootKit:
    """Write the files of a boot kit that boots nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bzImage").write_bytes(kernel)
    (folder / "boot.cpio").write_bytes(BOOT + name.encode())
    return BootKit(name, folder / "bzImage", f"kit={name}", folder / "boot.cpio")


def sign(
    pcr0: bytes,
    key: ec.EllipticCurvePrivateKey,
    certificate: x509.Certificate,
    *,
    index: int = 0,
    protected: bytes = b"\xa1\x01\x38\x22",
) -> bytes:
    """Give a signature section, encoded as Rust's serde does."""
    payload = cbor2.dumps({"register_index": index, "register_value": list(pcr0)})
    message = cbor2.dumps(["Signature1", protected, b"", payload])
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA384())))
    half = (key.curve.key_size + 7) // 8
    cose = cbor2.dumps([protected, {}, payload, r.to_bytes(half) + s.to_bytes(half)])
    pem = certificate.public_bytes(Encoding.PEM)
    return cbor2.dumps([{"signing_certificate": list(pem), "signature": list(cose)}])
