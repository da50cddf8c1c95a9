import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.chatbot.session.trust import Trust, production_trust, verify_enclave
from app.protocol.asker.nitro_root import NITRO_ROOT
from app.protocol.attestation import encode_user_data
from app.protocol.errors import AttestationError, ConfigError, PcrMismatchError, ProtocolError
from app.protocol.manifest import Manifest
from app.protocol.releases import encode_releases
from tests.support import WEIGHTS_SHA256, make_nsm, make_release, twin_root

NONCE = bytes(range(32))
KEY = bytes(range(32, 64))
MANIFEST = Manifest("m", "demo model", WEIGHTS_SHA256, 1024)
TRUST = Trust(twin_root().certificate, "the tests' root", (make_release(),))


def document(
    manifest: bytes = MANIFEST.encode(), *, key: bytes = KEY, kind: str = "attest"
) -> bytes:
    digest = hashlib.sha256(manifest).digest()
    user_data = encode_user_data(kind, digest)  # type: ignore[arg-type]
    return make_nsm().document(user_data=user_data, nonce=NONCE, public_key=key)


def verify(signed: bytes, manifest: bytes = MANIFEST.encode(), trust: Trust = TRUST) -> None:
    verify_enclave(signed, manifest, nonce=NONCE, now=datetime.now(UTC), trust=trust)


def test_approved_enclave_is_verified() -> None:
    """An approved enclave yields the key that it attested, and its release."""
    now = datetime.now(UTC)
    enclave = verify_enclave(document(), MANIFEST.encode(), nonce=NONCE, now=now, trust=TRUST)
    assert enclave.public_key == KEY
    assert enclave.release == make_release()
    assert enclave.manifest == MANIFEST
    assert abs(enclave.document_age_seconds) < 5


@pytest.mark.parametrize("kind", ["kms", "receipt"])
def test_documents_of_other_kinds_are_refused(kind: str) -> None:
    """A document made for KMS or for a receipt attests no HPKE key."""
    with pytest.raises(AttestationError):
        verify(document(kind=kind))


def test_exchanged_manifest_is_refused() -> None:
    """The manifest must be the one whose digest is attested."""
    with pytest.raises(AttestationError):
        verify(document(), replace(MANIFEST, model="n").encode())


def test_other_weights_than_approved_are_refused() -> None:
    """An approved image that says it runs other weights than the release lists is refused."""
    manifest = replace(MANIFEST, weights_sha256=bytes(32)).encode()
    with pytest.raises(AttestationError, match="weights"):
        verify(document(manifest), manifest)


@pytest.mark.parametrize("key", [bytes(31), bytes(33), bytes(294)])
def test_key_of_another_kind_is_refused(key: bytes) -> None:
    """Only an X25519 key can be sealed to."""
    with pytest.raises(AttestationError, match="public key"):
        verify(document(key=key))


def test_manifest_that_is_none_is_refused() -> None:
    """Attested bytes that are no manifest of this version are a ProtocolError."""
    with pytest.raises(ProtocolError):
        verify(document(b"\xa0"), b"\xa0")


def test_empty_list_trusts_nobody() -> None:
    """Without approved releases no enclave is."""
    with pytest.raises(PcrMismatchError):
        verify(document(), trust=replace(TRUST, releases=()))


def test_production_trusts_aws_and_the_list(tmp_path: Path) -> None:
    """The deployed chatbot believes AWS's root and the releases on its own list."""
    path = tmp_path / "releases.json"
    path.write_bytes(encode_releases([make_release(kit="aws")]))
    trust = production_trust(path)
    assert trust.root == NITRO_ROOT
    assert [release.name for release in trust.releases] == ["test"]


@pytest.mark.parametrize("kit", ["process", "twin"])
def test_production_refuses_the_twins_releases(tmp_path: Path, kit: str) -> None:
    """A list with a release of the twin's is refused whole."""
    path = tmp_path / "releases.json"
    path.write_bytes(encode_releases([make_release(kit=kit)]))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=kit):
        production_trust(path)


def test_production_refuses_no_list_and_an_empty_one(tmp_path: Path) -> None:
    """No list, or an empty one, says where to get it and stops."""
    path = tmp_path / "releases.json"
    with pytest.raises(ConfigError, match="not from the server"):
        production_trust(path)
    path.write_bytes(encode_releases([]))
    with pytest.raises(ConfigError, match="approves no release"):
        production_trust(path)


def test_a_list_that_cannot_be_read_is_not_called_missing(tmp_path: Path) -> None:
    """Of a list that is there, it is said why it cannot be read."""
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\): let") as caught:
        production_trust(tmp_path)
    assert "no list" not in str(caught.value)


def test_the_list_counts_as_it_is_now(tmp_path: Path) -> None:
    """A release is trusted from when it is put on the list to when it is taken off again."""
    path = tmp_path / "releases.json"
    path.write_bytes(encode_releases([make_release("first", kit="aws")]))
    trust = production_trust(path)
    path.write_bytes(encode_releases([make_release("second", kit="aws")]))
    assert [release.name for release in trust.approved()] == ["second"]


@pytest.mark.parametrize("text", [None, b"", b"{", encode_releases([])])
def test_a_list_that_is_gone_or_malformed_trusts_nobody(tmp_path: Path, text: bytes | None) -> None:
    """Where the list cannot be read any more, no enclave is verified."""
    path = tmp_path / "releases.json"
    path.write_bytes(encode_releases([make_release(kit="aws")]))
    trust = replace(production_trust(path), root=TRUST.root)
    path.unlink() if text is None else path.write_bytes(text)
    with pytest.raises(ConfigError):
        verify(document(), trust=trust)
