"""
A proof: the chain of evidence behind a session and its answers, a step at a time.

It verifies nothing: it tells people what `trust` and `session` have verified, in plain words, with
the raw values for whoever wants to check them again.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from app.chatbot.session.exchange import Evidence
from app.chatbot.session.session import Session
from app.chatbot.session.trust import VerifiedEnclave
from app.protocol.asker.attestation import unverified_certificates

_NITRO: Final = "A Nitro Secure Module"
# What signs in its place under the twin's root, by the release's kit.
_STAND_INS: Final = {"process": "The twin's software, in place of a Nitro Secure Module,"}
_EMULATOR: Final = "The emulator's software, in place of a Nitro Secure Module,"


@dataclass(frozen=True, slots=True)
class Step:
    """
    One step of verification, which has passed: a session that failed one does not exist.

    Attributes:
        name: In a word or two.

        says: What it means, in one sentence.

        values: What it was made from, by name; digests and keys in lower-case hex.
    """

    name: str
    says: str
    values: dict[str, str] = field(default_factory=dict)


def prove_enclave(session: Session) -> tuple[Step, ...]:
    """Give the steps by which the session's enclave was last verified, in their order."""
    enclave = session.enclave
    return (
        _chain(enclave, session.root_name),
        _signature(enclave, demo=session.is_demo),
        _freshness(enclave),
        _not_debug(enclave),
        _image(enclave),
        _manifest(enclave),
        _key(enclave),
    )


def prove_answer(evidence: Evidence) -> Step:
    """Give the step by which one answer was verified."""
    receipt = evidence.receipt
    return Step(
        "receipt",
        "The same image signed that this answer, whole and in order, is the one to this question.",
        {
            "request": receipt.request_digest.hex(),
            "answer": receipt.answer_digest.hex(),
            "manifest": receipt.manifest_digest.hex(),
            "prompt tokens": f"{receipt.prompt_tokens}",
            "completion tokens": f"{receipt.completion_tokens}",
            "finish": receipt.finish,
        },
    )


def _chain(enclave: VerifiedEnclave, root_name: str) -> Step:
    return Step(
        "chain",
        f"The document's certificate leads, issuer by issuer, to {root_name}, which this program "
        "knows beforehand.",
        dict(_certificates(enclave.document)),
    )


def _certificates(document: bytes) -> Iterator[tuple[str, str]]:
    """Give each certificate of a verified document, from the root to the one that signed it."""
    for number, der in enumerate(unverified_certificates(document)):
        certificate = x509.load_der_x509_certificate(der)
        name = certificate.subject.rfc4514_string()
        end = certificate.not_valid_after_utc.isoformat()
        digest = certificate.fingerprint(SHA256()).hex()
        yield f"certificate {number}", f"{name}, valid to {end}, sha256 {digest}"


def _signature(enclave: VerifiedEnclave, *, demo: bool) -> Step:
    attestation = enclave.attestation
    signer = _STAND_INS.get(enclave.release.kit, _EMULATOR) if demo else _NITRO
    return Step(
        "signature",
        f"{signer} signed the document, and nothing in it was changed since.",
        {
            "module": attestation.module_id,
            "signed at": attestation.timestamp.isoformat(),
            "algorithm": "ECDSA on P-384 with SHA-384 (COSE ES384)",
            "document bytes": f"{len(enclave.document)}",
            "document sha256": hashlib.sha256(enclave.document).hexdigest(),
        },
    )


def _freshness(enclave: VerifiedEnclave) -> Step:
    return Step(
        "freshness",
        "It was made for a random number that this program had just drawn: it is no copy.",
        {
            "nonce": (enclave.attestation.nonce or b"").hex(),
            "age": f"{enclave.document_age_seconds:.1f} s",
            "verified at": enclave.verified_at.isoformat(),
        },
    )


def _not_debug(enclave: VerifiedEnclave) -> Step:
    return Step(
        "not debug",
        "The enclave is not in debug mode, in which the server could read along.",
        {f"PCR{index}": "not zero" for index in (0, 1, 2) if any(enclave.attestation.pcrs[index])},
    )


def _image(enclave: VerifiedEnclave) -> Step:
    attested, approved = enclave.attestation.measurements, enclave.release.measurements
    return Step(
        "image",
        _says_image(enclave),
        {
            "release": enclave.release.name,
            "kit": enclave.release.kit,
            "approved at": enclave.release.approved_at.isoformat(),
            "PCR0 attested": attested.pcr0.hex(),
            "PCR0 approved": approved.pcr0.hex(),
            "PCR1 attested": attested.pcr1.hex(),
            "PCR1 approved": approved.pcr1.hex(),
            "PCR2 attested": attested.pcr2.hex(),
            "PCR2 approved": approved.pcr2.hex(),
        },
    )


def _says_image(enclave: VerifiedEnclave) -> str:
    release = enclave.release
    if release.kit == "process":
        return (
            f"It is measured as release {release.name}, which stands on your approved list; on "
            "the twin, nothing makes a process be what was measured."
        )
    return f"It runs exactly release {release.name}, which stands on your approved list."


def _manifest(enclave: VerifiedEnclave) -> Step:
    manifest = enclave.manifest
    return Step(
        "manifest",
        "What it says of its model is attested, and its weights are those approved.",
        {
            "manifest sha256": manifest.digest.hex(),
            "model": f"{manifest.model} ({manifest.label})",
            "weights attested": manifest.weights_sha256.hex(),
            "weights approved": enclave.release.weights_sha256.hex(),
            "context": f"{manifest.context_tokens} tokens",
        },
    )


def _key(enclave: VerifiedEnclave) -> Step:
    return Step(
        "key",
        "Questions are sealed to a key that was made inside this enclave and is in the document.",
        {
            "HPKE key": enclave.public_key.hex(),
            "suite": "DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM",
        },
    )
