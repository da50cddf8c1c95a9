"""
News: what a page is told of one answer while it comes, event by event.

An answer is driven in a thread of its own; its news are told each beat, so that a page shows
frames at the pace at which the parent saw them, whether they bring text or not.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from typing import Final

from app.chatbot.evidence.failure import tell_failure
from app.chatbot.evidence.finding import Json, find_receipt, find_refused
from app.chatbot.evidence.sight import describe_messages, describe_sight
from app.chatbot.session.exchange import Answer, Evidence
from app.protocol.errors import AppError, AttestationError

_POLL_SECONDS: Final = 0.05  # the beat of frames


@dataclass(slots=True)
class Telling:
    """
    One answer, and what has been told of it.

    Args:
        padding: As the question's options have it.
    """

    answer: Answer
    question: str = field(repr=False)
    padding: str
    _pieces: list[tuple[float, str]] = field(default_factory=list, repr=False)
    _error: AppError | None = None
    _told_pieces: int = 0
    _told_frames: int = 0

    def drive(self) -> None:
        """Take the answer's pieces until it ends, in whatever way."""
        try:
            for piece in self.answer:
                self._pieces.append((round(self.answer.seconds, 3), piece))
        except AppError as error:
            self._error = error

    def refuse(self, error: AppError) -> None:
        """End the answer with *error* before it has begun: nothing is sent."""
        self._error = error

    async def follow(self, drive: Callable[[], None]) -> AsyncIterator[Json]:
        """
        Run *drive* in a thread and tell the news until it is over; then how the answer ended.

        Whoever stops listening stops the answer.
        """
        driving = asyncio.create_task(asyncio.to_thread(drive))
        try:
            while not driving.done():
                await asyncio.wait([driving], timeout=_POLL_SECONDS)
                yield self._news()
            await driving
            yield self._end()
        finally:
            self.answer.stop()

    def _news(self) -> Json:
        seen = self.answer.seen
        first = min(self._told_frames, len(seen.messages))  # fewer, where it was sealed anew
        frames = describe_messages(seen, first)
        pieces = self._pieces[self._told_pieces :]
        news: Json = {
            "type": "news",
            "state": self.answer.state,
            "place": self.answer.place,
            "seconds": round(self.answer.seconds, 1),
            "pieces": pieces,
            "frames": {"first": first, "seen": frames},
        }
        if seen.request and self._told_frames == 0:
            news["sight"] = self._sight()
        self._told_frames = first + len(frames)
        self._told_pieces += len(pieces)
        return news

    def _end(self) -> Json:
        ended: Json = {"seconds": round(self.answer.seconds, 1)}
        if self.answer.seen.request:
            ended["sight"] = self._sight()
        if self.answer.evidence is not None:
            receipt = find_receipt(self.answer.evidence)
            return ended | _describe_whole(self.answer.evidence) | {"receipt": receipt}
        if self.answer.stopped:
            outcome = "Stopped; not whole, and not in the conversation"
            return ended | {"type": "stopped", "outcome": outcome}
        return ended | describe_failure(self._error or AppError("the answer ended without a word"))

    def _sight(self) -> Json:
        return describe_sight(self.answer, self.question, self.padding)


def describe_failure(error: AppError) -> Json:
    """Give the event of an answer that failed with *error*, and the step of proof that did."""
    outcome = "Not whole, and not in the conversation"
    failed: Json = {"type": "failed", "outcome": outcome, "failure": asdict(tell_failure(error))}
    return (
        failed | {"found": find_refused(error)} if isinstance(error, AttestationError) else failed
    )


def _describe_whole(evidence: Evidence) -> Json:
    receipt = evidence.receipt
    cut = ", cut at the limit of tokens" if receipt.finish == "length" else ""
    return {
        "type": "whole",
        "outcome": f"Receipt verified: this answer, whole, to this question{cut}; "
        f"{receipt.completion_tokens} tokens, {evidence.total_seconds:.1f} s",
    }
