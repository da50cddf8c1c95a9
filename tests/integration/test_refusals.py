"""What other parties try, and that it is refused: each attack by name, on the running twin."""

import io
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from app.chatbot.console import Terminal
from app.chatbot.session.session import Session
from app.chatbot.terminal.conversation import converse
from app.protocol.answer import AnswerSealer, encode_header
from app.protocol.asker.answer import AnswerOpener
from app.protocol.asker.messages import parse_attestation
from app.protocol.asker.sealing import seal_request
from app.protocol.authorization import Authorization
from app.protocol.constants import ANSWER_SECRET_BYTES, DATA_KEY_BYTES
from app.protocol.errors import (
    AppError,
    AttestationError,
    ConfigError,
    DeniedError,
    EnvelopeError,
    KmsError,
    PcrMismatchError,
    ProtocolError,
    ReceiptError,
    ReplayError,
    TruncatedError,
    UnknownKeyError,
)
from app.protocol.frames import FrameReader
from app.protocol.messages import Kind, encode_attestation, parse_message
from app.protocol.question import Options
from app.protocol.receipt import Receipt, sign_receipt
from app.protocol.releases import Measurements, Release
from app.protocol.sealing import digest_request, open_request, parse_sealed_request
from local.aws.kms.call import Json
from local.cloud.smoke import _admin
from local.demo import last_exchange
from local.signers.nsm import SoftwareNsm
from local.signers.pki import make_root
from local.twin.twin import Twin, policy_for
from tests.hostile import HostileParent, Messages, alter, substitute_document
from tests.support import make_release

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

QUESTION = "How do I book leave?"
FAST = Options(padding="off")


def ask(session: Session, text: str = QUESTION, options: Options = FAST) -> str:
    return "".join(session.ask(text, options))


# A parent that substitutes what the client verifies: no request leaves the client.


def refuses_to_connect(
    twin: Twin, rewrite: Callable[[bytes, bytes], bytes], error: type[AppError], match: str
) -> None:
    parent = HostileParent(twin, rewrite_attestation=rewrite)
    with pytest.raises(error, match=match):
        parent.connect()
    assert parent.posted == []


def test_parent_with_a_document_of_its_own_root_gets_no_request(twin: Twin) -> None:
    """A document that does not chain to the pinned root is refused before anything is sent."""
    foreign = SoftwareNsm(make_root(now=datetime.now(UTC)), twin.release.measurements)
    refuses_to_connect(twin, substitute_document(foreign), AttestationError, "root")


def test_parent_with_another_image_gets_no_request(twin: Twin) -> None:
    """A genuine document of an image that is not approved names the PCR that differs."""
    approved = twin.release.measurements
    other = Measurements(b"\x01" * 48, approved.pcr1, approved.pcr2)
    nsm = SoftwareNsm(twin.nsm.root, other)
    refuses_to_connect(twin, substitute_document(nsm), PcrMismatchError, "PCR0")


def test_parent_with_a_debug_enclave_gets_no_request(twin: Twin) -> None:
    """A genuine document with the zeros of debug mode is refused."""
    nsm = SoftwareNsm(twin.nsm.root, twin.release.measurements, debug=True)
    refuses_to_connect(twin, substitute_document(nsm), AttestationError, "debug")


def test_parent_with_a_stale_document_gets_no_request(twin: Twin) -> None:
    """A genuine document older than five minutes is refused, with the clock named."""
    old = timedelta(seconds=-301)
    nsm = SoftwareNsm(twin.nsm.root, twin.release.measurements, timestamp_offset=old)
    refuses_to_connect(twin, substitute_document(nsm), AttestationError, "clock")


def test_parent_that_replays_a_document_gets_no_request(twin: Twin) -> None:
    """A genuine document made for another nonce is refused."""
    transport = twin.transport()
    recorded = transport.get_attestation(secrets.token_bytes(32))
    transport.close()
    refuses_to_connect(twin, lambda _, __: recorded, AttestationError, "nonce")


def test_parent_with_its_own_hpke_key_gets_no_request(twin: Twin) -> None:
    """A document whose public key was exchanged no longer verifies."""

    def rewrite(_: bytes, body: bytes) -> bytes:
        document, manifest = parse_attestation(body)
        key = twin_public_key(twin)
        assert key in document
        return encode_attestation(document.replace(key, secrets.token_bytes(32)), manifest)

    refuses_to_connect(twin, rewrite, AttestationError, "signature")


