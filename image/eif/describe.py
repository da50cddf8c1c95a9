"""
Describing an EIF in the words of `nitro-cli describe-eif`.
"""

from pathlib import Path

from image.eif.eif import VERSION, SectionKind, open_eif, parse_structure, read_section
from image.eif.measure import measure
from image.eif.metadata import decode_metadata
from image.eif.record import encode_measurements


def describe_eif(path: Path) -> dict[str, object]:
    """
    Describe the EIF at *path*, all of which has been checked.

    Raises:
        ImageError: It is corrupt, or its signature does not verify.
    """
    with open_eif(path) as file:
        eif = parse_structure(file)
        measurements = measure(file, eif)
        section = eif.find(SectionKind.METADATA)
        metadata = decode_metadata(read_section(file, section)) if section else {}
        cmdline = eif.find(SectionKind.CMDLINE)
        line = read_section(file, cmdline).decode("ascii", "backslashreplace") if cmdline else ""
    signed = measurements.pcr8 is not None
    build = metadata.get("BuildMetadata")
    return {
        "EifVersion": VERSION,
        "Measurements": encode_measurements(measurements),
        "IsSigned": signed,
        **({"SignatureCheck": True} if signed else {}),
        "CheckCRC": True,
        "ImageName": metadata.get("ImageName"),
        "ImageVersion": metadata.get("ImageVersion"),
        "Metadata": {
            **(build if isinstance(build, dict) else {}),
            "DockerInfo": metadata.get("DockerInfo"),
            "CustomMetadata": metadata.get("CustomMetadata"),
        },
        "Cmdline": line,
        "Sections": [
            {"Type": item.kind.name.lower(), "Offset": item.start, "Bytes": item.size}
            for item in eif.sections
        ],
    }
