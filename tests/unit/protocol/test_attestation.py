"""
Documents of real hardware and of the twin's NSM: what is accepted, and what never.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID
from hypothesis import given, settings
from hypothesis import strategies as st

from app.protocol import cbor
from app.protocol.asker.attestation import (
    Attestation,
    require_pcrs,
    require_user_data,
    verify_attestation,
)
from app.protocol.asker.chain import _load_issued
from app.protocol.asker.nitro_root import NITRO_ROOT, load_root
from app.protocol.attestation import Kind, encode_user_data
from app.protocol.errors import AttestationError, PcrMismatchError, ProtocolError
from app.protocol.releases import Measurements
from local.signers.nsm import (
    Unused,
    encode_payload,
    encode_pcrs,
    join_cose,
    make_fields,
    make_pcrs,
    sign_document,
)
from local.signers.pki import Chain, Identity, Key, issue, issue_leaf, make_chain, make_root
from tests.support import MEASUREMENTS, make_nsm, make_release

NOW: Final = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY: Final = timedelta(days=1)
SECOND: Final = timedelta(seconds=1)
NONCE: Final = bytes(range(32))
ROOT: Final = make_root(now=NOW - 90 * DAY)
CHAIN: Final = make_chain(ROOT, now=NOW)
PCRS: Final = make_pcrs(MEASUREMENTS)
NOTHING: Final[Mapping[str, bytes]] = MappingProxyType({})
REAL: Final = Path(__file__).parents[4] / "shared" / "vectors" / "attestation"
PROTECTED: Final = bytes.fromhex("a1013822")


def make_document(
    changes: Mapping[str, bytes] = NOTHING,
    *,
    chain: Chain = CHAIN,
    pcrs: Mapping[int, bytes] = PCRS,
    timestamp: datetime = NOW,
    indefinite: bool = True,
    unused: Unused = "null",
    high_s: bool | None = None,
    key: Key | None = None,
) -> bytes:
    """Sign a good document, but for *changes*: field name to the CBOR of its value."""
    fields = make_fields(chain, pcrs, timestamp=timestamp, nonce=NONCE, unused=unused)
    payload = encode_payload({**fields, **changes}, indefinite=indefinite)
    return sign_document(payload, key or chain.leaf.key, high_s=high_s)


def verify(document: bytes, *, now: datetime = NOW, nonce: bytes | None = NONCE) -> Attestation:
    return verify_attestation(document, root=ROOT.certificate, now=now, nonce=nonce)


DOCUMENT: Final = make_document()
PAYLOAD: Final = encode_payload(make_fields(CHAIN, PCRS, timestamp=NOW, nonce=NONCE))


# Real documents

NITROTPM: Final = REAL.parent / "nitrotpm"


def test_real_nitrotpm_document() -> None:
    """
    What AWS signs for an instance with a TPM has the enclaves' root, a good chain and a good
    signature, and is refused for what it is: its operator can log in to that machine.
    """
    documents = sorted(NITROTPM.glob("*.cbor"))
    if not documents:
        pytest.skip(f"no real NitroTPM document at {NITROTPM}, kept outside of the repository")
    for path in documents:
        document = path.read_bytes()
        for tag in (b"", b"\xd2"):
            with pytest.raises(AttestationError, match="other fields than an NSM writes"):
                verify_attestation(tag + document, root=NITRO_ROOT, now=NOW, nonce=None)


@dataclass(frozen=True)
class Real:
    """A document that a real NSM signed, and what its index says of it."""

    name: str
    valid: bool
    now: datetime

    @property
    def document(self) -> bytes:
        return (REAL / self.name).read_bytes()


def read_index() -> list[Real]:
    if not (REAL / "index.json").exists():
        return []
    return [
        Real(
            name=entry["file"],
            valid=entry["signature"] == "OK" and not entry["debug_mode"],
            now=datetime.fromtimestamp(entry["timestamp_ms"] / 1000, UTC),
        )
        for entry in json.loads((REAL / "index.json").read_text())
    ]


REAL_DOCUMENTS: Final = read_index()
each_real = pytest.mark.parametrize("real", REAL_DOCUMENTS, ids=lambda real: str(real.name[:8]))


def test_real_documents_are_here() -> None:
    """
    The real documents are good ones and bad ones; where there are none, this says so.
    """
    if not REAL_DOCUMENTS:
        pytest.skip(f"no real documents at {REAL}, kept outside of the repository")
    assert {real.valid for real in REAL_DOCUMENTS} == {True, False}


@each_real
def test_real_document_at_its_own_time(real: Real) -> None:
    """
    What AWS's hardware signed is accepted under AWS's root, but not in debug mode or altered.
    """
    if real.valid:
        attestation = verify_attestation(real.document, root=NITRO_ROOT, now=real.now, nonce=None)
        assert attestation.timestamp == real.now
        assert len(attestation.pcrs) == 16
    else:
        with pytest.raises(AttestationError, match=r"debug mode|signature does not verify"):
            verify_attestation(real.document, root=NITRO_ROOT, now=real.now, nonce=None)


@each_real
def test_real_document_a_day_later(real: Real) -> None:
    """
    A certificate that ran out is refused, however good the signature; the clock is named.
    """
    with pytest.raises(AttestationError, match=r"no longer valid at .* is this clock right"):
        verify_attestation(real.document, root=NITRO_ROOT, now=real.now + DAY, nonce=None)


@each_real
def test_real_document_under_another_root(real: Real) -> None:
    """
    AWS's root inside the document is not trusted for being there.
    """
    with pytest.raises(AttestationError, match="another root"):
        verify_attestation(real.document, root=ROOT.certificate, now=real.now, nonce=None)


@pytest.mark.skipif(not REAL_DOCUMENTS, reason="no real documents here")
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_flipped_bit_in_a_real_document(data: st.DataObject) -> None:
    """
    No bit of a real document can change.
    """
    real = data.draw(st.sampled_from([real for real in REAL_DOCUMENTS if real.valid]))
    altered = flip(real.document, data.draw(st.integers(0, 8 * len(real.document) - 1)))
    with pytest.raises(AttestationError):
        verify_attestation(altered, root=NITRO_ROOT, now=real.now, nonce=None)


def test_pinned_root() -> None:
    """
    The root is the one whose fingerprint AWS publishes, and another is refused at import.
    """
    fingerprint = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
    assert hashlib.sha256(NITRO_ROOT.public_bytes(Encoding.DER)).hexdigest() == fingerprint
    with pytest.raises(AttestationError, match="expected 641a0321"):
        load_root(ROOT.certificate.public_bytes(Encoding.PEM), fingerprint)


# What is accepted


@pytest.mark.parametrize("indefinite", [True, False])
@pytest.mark.parametrize("unused", ["null", "empty", "absent"])
def test_shapes_of_the_payload(*, indefinite: bool, unused: Unused) -> None:
    """
    Either length of map passes, and an absent, null or empty field is None.
    """
    attestation = verify(make_document(indefinite=indefinite, unused=unused))
    assert (attestation.user_data, attestation.public_key) == (None, None)
    assert attestation.nonce == NONCE
    assert attestation.timestamp == NOW
    assert attestation.measurements == MEASUREMENTS


@pytest.mark.parametrize("high_s", [True, False])
def test_either_s(*, high_s: bool) -> None:
    """
    Of the two signatures either passes, as half of all real ones have a high S.
    """
    verify(make_document(high_s=high_s))


@pytest.mark.parametrize("count", [3, 17, 32])
def test_number_of_pcrs(count: int) -> None:
    """
    Any registers pass as long as PCR0 to PCR2 are among them.
    """
    pcrs = {index: PCRS.get(index, bytes(48)) for index in range(count)}
    assert verify(make_document(pcrs=pcrs)).pcrs == pcrs


def test_tag_18() -> None:
    """
    The tag of COSE_Sign1 may be there.
    """
    assert verify(b"\xd2" + DOCUMENT) == verify(DOCUMENT)


def test_fields_of_1024_bytes() -> None:
    """
    Optional fields may be as long as real documents have them.
    """
    long = cbor.encode(b"x" * 1024)
    changes = {"public_key": long, "user_data": long, "nonce": long}
    assert verify(make_document(changes), nonce=b"x" * 1024).public_key == b"x" * 1024


def test_without_nonce() -> None:
    """
    None compares no nonce.
    """
    assert verify(DOCUMENT, nonce=None).nonce == NONCE


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_clock_within_leeway(seconds: int) -> None:
    """
    Five minutes either way pass, before the leaf's notBefore too.
    """
    chain = Chain(CHAIN.authorities, issue_leaf(CHAIN.authorities[-1], now=NOW + 3 * SECOND))
    verify(make_document(chain=chain), now=NOW + timedelta(seconds=seconds))


# Form of the document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "truncated"),
        (bytes(20 * 1024 + 1), "20481 bytes"),
        (b"\xd1" + DOCUMENT, "tags"),
        (b"\xd2\xd2" + DOCUMENT, "tags"),
        (DOCUMENT + b"\0", "after the CBOR item"),
        (DOCUMENT[:-1], "truncated"),
        (b"\x83" + DOCUMENT[1:-98], "array of four"),
        (b"\x84\xf6" + DOCUMENT[6:], "array of four"),
        (sign_document(PAYLOAD, CHAIN.leaf.key, protected=b"\xa1\x01\x38\x23"), "ES384"),
        (sign_document(PAYLOAD, CHAIN.leaf.key, protected=b"\xa1\x01\x26"), "ES384"),
        (sign_document(PAYLOAD, CHAIN.leaf.key, protected=b""), "ES384"),
        (sign_document(PAYLOAD, CHAIN.leaf.key, unprotected=b"\xa1\x04\x40"), "ES384"),
        (sign_document(b"", CHAIN.leaf.key), "payload has 0 bytes"),
        (sign_document(bytes(16 * 1024 + 1), CHAIN.leaf.key), "payload has 16385 bytes"),
        (join_cose(PROTECTED, b"\xa0", PAYLOAD, bytes(95)), "signature has 95 bytes"),
        (join_cose(PROTECTED, b"\xa0", PAYLOAD, bytes(97)), "signature has 97 bytes"),
        (join_cose(PROTECTED, b"\xa0", PAYLOAD, bytes(96)), "does not verify"),
        (join_cose(PROTECTED, b"\xa0", PAYLOAD, b"\xff" * 96), "does not verify"),
        (make_document(key=issue_leaf(ROOT, now=NOW).key), "does not verify"),
    ],
)
def test_malformed_cose(document: bytes, message: str) -> None:
    """
    The envelope around the payload has one form, algorithm and size.
    """
    with pytest.raises(AttestationError, match=message):
        verify(document)


TBS_OFFSET: Final = 4  # in a certificate's DER: after the head of the outer sequence
SERIAL_OFFSET: Final = 15  # then the head of the inner one, the version and its own head
CERTIFICATES: Final = [identity.der for identity in CHAIN.authorities]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nitrotpm_pcrs": encode_pcrs(PCRS.items())}, "other fields"),
        ({"module_id": cbor.encode("i-0123456789abcdef0-tpm0123456789abcdef")}, "module_id"),
        ({"module_id": cbor.encode(7)}, "other fields"),
        ({"digest": cbor.encode("SHA256")}, "other fields"),
        ({"timestamp": cbor.encode(0)}, "timestamp"),
        ({"timestamp": cbor.encode(-1)}, "timestamp"),
        ({"timestamp": cbor.encode(2**64 - 1)}, "timestamp"),
        ({"timestamp": b"\xf5"}, "other fields"),
        ({"pcrs": b"\xa0"}, "pcrs"),
        ({"pcrs": encode_pcrs((index, b"x" * 48) for index in range(33))}, "pcrs"),
        ({"pcrs": encode_pcrs([*PCRS.items(), (-1, bytes(48))])}, "pcrs"),
        ({"pcrs": encode_pcrs([*PCRS.items(), (16, bytes(32))])}, "pcrs"),
        ({"pcrs": encode_pcrs([*PCRS.items(), (0, bytes(48))])}, "key twice"),
        ({"pcrs": cbor.encode({"0": bytes(48)})}, "pcrs"),
        ({"pcrs": encode_pcrs((index, b"x" * 48) for index in (0, 1))}, "lacks PCR2"),
        ({"certificate": cbor.encode(b"")}, "1 to 1024"),
        ({"certificate": cbor.encode(bytes(1025))}, "1 to 1024"),
        ({"certificate": cbor.encode(bytes(64))}, "malformed"),
        ({"cabundle": cbor.encode([])}, "0 certificates"),
        ({"cabundle": cbor.encode(CERTIFICATES * 3)}, "12 certificates"),
        ({"cabundle": cbor.encode([*CERTIFICATES, None])}, "1 to 1024"),
        ({"cabundle": cbor.encode(CERTIFICATES[1:])}, "another root"),
        ({"cabundle": cbor.encode([CERTIFICATES[0], *CERTIFICATES[2:]])}, "not issued"),
        ({"cabundle": cbor.encode(CERTIFICATES[:-1])}, "not issued"),
        ({"cabundle": cbor.encode([CERTIFICATES[i] for i in (0, 2, 1, 3)])}, "not issued"),
        ({"public_key": cbor.encode(bytes(1025))}, "at most 1024"),
        ({"user_data": cbor.encode("text")}, "at most 1024"),
        ({"user_data": b"\xf4"}, "at most 1024"),
        ({"nonce": cbor.encode(0)}, "at most 1024"),
    ],
)
def test_malformed_payload(changes: dict[str, bytes], message: str) -> None:
    """
    A payload that is signed well but has any other field, size or order is refused.
    """
    with pytest.raises(AttestationError, match=message):
        verify(make_document(changes))


@pytest.mark.parametrize(
    "name", ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"]
)
def test_missing_field(name: str) -> None:
    """
    Only public_key, user_data and nonce may be absent.
    """
    fields = make_fields(CHAIN, PCRS, timestamp=NOW)
    del fields[name]
    with pytest.raises(AttestationError, match="other fields"):
        verify(sign_document(encode_payload(fields), CHAIN.leaf.key), nonce=None)


def test_repeated_field() -> None:
    """
    A field that stands twice is refused: readers differ on which one counts.
    """
    payload = PAYLOAD[:-1] + cbor.encode("digest") + cbor.encode("SHA384") + b"\xff"
    with pytest.raises(AttestationError, match="key twice"):
        verify(sign_document(payload, CHAIN.leaf.key))


# Certificates


def make_twisted(position: int, issued: Identity) -> bytes:
    """Put *issued* into the chain at *position* (4 is the leaf's) and make good what is below."""
    authorities = list(CHAIN.authorities)
    leaf = issued
    if position < 4:
        authorities[position:] = [issued]
        for path_length in range(2 - position, -1, -1):
            below = issue(
                authorities[-1], "below", start=NOW, end=NOW + DAY, path_length=path_length
            )
            authorities.append(below)
        leaf = issue_leaf(authorities[-1], now=NOW)
    return make_document(chain=Chain(tuple(authorities), leaf), key=leaf.key)


SIGNS: Final = ("digital_signature",)
INSTANCE: Final = CHAIN.authorities[3]


def test_twisting_alone_is_accepted() -> None:
    """
    The helper of the tests below makes good documents when it is given good certificates.
    """
    zone = issue(CHAIN.authorities[1], "zone", start=NOW, end=NOW + DAY, path_length=1)
    leaf = issue(INSTANCE, "leaf", start=NOW, end=NOW + DAY, ca=False, usages=SIGNS)
    verify(make_twisted(2, zone))
    verify(make_twisted(4, leaf))


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (NOW - DAY, NOW - SECOND, "no longer valid at 2026-03-01T12:00:00.*clock"),
        (NOW + 301 * SECOND, NOW + DAY, "not yet valid at 2026-03-01T12:00:00.*clock"),
    ],
)
@pytest.mark.parametrize("position", [1, 2, 3, 4])
def test_validity(position: int, start: datetime, end: datetime, message: str) -> None:
    """
    Every certificate must be valid now; when it is not, the message asks about the clock.
    """
    issuer, leaf = CHAIN.authorities[position - 1], position == 4
    usages = SIGNS if leaf else ("key_cert_sign",)
    bent = issue(
        issuer, "x", start=start, end=end, ca=not leaf, path_length=3 - position, usages=usages
    )
    with pytest.raises(AttestationError, match=message):
        verify(make_twisted(position, bent))


