"""
News: what a page is told of one answer while it comes, event by event.

An answer is driven in a thread of its own; its news are told each beat, so that a page shows
frames at the pace at which the server saw them, whether they bring text or not.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from typing import Final

from app.chatbot.evidence.failure import tell_failure
from app.chatbot.evidence.finding import Json, find_receipt, find_refused
from app.chatbot.evidence.sight import describe_messages, describe_sight, search_words
from app.chatbot.session.exchange import Answer, Evidence
from app.protocol.errors import AppError, AttestationError

_POLL_SECONDS: Final = 0.05  # the beat of frames


@dataclass(slots=True)
class Telling:
    """
    One answer, and what has been told of it.

    Args:
        padding: As the question's options have it.

    Attributes:
        error: What the answer ended with, if it did.
    """

    answer: Answer
    question: str = field(repr=False)
    padding: str
    _pieces: list[tuple[float, str]] = field(default_factory=list, repr=False)
    error: AppError | None = None
    _told_pieces: int = 0
    _told_frames: int = 0
    _told_sight: Json = field(default_factory=dict, repr=False)

    def drive(self) -> None:
        """Take the answer's pieces until it ends, in whatever way."""
        try:
            for piece in self.answer:
                self._pieces.append((round(self.answer.seconds, 3), piece))
        except AppError as error:
            self.error = error

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
            yield await asyncio.to_thread(self._end)
        finally:
            self.answer.stop()

    def _news(self) -> Json:
        # In the reverse of the order in which they change: nothing told is ahead of what is told
        # after it, pieces of frames and frames of the state.
        pieces = self._pieces[self._told_pieces :]
        frames = describe_messages(self.answer.seen, self._told_frames)
        news: Json = {"type": "news", "pieces": pieces, "frames": frames}
        if self.answer.seen.request:
            sight = describe_sight(self.answer.seen, self.question, self.padding)
            if sight != self._told_sight:
                news["sight"] = self._told_sight = sight
        self._told_pieces += len(pieces)
        self._told_frames += len(frames)
        return news | {
            "state": self.answer.state,
            "place": self.answer.place,
            "seconds": round(self.answer.seconds, 1),
        }

    def _end(self) -> Json:
        ended: Json = {"seconds": round(self.answer.seconds, 1)}
        if self.answer.seen.request:
            said = f"{self.question}\n{self.answer.text}"
            ended["words"] = asdict(search_words(said, self.answer.seen))
        if self.answer.evidence is not None:
            return ended | _describe_whole(self.answer.evidence)
        if self.answer.stopped:
            outcome = "Stopped; not whole, and not in the conversation"
            return ended | {"type": "stopped", "outcome": outcome}
        return ended | describe_failure(self.error or AppError("the answer ended without a word"))


def describe_failure(error: AppError) -> Json:
    """Give the event of an answer that failed with *error*, and the step of proof that did."""
    outcome = "Not whole, and not in the conversation"
    failed: Json = {"type": "failed", "outcome": outcome, "failure": asdict(tell_failure(error))}
    refused = isinstance(error, AttestationError)
    return failed | {"finding": find_refused(error)} if refused else failed


def _describe_whole(evidence: Evidence) -> Json:
    receipt = evidence.receipt
    seconds = round(evidence.total_seconds, 1)
    tokens = f"{receipt.completion_tokens} token{'' if receipt.completion_tokens == 1 else 's'}"
    what = (
        f"this answer to this question, cut short after {tokens}"
        " by --max-tokens, the context or time"
        if receipt.finish == "length"
        else f"this answer, whole, to this question; {tokens}"
    )
    return {
        "type": "whole",
        "seconds": seconds,
        "outcome": f"Receipt verified: {what}, {seconds:.1f} s",
        "receipt": find_receipt(evidence),
    }
