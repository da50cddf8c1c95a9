"""
Build outputs: the EIF, its record, its approval and the host's software, as infra will read them.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from app.protocol.errors import ConfigError
from app.protocol.releases import Measurements, Release, parse_releases
from image.eif.record import RECORD_NAME, parse_build_record
from image.errors import ImageError
from image.model.memory import least_engine_bytes
from infra.approved_image import ApprovedImage, load_approved_image
from infra.host_files import MANIFEST_NAME, require_host_software
from infra.parameters import Parameters
from ops.deployment import ROOT
from ops.finding import Finding, Level, ok, problem, warning

_BUILT: Final = {"eif": ROOT / "build" / "enclave.eif", "host": ROOT / "build" / "host"}


def check_outputs(parameters: Parameters, kits: frozenset[str]) -> tuple[Finding, ...]:
    """Check what was built, with infra's own eyes; EIFs are measured, which takes a while."""
    return (
        *_check_image(parameters, kits),
        _check("host software", lambda: _describe_host(parameters.host)),
    )


def _check_image(parameters: Parameters, kits: frozenset[str]) -> tuple[Finding, ...]:
    try:
        image = load_approved_image(
            parameters.eif,
            parameters.releases,
            kits=kits,
            weights=parameters.weights,
            weights_key=parameters.weights_key,
        )
    except ConfigError as error:
        return (_refusal("EIF", error),)
    return (
        ok("EIF", _describe_image(image)),
        ok("weights", _describe_weights(image, parameters.weights)),
        _check_sizes(parameters, image),
    )


def _check_sizes(parameters: Parameters, image: ApprovedImage) -> Finding:
    finding = _check("sizes", lambda: _describe_sizes(parameters, image))
    if finding.level is not Level.OK or not image.weights:
        return finding
    most = least_engine_bytes(parameters.weights, weights_inside=False, wary=True)
    wary = replace(image, engine_bytes=max(image.engine_bytes, most))
    try:
        wary.require_sizes(parameters.sizes)
    except ConfigError as error:
        return warning(
            "sizes",
            f"{parameters.weights} does not say whether its model is a mixture of experts, and if "
            f"it is one, {str(error).rpartition(' (')[0]}",
            "ask its owner, and give it as much; or have them seal it again with bin/seal-weights, "
            "which now says so",
        )
    return finding


def _check(check: str, describe: Callable[[], str]) -> Finding:
    try:
        return ok(check, describe())
    except ConfigError as error:
        return _refusal(check, error)


def _refusal(check: str, error: ConfigError) -> Finding:
    """Give infra's own words; behind the last colon stands what to do."""
    text, _, remedy = str(error).rpartition(": ")
    return problem(check, text, remedy) if text else problem(check, remedy, "see docs/deploy.md")


def _describe_image(image: ApprovedImage) -> str:
    release = image.release
    return (
        f"{image.path} measures as release {release.name} (kit {release.kit}), "
        f"{len(image.releases)} approved in all"
    )


def _describe_weights(image: ApprovedImage, folder: Path) -> str:
    if not image.weights:
        return "they are in the image"
    return (
        f"{folder} is what the image names: {len(image.weights)} files, "
        f"{image.weights_bytes / 1e9:,.2f} GB, which hosts fetch and enclaves take in"
    )


def _describe_sizes(parameters: Parameters, image: ApprovedImage) -> str:
    sizes = image.require_sizes(parameters.sizes)
    return (
        f"{sizes.enclave_vcpus} of {sizes.instance_type.vcpus} vCPUs and "
        f"{sizes.enclave_memory_mib:,} of {sizes.instance_type.memory_mib:,} MiB for the enclave"
    )


def _describe_host(path: Path) -> str:
    return f"{path} is what its manifest lists, sha256 {require_host_software(path)[:16]}…"


def missing_builders(parameters: Parameters) -> tuple[str, ...]:
    """
    Give the commands that make what is not there, in their order.

    Raises:
        ConfigError: Something is missing where they do not build.
    """
    eif, host = parameters.eif, parameters.host
    wanted = (
        ("eif", "build-eif", eif, eif.is_file() and eif.with_name(RECORD_NAME).is_file()),
        ("host", "build-host", host, (host / MANIFEST_NAME).is_file()),
    )
    missing = [(kind, command, path) for kind, command, path, there in wanted if not there]
    for kind, command, path in missing:
        if path != _BUILT[kind]:
            raise ConfigError(f"there is nothing at {path}: bin/{command} makes {_BUILT[kind]}")
    return tuple(command for _, command, _ in missing)


def find_release(eif: Path, releases: Path, *, kits: frozenset[str]) -> Release | None:
    """
    Find the release that *eif*'s build record describes; whether the EIF is that, infra measures.

    Raises:
        ConfigError: The record or the list is missing or malformed.
    """
    try:
        measured = parse_build_record(eif.with_name(RECORD_NAME).read_bytes()).measurements
        listed = parse_releases(releases.read_bytes(), kits=kits)
    except ImageError as error:
        raise ConfigError(f"{eif.with_name(RECORD_NAME)}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    pcrs = Measurements(measured.pcr0, measured.pcr1, measured.pcr2)
    return next((release for release in listed if release.measurements == pcrs), None)
