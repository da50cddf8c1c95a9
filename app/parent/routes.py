"""
The routes: HTTP from clients, translated to messages for the enclave. SPEC.md section 2.2.

Nobody here is authenticated and nothing here is secret: the questions are sealed to the enclave,
whoever sends them, and only the enclave knows whether to answer.
"""

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed

from app.parent.body import read_body
from app.parent.config import ParentConfig
from app.parent.observe import Metrics, Observer
from app.parent.relay import Answer, Connect, attest, health, open_chat
from app.protocol.errors import (
    AppError,
    BusyError,
    DeadlineError,
    ProtocolError,
    TooLongError,
    UnavailableError,
)

_LOG: Final = logging.getLogger(__name__)
_NONCE: Final = re.compile(r"[0-9a-fA-F]{64}")
_SEND_SECONDS: Final = 30  # a client that reads nothing for this long is hung up on
_RETRY_SECONDS: Final = {429: "2", 503: "5"}
_CLIENT_HUNG_UP: Final = 499  # nobody reads it; nginx's number, for the log
_STATUSES: Final = {
    "busy": 429, "unknown_key": 409, "bad_request": 400, "version": 400, "too_long": 413,
}  # fmt: skip
_CODES: Final = {413: TooLongError.code, 408: DeadlineError.code, 500: AppError.code}


def create_app(config: ParentConfig, connect: Connect) -> Flask:
    """
    Make the parent's WSGI application.

    Args:
        config: Its limits are used here; its addresses elsewhere.

        connect: Gives a connected socket to the enclave, or raises OSError.
    """
    relay = _Relay(config, connect)
    app = Flask("enclave_llm.parent", static_folder=None)
    app.url_map.merge_slashes = False  # nothing is redirected
    for rule, method, view in relay.views():
        app.add_url_rule(rule, rule, view, methods=[method], provide_automatic_options=False)
    app.register_error_handler(AppError, _refuse_error)
    app.register_error_handler(HTTPException, _refuse_http)
    app.register_error_handler(Exception, _refuse_unexpected)
    app.wsgi_app = Observer(app.wsgi_app, relay.metrics)  # type: ignore[method-assign]
    return app


class _Relay:
    """The views, and what they share."""

    def __init__(self, config: ParentConfig, connect: Connect) -> None:
        self._config = config
        self._connect = connect
        self._free = threading.BoundedSemaphore(config.max_streams)
        self.metrics = Metrics(partial(health, connect))

    def views(self) -> tuple[tuple[str, str, Callable[[], Response]], ...]:
        """Give each route with its method and view."""
        return (
            ("/v1/attestation", "GET", self._attestation),
            ("/v1/chat", "POST", self._chat),
            ("/healthz", "GET", lambda: jsonify(status="alive")),
            ("/readyz", "GET", self._ready),
            ("/metrics", "GET", self._metrics),
        )

    def _attestation(self) -> Response:
        nonces = request.args.getlist("nonce")
        if len(nonces) != 1 or not _NONCE.fullmatch(nonces[0]):
            raise BadRequest
        with self._count_failures():
            body = attest(self._connect, bytes.fromhex(nonces[0]))
        return _uncached(Response(body, mimetype="application/cbor"))

    def _ready(self) -> Response:
        with self._count_failures():
            if health(self._connect).loading is not None:
                raise UnavailableError("the enclave still takes in its weights")
        return jsonify(status="ready")

    def _metrics(self) -> Response:
        return Response(self.metrics.encode(), content_type="text/plain; version=0.0.4")

    def _chat(self) -> Response:
        if not self._free.acquire(blocking=False):
            return _refusal(503, BusyError.code)
        with ExitStack() as stack:
            stack.callback(self._free.release)
            stack.enter_context(self.metrics.streams.track_inprogress())
            sealed = read_body(request.environ, seconds=self._config.body_seconds)
            try:
                answer = self._open(sealed, stack)
            except ConnectionAbortedError:
                self.metrics.cancelled.inc()
                return Response(status=_CLIENT_HUNG_UP)
            return _stream(_Frames(answer, self.metrics, stack.pop_all()))

    def _open(self, sealed: bytes, stack: ExitStack) -> Answer:
        """Ask the enclave; leave to *stack* what is to be done when the answer ends."""
        client: socket.socket | None = request.environ.get("gunicorn.socket")
        if client is not None:
            client.settimeout(_SEND_SECONDS)
        seconds, started = self._config.answer_seconds, time.monotonic()
        with self._count_failures():
            answer = open_chat(self._connect, sealed, seconds=seconds, client=client)
        self.metrics.first_frame.observe(time.monotonic() - started)
        stack.callback(lambda: self.metrics.stream.observe(time.monotonic() - started))
        stack.callback(answer.close)
        return answer

    @contextmanager
    def _count_failures(self) -> Iterator[None]:
        try:
            yield
        except AppError as error:
            self.metrics.failures.labels(error.code).inc()
            raise


class _Frames:
    """
    The frames of one answer on their way out; closing it lets everything go.

    An answer that breaks off raises, so that the client sees a broken transfer.
    """

    def __init__(self, answer: Answer, metrics: Metrics, stack: ExitStack) -> None:
        self._answer = answer
        self._metrics = metrics
        self._stack = stack
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._answer
            self._ended = True
        except ConnectionAbortedError:
            return  # nobody is there to be told
        except AppError as error:
            self._ended = True
            self._metrics.failures.labels(error.code).inc()
            raise

    def close(self) -> None:
        """Hang up on the enclave and free the slot."""
        if not self._ended:
            self._metrics.cancelled.inc()
        self._stack.close()


def _stream(frames: _Frames) -> Response:
    response = Response(frames, mimetype="application/octet-stream", direct_passthrough=True)
    response.headers["X-Accel-Buffering"] = "no"
    return _uncached(response)


def _uncached(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response


def _refusal(status: int, code: str) -> Response:
    response = jsonify(code=code)
    response.status_code = status
    if status in _RETRY_SECONDS:
        response.headers["Retry-After"] = _RETRY_SECONDS[status]
    return _uncached(response)


def _refuse_error(error: AppError) -> Response:
    return _refusal(_STATUSES.get(error.code, 503), error.code)


def _refuse_http(error: HTTPException) -> Response:
    status = error.code or 500
    response = _refusal(status, _CODES.get(status, ProtocolError.code))
    if isinstance(error, MethodNotAllowed):
        response.allow.update(error.valid_methods or ())
    return response


def _refuse_unexpected(error: Exception) -> Response:
    _LOG.error("unexpected %s", type(error).__name__)  # its text may quote the request
    return _refusal(500, AppError.code)