def test_expired_root() -> None:
    """
    The root's own end counts, too.
    """
    root = issue(None, "root", start=NOW - 2 * DAY, end=NOW - DAY, path_length=None)
    chain = make_chain(root, now=NOW)
    with pytest.raises(AttestationError, match="no longer valid"):
        verify_attestation(make_document(chain=chain), root=root.certificate, now=NOW, nonce=NONCE)


bent_leaf = partial(issue, INSTANCE, "leaf", start=NOW, end=NOW + DAY, ca=False, usages=SIGNS)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (bent_leaf(ca=True), "leaf certificate"),
        (bent_leaf(usages=()), "leaf certificate"),
        (bent_leaf(usages=("digital_signature", "key_cert_sign")), "leaf certificate"),
        (bent_leaf(constraints_critical=False), "not critical"),
        (bent_leaf(digest=SHA256()), "SHA-384"),
        (bent_leaf(key=ec.generate_private_key(ec.SECP256R1())), "P-384"),
        (bent_leaf(key=ec.generate_private_key(ec.BrainpoolP384R1())), "P-384"),
        (bent_leaf(extra=[(x509.OCSPNoCheck(), True)]), "critical extension"),
        (
            bent_leaf(
                extra=[
                    (
                        x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\xff"),
                        False,
                    )
                ]
            ),
            "malformed",
        ),
    ],
)
def test_bad_leaf(leaf: Identity, message: str) -> None:
    """
    A leaf signs documents and nothing else, on P-384, with no extension we do not understand.
    """
    document = make_twisted(4, leaf)[:-96] + bytes(96)
    with pytest.raises(AttestationError, match=message):
        verify(document)


