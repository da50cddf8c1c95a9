"""
Trust: what the asker believes before any enclave has spoken.

A root certificate and the asker's own list of approved releases; and `verify_enclave`, which
turns an enclave's claim into something to seal to, or raises. The list is a file that may change
while a program runs: a release that is taken off it is trusted no longer from then on.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

from cryptography.x509 import Certificate

from app.protocol.asker.attestation import (
    Attestation,
    require_pcrs,
    require_user_data,
    verify_attestation,
)
from app.protocol.asker.manifest import parse_manifest
from app.protocol.asker.nitro_root import NITRO_ROOT
from app.protocol.constants import X25519_KEY_BYTES
from app.protocol.errors import AttestationError, ConfigError
from app.protocol.manifest import Manifest
from app.protocol.releases import PRODUCTION_KITS, Release, parse_releases


@dataclass(frozen=True, slots=True)
class Trust:
    """
    Whom to believe.

    Attributes:
        root: The anchor of every attestation document; `NITRO_ROOT` everywhere but in the twin.

        root_name: For people.

        releases: Approved when this was made; what counts is `approved`.

        read_again: Reads the list as it is now; None where the list cannot change.
    """

    root: Certificate
    root_name: str
    releases: tuple[Release, ...]
    read_again: Callable[[], tuple[Release, ...]] | None = None

    def approved(self) -> tuple[Release, ...]:
        """
        Give the releases that are approved now.

        Raises:
            ConfigError: The list is gone, malformed or empty.
        """
        return self.releases if self.read_again is None else self.read_again()

    @property
    def is_demo(self) -> bool:
        """Whether something else than AWS's hardware signs: the root is the twin's."""
        return self.root != NITRO_ROOT


@dataclass(frozen=True, slots=True)
class VerifiedEnclave:
    """
    An enclave that has passed every check of SPEC.md section 3.

    Attributes:
        public_key: The X25519 key it attested, the only one anything is sealed to.

        document: What was verified, for whoever wants to look at it again.
    """

    release: Release
    attestation: Attestation
    manifest: Manifest
    public_key: bytes
    verified_at: datetime
    document: bytes = field(repr=False)

    @property
    def document_age_seconds(self) -> float:
        """How old the document was when it was verified; negative if from a faster clock."""
        return (self.verified_at - self.attestation.timestamp).total_seconds()


def production_trust(releases_path: Path) -> Trust:
    """
    Give what a deployed chatbot trusts: AWS's root and the approved list at *releases_path*.

    The list is read now, and again for each verification and each question.

    Raises:
        ConfigError: The list is missing, unreadable, malformed, empty or names a kit of the twin's.
    """
    read = partial(_read_list, releases_path)
    return Trust(NITRO_ROOT, "AWS Nitro root G1", read(), read)


def _read_list(releases_path: Path) -> tuple[Release, ...]:
    try:
        text = releases_path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"no list of approved releases at {releases_path}: get releases.json from whoever "
            "reviews your enclave images, not from the server, and put it there"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the list of approved releases at {releases_path} cannot be read ({error.strerror}): "
            "let the user that this program runs as read it"
        ) from None
    releases = parse_releases(text, kits=PRODUCTION_KITS)
    if not releases:
        raise ConfigError(f"{releases_path} approves no release, so no enclave can be trusted")
    return releases


def verify_enclave(
    document: bytes, manifest: bytes, *, nonce: bytes, now: datetime, trust: Trust
) -> VerifiedEnclave:
    """
    Verify that an approved enclave made *document* for our *nonce*, and what it says of itself.

    The list of approved releases is read again for this.

    Raises:
        ConfigError: The list of approved releases is gone or malformed.

        AttestationError: It is not so, for whatever reason.

        ProtocolError: The attested manifest is of another version.
    """
    attestation = verify_attestation(document, root=trust.root, now=now, nonce=nonce)
    release = require_pcrs(attestation, trust.approved())
    parsed = _require_manifest(attestation, manifest, release)
    public_key = attestation.public_key
    if public_key is None or len(public_key) != X25519_KEY_BYTES:
        raise AttestationError(f"the attested public key is not {X25519_KEY_BYTES} bytes")
    return VerifiedEnclave(release, attestation, parsed, public_key, now, document)


def _require_manifest(attestation: Attestation, manifest: bytes, release: Release) -> Manifest:
    parsed = parse_manifest(manifest)
    require_user_data(attestation, kind="attest", digest=parsed.digest)
    if parsed.weights_sha256 != release.weights_sha256:
        raise AttestationError(
            f"the enclave runs weights {parsed.weights_sha256.hex()[:12]}…, release "
            f"{release.name} was approved with {release.weights_sha256.hex()[:12]}…"
        )
    return parsed
