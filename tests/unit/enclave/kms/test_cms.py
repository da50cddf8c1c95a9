import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asn1crypto import cms as asn1_cms
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from app.enclave.kms.cms import MAX_CMS_BYTES, open_cms, parse_cms
from app.protocol.errors import KmsError
from local.aws.kms.cms import Form, encode_cms

VECTORS = Path(__file__).parents[5] / "shared" / "vectors" / "kms"
REAL_ANSWERS = ["kms_answer_1.ber", "kms_answer_2.ber"]
FORMS = st.sampled_from(["constructed", "primitive"])
PRIVATE_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SPKI_DER = PRIVATE_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
DATA_KEY = bytes(range(32))
ANSWERS: dict[Form, bytes] = {
    "constructed": encode_cms(DATA_KEY, SPKI_DER, form="constructed", segment_bytes=16),
    "primitive": encode_cms(DATA_KEY, SPKI_DER, form="primitive"),
}


def real_answer(name: str) -> bytes:
    if not VECTORS.is_dir():
        pytest.skip(f"no real answers of KMS at {VECTORS}, kept outside of the repository")
    return (VECTORS / name).read_bytes()


def assert_parsed_alike(answer: bytes) -> None:
    """Our reader and asn1crypto see the same fields."""
    ours = parse_cms(answer)
    theirs = asn1_cms.ContentInfo.load(answer, strict=True)["content"]
    (recipient,) = theirs["recipient_infos"]
    content = theirs["encrypted_content_info"]
    assert ours.recipient_digest == recipient.chosen["rid"].native
    assert ours.wrapped_content_key == recipient.chosen["encrypted_key"].native
    assert ours.iv == content["content_encryption_algorithm"]["parameters"].native
    assert ours.ciphertext == content["encrypted_content"].native


@pytest.mark.parametrize("name", REAL_ANSWERS)
def test_real_answers(name: str) -> None:
    """
    What the real KMS wrote is parsed, and as an independent parser does.
    """
    assert_parsed_alike(real_answer(name))


@given(plaintext=st.binary(max_size=2000), form=FORMS, segment_bytes=st.integers(1, 5000))
@example(plaintext=b"", form="constructed", segment_bytes=1)
@example(plaintext=bytes(111), form="primitive", segment_bytes=1)  # 112 and 128 bytes encrypted:
@example(plaintext=bytes(127), form="primitive", segment_bytes=1)  # where the length grows
def test_round_trip(plaintext: bytes, form: Form, segment_bytes: int) -> None:
    """
    Whatever the twin's KMS encrypts opens, in either form and however it is split.
    """
    answer = encode_cms(plaintext, SPKI_DER, form=form, segment_bytes=segment_bytes)
    assert open_cms(answer, PRIVATE_KEY) == plaintext
    assert_parsed_alike(answer)