def twin_public_key(twin: Twin) -> bytes:
    session = twin.connect()
    session.close()
    return session.enclave.public_key


def test_parent_with_another_manifest_gets_no_request(twin: Twin) -> None:
    """A manifest with another model name is not the attested one."""

    def rewrite(_: bytes, body: bytes) -> bytes:
        document, manifest = parse_attestation(body)
        return encode_attestation(
            document, manifest.replace(b"enclave-llm-demo", b"enclave-llm-dem0")
        )

    refuses_to_connect(twin, rewrite, AttestationError, "user_data")


# A parent that changes, moves or withholds frames: the client raises.


def swap(messages: Messages) -> Messages:
    return [messages[0], messages[2], messages[1], *messages[3:]]


def repeat(messages: Messages) -> Messages:
    return [*messages[:2], messages[1], *messages[2:]]


def drop(messages: Messages) -> Messages:
    return [messages[0], *messages[2:]]


def end_early(messages: Messages) -> Messages:
    kind, body = messages[-2]
    assert kind is Kind.ANSWER_FRAME
    return [*messages[:-2], (Kind.FINAL_FRAME, body)]


@pytest.mark.parametrize("rewrite", [swap, repeat, drop, alter, end_early])
def test_frame_that_is_not_in_its_place_is_refused(
    twin: Twin, rewrite: Callable[[Messages], Messages]
) -> None:
    """Swapped, repeated, dropped, altered and falsely final frames do not open."""
    session = HostileParent(twin, rewrite_answer=rewrite).connect()
    with pytest.raises(EnvelopeError) as raised:
        ask(session, options=Options())
    assert raised.value.incomplete
    assert session.evidence is None
    assert session.history == ()
    session.close()


@pytest.mark.parametrize("kept", [1, 2, -1])
def test_truncated_answer_is_refused(twin: Twin, kept: int) -> None:
    """An answer without its final frame raises, whatever came before."""
    parent = HostileParent(twin, rewrite_answer=lambda messages: messages[:kept])
    session = parent.connect()
    with pytest.raises(TruncatedError):
        ask(session)
    assert session.evidence is None
    session.close()


def test_answer_that_never_begins_is_refused(twin: Twin) -> None:
    """No message at all is a truncated answer."""
    session = HostileParent(twin, rewrite_answer=lambda _: []).connect()
    with pytest.raises(TruncatedError):
        ask(session)
    session.close()


def test_frame_after_the_final_one_is_refused(twin: Twin) -> None:
    """Nothing may follow the final frame."""
    parent = HostileParent(twin, rewrite_answer=lambda messages: [*messages, messages[-1]])
    session = parent.connect()
    with pytest.raises(ProtocolError):
        ask(session)
    session.close()


@pytest.mark.parametrize("same_conversation", [True, False])
def test_answer_of_another_question_is_refused(twin: Twin, *, same_conversation: bool) -> None:
    """An older answer of this conversation, and one of another, do not open for this question."""
    parent = HostileParent(twin)
    session = parent.connect()
    recorded: Messages = []

    def record(messages: Messages) -> Messages:
        recorded.extend(messages)
        return messages

    parent.rewrite_answer = record
    ask(session)
    if not same_conversation:
        session.new_conversation()
    parent.rewrite_answer = lambda _: recorded
    with pytest.raises(EnvelopeError if same_conversation else AppError) as raised:
        ask(session)
    assert isinstance(raised.value, EnvelopeError | DeniedError | KmsError)
    session.close()


def test_replayed_request_is_refused(twin: Twin, session: Session) -> None:
    """The same sealed request a second time is refused before KMS hears of it."""
    ask(session)
    request, _ = last_exchange(twin)
    calls = len(twin.aws.audit.events)
    transport = twin.transport()
    with pytest.raises(ReplayError):
        list(transport.post_chat(request))
    transport.close()
    assert len(twin.aws.audit.events) == calls


def test_altered_request_is_refused(twin: Twin, session: Session) -> None:
    """A sealed request with one bit flipped anywhere is refused."""
    ask(session)
    request, _ = last_exchange(twin)
    transport = twin.transport()
    for position in (0, 5, 12, 20, 60, 4000, 9000, len(request) - 1):
        altered = bytearray(request)
        altered[position] ^= 0x10
        with pytest.raises((ProtocolError, UnknownKeyError, EnvelopeError)):
            list(transport.post_chat(bytes(altered)))
    transport.close()


