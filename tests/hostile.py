"""
A hostile parent: one that rewrites what it relays between a chatbot and a running twin.
"""

import hashlib
import secrets
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from app.chatbot.session.cut_off import Stop
from app.chatbot.session.session import Session, connect
from app.chatbot.session.transport import Transport
from app.chatbot.session.trust import Trust
from app.protocol.asker.messages import parse_attestation
from app.protocol.attestation import encode_user_data
from app.protocol.messages import Kind, encode_attestation
from local.signers.nsm import SoftwareNsm
from local.twin.twin import Twin

Messages = list[tuple[Kind, bytes]]


@dataclass(slots=True)
class HostileParent:
    """A parent that rewrites what it relays; counts what a client dared to send."""

    twin: Twin
    rewrite_attestation: Callable[[bytes, bytes], bytes] = lambda _, body: body
    rewrite_answer: Callable[[Messages], Messages] = lambda messages: messages
    posted: list[bytes] = field(default_factory=list)

    def transport(self) -> Transport:
        parent = self

        class Hostile(Transport):
            def get_attestation(self, nonce: bytes) -> bytes:
                return parent.rewrite_attestation(nonce, super().get_attestation(nonce))

            def post_chat(
                self, sealed: bytes, stop: Stop | None = None
            ) -> Generator[tuple[Kind, bytes]]:
                parent.posted.append(sealed)
                yield from parent.rewrite_answer(list(super().post_chat(sealed, stop)))

        return Hostile(self.twin.config.url, tls_ca=self.twin.config.tls_ca)

    def connect(self, trust: Trust | None = None) -> Session:
        config = self.twin.config
        access = self.twin.access()
        trust = trust or self.twin.trust
        try:
            return connect(self.transport(), access, key_arn=config.key_arn, trust=trust)
        except BaseException:
            access.close()
            raise


def substitute_document(nsm: SoftwareNsm) -> Callable[[bytes, bytes], bytes]:
    """Answer with a document of *nsm* for the client's nonce and the true manifest."""

    def rewrite(nonce: bytes, body: bytes) -> bytes:
        _, manifest = parse_attestation(body)
        user_data = encode_user_data("attest", hashlib.sha256(manifest).digest())
        key = secrets.token_bytes(32)
        document = nsm.document(user_data=user_data, nonce=nonce, public_key=key)
        return encode_attestation(document, manifest)

    return rewrite


def alter(messages: Messages) -> Messages:
    """Flip one bit of the first frame."""
    kind, body = messages[1]
    return [messages[0], (kind, bytes([body[0] ^ 1]) + body[1:]), *messages[2:]]