@given(data=st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    """
    Any bytes are refused with the one documented error.
    """
    with pytest.raises(KmsError):
        parse_cms(data)


@given(
    form=FORMS,
    position=st.integers(0, 10_000),
    replacement=st.binary(max_size=40),
    removed=st.integers(0, 40),
)
def test_any_change(form: Form, position: int, replacement: bytes, removed: int) -> None:
    """
    A changed answer opens as something, for CMS has no MAC, or is refused; nothing else.
    """
    answer = ANSWERS[form]
    at = position % len(answer)
    changed = answer[:at] + replacement + answer[at + removed :]
    with suppress(KmsError):
        open_cms(changed, PRIVATE_KEY)


def test_size_limit() -> None:
    """
    KMS's largest plaintext opens; beyond `MAX_CMS_BYTES` nothing is even read.
    """
    largest = encode_cms(bytes(4096), SPKI_DER, form="constructed")
    assert open_cms(largest, PRIVATE_KEY) == bytes(4096)
    too_large = encode_cms(bytes(MAX_CMS_BYTES), SPKI_DER, form="constructed")
    with pytest.raises(KmsError, match="at most 8192"):
        parse_cms(too_large)


@pytest.mark.parametrize("form", ["constructed", "primitive"])
def test_truncations(form: Form) -> None:
    """
    An answer that lost any of its end is refused, and one with a byte more as well.
    """
    answer = ANSWERS[form]
    for size in range(len(answer)):
        with pytest.raises(KmsError):
            parse_cms(answer[:size])
    with pytest.raises(KmsError, match="after its end"):
        parse_cms(answer + b"\0")


def test_every_fixed_bit() -> None:
    """
    No bit outside the four fields can change: the shape is KMS's, exactly.
    """
    answer = ANSWERS["primitive"]
    parsed = parse_cms(answer)
    fields = (parsed.recipient_digest, parsed.wrapped_content_key, parsed.iv, parsed.ciphertext)
    inside = {answer.index(one) + n for one in fields for n in range(len(one))}
    for position in set(range(len(answer))) - inside:
        for bit in range(8):
            changed = bytearray(answer)
            changed[position] ^= 1 << bit
            with pytest.raises(KmsError):
                parse_cms(bytes(changed))


@pytest.mark.parametrize(
    "content",
    [
        "a080" + "0000",  # no octet string
        "a080" + "0400" + "0410" + "00" * 16 + "0000",  # an empty one
        "8000",
        "800f" + "00" * 15,  # no whole block
        "a080" + "040f" + "00" * 15 + "0000",
        "808110" + "00" * 16,  # a length longer than need be
        "80820010" + "00" * 16,
        "80800410" + "00" * 16 + "0000",  # indefinite, but primitive
        "a01204" + "10" + "00" * 16,  # constructed, but definite
        "a080" + "2480" + "0410" + "00" * 16 + "0000" + "0000",  # nested
        "a080" + "0510" + "00" * 16 + "0000",  # no octet string
        "80ff" + "ff" * 127,  # longer than anything
    ],
)
def test_content_shapes(content: str) -> None:
    """
    Content that is empty, no whole blocks, or of another BER form is refused.
    """
    answer = ANSWERS["primitive"]
    prefix = answer[: answer.index(parse_cms(answer).ciphertext) - 2]
    with pytest.raises(KmsError):
        parse_cms(prefix + bytes.fromhex(content) + bytes(8))


def test_another_recipient() -> None:
    """
    An answer for another RSA key is refused before any decryption.
    """
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(KmsError, match="another recipient"):
        open_cms(ANSWERS["primitive"], other)


def test_decryption_failures_look_alike() -> None:
    """
    Which step failed does not show: OAEP, the content key's size or the padding.
    """
    answer = ANSWERS["primitive"]
    parsed = parse_cms(answer)
    broken = [
        answer.replace(parsed.wrapped_content_key, bytes(256)),
        answer.replace(parsed.wrapped_content_key, wrapped(bytes(16))),
        answer.replace(parsed.ciphertext, parsed.ciphertext[::-1]),
    ]
    for one in broken:
        with pytest.raises(KmsError) as raised:
            open_cms(one, PRIVATE_KEY)
        assert str(raised.value) == "CMS does not open"
        assert raised.value.__context__ is None


def wrapped(content_key: bytes) -> bytes:
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), label=None)
    return PRIVATE_KEY.public_key().encrypt(content_key, oaep)


def test_repr_hides_fields() -> None:
    """
    A parsed answer shows whom it is for and nothing else.
    """
    shown = repr(parse_cms(ANSWERS["primitive"]))
    assert shown.startswith("Cms(recipient_digest=")
    assert "iv" not in shown
    assert "content" not in shown


def certificate() -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "recipient")])
    now = datetime.now(UTC)
    ends = now + timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, PRIVATE_KEY.public_key(), 1, now, ends)
    identifier = x509.SubjectKeyIdentifier.from_public_key(PRIVATE_KEY.public_key())
    return builder.add_extension(identifier, critical=False).sign(PRIVATE_KEY, SHA256())


@pytest.mark.parametrize("options", [[], ["-stream", "-indef"]])
def test_openssl_made(options: list[str], tmp_path: Path) -> None:
    """
    Sound CMS that KMS would not write is refused: DER, short key identifiers, no NULLs.
    """
    certificate_file = tmp_path / "certificate.pem"
    certificate_file.write_bytes(certificate().public_bytes(Encoding.PEM))
    oaep = ["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"]
    command = ["openssl", "cms", "-encrypt", "-keyid", "-aes-256-cbc", "-binary"]
    command += [*options, "-outform", "DER", "-recip", str(certificate_file), *oaep]
    made = subprocess.run(command, input=DATA_KEY, capture_output=True, check=True).stdout
    assert asn1_cms.ContentInfo.load(made)["content_type"].native == "enveloped_data"
    with pytest.raises(KmsError):
        open_cms(made, PRIVATE_KEY)