def test_rsa_leaf() -> None:
    """
    An RSA leaf is refused for its key, before anyone tries to verify with it.
    """
    leaf = bent_leaf(key=rsa.generate_private_key(65537, 2048))
    document = make_document(chain=Chain(CHAIN.authorities, leaf), key=CHAIN.leaf.key)
    with pytest.raises(AttestationError, match="P-384"):
        verify(document)


def test_certificate_without_constraints() -> None:
    """
    A certificate that does not say whether it may issue others is refused.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(INSTANCE.certificate.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .sign(INSTANCE.key, SHA384())
    )
    with pytest.raises(AttestationError, match="malformed"):
        verify(make_twisted(4, Identity(certificate, key)))


bent_zone = partial(issue, CHAIN.authorities[1], "zone", start=NOW, end=NOW + DAY, path_length=1)


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        (bent_zone(ca=False), "may not issue"),
        (bent_zone(usages=SIGNS), "may not issue"),
        (bent_zone(path_length=0), "path length 0"),
        (bent_zone(digest=SHA256()), "SHA-384"),
        (bent_zone(key=ec.generate_private_key(ec.SECP256R1())), "P-384|SHA-384"),
        (bent_zone(constraints_critical=False), "not critical"),
        (bent_zone(extra=[(x509.OCSPNoCheck(), True)]), "critical extension"),
    ],
)
def test_bad_authority(zone: Identity, message: str) -> None:
    """
    An authority that may not issue, or not so deep, makes no chain.
    """
    with pytest.raises(AttestationError, match=message):
        verify(make_twisted(2, zone))


def test_leaf_that_issues() -> None:
    """
    Whoever holds a leaf's key cannot make a leaf of his own with it.
    """
    below = issue_leaf(CHAIN.leaf, now=NOW)
    chain = Chain((*CHAIN.authorities, CHAIN.leaf), below)
    with pytest.raises(AttestationError, match="may not issue"):
        verify(make_document(chain=chain))


def test_foreign_root() -> None:
    """
    A chain under another root is refused, with that root or ours at its head.
    """
    foreign = make_chain(make_root(now=NOW), now=NOW)
    headed = Chain((ROOT, *foreign.authorities[1:]), foreign.leaf)
    with pytest.raises(AttestationError, match="another root"):
        verify(make_document(chain=foreign))
    with pytest.raises(AttestationError, match="not issued by"):
        verify(make_document(chain=headed))


def make_flipped(position: int, bit: int) -> bytes:
    """Flip a bit in what the issuer signed of one certificate, and sign the document anew."""
    ders = [*CERTIFICATES, CHAIN.leaf.der]
    ders[position] = flip(ders[position], 8 * TBS_OFFSET + bit)
    changes = {"cabundle": cbor.encode(ders[:4]), "certificate": cbor.encode(ders[4])}
    return make_document(changes)


def test_known_certificates() -> None:
    """
    Certificates that were verified before, which are not verified again, run out all the same, and
    no altered one is taken for them.
    """
    verify(DOCUMENT)
    known = _load_issued.cache_info()
    verify(DOCUMENT)
    assert _load_issued.cache_info().hits == known.hits + 4
    assert _load_issued.cache_info().misses == known.misses
    with pytest.raises(AttestationError, match="no longer valid"):
        verify(DOCUMENT, now=NOW + DAY)
    for position in range(1, 5):
        with pytest.raises(AttestationError):
            verify(make_flipped(position, 0))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_flipped_bit_in_a_certificate(data: st.DataObject) -> None:
    """
    No bit that its issuer signed can change, even when the document around it is signed well.
    """
    position = data.draw(st.integers(0, 4))
    identity = [*CHAIN.authorities, CHAIN.leaf][position]
    size = len(identity.certificate.tbs_certificate_bytes)
    with pytest.raises(AttestationError):
        verify(make_flipped(position, data.draw(st.integers(0, 8 * size - 1))))


def test_negative_serial_number() -> None:
    """
    What the library only warns of is refused, too.
    """
    with pytest.raises(AttestationError, match="malformed"):
        verify(make_flipped(4, 8 * (SERIAL_OFFSET - TBS_OFFSET) + 7))


# Age, debug mode, nonce


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (301, "301.0 s old, at most 300: is this clock right"),
        (-301, "301.0 s ahead of this clock, at most 300"),
    ],
)
def test_age(seconds: int, message: str) -> None:
    """
    A document over five minutes old or ahead is refused, with both numbers.
    """
    with pytest.raises(AttestationError, match=message):
        verify(make_document(timestamp=NOW - timedelta(seconds=seconds)))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_debug_mode(index: int) -> None:
    """
    Zeros in any of PCR0, PCR1, PCR2 are refused before a nonce or release is looked at.
    """
    document = make_document(pcrs=PCRS | {index: bytes(48)})
    with pytest.raises(AttestationError, match="debug mode"):
        verify(document, nonce=b"another")


def test_debug_mode_of_the_twin() -> None:
    """
    The twin's NSM in debug mode is refused as the real one is.
    """
    nsm = make_nsm(debug=True)
    with pytest.raises(AttestationError, match="debug mode"):
        verify_attestation(
            nsm.document(), root=nsm.root.certificate, now=datetime.now(UTC), nonce=None
        )


@pytest.mark.parametrize("asked", [b"", bytes(32), NONCE[:-1], NONCE + b"\0"])
def test_wrong_nonce(asked: bytes) -> None:
    """
    Another nonce than the one asked for is refused, an empty one too.
    """
    with pytest.raises(AttestationError, match="nonce"):
        verify(DOCUMENT, nonce=asked)
    with pytest.raises(AttestationError, match="nonce"):
        verify(make_document({"nonce": b"\xf6"}), nonce=asked)


# Any bytes


def flip(data: bytes, bit: int) -> bytes:
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


@pytest.mark.parametrize("start", range(3))
def test_flipped_bit_along_a_document(start: int) -> None:
    """
    From the first byte to the last, no flipped bit is accepted.
    """
    for position in range(start, len(DOCUMENT), 3):
        with pytest.raises(AttestationError):
            verify(flip(DOCUMENT, 8 * position + position % 8))


@given(document=st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes(document: bytes) -> None:
    """
    Bytes of any kind are refused by the one documented error.
    """
    for prefix in (b"", b"\x84", DOCUMENT[:9], DOCUMENT[:200]):
        with pytest.raises(AttestationError):
            verify(prefix + document)


ANY_CBOR: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary() | st.text(),
    lambda item: st.lists(item, max_size=4) | st.dictionaries(st.text(), item, max_size=4),
    max_leaves=6,
)


@given(
    name=st.sampled_from([*make_fields(CHAIN, PCRS, timestamp=NOW), "other"]),
    value=ANY_CBOR.map(cbor.encode),
)
@settings(max_examples=150, deadline=None)
def test_any_field(name: str, value: bytes) -> None:
    """
    A document signed well with anything at all in one field is verified or refused, no more.
    """
    try:
        attestation = verify(make_document({name: value}))
    except AttestationError:
        return
    assert name in {"public_key", "user_data"}
    assert attestation.nonce == NONCE


# What the caller requires


KINDS: Final[tuple[Kind, ...]] = ("attest", "kms", "receipt")


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("asked", KINDS)
def test_kinds_are_never_confused(made: Kind, asked: Kind) -> None:
    """
    A document of one kind is accepted as that kind alone, for its digest alone.
    """
    digest = hashlib.sha256(b"manifest").digest()
    user_data = cbor.encode(encode_user_data(made, digest))
    attestation = verify(make_document({"user_data": user_data}))
    if made == asked:
        require_user_data(attestation, kind=asked, digest=digest)
        digest = bytes(32)
    with pytest.raises(AttestationError, match=f"kind {asked}"):
        require_user_data(attestation, kind=asked, digest=digest)


def test_user_data_of_none() -> None:
    """
    A document without user_data is of no kind.
    """
    with pytest.raises(AttestationError, match="user_data"):
        require_user_data(verify(DOCUMENT), kind="kms", digest=bytes(32))


def test_user_data_bytes() -> None:
    """
    The bytes are those of SPEC.md section 3, and no digest of another length gets in.
    """
    assert encode_user_data("kms", b"d" * 32) == b"enclave-llm/2 kms:" + b"d" * 32
    with pytest.raises(ProtocolError, match="31 bytes"):
        encode_user_data("kms", bytes(31))


def make_measurements(pcr0: int, pcr1: int, pcr2: int) -> Measurements:
    return Measurements(bytes([pcr0]) * 48, bytes([pcr1]) * 48, bytes([pcr2]) * 48)


def test_require_pcrs() -> None:
    """
    The release is found whose three PCRs are all those attested.
    """
    other = make_release("other", measurements=make_measurements(0xA0, 0xA1, 0xA2))
    assert require_pcrs(verify(DOCUMENT), [other, make_release()]) == make_release()


def test_pcr_mismatch_names_the_nearest() -> None:
    """
    The message says which PCR differs from the nearest release, and how.
    """
    far = make_release("far", measurements=make_measurements(0xA0, 0xA1, 0xA2))
    near = make_release("near", measurements=make_measurements(0x10, 0x11, 0xA2))
    with pytest.raises(PcrMismatchError) as caught:
        require_pcrs(verify(DOCUMENT), [far, near])
    assert str(caught.value) == (
        "enclave is not release near: PCR2 is 12121212…1212, expected a2a2a2a2…a2a2"
    )


def test_pcrs_of_two_releases_do_not_mix() -> None:
    """
    PCR0 of one release with PCR1 and PCR2 of another is neither.
    """
    first = make_release("first", measurements=make_measurements(0x10, 0xA1, 0xA2))
    second = make_release("second", measurements=make_measurements(0xA0, 0x11, 0x12))
    with pytest.raises(PcrMismatchError):
        require_pcrs(verify(DOCUMENT), [first, second])


def test_no_release() -> None:
    """
    An empty list trusts nobody.
    """
    with pytest.raises(PcrMismatchError, match="no release is approved"):
        require_pcrs(verify(DOCUMENT), [])
