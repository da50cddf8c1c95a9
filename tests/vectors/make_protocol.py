"""
Make tests/vectors/protocol/*.json: a second implementation of SPEC.md, for sealing and signing.

It imports nothing of app/, so that a mistake there is not repeated here, and draws nothing at
random: every key and salt is SHA-256 of a name, so the same files come out each time. Each file
has one outcome: "expect" is "success" or the error's name, "comment" says why.

Run it from the repository's root; an argument is the folder to write to.
"""

import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

FOLDER: Final = Path(__file__).parent / "protocol"

Item = (
    bool | int | bytes | str | Sequence["Item"] | Mapping[int, "Item"] | Mapping[str, "Item"] | None
)
Vector = dict[str, object]


# The primitives, as SPEC.md names them.


def h(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def expand(key: bytes, info: bytes, size: int) -> bytes:
    made = block = b""
    while len(made) < size:
        block = mac(key, block + info + bytes([len(made) // 32 + 1]))
        made += block
    return made[:size]


def hkdf(ikm: bytes, info: bytes, salt: bytes = bytes(32)) -> bytes:
    return expand(mac(salt, ikm), info, 32)


def gcm(key: bytes, plaintext: bytes, aad: bytes, nonce: bytes = bytes(12)) -> bytes:
    return AESGCM(key).encrypt(nonce, plaintext, aad)


def cbor(item: Item) -> bytes:
    if item is None:
        return b"\xf6"
    if isinstance(item, bool):
        return b"\xf5" if item else b"\xf4"
    if isinstance(item, int):
        return head(0, item) if item >= 0 else head(1, -1 - item)
    if isinstance(item, bytes):
        return head(2, len(item)) + item
    if isinstance(item, str):
        return head(3, len(item.encode())) + item.encode()
    if isinstance(item, Mapping):
        return head(5, len(item)) + b"".join(cbor(k) + cbor(v) for k, v in item.items())
    return head(4, len(item)) + b"".join(map(cbor, item))


def head(major: int, number: int) -> bytes:
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 24:
            return bytes([major * 32 + number])
        if number < 256**size:
            return bytes([major * 32 + code]) + number.to_bytes(size)
    raise ValueError(number)


def block(item: bytes, size: int) -> bytes:
    return (len(item).to_bytes(4) + item).ljust(size, b"\0")


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4) + payload


# RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.

_KEM: Final = b"KEM" + (0x0020).to_bytes(2)
_SUITE: Final = b"HPKE" + (0x0020).to_bytes(2) + (0x0001).to_bytes(2) + (0x0002).to_bytes(2)


def labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return mac(salt or bytes(32), b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    return expand(prk, size.to_bytes(2) + b"HPKE-v1" + suite + label + info, size)


def hpke(plaintext: bytes, *, recipient: X25519PrivateKey, sender: bytes, info: bytes) -> bytes:
    """Seal with the ephemeral private key *sender*, which HPKE would draw."""
    ephemeral = X25519PrivateKey.from_private_bytes(sender)
    enc = ephemeral.public_key().public_bytes_raw()
    context = enc + recipient.public_key().public_bytes_raw()
    prk = labeled_extract(_KEM, b"", b"eae_prk", ephemeral.exchange(recipient.public_key()))
    secret = labeled_expand(_KEM, prk, b"shared_secret", context, 32)
    schedule = b"\0" + labeled_extract(_SUITE, b"", b"psk_id_hash", b"")
    schedule += labeled_extract(_SUITE, b"", b"info_hash", info)
    prk = labeled_extract(_SUITE, secret, b"secret", b"")
    key = labeled_expand(_SUITE, prk, b"key", schedule, 32)
    nonce = labeled_expand(_SUITE, prk, b"base_nonce", schedule, 12)
    return enc + gcm(key, plaintext, b"", nonce)


# One asker, one enclave, one question.

PRIVATE_KEY: Final = h(b"the enclave's HPKE key")
ENCLAVE: Final = X25519PrivateKey.from_private_bytes(PRIVATE_KEY)
PUBLIC_KEY: Final = ENCLAVE.public_key().public_bytes_raw()
MANIFEST_DIGEST: Final = h(b"the manifest")
QUESTION_KEY: Final = h(b"the question data key")
ANSWER_KEY: Final = h(b"the answer data key")
ANSWER_SECRET: Final = h(b"the answer secret")
CONVERSATION: Final = h(b"the conversation")[:16]
OTHER: Final = h(b"another")
TURN: Final = 3
ARN: Final = "arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555"
REQUEST_DIGEST: Final = h(b"the sealed request")
HEADER: Final = b"\x82" + b"the wrapped answer key"
TEXT: Final = "Who else can read this?"
NO: Final = "EnvelopeError"
BAD: Final = "ProtocolError"


def question(**changes: Item) -> bytes:
    fields: dict[str, Item] = {
        "messages": [["system", "Be brief.", ""], ["user", TEXT, ""]],
        "tools": None,
        "tool_choice": "auto",
        "tool_calls": "many",
        "schema": None,
        "thinking": "auto",
        "max_tokens": 64,
        "temperature": 700_000,
        "top_p": 950_000,
        "top_k": 40,
        "min_p": 0,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "repetition_penalty": 1_000_000,
        "logit_bias": [],
        "logprobs": None,
        "n": 1,
        "seed": None,
        "stop": ["\n\n"],
        "padding": "constant",
    }
    return cbor(fields | changes)


def envelope(
    plaintext: bytes,
    *,
    data_key: bytes = QUESTION_KEY,
    conversation: bytes = CONVERSATION,
    turn: int = TURN,
    arn: str = ARN,
    label: bytes = b"enclave-llm/2 question",
) -> bytes:
    salt = h(b"the salt")
    bound = label + conversation + turn.to_bytes(4)
    return salt + gcm(hkdf(data_key, bound, salt), plaintext, bound + arn.encode())


def authorization(**changes: Item) -> dict[str, Item]:
    fields: dict[str, Item] = {
        "access_key_id": "ASIAEXAMPLEEXAMPLE00",
        "secret_access_key": "a/secret+access=key",
        "session_token": "a-session-token",
        "key_arn": ARN,
        "fips": False,
        "wrapped_question_key": b"the wrapped question key",
        "answer_secret": ANSWER_SECRET,
        "conversation": CONVERSATION,
        "turn": TURN,
    }
    return fields | changes


def sealed_request(
    inside: bytes, *, manifest: bytes = MANIFEST_DIGEST, label: bytes = b"enclave-llm/2 request"
) -> bytes:
    info = label + manifest + h(PUBLIC_KEY)
    ciphertext = hpke(inside, recipient=ENCLAVE, sender=h(b"ephemeral"), info=info)
    return b"\2" + h(PUBLIC_KEY)[:8] + len(ciphertext).to_bytes(4) + ciphertext


def answer_frame(
    number: int, plaintext: bytes, *, final: bool = False, digest: bytes = REQUEST_DIGEST
) -> bytes:
    key = hkdf(ANSWER_KEY + ANSWER_SECRET, b"enclave-llm/2 answer" + digest + h(HEADER))
    aad = digest + number.to_bytes(4) + bytes([final])
    return bytes([0x84 if final else 0x83]) + gcm(key, plaintext, aad, number.to_bytes(12))


def part(kind: int, data: bytes, index: int = 0) -> bytes:
    return bytes([kind, index]) + len(data).to_bytes(2) + data


def parts(*items: bytes) -> bytes:
    return b"".join(items).ljust(1024, b"\0")


def one(kind: int, data: bytes, index: int = 0) -> bytes:
    return parts(part(kind, data, index))


def sealed_error(inside: bytes, *, label: bytes = b"enclave-llm/2 error") -> bytes:
    return gcm(hkdf(ANSWER_SECRET, label + REQUEST_DIGEST), inside, REQUEST_DIGEST)


def flip(data: bytes, position: int, mask: int = 1) -> bytes:
    altered = bytearray(data)
    altered[position] ^= mask
    return bytes(altered)


# The vectors, by what they open.


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def frames() -> Iterator[tuple[str, Vector]]:
    two = frame(b"\1first") + frame(b"\2second")

    def vector(stream: bytes, payloads: Iterable[bytes], expect: str, comment: str) -> Vector:
        return {
            "opens": "frames", "stream": b64(stream), "payloads": [b64(p) for p in payloads],
            "expect": expect, "comment": comment,
        }  # fmt: skip

    both = [b"\1first", b"\2second"]
    yield "frames", vector(two, both, "success", "two frames")
    yield "frames-cut", vector(two[:-1], both[:1], "ProtocolError", "the last byte is missing")
    yield "frames-cut-in-length", vector(two[:12], both[:1], "ProtocolError", "half a length")
    yield "frames-empty", vector(bytes(4), [], "ProtocolError", "a payload has 1 byte or more")
    yield "frames-too-long", vector(b"\0\x10\0\1", [], "ProtocolError", "one over 1,048,576")


def messages() -> Iterator[tuple[str, Vector]]:
    def vector(payload: bytes, expect: str, comment: str) -> Vector:
        return {"opens": "message", "payload": b64(payload), "expect": expect, "comment": comment}

    yield "message-attest", vector(b"\1" + bytes(32), "success", "a nonce of 32 bytes")
    yield "message-short-nonce", vector(b"\1" + bytes(31), BAD, "a nonce of 31 bytes")
    yield "message-empty", vector(b"", BAD, "a message has a kind")
    yield "message-kind", vector(b"\6", BAD, "no message has kind 6")
    pair = b"\x81" + cbor([b"document", b"manifest"])
    yield "message-attestation", vector(pair, "success", "a document and a manifest")
    yield (
        "message-attestation-more",
        vector(b"\x81" + cbor([b"d", b"m", b"x"]), BAD, "a third byte string"),
    )
    yield (
        "message-attestation-indefinite",
        vector(b"\x81\x9f\x41a\x41b\xff", BAD, "an array of indefinite length"),
    )
    yield (
        "message-attestation-long-form",
        vector(b"\x81\x82\x58\x01a\x41b", BAD, "a length that is not the shortest"),
    )
    yield "message-header", vector(HEADER, "success", "a wrapped answer key")
    yield (
        "message-header-long",
        vector(b"\x82" + bytes(6145), BAD, "a wrapped key has at most 6,144 bytes"),
    )
    health: dict[str, Item] = {
        "active": 1, "waiting": 0, "answered": 7, "failed": 2, "refused": 3, "loading": None,
    }  # fmt: skip
    for name, changes, expect, comment in (
        ("", {}, "success", "five counts"),
        ("-loading", {"loading": [1, 4_000_000_000]}, "success", "one byte of its weights is in"),
        ("-overloaded", {"loading": [5, 4]}, BAD, "more bytes than there are"),
        ("-text", {"last": "x"}, BAD, "no room for text"),
        ("-boolean", {"failed": False}, BAD, "a boolean is no count"),
    ):
        changed: dict[str, Item] = health | changes
        yield f"message-health{name}", vector(b"\x8f" + cbor(changed), expect, comment)


def hints() -> Iterator[tuple[str, Vector]]:
    for name, body, code in (
        ("version", b"version", "version"),
        ("unknown", b"attestation", "internal"),
        ("bytes", b"\xff", "internal"),
    ):
        comment = "a code of the wire" if code == name else "another code is told as internal"
        yield (
            f"hint-{name}",
            {"opens": "hint", "body": b64(body), "code": code, "expect": "success",
             "comment": comment},
        )  # fmt: skip


def manifests() -> Iterator[tuple[str, Vector]]:
    def vector(data: bytes, expect: str, comment: str) -> Vector:
        return {"opens": "manifest", "manifest": b64(data), "expect": expect, "comment": comment}

    fields: dict[str, Item] = {
        "protocol": 2, "model": "bloom-560m", "label": "a model", "weights": OTHER,
        "context": 2048, "max_question": 262_140,
    }  # fmt: skip
    older: dict[str, Item] = fields | {"protocol": 1}
    newer: dict[str, Item] = fields | {"protocol": 3, "more": True}
    nested: Item = 1
    for _ in range(9):
        nested = [nested]
    yield "manifest", vector(cbor(fields), "success", "the enclave's word on itself")
    yield "manifest-older", vector(cbor(older), "VersionError", "version 1 had the same keys")
    yield "manifest-newer", vector(cbor(newer), "VersionError", "whatever else version 3 has")
    yield "manifest-order", vector(cbor(dict(reversed(fields.items()))), BAD, "keys moved")
    yield "manifest-none", vector(cbor([2]), BAD, "no map, so it states no version")
    deep: dict[str, Item] = fields | {"model": nested}
    yield "manifest-deep", vector(cbor(deep), BAD, "arrays and maps ten deep")


def kms_hosts() -> Iterator[tuple[str, Vector]]:
    def vector(arn: str, host: str, expect: str, comment: str, *, fips: bool = False) -> Vector:
        return {
            "opens": "kms_host", "key_arn": arn, "fips": fips, "host": host, "expect": expect,
            "comment": comment,
        }  # fmt: skip

    def arn(partition: str, region: str) -> str:
        return ARN.replace("arn:aws:", f"arn:{partition}:").replace("eu-central-1", region)

    cases = (
        ("aws", arn("aws", "eu-central-1"), "kms.eu-central-1.amazonaws.com"),
        ("new", arn("aws", "mx-central-1"), "kms.mx-central-1.amazonaws.com"),
        ("gov", arn("aws-us-gov", "us-gov-east-1"), "kms.us-gov-east-1.amazonaws.com"),
        ("cn", arn("aws-cn", "cn-north-1"), "kms.cn-north-1.amazonaws.com.cn"),
    )
    for name, key, host in cases:
        yield f"region-{name}", vector(key, host, "success", "a Region of its partition")
    for name, key, host in cases[:3]:
        other = host.replace("kms.", "kms-fips.")
        yield f"region-{name}-fips", vector(key, other, "success", "its FIPS name", fips=True)
    yield "region-cn-fips", vector(cases[3][1], "", BAD, "China has no FIPS name", fips=True)
    east = arn("aws", "ap-east-2")
    yield "region-no-fips", vector(east, "", BAD, "this Region has no FIPS name", fips=True)
    yield "region-moved", vector(arn("aws", "us-gov-east-1"), "", BAD, "of another partition")
    yield "region-unknown", vector(arn("aws", "eu-central-9"), "", BAD, "no Region of the table")
    yield "region-iso", vector(arn("aws-iso", "us-iso-east-1"), "", BAD, "no such partition")


def envelopes() -> Iterator[tuple[str, Vector]]:
    def vector(sealed: bytes, expect: str, comment: str) -> Vector:
        return {
            "opens": "envelope", "envelope": b64(sealed), "data_key": b64(QUESTION_KEY),
            "key_arn": ARN, "conversation": b64(CONVERSATION), "turn": TURN, "text": TEXT,
            "expect": expect, "comment": comment,
        }  # fmt: skip

    plain = block(question(), 1024)  # of a length that `sealed_request` would refuse
    good = envelope(plain)
    no = NO
    yield (
        "envelope",
        vector(envelope(block(question(), 16_384)), "success", "a question of 16 kibibytes"),
    )
    yield "envelope-salt", vector(flip(good, 0), no, "a bit of the salt is another")
    yield "envelope-tag", vector(flip(good, -1), no, "a bit of the tag is another")
    yield "envelope-cut", vector(good[:-1], no, "the last byte is missing")
    yield "envelope-turn", vector(envelope(plain, turn=4), no, "sealed for another turn")
    yield (
        "envelope-conversation",
        vector(envelope(plain, conversation=OTHER[:16]), no, "sealed for another conversation"),
    )
    yield (
        "envelope-key",
        vector(envelope(plain, arn=ARN.replace("1111-", "9999-")), no, "names another KMS key"),
    )
    yield (
        "envelope-label",
        vector(envelope(plain, label=b"enclave-llm/1 question"), no, "of another version"),
    )
    bad = "ProtocolError"
    yield (
        "envelope-padding",
        vector(envelope(flip(plain, -1)), bad, "the padding is not all zeros"),
    )
    yield (
        "envelope-length",
        vector(envelope(b"\0\0\4\0" + plain[4:]), bad, "longer inside than the block"),
    )


def questions() -> Iterator[tuple[str, Vector]]:
    def vector(data: bytes, expect: str, comment: str) -> Vector:
        return {"opens": "question", "question": b64(data), "expect": expect, "comment": comment}

    for name, changes, comment in _good_questions():
        yield f"question{name}", vector(question(**changes), "success", comment)
    for name, changes, comment in _bad_questions():
        yield f"question-{name}", vector(question(**changes), BAD, comment)
    fields = question()
    longer = fields.replace(b"\x65top_k\x18\x28", b"\x65top_k\x19\x00\x28")
    yield "question-long-form", vector(longer, BAD, "40 in two bytes where one does")
    indefinite = b"\xbf" + fields[1:] + b"\xff"
    yield "question-indefinite", vector(indefinite, BAD, "a map of indefinite length")
    yield "question-after", vector(fields + b"\0", BAD, "a byte after the map")


CALL: Final[Item] = ["call_1", "find_letter", '{"name": "Ada"}']


def _good_questions() -> Iterator[tuple[str, dict[str, Item], str]]:
    asked: Item = ["user", "a", ""]
    called: Item = ["assistant", "", "", "I need her letter.", [CALL]]
    result: Item = ["tool", "Dear Sir", "find_letter", "call_1"]
    yield "", {}, "two messages, most options as if left out"
    yield "-tools", {
        "messages": [asked, called, result], "tools": '[{"type": "function"}]',
        "tool_choice": "function:find_letter", "tool_calls": "one",
    }, "a tool's result is the last message"  # fmt: skip
    yield "-continued", {"messages": [asked, ["assistant", "Dear", "", "", []]]}, "to be continued"
    yield "-named", {"messages": [["user", "a", "Ada"]]}, "a name of who asks"
    yield "-options", {
        "schema": '{"type": "object"}', "thinking": "low", "min_p": 50_000,
        "presence_penalty": -2_000_000, "frequency_penalty": 2_000_000,
        "repetition_penalty": 1_100_000, "logit_bias": [0, -100_000_000, 50_256, 100_000_000],
        "logprobs": 20, "n": 16, "seed": 2**63 - 1, "padding": "off",
    }, "every option at an end of its range"  # fmt: skip


def _bad_questions() -> Iterator[tuple[str, dict[str, Item], str]]:
    yield "empty", {"messages": [["user", " ", ""]]}, "the last message has no text"
    yield "none", {"messages": []}, "there is no message"
    yield "system", {"messages": [["system", "a", ""]]}, "the last message asks nothing"
    yield "role", {"messages": [["robot", "a", ""], ["user", "b", ""]]}, "no role is called robot"
    yield "short", {"messages": [["user", "a"]]}, "a message of version 1, without a name"
    yield "name", {"messages": [["user", "a", "A da"]]}, "a name with a blank"
    yield "id", {"messages": [["tool", "a", "find", ""]]}, "a tool's message without its call"
    called: Item = ["assistant", "a", "", "", [CALL]]
    yield "called", {"messages": [called]}, "nothing answers to the last message's call"
    yield "temperature", {"temperature": 2_000_001}, "temperature is at most 2"
    yield "boolean", {"temperature": True}, "a boolean is no number"
    yield "top-p", {"top_p": 0}, "top_p is over 0"
    yield "min-p", {"min_p": 1_000_001}, "min_p is at most 1"
    yield "presence", {"presence_penalty": -2_000_001}, "a penalty is at least -2"
    yield "frequency", {"frequency_penalty": 2_000_001}, "a penalty is at most 2"
    yield "repetition", {"repetition_penalty": 0}, "that would divide by 0"
    yield "n", {"n": 17}, "at most 16 answers"
    yield "no-n", {"n": None}, "one answer is said, not left out"
    yield "logprobs", {"logprobs": 21}, "at most 20 alternatives"
    yield "bias-pairs", {"logit_bias": [1]}, "a token without its bias"
    yield "bias-order", {"logit_bias": [2, 0, 1, 0]}, "tokens do not ascend"
    yield "bias-twice", {"logit_bias": [1, 0, 1, 5]}, "a token twice"
    yield "bias", {"logit_bias": [1, 100_000_001]}, "a bias is at most 100"
    yield "bias-many", {"logit_bias": [n // 2 for n in range(602)]}, "301 tokens"
    yield "thinking", {"thinking": "deep"}, "no way to think is called deep"
    yield "choice", {"tool_choice": "required"}, "there are no tools to require"
    yield "function", {"tools": "[]", "tool_choice": "function:a b"}, "a name with a blank"
    yield "tool-calls", {"tool_calls": "few"}, "many or one"
    yield "stops", {"stop": ["a"] * 5}, "at most four stop strings"
    yield "stop", {"stop": ["\u00e9" * 129]}, "258 bytes, though 129 characters"
    yield "padding", {"padding": "some"}, "padding is constant or off"
    yield "extra", {"user": "me"}, "a key that the spec does not have"


def sealed_requests() -> Iterator[tuple[str, Vector]]:
    def vector(request: bytes, expect: str, comment: str) -> Vector:
        return {
            "opens": "sealed_request", "request": b64(request), "private_key": b64(PRIVATE_KEY),
            "manifest_digest": b64(MANIFEST_DIGEST), "data_key": b64(QUESTION_KEY), "text": TEXT,
            "expect": expect, "comment": comment,
        }  # fmt: skip

    sealed = envelope(block(question(), 16_384))
    inside = block(cbor(authorization()), 8192) + sealed
    good = sealed_request(inside)
    small = sealed_request(b"what does not open needs no size")
    no, bad = NO, BAD
    yield "request", vector(good, "success", "a whole sealed request, and the question in it")
    yield "request-version", vector(b"\1" + small[1:], "VersionError", "version 1")
    yield "request-version-none", vector(b"", "VersionError", "no byte at all")
    yield "request-cut", vector(good[:12], bad, "it ends inside its length")
    yield (
        "request-enc",
        vector(flip(small, 13 + 31, 0x80), no, "the top bit of enc, which X25519 drops"),
    )
    yield "request-tag", vector(flip(small, -1), no, "a bit of the tag is another")
    yield "request-length", vector(flip(small, 12), bad, "the length field is one off")
    yield (
        "request-manifest",
        vector(sealed_request(b"small", manifest=OTHER), no, "sealed to another manifest"),
    )
    yield (
        "request-label",
        vector(sealed_request(b"small", label=b"enclave-llm/2 answer"), no, "for another purpose"),
    )
    old = envelope(block(question(), 4096))
    yield (
        "request-bucket",
        vector(sealed_request(inside[:8192] + old), bad, "4 KiB, a bucket of version 1"),
    )
    for name, changes, comment in (
        ("alias", {"key_arn": "alias/questions"}, "an alias can be pointed at another key"),
        ("secret", {"answer_secret": bytes(31)}, "an answer secret has 32 bytes"),
        ("turn", {"turn": -1}, "turns count from 0"),
        ("fips", {"fips": 1}, "a number is no boolean"),
    ):
        other = block(cbor(authorization(**changes)), 8192) + sealed
        yield f"request-{name}", vector(sealed_request(other), bad, comment)
    moved = block(cbor(dict(reversed(authorization().items()))), 8192) + sealed
    yield "request-moved", vector(sealed_request(moved), bad, "keys in another order")


def answers() -> Iterator[tuple[str, Vector]]:
    def vector(stream: Iterable[bytes], text: str, expect: str, comment: str) -> Vector:
        return {
            "opens": "answer", "header": b64(HEADER), "frames": [b64(item) for item in stream],
            "data_key": b64(ANSWER_KEY), "answer_secret": b64(ANSWER_SECRET),
            "request_digest": b64(REQUEST_DIGEST), "text": text, "receipt": b64(b"the receipt"),
            "expect": expect, "comment": comment,
        }  # fmt: skip

    bear = "🐻".encode()
    first = answer_frame(0, one(1, b"A bear: " + bear[:2]))
    dummy = answer_frame(1, parts())
    second = answer_frame(2, one(1, bear[2:]))
    receipt = answer_frame(3, one(5, b"the "))
    last = answer_frame(4, one(5, b"receipt"), final=True)
    whole = [first, dummy, second, receipt, last]
    no, bad, text = NO, BAD, "A bear: "
    yield "answer", vector(whole, "A bear: 🐻", "success", "text, a dummy, a receipt in two parts")
    yield "answer-no-final", vector(whole[:-1], "A bear: 🐻", bad, "the final frame is missing")
    yield "answer-dropped", vector([first, second, receipt, last], text, no, "a frame is missing")
    yield "answer-moved", vector([first, second, dummy, receipt, last], text, no, "two exchanged")
    yield "answer-repeated", vector([first, first, dummy], text, no, "a frame comes twice")
    yield (
        "answer-made-final",
        vector([b"\x84" + first[1:]], "", no, "cut short by a final flag that is not sealed"),
    )
    yield "answer-after", vector([*whole, dummy], "A bear: 🐻", bad, "a frame after the final one")
    yield (
        "answer-late-text",
        vector(
            [*whole[:4], answer_frame(4, one(1, b"more"), final=True)],
            "A bear: 🐻", bad, "text after the receipt has begun",
        ),
    )  # fmt: skip
    yield (
        "answer-half-character",
        vector([first, answer_frame(1, one(5, b"the receipt"), final=True)], text, bad, "cut"),
    )
    yield (
        "answer-another-request",
        vector([answer_frame(0, one(1, b"a"), digest=OTHER)], "", no, "of another request"),
    )
    yield "answer-altered", vector([flip(first, 1)], "", no, "a bit of a frame is another")
    end = answer_frame(1, one(5, b"the receipt"), final=True)
    yield (
        "answer-waited",
        vector(
            [answer_frame(0, parts(part(4, b"\0\3"), part(4, b"\0\0"), part(1, b"a"))), end],
            "a", "success", "the third in the queue, then begun, in one frame with text",
        ),
    )  # fmt: skip
    marker = b"<tool_call>"
    yield (
        "answer-control",
        vector(
            [answer_frame(0, parts(part(1, marker), part(2, marker), part(1, b"{}"))), end],
            "<tool_call>\x02<tool_call>\x03{}", "success", "a marker spelled, and one made",
        ),
    )  # fmt: skip
    yield (
        "answer-several",
        vector(
            [answer_frame(0, parts(part(1, bear[:1], 0), part(1, b"b", 15), part(1, bear[1:], 0))),
             end],
            "b🐻", "success", "the last of sixteen answers speaks inside the first one's character",
        ),
    )  # fmt: skip
    entry = cbor([b"a", -1_500_000, [[b"a", -1_500_000], [b"\xf0\x9f", -1_000_000_000]]])
    told = len(entry).to_bytes(2) + entry
    yield (
        "answer-logprobs",
        vector([answer_frame(0, parts(part(3, told[:5]), part(3, told[5:]))), end], "", "success",
               "an entry in two parts"),
    )  # fmt: skip
    for name, inside, comment in (
        ("type", one(6, b"a"), "no part has type 6"),
        ("index", one(1, b"a", 16), "at most sixteen answers"),
        ("empty", one(1, b""), "a part has data"),
        ("zero", parts(bytes(8), part(1, b"a")), "a part after zeros"),
        ("long", b"\1\0\3\xfd" + bytes(1020), "a part longer than its frame"),
        ("junk", flip(one(1, b"a"), -1), "junk after the parts"),
        ("place", one(4, b"\3"), "a place of one byte"),
        ("place-index", one(4, b"\0\3", 1), "the place of one of several answers"),
        ("mixed", parts(part(5, b"the "), part(1, b"a")), "text beside the receipt"),
        ("control-cut", parts(part(1, bear[:2]), part(2, marker)), "a marker inside a character"),
        ("control-bytes", one(2, b"\xff"), "a marker that is no text"),
        ("logprobs-text", one(3, b"\0\1\x61"), "an entry that is no triple"),
        ("logprobs-high", one(3, b"\0\5" + cbor([b"a", 1, []])), "a probability over 1"),
    ):
        yield f"answer-{name}", vector([answer_frame(0, inside)], "", bad, comment)
    yield (
        "answer-logprobs-cut",
        vector([answer_frame(0, one(3, told[:-1])), end], "", bad, "an entry lacks its end"),
    )
    yield (
        "answer-hint",
        vector([first, b"\x8einternal"], text, bad, "a hint stands where a frame may"),
    )


def sealed_errors() -> Iterator[tuple[str, Vector]]:
    def vector(sealed: bytes, expect: str, comment: str) -> Vector:
        return {
            "opens": "sealed_error", "body": b64(sealed), "answer_secret": b64(ANSWER_SECRET),
            "request_digest": b64(REQUEST_DIGEST), "code": "too_long", "numbers": [3000, 2048],
            "expect": expect, "comment": comment,
        }  # fmt: skip

    inside = block(cbor(["too_long", [3000, 2048]]), 1024)
    good = sealed_error(inside)
    yield "error", vector(good, "success", "a code and its numbers")
    yield "error-altered", vector(flip(good, 9), "EnvelopeError", "a bit is another")
    yield (
        "error-label",
        vector(sealed_error(inside, label=b"enclave-llm/2 answer"), "EnvelopeError", "other label"),
    )
    for name, value, comment in (
        ("unknown", ["attestation", []], "a code that is not the wire's"),
        ("text", ["kms", ["AccessDenied"]], "text in place of a number"),
    ):
        yield (
            f"error-{name}",
            vector(sealed_error(block(cbor(value), 1024)), "ProtocolError", comment),
        )
    indefinite = b"\x82\x78\x04busy\x80"
    yield (
        "error-long-form",
        vector(sealed_error(block(indefinite, 1024)), BAD, "a length that is not the shortest"),
    )


# A secure module, and what it signs. ECDSA by RFC 6979, so that signatures repeat.

NOW: Final = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
NONCE: Final = h(b"the nonce")
PCRS: Final[Mapping[int, Item]] = {n: bytes([n + 1]) * 48 for n in range(16)}


def private_key(name: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(h(name)), ec.SECP384R1())


ROOT_KEY: Final = private_key(b"the root's key")
LEAF_KEY: Final = private_key(b"the module's key")


def certificate(name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> bytes:
    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    made = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named("root"))
        .public_key(key.public_key())
        .serial_number(len(name))
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority,
                key_cert_sign=authority,
                crl_sign=authority,
                **usage,
            ),
            critical=True,
        )
        .sign(ROOT_KEY, SHA384(), ecdsa_deterministic=True)
    )
    return made.public_bytes(Encoding.DER)


ROOT: Final = certificate("root", ROOT_KEY, authority=True)
LEAF: Final = certificate("module", LEAF_KEY, authority=False)


def claims(**changes: Item) -> dict[str, Item]:
    fields: dict[str, Item] = {
        "module_id": "i-0123456789abcdef0-enc0123456789abcdef",
        "digest": "SHA384",
        "timestamp": round(NOW.timestamp() * 1000),
        "pcrs": PCRS,
        "certificate": LEAF,
        "cabundle": [ROOT],
        "public_key": None,
        "user_data": None,
        "nonce": NONCE,
    }
    return fields | changes


def document(payload: bytes) -> bytes:
    protected = bytes.fromhex("a1013822")
    signed = cbor(["Signature1", protected, b"", payload])
    algorithm = ec.ECDSA(SHA384(), deterministic_signing=True)
    r, s = decode_dss_signature(LEAF_KEY.sign(signed, algorithm))
    empty: Mapping[str, Item] = {}
    return cbor([protected, empty, payload, r.to_bytes(48) + s.to_bytes(48)])


def documents() -> Iterator[tuple[str, Vector]]:
    def vector(payload: bytes, expect: str, comment: str) -> Vector:
        return {
            "opens": "document", "document": b64(document(payload)), "root": b64(ROOT),
            "now": NOW.isoformat(), "nonce": b64(NONCE), "expect": expect, "comment": comment,
        }  # fmt: skip

    no = "AttestationError"
    yield "document", vector(cbor(claims()), "success", "as hardware signed it for years")
    indefinite = b"\xbf" + cbor(claims())[1:] + b"\xff"
    yield "document-indefinite", vector(indefinite, "success", "as hardware signs it since 2025")
    without = {name: value for name, value in claims().items() if name != "pcrs"}
    tpm: dict[str, Item] = without | {"nitrotpm_pcrs": PCRS}
    yield (
        "document-nitrotpm",
        vector(cbor(tpm), no, "of an instance with a TPM, under the same root: no enclave"),
    )
    both = claims(nitrotpm_pcrs=PCRS)
    yield "document-nitrotpm-both", vector(cbor(both), no, "registers of both")
    debug: dict[int, Item] = {**PCRS, 0: bytes(48)}
    yield "document-debug", vector(cbor(claims(pcrs=debug)), no, "PCR0 is zeros")
    yield "document-nonce", vector(cbor(claims(nonce=OTHER)), no, "for another nonce")
    old = claims(timestamp=round((NOW - timedelta(seconds=301)).timestamp() * 1000))
    yield "document-old", vector(cbor(old), no, "over 5 minutes old")
    yield "document-more", vector(cbor(claims(more=1)), no, "a field that no module writes")


def receipts() -> Iterator[tuple[str, Vector]]:
    statement: dict[str, Item] = {
        "request": REQUEST_DIGEST, "answer": OTHER, "manifest": MANIFEST_DIGEST,
        "conversation": CONVERSATION, "key_arn": ARN, "padding": "constant",
        "prompt_tokens": 20, "completion_tokens": 7, "finish": ["stop"], "code": None,
    }  # fmt: skip

    def sign(encoded: bytes, label: bytes = b"enclave-llm/2 receipt:") -> bytes:
        about = claims(user_data=label + h(encoded), nonce=REQUEST_DIGEST)
        return cbor([encoded, document(cbor(about))])

    def vector(signed: bytes, expect: str, comment: str) -> Vector:
        return {
            "opens": "receipt", "signed": b64(signed), "root": b64(ROOT), "now": NOW.isoformat(),
            "pcrs": [b64(bytes([n + 1]) * 48) for n in range(3)],
            "request_digest": b64(REQUEST_DIGEST), "answer_digest": b64(OTHER),
            "manifest_digest": b64(MANIFEST_DIGEST), "conversation": b64(CONVERSATION),
            "key_arn": ARN, "padding": "constant", "expect": expect, "comment": comment,
        }  # fmt: skip

    no = "AttestationError"
    yield "receipt", vector(sign(cbor(statement)), "success", "one answer, to its end")
    for name, changes, expect, comment in (
        ("several", {"finish": ["stop", "length", "error"], "code": "deadline"}, "success",
         "three answers, the last cut short"),
        ("conversation", {"conversation": OTHER[:16]}, no, "of another conversation"),
        ("key", {"key_arn": ARN.replace("1111-", "9999-")}, no, "under another KMS key"),
        ("padding", {"padding": "off"}, no, "padded otherwise than was asked"),
        ("answer", {"answer": REQUEST_DIGEST}, no, "of another answer"),
        ("none", {"finish": []}, BAD, "of no answer"),
        ("text", {"finish": "stop"}, BAD, "as version 1 had it"),
        ("ended", {"finish": ["tired"]}, BAD, "ended in another way"),
        ("boolean", {"prompt_tokens": True}, BAD, "a boolean is no count"),
        ("extra", {"note": "x"}, BAD, "a field more"),
    ):  # fmt: skip
        changed: dict[str, Item] = statement | changes
        yield f"receipt-{name}", vector(sign(cbor(changed)), expect, comment)
    old = sign(cbor(statement), b"enclave-llm/1 receipt:")
    yield "receipt-label", vector(old, no, "signed for another version")
    indefinite = b"\x9f" + sign(cbor(statement))[1:] + b"\xff"
    yield "receipt-indefinite", vector(indefinite, BAD, "an array of indefinite length")


def weights() -> Iterator[tuple[str, Vector]]:
    key: dict[str, Item] = {
        "access_key_id": "ASIAEXAMPLEEXAMPLE00", "secret_access_key": "a/secret+access=key",
        "session_token": "a-session-token", "key_arn": ARN, "fips": False,
        "wrapped_weights_key": b"the wrapped weights key",
    }  # fmt: skip

    def key_vector(body: bytes, expect: str, comment: str) -> Vector:
        return {
            "opens": "weights_key", "message": b64(b"\x91" + body), "expect": expect,
            "comment": comment,
        }  # fmt: skip

    yield "weights-key-none", key_vector(cbor(None), "success", "the files lie in clear")
    yield "weights-key", key_vector(cbor(key), "success", "the files are sealed")
    wrong: dict[str, dict[str, Item]] = {
        "alias": {"key_arn": "alias/weights"},
        "fips": {"fips": 0},
        "empty": {"wrapped_weights_key": b""},
        "header": {"session_token": "a token\r\nX-Amz-Target: another"},
    }
    for name, changes in wrong.items():
        yield f"weights-key-{name}", key_vector(cbor(key | changes), BAD, "a malformed field")

    package, file, data_key = h(b"model.json"), h(b"a file"), h(b"the weights data key")

    def seal(data: bytes, number: int, *, last: bool, label: bytes = b"weights") -> bytes:
        made = hkdf(data_key, b"enclave-llm/2 " + label + package + file)
        return gcm(made, data, ARN.encode(), number.to_bytes(11) + bytes([last]))

    def vector(sealed: bytes, number: int, expect: str, comment: str, *, last: bool) -> Vector:
        return {
            "opens": "weights_piece", "sealed": b64(sealed), "number": number, "last": last,
            "data_key": b64(data_key), "package_digest": b64(package), "file_digest": b64(file),
            "key_arn": ARN, "data": b64(b"the end of a file"), "expect": expect,
            "comment": comment,
        }  # fmt: skip

    good = seal(b"the end of a file", 7, last=True)
    yield "weights-piece", vector(good, 7, "success", "the eighth piece, and the last", last=True)
    yield "weights-piece-moved", vector(good, 6, NO, "of another place", last=True)
    more = seal(bytes(1_047_552)[:20], 7, last=False)
    yield "weights-piece-short", vector(more, 7, BAD, "short, and not the last", last=False)
    yield "weights-piece-more", vector(more, 7, NO, "sealed as one of which more follow", last=True)
    other = seal(b"the end of a file", 7, last=True, label=b"question")
    yield "weights-piece-label", vector(other, 7, NO, "for another purpose", last=True)
    yield "weights-piece-altered", vector(flip(good, 3), 7, NO, "a bit is another", last=True)
    yield "weights-piece-empty", vector(good[:16], 7, BAD, "a piece has a byte", last=True)


def make() -> dict[str, str]:
    """Give the text of each file, by its name."""
    groups = (
        frames(), messages(), hints(), manifests(), kms_hosts(), envelopes(), questions(),
        sealed_requests(), answers(), sealed_errors(), documents(), receipts(), weights(),
    )  # fmt: skip
    return {
        f"{name}.json": json.dumps(vector, indent=2, ensure_ascii=False) + "\n"
        for group in groups
        for name, vector in group
    }


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for name, text in make().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
