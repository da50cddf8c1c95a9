"""
The bill of materials: every wheel and Debian package that an image is made of, and the model that
it names, as CycloneDX.
"""

import gzip
import hashlib
import re
import tarfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from app.protocol.package import Description
from image.eif.record import BuildRecord

_CHANGELOG: Final = re.compile(r"usr/share/doc/([^/]+)/changelog(?:\.Debian)?\.gz")
_FIRST_LINE: Final = re.compile(rb"\S+ \(([^)]+)\)")


def encode_sbom(wheels: Path, base: Path | None, record: BuildRecord, model: Description) -> bytes:
    """
    Give the bill of materials of one image as CycloneDX JSON; the same image gives the same text.

    Args:
        wheels: Folder of the wheels in it.

        base: Tar of its base root; None where the base was an image of somebody else's.

        model: What its weights are.
    """
    bom = Bom(serial_number=uuid.UUID(bytes=record.eif_sha256[:16]))
    bom.metadata.timestamp = datetime.fromtimestamp(0, UTC)
    bom.metadata.component = whole = Component(
        name="enclave-llm",
        type=ComponentType.APPLICATION,
        bom_ref="enclave-llm",
        version=record.measurements.pcr0.hex(),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=record.eif_sha256.hex())],
    )
    parts = (*_wheels(wheels), *(_debian(base) if base else ()), _model(model, record))
    for component in parts:
        bom.components.add(component)
    bom.register_dependency(whole, bom.components)
    outputter = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    return outputter.output_as_string(indent=2).encode() + b"\n"


def _model(model: Description, record: BuildRecord) -> Component:
    """Give the model by its weights digest, and say where its files are."""
    digest = record.weights_sha256.hex()
    place = "inside" if record.weights_inside else "outside, named by digest"
    return Component(
        name=model.name,
        version=model.revision,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"weights:{digest}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        properties=[Property(name="enclave-llm:weights", value=place)],
    )


def _wheels(folder: Path) -> Iterator[Component]:
    for wheel in sorted(folder.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        url = PackageURL("pypi", name=name.replace("_", "-").lower(), version=version)
        yield Component(
            name=name,
            version=version,
            bom_ref=url.to_string(),
            purl=url,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )


def _debian(base: Path) -> Iterator[Component]:
    """Read names and versions from the changelogs, the one thing that every package brings."""
    with tarfile.open(base) as archive:
        for info in archive:
            found = _CHANGELOG.fullmatch(info.name.removeprefix("./"))
            file = archive.extractfile(info) if found and info.isreg() else None
            if found is None or file is None:
                continue
            version = _FIRST_LINE.match(gzip.decompress(file.read()))
            if version is not None:
                name, text = found[1], version[1].decode()
                url = PackageURL("deb", "debian", name, text)
                yield Component(name=name, version=text, bom_ref=url.to_string(), purl=url)
