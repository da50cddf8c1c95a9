"""
A parent that cheats: the twin's own parent, behind which something rewrites what askers get.

It can do what root on a real parent instance can do: read, change, withhold and repeat all that
passes. Started by `local.twin.twin` in place of `local.twin.parent`.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from app.protocol.constants import NONCE_BYTES
from app.protocol.frames import FrameReader, encode_frame
from app.protocol.messages import Kind
from local.twin.parent import make_parser, serve_recorded

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Bytes of a message's frame, or None at which the answer ends.
Rewrite = Callable[[int, bytes], bytes | None]

PROGRAM: Final = "local.cheats.parent"
_ALTERED: Final = 1  # a message of the answer: 0 is the header, 1 has the first words
_KEPT: Final = 2  # messages: the header and one frame


class Replayer:
    """Answers everyone with documents that the enclave made for a nonce of this parent's."""

    def __init__(self, application: "WSGIApplication") -> None:
        self._application = application
        self._nonce = secrets.token_hex(NONCE_BYTES)

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Pass the request on; ask for a document with the wrong nonce."""
        if environ["PATH_INFO"] == "/v1/attestation":
            environ["QUERY_STRING"] = f"nonce={self._nonce}"
        return self._application(environ, start_response)


class Meddler:
    """Rewrites answers message by message."""

    def __init__(self, application: "WSGIApplication", rewrite: Rewrite) -> None:
        self._application = application
        self._rewrite = rewrite

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Pass the request on; rewrite what comes back when it is an answer."""
        answer = self._application(environ, start_response)
        return self._meddle(answer) if environ["PATH_INFO"] == "/v1/chat" else answer

    def _meddle(self, answer: Iterable[bytes]) -> Iterator[bytes]:
        reader = FrameReader()
        number = 0
        try:
            for data in answer:
                for payload in reader.feed(data):
                    rewritten = self._rewrite(number, payload)
                    if rewritten is None:
                        return
                    yield encode_frame(rewritten)
                    number += 1
        finally:
            # WSGI: what has a `close` is closed, however the iteration ended.
            getattr(answer, "close", lambda: None)()


def alter(number: int, payload: bytes) -> bytes:
    """Flip one bit of one encrypted frame."""
    if number != _ALTERED or payload[0] != Kind.ANSWER_FRAME:
        return payload
    return payload[:-1] + bytes([payload[-1] ^ 1])


def truncate(number: int, payload: bytes) -> bytes | None:
    """End the answer early, as if that had been all."""
    return payload if number < _KEPT else None


WRAPS: Final[Mapping[str, "Callable[[WSGIApplication], WSGIApplication]"]] = MappingProxyType(
    {
        "honest": lambda application: application,
        "replayed-document": Replayer,
        "altered-answer": lambda application: Meddler(application, alter),
        "truncated-answer": lambda application: Meddler(application, truncate),
    }
)


def main() -> None:
    """Serve with the configuration, socket and cheat given as arguments."""
    parser = make_parser(__doc__)
    parser.add_argument("--cheat", choices=tuple(WRAPS), required=True)
    options = parser.parse_args()
    serve_recorded(options, WRAPS[options.cheat])


if __name__ == "__main__":
    main()
