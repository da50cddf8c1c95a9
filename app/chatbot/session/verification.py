"""
A verification: the session's enclave as it was last verified, and anew where that is due.

SPEC.md section 3. Whoever holds one may seal to its enclave.
"""

import secrets
from datetime import UTC, datetime

from app.chatbot.session.transport import Transport
from app.chatbot.session.trust import Trust, VerifiedEnclave, verify_enclave
from app.protocol.asker.constants import MAX_DOCUMENT_AGE_SECONDS
from app.protocol.asker.manifest import require_version
from app.protocol.asker.messages import parse_attestation
from app.protocol.constants import NONCE_BYTES
from app.protocol.errors import ConfigError
from app.protocol.releases import Release


class Verification:
    """
    The enclave behind *transport*, verified before this exists.

    Attributes:
        enclave: As it was last verified.

        trust: Whom to believe.

        doubted: Nothing more is sealed to *enclave* before it is verified again.

    Raises:
        AttestationError, VersionError, ProtocolError, UnavailableError: As `renew`.
    """

    def __init__(self, transport: Transport, trust: Trust) -> None:
        self._transport = transport
        self.trust = trust
        self.doubted = False
        self.enclave = self._verify()

    def doubt(self) -> None:
        """Have the enclave verified again before anything more is sealed to it."""
        self.doubted = True

    def renew(self, *, anew: bool) -> VerifiedEnclave:
        """
        Give the enclave to seal to now: verified again if *anew*, if doubted, if its release is no
        longer approved, or if too long ago.

        Raises:
            ConfigError: The list of approved releases is gone or malformed.

            AttestationError: It is not an approved enclave now, or that cannot be told.

            VersionError: It speaks another version; says which end to update.

            ProtocolError: What answers is no enclave.

            UnavailableError: Nobody answers.
        """
        age = (datetime.now(UTC) - self.enclave.verified_at).total_seconds()
        approved = self.enclave.release in self._read_approved()
        fresh = 0 <= age < MAX_DOCUMENT_AGE_SECONDS
        if anew or self.doubted or not (approved and fresh):
            self.doubt()  # until it is verified: a failure below is not the last word on it
            self.enclave = self._verify()
            self.doubted = False
        return self.enclave

    def _read_approved(self) -> tuple[Release, ...]:
        try:
            return self.trust.approved()
        except ConfigError:
            self.doubt()  # whoever shows this session must not go on calling it verified
            raise

    def _verify(self) -> VerifiedEnclave:
        nonce = secrets.token_bytes(NONCE_BYTES)
        document, manifest = parse_attestation(self._transport.get_attestation(nonce))
        require_version(manifest)
        return verify_enclave(
            document, manifest, nonce=nonce, now=datetime.now(UTC), trust=self.trust
        )
