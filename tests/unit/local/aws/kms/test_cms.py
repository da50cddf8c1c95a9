import subprocess
from pathlib import Path

import pytest
from asn1crypto import cms as asn1_cms
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from local.aws.kms.cms import Form, encode_cms

VECTORS = Path(__file__).parents[6] / "shared" / "vectors" / "kms"
MASKED = [slice(33, 65), slice(131, 387), slice(415, 431)]  # recipient, wrapped key, IV


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def spki_der(private_key: rsa.RSAPrivateKey) -> bytes:
    return private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def real_answer(name: str) -> bytes:
    if not VECTORS.is_dir():
        pytest.skip(f"no real answers of KMS at {VECTORS}, kept outside of the repository")
    return (VECTORS / name).read_bytes()


def masked(answer: bytes, ciphertext: slice) -> bytes:
    blank = bytearray(answer)
    for part in (*MASKED, ciphertext):
        blank[part] = bytes(len(blank[part]))
    return bytes(blank)


@pytest.mark.parametrize(
    ("name", "form", "plaintext_bytes", "ciphertext"),
    [
        ("kms_answer_1.ber", "constructed", 32, slice(435, 483)),
        ("kms_answer_2.ber", "primitive", 12, slice(433, 449)),
    ],
)
def test_kms_shape(
    spki_der: bytes, name: str, form: Form, plaintext_bytes: int, ciphertext: slice
) -> None:
    """
    But for what is random, our answers are the real KMS's answers byte for byte.
    """
    ours = encode_cms(bytes(plaintext_bytes), spki_der, form=form)
    assert masked(ours, ciphertext) == masked(real_answer(name), ciphertext)


@pytest.mark.parametrize("ci", ["true", ""])
def test_absent_vectors_are_told(monkeypatch: pytest.MonkeyPatch, ci: str) -> None:
    """
    Without the real answers, which are not ours to give, the test is skipped and says so, in CI,
    too, which may be anybody's.
    """
    monkeypatch.setitem(real_answer.__globals__, "VECTORS", Path("/nonexistent"))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(pytest.skip.Exception, match="no real answers"):
        real_answer("kms_answer_1.ber")


@pytest.mark.parametrize("segment_bytes", [1, 16, 1000])
def test_segments(spki_der: bytes, segment_bytes: int) -> None:
    """
    The constructed form splits its content where it is told to, and loses none.
    """
    answer = encode_cms(bytes(40), spki_der, form="constructed", segment_bytes=segment_bytes)
    parsed = asn1_cms.ContentInfo.load(answer)["content"]
    assert len(parsed["encrypted_content_info"]["encrypted_content"].native) == 48


@pytest.mark.parametrize("form", ["constructed", "primitive"])
def test_openssl_opens_it(
    private_key: rsa.RSAPrivateKey, spki_der: bytes, form: Form, tmp_path: Path
) -> None:
    """
    OpenSSL, which shares no code with us, opens both forms.
    """
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(
        private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    command = ["openssl", "cms", "-decrypt", "-inform", "DER", "-binary", "-inkey", str(key_file)]
    answer = encode_cms(b"a data key" * 400, spki_der, form=form)
    opened = subprocess.run(command, input=answer, capture_output=True, check=True)
    assert opened.stdout == b"a data key" * 400


def test_other_keys() -> None:
    """
    A recipient whose key is not RSA is refused.
    """
    public_key = ec.generate_private_key(ec.SECP384R1()).public_key()
    spki_der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(TypeError):
        encode_cms(b"", spki_der, form="primitive")
