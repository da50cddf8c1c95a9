"""
Answering: one sealed request becomes one answer stream.

Everything an asker's bytes go through inside the enclave is in `Answerer.answer`, in order.
SPEC.md sections 4 to 6.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from app.enclave.engine.cache import PrefixName
from app.enclave.engine.interface import Engine, Finish, Generation
from app.enclave.key_ring import KeyRing
from app.enclave.kms.data_keys import DataKeys, QuestionKey
from app.enclave.nsm import Nsm
from app.protocol.answer import (
    MAX_DATA_BYTES,
    AnswerSealer,
    PartQueue,
    encode_header,
    round_up_frames,
    seal_error,
)
from app.protocol.authorization import Authorization
from app.protocol.constants import (
    ANSWER_DEADLINE_SECONDS,
    BEAT_SECONDS,
    FRAME_COUNT_BUCKETS,
    LABEL,
)
from app.protocol.envelope import open_question
from app.protocol.errors import AppError, DeadlineError
from app.protocol.messages import encode_hint
from app.protocol.question import Padding, Question
from app.protocol.receipt import Receipt, sign_receipt
from app.protocol.sealing import digest_request, parse_sealed_request

_GRACE_SECONDS: Final = 5  # the engine keeps the deadline itself; this is for one that hangs
_POLL_SECONDS: Final = 0.25  # how soon a silent hang-up is noticed without padding
_PACE_SECONDS: Final = 0.1  # of frames without padding: quicker text shares one, and its cost
_PREFIX_LABEL: Final = LABEL + b"prefix"
_MOST_RECEIPT_FRAMES: Final = 13  # the NSM's device answers at most 12,288 bytes
_MOST_FRAMES: Final = FRAME_COUNT_BUCKETS[-1] - _MOST_RECEIPT_FRAMES  # of pieces

# Failed is what went wrong once the question had opened, of which only a holder of the chat role
# can bring one; anybody can bring what is refused before that.
Outcome = Literal["answered", "failed", "refused"]


class Peer(Protocol):
    """The other end of one connection."""

    def send(self, *messages: bytes) -> None:
        """
        Send messages, each in a frame, in as few writes as hold them.

        Raises:
            OSError: Nobody is there any more, or nobody reads.
        """

    def gone(self) -> bool:
        """Say whether the other end has hung up."""


@dataclass(frozen=True, slots=True)
class Answerer:
    """What answering needs: keys, KMS, the model, the NSM."""

    key_ring: KeyRing
    data_keys: DataKeys
    engine: Engine
    nsm: Nsm
    manifest_digest: bytes

    def answer(self, request: bytes, peer: Peer) -> Outcome:
        """
        Answer the sealed *request* to *peer*; give how it went.

        One that ends in an error is answered, too: the padding hides that, and so must this.

        Raises:
            OSError: The peer has gone; the generation is cancelled.
        """
        try:
            authorization, envelope = self.key_ring.open(parse_sealed_request(request))
        except AppError as error:
            peer.send(encode_hint(error))
            return "refused"
        digest = digest_request(request)
        outcome: Outcome = "refused"
        try:
            deadline = time.monotonic() + ANSWER_DEADLINE_SECONDS
            question_key = self.data_keys.question_key(authorization)
            question = _open(envelope, authorization, question_key)
            outcome = "failed"
            sealer, header = self._make_sealer(authorization, digest)
            generation = self.engine.start(
                question,
                deadline=deadline,
                prefix=_name_prefix(question_key),
                require_wanted=lambda: _require_there(peer),
            )
        except AppError as error:
            secret = authorization.answer_secret
            peer.send(seal_error(error, answer_secret=secret, request_digest=digest))
            return outcome
        answers = question.options.n
        stream = _AnswerStream(sealer, generation, peer, answers=answers, deadline=deadline)
        try:
            with _punctual(question.options.padding):
                peer.send(header)
                finish = stream.send_pieces(question.options.padding)
                receipt = self._receipt(authorization, question, stream, finish)
                stream.send_receipt(sign_receipt(receipt, self._attest), question.options.padding)
        except AppError:  # no receipt, so no final frame: the asker sees an answer cut off
            return "failed"
        finally:
            generation.cancel()
        return "answered"

    def _make_sealer(
        self, authorization: Authorization, digest: bytes
    ) -> tuple[AnswerSealer, bytes]:
        answer_key = self.data_keys.answer_key(authorization)
        header = encode_header(answer_key.wrapped)
        sealer = AnswerSealer(
            header,
            data_key=answer_key.key,
            answer_secret=authorization.answer_secret,
            request_digest=digest,
        )
        return sealer, header

    def _receipt(
        self,
        authorization: Authorization,
        question: Question,
        stream: "_AnswerStream",
        finish: Finish,
    ) -> Receipt:
        return Receipt(
            request_digest=stream.sealer.request_digest,
            answer_digest=stream.sealer.digest,
            manifest_digest=self.manifest_digest,
            conversation=authorization.conversation,
            key_arn=authorization.key_arn.text,
            padding=question.options.padding,
            prompt_tokens=finish.prompt_tokens,
            completion_tokens=finish.completion_tokens,
            finishes=finish.reasons,
            code=stream.code,
        )

    def _attest(self, user_data: bytes, nonce: bytes) -> bytes:
        return self.nsm.attest(user_data=user_data, nonce=nonce, public_key=None)


def _open(envelope: bytes, authorization: Authorization, key: QuestionKey) -> Question:
    return open_question(
        envelope,
        data_key=key.key,
        key_arn=authorization.key_arn,
        conversation=authorization.conversation,
        turn=authorization.turn,
    )


def _require_there(peer: Peer) -> None:
    if peer.gone():
        raise BrokenPipeError


@contextmanager
def _punctual(padding: Padding) -> Iterator[None]:
    """
    Have this thread run whenever it is due, whatever the engine computes, while it sends on a beat.

    Beats that came late while an answer is made would tell how long it is (benchmarks/beats).
    """
    before = os.sched_getscheduler(0)
    if padding == "constant":
        with suppress(PermissionError):  # of a twin that its user runs
            policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.sched_setscheduler(0, before, os.sched_param(0))


def _name_prefix(key: QuestionKey) -> PrefixName:
    """Name what the next turn may reuse so that only holders of the question key find it."""
    return PrefixName(hashlib.sha256(_PREFIX_LABEL + key.key).digest(), key.ends)


class _AnswerStream:
    """
    The frames of one answer, on the beat or as text comes.

    Attributes:
        code: Why the generation ended in error; None if it did not, or has not ended.
    """

    def __init__(
        self,
        sealer: AnswerSealer,
        generation: Generation,
        peer: Peer,
        *,
        answers: int,
        deadline: float,
    ) -> None:
        self.sealer = sealer
        self._generation = generation
        self._peer = peer
        self._deadline = deadline
        self._answers = answers
        self._queue = PartQueue()
        self._place = 0
        self._beat = time.monotonic()
        self._sent = 0.0
        self.code: str | None = None

    def send_pieces(self, padding: Padding) -> Finish:
        """Send pieces until the generation has ended and all of them are sent."""
        step = self._send_on_beat if padding == "constant" else self._send_at_once
        finish = None
        while finish is None or self._queue:
            step()
            finish = finish or self._end()
        if padding == "constant":
            self._send_dummies()
        return finish

    def _end(self) -> Finish | None:
        """Give how the generation ended, and note why, before its last pieces are sent."""
        finish = self._generation.finish or self._give_up()
        if finish is not None and finish.reason == "error":
            late = time.monotonic() >= self._deadline
            self.code = DeadlineError.code if late else AppError.code
        return finish

    def _give_up(self) -> Finish | None:
        """Give the end of a generation whose engine hangs; None while there is time or text."""
        if self._queue or time.monotonic() < self._deadline + _GRACE_SECONDS:
            return None
        self._generation.cancel()
        return Finish(tuple("error" for _ in range(self._answers)), 0, 0)

    def _send_dummies(self) -> None:
        """
        Send dummies to the last places of the bucket, which are the receipt's.

        Signing it may outlast a beat, and would show where the text ended if it followed that.
        """
        sealer = self.sealer
        most = round_up_frames(sealer.frames + _MOST_RECEIPT_FRAMES) - _MOST_RECEIPT_FRAMES
        while sealer.frames < most:
            self._wait()
            self._peer.send(sealer.seal_text())

    def _send_on_beat(self) -> None:
        self._wait()
        self._take(0)
        self._peer.send(self._seal_place() or self.sealer.seal(self._queue.take()))

    def _send_at_once(self) -> None:
        self._take(_POLL_SECONDS)
        if self._queue and (early := self._sent + _PACE_SECONDS - time.monotonic()) > 0:
            self._generation.wait_until_over(early)
            self._take(0)
        messages = [told] if (told := self._seal_place()) else []
        while self._queue:
            messages.append(self.sealer.seal(self._queue.take()))
        if messages:
            self._peer.send(*messages)
            self._sent = time.monotonic()
        else:
            _require_there(self._peer)

    def _take(self, seconds: float) -> None:
        """Take what was made; an answer that outgrows what frames can hold ends in error."""
        for piece in self._generation.take(seconds):
            self._queue.put(piece)
        if self.sealer.frames + self._queue.frames > _MOST_FRAMES:
            self._generation.cancel()

    def _seal_place(self) -> bytes | None:
        """Seal the place among those that wait, if it has changed."""
        place = self._generation.place
        if place == self._place:
            return None
        self._place = place
        return self.sealer.seal_place(place)

    def _wait(self) -> None:
        """Sleep to the next beat; after a stall the beat starts anew instead of catching up."""
        now = time.monotonic()
        self._beat = max(self._beat + BEAT_SECONDS, now)
        time.sleep(self._beat - now)

    def send_receipt(self, signed: bytes, padding: Padding) -> None:
        """Send the receipt in parts, then dummies up to the bucket; the last frame is final."""
        parts = [signed[i : i + MAX_DATA_BYTES] for i in range(0, len(signed), MAX_DATA_BYTES)]
        frames: list[tuple[Callable[..., bytes], bytes]] = [
            (self.sealer.seal_receipt, part) for part in parts
        ]
        if padding == "constant":
            count = self.sealer.frames + len(parts)
            frames += [(self.sealer.seal_text, b"")] * (round_up_frames(count) - count)
        sealed = (seal(data, final=at == len(frames)) for at, (seal, data) in enumerate(frames, 1))
        if padding == "off":
            self._peer.send(*sealed)
        else:
            for message in sealed:
                self._wait()
                self._peer.send(message)