def test_receipt_of_another_image_is_refused(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole answer whose receipt does not verify is an error of its own, not in the history."""
    session = twin.connect()

    def fail(*_: object, **__: object) -> None:
        raise AttestationError("another image signed the receipt than was asked")

    monkeypatch.setattr("app.chatbot.session.sealed.verify_receipt", fail)
    with pytest.raises(ReceiptError) as raised:
        ask(session)
    assert raised.value.incomplete
    assert session.history == ()
    assert session._verification.doubted
    session.close()


def test_a_closed_session_sends_nothing(twin: Twin) -> None:
    """Whoever still holds a session that was closed gets an error, and no connection."""
    parent = HostileParent(twin)
    session = parent.connect()
    session.close()
    with pytest.raises(ConfigError, match="closed"):
        ask(session)
    assert parent.posted == []


def test_withdrawn_release_gets_no_request(twin: Twin) -> None:
    """A session open under a release that is withdrawn sends nothing more, until it is back."""
    approved = [twin.release]
    trust = replace(twin.trust, read_again=lambda: tuple(approved))
    parent = HostileParent(twin)
    with parent.connect(trust) as session:
        ask(session)
        approved[:] = [make_release()]
        for _ in range(2):
            with pytest.raises(PcrMismatchError):
                ask(session)
        with pytest.raises(PcrMismatchError):
            parent.connect(trust)
        assert len(parent.posted) == 1
        approved[:] = [twin.release]
        ask(session)
    assert len(parent.posted) == 2


def test_list_that_is_gone_lets_nothing_be_sent(twin: Twin) -> None:
    """Without the list of approved releases, a session that is open sends nothing either."""

    def read() -> tuple[Release, ...]:
        if gone:
            raise ConfigError("no list")
        return (twin.release,)

    gone = False
    parent = HostileParent(twin)
    with parent.connect(replace(twin.trust, read_again=read)) as session:
        gone = True
        with pytest.raises(ConfigError, match="no list"):
            ask(session)
    assert parent.posted == []


def test_enclave_that_changes_after_sending_is_told_so(twin: Twin) -> None:
    """A parent that has a question sealed again, to another image, gets no second copy."""
    parent = HostileParent(twin)
    with parent.connect() as session:
        approved = twin.release.measurements
        other = Measurements(b"\x01" * 48, approved.pcr1, approved.pcr2)
        parent.rewrite_attestation = substitute_document(SoftwareNsm(twin.nsm.root, other))
        parent.rewrite_answer = lambda _: [(Kind.HINT, UnknownKeyError.code.encode())]
        notes = io.StringIO()
        lines = io.StringIO(QUESTION + "\n" + QUESTION + "\n")
        converse(session, FAST, Terminal(lines, io.StringIO(), notes))
    first, second = [line for line in notes.getvalue().splitlines() if line.startswith("failed")]
    assert "only a copy sealed to the enclave verified before was sent" in first
    assert "this question was not sent" not in first
    assert "this question was not sent" in second
    assert len(parent.posted) == 1


# Another holder of the chat role, and an administrator who rewrote the key policy.


def chat_role_kms(twin: Twin) -> "KMSClient":
    """Give a KMS client of the whole chat role, as another of its holders would have."""
    sts = twin.asker.client("sts")
    credentials = sts.assume_role(RoleArn=twin.config.chat_role_arn, RoleSessionName="other")[
        "Credentials"
    ]
    sts.close()
    return twin.asker.client(
        "kms",
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
    )


@contextmanager
def rewritten_policy(twin: Twin) -> Iterator[None]:
    """Let everyone in the account do everything with the key, as a hostile administrator could."""
    anything = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [anything]}
    twin.aws.set_key_policy(twin.config.key_arn, json.dumps(policy))
    try:
        yield
    finally:
        approved = policy_for([twin.release])
        twin.aws.set_key_policy(twin.config.key_arn, json.dumps(approved))


def open_answer(
    messages: Messages, *, data_key: bytes, answer_secret: bytes, request: bytes
) -> str:
    header = encode_header(messages[0][1])
    opener = AnswerOpener(
        header,
        data_key=data_key,
        answer_secret=answer_secret,
        request_digest=digest_request(request),
        options=Options(),
    )
    pieces = (piece for message in messages[1:] for piece in opener.open(*message))
    return "".join(piece.text for piece in pieces)


def test_question_cannot_be_read_with_what_kms_gives(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever rewrote the key policy can have KMS open a question's key, but has only bytes in which
    neither that key nor the envelope stands: they are sealed to the enclave's own key.
    """
    kept: list[tuple[Authorization, bytes]] = []

    def seal(authorization: Authorization, envelope: bytes, **named: bytes) -> bytes:
        kept.append((authorization, envelope))
        return seal_request(authorization, envelope, **named)

    monkeypatch.setattr("app.chatbot.session.sealed.seal_request", seal)
    with twin.connect() as session:
        ask(session)
        context = {"purpose": "question", "conversation": session.conversation.hex()}
    request, _ = last_exchange(twin)
    (authorization, envelope) = kept[-1]
    for part in (authorization.wrapped_question_key, envelope, authorization.answer_secret):
        assert part[:16] not in request
        assert part[-16:] not in request
    # The control: with the wrapped key, KMS would give the key away under such a policy.
    with rewritten_policy(twin):
        kms = chat_role_kms(twin)
        wrapped = authorization.wrapped_question_key
        opened = kms.decrypt(
            KeyId=twin.config.key_arn, CiphertextBlob=wrapped, EncryptionContext=context
        )
        kms.close()
    assert len(opened["Plaintext"]) == DATA_KEY_BYTES
    own = X25519PrivateKey.generate()
    with pytest.raises(EnvelopeError):
        open_request(parse_sealed_request(request), private_key=own, manifest_digest=bytes(32))


@pytest.mark.parametrize("policy_rewritten", [False, True])
def test_answer_cannot_be_read_with_what_kms_gives(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, *, policy_rewritten: bool
) -> None:
    """
    Whoever holds the chat role and saw all that crossed the parent opens the answer data key.

    Without the answer secret, which only the asker and the enclave have, no frame opens with it;
    rewriting the key policy changes nothing.
    """
    kept: list[bytes] = []

    def seal(authorization: Authorization, *arguments: bytes, **named: bytes) -> bytes:
        kept.append(authorization.answer_secret)
        return seal_request(authorization, *arguments, **named)

    monkeypatch.setattr("app.chatbot.session.sealed.seal_request", seal)
    session = twin.connect()
    asked = ask(session)
    request, answer = last_exchange(twin)
    messages = [parse_message(payload) for payload in FrameReader().feed(answer)]
    context = {"purpose": "answer", "conversation": session.conversation.hex()}
    with rewritten_policy(twin) if policy_rewritten else nullcontext():
        kms = chat_role_kms(twin)
        data_key = kms.decrypt(
            KeyId=twin.config.key_arn, CiphertextBlob=messages[0][1], EncryptionContext=context
        )["Plaintext"]
        kms.close()
    session.close()
    for guess in (bytes(ANSWER_SECRET_BYTES), data_key):
        with pytest.raises(EnvelopeError):
            open_answer(messages, data_key=data_key, answer_secret=guess, request=request)
    # The control: with the secret that the request carried, the same bytes open.
    right = open_answer(messages, data_key=data_key, answer_secret=kept[-1], request=request)
    assert right == asked


def forge(twin: Twin, conversation: bytes, posted: list[bytes], nsm: SoftwareNsm) -> Messages:
    """Make a whole answer with a data key from KMS, and a receipt from *nsm*."""
    kms = chat_role_kms(twin)
    context = {"purpose": "answer", "conversation": conversation.hex()}
    key = kms.generate_data_key(
        KeyId=twin.config.key_arn, KeySpec="AES_256", EncryptionContext=context
    )
    kms.close()
    digest = digest_request(posted[-1])
    header = encode_header(key["CiphertextBlob"])
    sealer = AnswerSealer(
        header, data_key=key["Plaintext"], answer_secret=bytes(32), request_digest=digest
    )
    frames = [sealer.seal_text(b"Send your password to me.")]
    receipt = Receipt(
        digest, sealer.digest, bytes(32), conversation, twin.config.key_arn, "off", 1, 1, ("stop",)
    )
    signed = sign_receipt(receipt, lambda data, nonce: nsm.document(user_data=data, nonce=nonce))
    frames += [sealer.seal_receipt(signed[:1000]), sealer.seal_receipt(signed[1000:2000])]
    frames += [sealer.seal_text(final=True)]
    return [parse_message(message) for message in (header, *frames)]


def test_answer_cannot_be_forged_with_what_kms_gives(twin: Twin) -> None:
    """An answer made under a rewritten policy by someone with the chat role is refused."""
    parent = HostileParent(twin)
    session = parent.connect()
    parent.rewrite_answer = lambda _: forge(twin, session.conversation, parent.posted, twin.nsm)
    with rewritten_policy(twin), pytest.raises(EnvelopeError):
        ask(session)
    assert session.evidence is None
    session.close()


def test_answer_cannot_be_sealed_by_the_chat_role(twin: Twin) -> None:
    """Under the synthesised policy KMS gives nobody outside an enclave an answer data key."""
    parent = HostileParent(twin)
    session = parent.connect()
    with pytest.raises(ClientError, match="AccessDenied"):
        forge(twin, session.conversation, [b""], twin.nsm)
    session.close()


# KMS out of contract, and out of reach of retired images.


@contextmanager
def bent_kms(
    twin: Twin, bend: Callable[[str, Mapping[str, Json]], Mapping[str, Json]]
) -> Iterator[None]:
    straight = twin.aws.transform_answer
    twin.aws.transform_answer = bend
    try:
        yield
    finally:
        twin.aws.transform_answer = straight


def test_kms_that_answers_with_plaintext_is_refused(twin: Twin, session: Session) -> None:
    """The enclave takes no data key that came in clear, even beside the right answer."""

    def bend(_: str, answer: Mapping[str, Json]) -> Mapping[str, Json]:
        if "CiphertextForRecipient" in answer:
            return {**answer, "Plaintext": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="}
        return answer

    with bent_kms(twin, bend), pytest.raises(KmsError):
        ask(session)
    session.new_conversation()
    assert ask(session)


def test_kms_that_answers_with_another_key_is_refused(twin: Twin, session: Session) -> None:
    """The enclave compares the key that KMS says it used."""

    def bend(action: str, answer: Mapping[str, Json]) -> Mapping[str, Json]:
        if action == "Decrypt" and "CiphertextForRecipient" in answer:
            return {**answer, "KeyId": f"{twin.config.key_arn[:-1]}x"}
        return answer

    with bent_kms(twin, bend), pytest.raises(KmsError):
        ask(session)


def test_retired_release_opens_nothing_new(twin: Twin, session: Session) -> None:
    """Once the policy no longer lists the release, a new conversation is denied by KMS."""
    ask(session)
    none = json.dumps(policy_for([]))
    twin.aws.set_key_policy(twin.config.key_arn, none)
    try:
        session.new_conversation()
        with pytest.raises(DeniedError):
            ask(session)
    finally:
        approved = json.dumps(policy_for([twin.release]))
        twin.aws.set_key_policy(twin.config.key_arn, approved)
    session.new_conversation()
    assert ask(session)


def test_leaked_enclave_credentials_are_useless(twin: Twin) -> None:
    """What the enclave is given opens and seals nothing without the enclave's attestation."""
    access = twin.access()
    conversation = secrets.token_bytes(16)
    key = access.question_key(conversation)
    leaked = access.credentials_for_enclave(conversation, twin.release.measurements.pcr0)
    access.close()
    kms = twin.asker.client(
        "kms",
        aws_access_key_id=leaked.access_key_id,
        aws_secret_access_key=leaked.secret_access_key,
        aws_session_token=leaked.session_token,
    )
    for purpose in ("question", "answer"):
        context = {"purpose": purpose, "conversation": conversation.hex()}
        arn = twin.config.key_arn
        with pytest.raises(ClientError, match="AccessDenied"):
            kms.decrypt(KeyId=arn, CiphertextBlob=key.wrapped, EncryptionContext=context)
        with pytest.raises(ClientError, match="AccessDenied"):
            kms.generate_data_key(KeyId=arn, KeySpec="AES_256", EncryptionContext=context)
    kms.close()


def test_disabled_key_opens_nothing_new(twin: Twin) -> None:
    """
    What an operator does first when something is wrong: no new conversation gets anywhere, while
    one under way has its keys until they are 15 minutes old. An enabled key serves as before.
    """
    admin, key = _admin(twin).client("kms"), twin.config.key_arn.rpartition("/")[2]
    session = twin.connect()
    assert "".join(session.ask(QUESTION, FAST))
    admin.disable_key(KeyId=key)
    try:
        assert "".join(session.ask(QUESTION, FAST))
        session.new_conversation()
        with pytest.raises((DeniedError, KmsError)):
            "".join(session.ask(QUESTION, FAST))
    finally:
        admin.enable_key(KeyId=key)
    assert "".join(session.ask(QUESTION, FAST))
    session.close()
