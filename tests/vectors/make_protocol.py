"""
Make tests/vectors/protocol/*.json: a second implementation of SPEC.md, for sealing alone.

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
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FOLDER: Final = Path(__file__).parent / "protocol"

Item = int | bytes | str | Sequence["Item"] | Mapping[str, "Item"] | None
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


def question(**changes: Item) -> bytes:
    fields: dict[str, Item] = {
        "messages": [["system", "Be brief."], ["user", TEXT]],
        "max_tokens": 64,
        "temperature": 700_000,
        "top_p": 950_000,
        "top_k": 40,
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
    label: bytes = b"enclave-llm/1 question",
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
        "wrapped_question_key": b"the wrapped question key",
        "answer_secret": ANSWER_SECRET,
        "conversation": CONVERSATION,
        "turn": TURN,
    }
    return fields | changes


def sealed_request(
    inside: bytes, *, manifest: bytes = MANIFEST_DIGEST, label: bytes = b"enclave-llm/1 request"
) -> bytes:
    info = label + manifest + h(PUBLIC_KEY)
    ciphertext = hpke(inside, recipient=ENCLAVE, sender=h(b"ephemeral"), info=info)
    return b"\1" + h(PUBLIC_KEY)[:8] + len(ciphertext).to_bytes(4) + ciphertext


def answer_frame(
    number: int, plaintext: bytes, *, final: bool = False, digest: bytes = REQUEST_DIGEST
) -> bytes:
    key = hkdf(ANSWER_KEY + ANSWER_SECRET, b"enclave-llm/1 answer" + digest + h(HEADER))
    aad = digest + number.to_bytes(4) + bytes([final])
    return bytes([0x84 if final else 0x83]) + gcm(key, plaintext, aad, number.to_bytes(12))


def part(kind: int, data: bytes) -> bytes:
    return (bytes([kind]) + len(data).to_bytes(2) + data).ljust(1024, b"\0")


def sealed_error(inside: bytes, *, label: bytes = b"enclave-llm/1 error") -> bytes:
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
    yield "message-short-nonce", vector(b"\1" + bytes(31), "ProtocolError", "a nonce of 31 bytes")
    yield "message-empty", vector(b"", "ProtocolError", "a message has a kind")
    yield "message-kind", vector(b"\4", "ProtocolError", "no message has kind 4")
    yield (
        "message-attestation",
        vector(b"\x81" + cbor([b"document", b"manifest"]), "success", "a document and a manifest"),
    )
    yield (
        "message-attestation-more",
        vector(b"\x81" + cbor([b"d", b"m", b"x"]), "ProtocolError", "a third byte string"),
    )
    yield "message-header", vector(HEADER, "success", "a wrapped answer key")
    yield (
        "message-header-long",
        vector(b"\x82" + bytes(6145), "ProtocolError", "a wrapped key has at most 6,144 bytes"),
    )
    health: dict[str, Item] = {"active": 1, "waiting": 0, "answered": 7, "failed": 2, "refused": 9}
    yield "message-health", vector(b"\x8f" + cbor(health), "success", "five counts")
    yield (
        "message-health-text",
        vector(b"\x8f" + cbor(health | {"last": "x"}), "ProtocolError", "no room for text"),
    )


def envelopes() -> Iterator[tuple[str, Vector]]:
    def vector(sealed: bytes, expect: str, comment: str) -> Vector:
        return {
            "opens": "envelope", "envelope": b64(sealed), "data_key": b64(QUESTION_KEY),
            "key_arn": ARN, "conversation": b64(CONVERSATION), "turn": TURN, "text": TEXT,
            "expect": expect, "comment": comment,
        }  # fmt: skip

    plain = block(question(), 1024)
    good = envelope(plain)
    no = "EnvelopeError"
    yield "envelope", vector(good, "success", "a question of one kibibyte")
    yield (
        "envelope-4k",
        vector(envelope(block(question(), 4096)), "success", "a larger bucket than needed opens"),
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
        vector(envelope(plain, label=b"enclave-llm/2 question"), no, "of another version"),
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
    for name, changes, comment in _bad_questions():
        inside = block(question(**changes), 1024)
        yield f"question-{name}", vector(envelope(inside), bad, comment)


def _bad_questions() -> Iterator[tuple[str, dict[str, Item], str]]:
    yield "empty", {"messages": [["user", " "]]}, "the last message has no text"
    yield "answered", {"messages": [["assistant", "a"]]}, "the last message is not the asker's"
    yield "role", {"messages": [["tool", "a"], ["user", "b"]]}, "no role is called tool"
    yield "temperature", {"temperature": 2_000_001}, "temperature is at most 2"
    yield "stops", {"stop": ["a"] * 5}, "at most four stop strings"
    yield "padding", {"padding": "some"}, "padding is constant or off"
    yield "extra", {"user": "me"}, "a key that the spec does not have"


def sealed_requests() -> Iterator[tuple[str, Vector]]:
    def vector(request: bytes, expect: str, comment: str) -> Vector:
        return {
            "opens": "sealed_request", "request": b64(request), "private_key": b64(PRIVATE_KEY),
            "manifest_digest": b64(MANIFEST_DIGEST), "data_key": b64(QUESTION_KEY), "text": TEXT,
            "expect": expect, "comment": comment,
        }  # fmt: skip

    sealed = envelope(block(question(), 1024))
    inside = block(cbor(authorization()), 8192) + sealed
    good = sealed_request(inside)
    no, bad = "EnvelopeError", "ProtocolError"
    yield "request", vector(good, "success", "a whole sealed request, and the question in it")
    yield "request-version", vector(flip(good, 0, 3), bad, "version 2")
    yield (
        "request-enc",
        vector(flip(good, 13 + 31, 0x80), no, "the top bit of enc, which X25519 drops"),
    )
    yield "request-tag", vector(flip(good, -1), no, "a bit of the tag is another")
    yield "request-length", vector(flip(good, 12), bad, "the length field is one off")
    yield (
        "request-manifest",
        vector(sealed_request(inside, manifest=OTHER), no, "sealed to another manifest"),
    )
    yield (
        "request-label",
        vector(sealed_request(inside, label=b"enclave-llm/1 answer"), no, "for another purpose"),
    )
    yield "request-bucket", vector(sealed_request(inside + b"\0"), bad, "an envelope of no bucket")
    for name, changes, comment in (
        ("alias", {"key_arn": "alias/questions"}, "an alias can be pointed at another key"),
        ("secret", {"answer_secret": bytes(31)}, "an answer secret has 32 bytes"),
        ("turn", {"turn": -1}, "turns count from 0"),
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
    first = answer_frame(0, part(0, b"A bear: " + bear[:2]))
    dummy = answer_frame(1, part(0, b""))
    second = answer_frame(2, part(0, bear[2:]))
    receipt = answer_frame(3, part(1, b"the "))
    last = answer_frame(4, part(1, b"receipt"), final=True)
    whole = [first, dummy, second, receipt, last]
    no, bad, text = "EnvelopeError", "ProtocolError", "A bear: "
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
            [*whole[:4], answer_frame(4, part(0, b"more"), final=True)],
            "A bear: 🐻", bad, "text after the receipt has begun",
        ),
    )  # fmt: skip
    yield (
        "answer-half-character",
        vector([first, answer_frame(1, part(1, b"the receipt"), final=True)], text, bad, "cut"),
    )
    yield (
        "answer-another-request",
        vector([answer_frame(0, part(0, b"a"), digest=OTHER)], "", no, "of another request"),
    )
    yield "answer-altered", vector([flip(first, 1)], "", no, "a bit of a frame is another")
    yield "answer-type", vector([answer_frame(0, part(3, b"a"))], "", bad, "no data has type 3")
    yield (
        "answer-waited",
        vector(
            [answer_frame(0, part(2, b"\0\3")), answer_frame(1, part(2, b"\0\0")),
             answer_frame(2, part(0, b"a")), answer_frame(3, part(1, b"the receipt"), final=True)],
            "a", "success", "the third in the queue, then begun",
        ),
    )  # fmt: skip
    yield "answer-place", vector([answer_frame(0, part(2, b"\3"))], "", bad, "a place of one byte")
    yield (
        "answer-junk",
        vector([answer_frame(0, flip(part(0, b"a"), -1))], "", bad, "junk after the data"),
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
        vector(sealed_error(inside, label=b"enclave-llm/1 answer"), "EnvelopeError", "other label"),
    )
    for name, value, comment in (
        ("unknown", ["attestation", []], "a code that is not the wire's"),
        ("text", ["kms", ["AccessDenied"]], "text in place of a number"),
    ):
        yield (
            f"error-{name}",
            vector(sealed_error(block(cbor(value), 1024)), "ProtocolError", comment),
        )


def make() -> dict[str, str]:
    """Give the text of each file, by its name."""
    groups = (frames(), messages(), envelopes(), sealed_requests(), answers(), sealed_errors())
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
