import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from app.chatbot.reading.parts import Text
from app.chatbot.session.exchange import Exchange
from app.chatbot.session.sealed import SealedQuestion
from app.chatbot.session.session import Session
from app.protocol.constants import MAX_ACTIVE_ANSWERS, MAX_WAITING_ANSWERS
from app.protocol.errors import AppError, BusyError, TooLongError
from app.protocol.messages import Kind
from app.protocol.question import Message, Options, Question
from local.twin.twin import Twin
from tests.endless import ENDLESS_TOKENS, count
from tests.integration.canary import family
from tests.patience import PATIENCE_SECONDS, wait_until

FAST: Final = Options(padding="off")
QUESTIONS: Final = (
    "I can't access my email",
    "How do I recall an email that I sent by mistake?",
    "How do I reset my password?",
    "Is there a password manager I can use?",
    "Where are my backup codes?",
    "How do I install the VPN app?",
    "Is public Wi-Fi safe?",
    "My laptop was stolen",
)
CLIENTS: Final = 24
POOL: Final = 6
PARENT_STREAMS: Final = 48  # of `ParentConfig`, which the twin leaves as it is


def at_random(seed: int) -> Options:
    """Ask for an answer that is the same each time for one seed, and another for each seed."""
    return Options(padding="off", temperature=2, seed=seed, max_tokens=256)


@dataclass(frozen=True, slots=True)
class Stamped:
    """One message of an answer and when it came, in monotonic seconds."""

    at: float
    kind: Kind
    body: bytes


def seal(session: Session, options: Options, text: str = QUESTIONS[0]) -> SealedQuestion:
    """Seal a question, so that later nothing but the answer takes time."""
    return session._seal(Question((Message("user", text),), options))


def post(twin: Twin, sealed: SealedQuestion) -> list[Stamped]:
    """Post a sealed question on a connection of its own and take the answer, unopened."""
    transport = twin.transport()
    try:
        answer = transport.post_chat(sealed.request)
        return [Stamped(time.monotonic(), kind, body) for kind, body in answer]
    finally:
        transport.close()


def open_answer(
    session: Session, sealed: SealedQuestion, answer: list[Stamped]
) -> list[tuple[float, str]]:
    """Open an answer to its verified end; give its pieces and when each came."""
    times: list[float] = []
    pieces = follow(session, sealed, answer, lambda message: times.append(message.at))
    return [(times[-1], piece) for piece in pieces]


def follow(
    session: Session,
    sealed: SealedQuestion,
    answer: list[Stamped],
    note: Callable[[Stamped], None],
    exchange: Exchange | None = None,
) -> Iterator[str]:
    """Open an answer to its verified end, and *note* each message before it is opened."""

    def messages() -> Iterator[tuple[Kind, bytes]]:
        for message in answer:
            note(message)
            yield message.kind, message.body

    coming = messages()
    header = sealed.open_header(next(coming, None))
    opened = session._open(header, coming, sealed, exchange or Exchange(time.monotonic()))
    return (part.text for part in opened if isinstance(part, Text))


def at_once(number: int, work: Callable[[int], list[Stamped] | AppError]) -> list[object]:
    """Do *work* for 0 to *number* - 1, each in a thread, all started together."""
    gate = threading.Barrier(number)

    def wait_and_work(index: int) -> object:
        gate.wait(PATIENCE_SECONDS)
        return work(index)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(wait_and_work, range(number)))


def settle_enclave(twin: Twin) -> None:
    """Wait until no answer is under way or waits."""
    wait_until(lambda: count(twin, "active") == count(twin, "waiting") == 0)


@pytest.fixture(scope="module")
def sessions(endless: Twin) -> Iterator[list[Session]]:
    """As many conversations as may be under way, their keys in the caches at both ends."""
    sessions = [endless.connect() for _ in range(MAX_ACTIVE_ANSWERS)]
    for session in sessions:
        assert "".join(session.ask(QUESTIONS[0], Options(padding="off", max_tokens=8)))
    yield sessions
    for session in sessions:
        session.close()


def test_conversations_make_progress_together(endless: Twin, sessions: list[Session]) -> None:
    """
    The first words of each come before the last words of any.
    """
    options = Options(padding="off", max_tokens=800, temperature=2)
    sealed = [seal(session, options) for session in sessions]
    answers = at_once(len(sessions), lambda index: post(endless, sealed[index]))
    firsts, lasts = [], []
    for session, one, answer in zip(sessions, sealed, answers, strict=True):
        assert isinstance(answer, list)
        times, _ = zip(*open_answer(session, one, answer), strict=True)
        firsts.append(times[0])
        lasts.append(times[-1])
    assert max(firsts) < min(lasts)


def test_place_in_the_queue(endless: Twin, sessions: list[Session]) -> None:
    """
    Whoever has to wait is told a place, which only falls, down to the answer's beginning.
    """
    number = MAX_ACTIVE_ANSWERS + 12  # on a busy machine some come when others have ended
    asking = [sessions[index % len(sessions)] for index in range(number)]
    sealed = [seal(session, Options(padding="off", max_tokens=600)) for session in asking]
    answers = at_once(number, lambda index: post(endless, sealed[index]))
    waited = 0
    for session, one, answer in zip(asking, sealed, answers, strict=True):
        assert isinstance(answer, list)
        exchange = Exchange(time.monotonic())
        places: list[int | None] = []
        note = partial(lambda seen, held, _: seen.append(held.place), places, exchange)
        assert "".join(follow(session, one, answer, note, exchange))
        told = [place for place in places if place is not None]
        assert told == sorted(told, reverse=True)
        assert not told or told[-1] == 0
        waited += bool(told) and told[0] > 0
    assert waited >= 4


def test_no_answer_reaches_the_wrong_asker(twin: Twin, session: Session) -> None:
    """
    Two dozen clients in a small pool each get what the same question gets alone.

    A third of them hang up on a long answer before, a third ask what is refused.
    """
    alone = {}
    for question in QUESTIONS:
        session.new_conversation()
        alone[question] = "".join(session.ask(question, FAST))
    assert len(set(alone.values())) == len(QUESTIONS)

    def client(number: int) -> tuple[str, str]:
        question = QUESTIONS[number % len(QUESTIONS)]
        mine = twin.connect()
        try:
            if number % 3 == 0:
                pieces = mine.ask(question, at_random(number))
                next(pieces)
                pieces.close()
            elif number % 3 == 1:
                with pytest.raises(TooLongError):
                    "".join(mine.ask(question * 400, FAST))
            answer = "".join(mine.ask(question, FAST))
            assert mine.evidence is not None
            return question, answer
        finally:
            mine.close()

    with ThreadPoolExecutor(POOL) as pool:
        answers = list(pool.map(client, range(CLIENTS)))
    assert answers == [(question, alone[question]) for question, _ in answers]


def test_cancelled_answers_free_their_slots(endless: Twin, sessions: list[Session]) -> None:
    """
    As many hang-ups as there are slots leave all of them free, and are no failures of the enclave.
    """
    settle_enclave(endless)
    failed, refused = count(endless, "failed"), count(endless, "refused")
    for session in sessions:
        session.new_conversation()
        answer = session.ask(QUESTIONS[0], Options(padding="off", max_tokens=ENDLESS_TOKENS))
        assert next(answer)
        answer.close()
    settle_enclave(endless)
    assert count(endless, "failed") == failed
    assert count(endless, "refused") == refused + len(sessions)
    assert "".join(sessions[0].ask(QUESTIONS[1], Options(padding="off", max_tokens=8)))


def _burst(twin: Twin, session: Session, number: int) -> tuple[int, int]:
    """Ask much at once; give how many were answered, whole, and how many were told `busy`."""
    sealed = [seal(session, at_random(seed)) for seed in range(number)]

    def try_to_post(index: int) -> list[Stamped] | AppError:
        try:
            return post(twin, sealed[index])
        except BusyError as error:
            return error

    whole = 0
    for one, answer in zip(sealed, at_once(number, try_to_post), strict=True):
        try:
            if isinstance(answer, list):
                assert open_answer(session, one, answer)
                whole += 1
        except BusyError:  # sealed: there was room at the parent, but not in the engine
            pass
    return whole, number - whole


def test_more_than_the_limits(twin: Twin, session: Session) -> None:
    """
    Beyond the limits some are told `busy`, all others get whole answers.

    Afterwards neither parent nor enclave has more descriptors or threads than before.
    """
    most = MAX_ACTIVE_ANSWERS + MAX_WAITING_ANSWERS
    "".join(session.ask(QUESTIONS[0], FAST))
    settle_enclave(twin)
    before = resources(twin)
    whole, busy = _burst(twin, session, most + PARENT_STREAMS // 2)
    assert whole >= MAX_ACTIVE_ANSWERS
    assert busy
    settle_enclave(twin)
    wait_until(lambda: all(now <= then for now, then in zip(resources(twin), before, strict=True)))
    assert "".join(session.ask(QUESTIONS[1], FAST))


def resources(twin: Twin) -> tuple[int, ...]:
    """
    Count descriptors of the parent and the enclave, and threads of the enclave.

    Threads of the parent are a pool, which grows to its limit and stays.
    """
    parents = sum(_descriptors(pid) for pid in family(twin.parent.pid))
    status = Path(f"/proc/{twin.enclave.pid}/status").read_text()
    found = re.search(r"^Threads:\s+(\d+)", status, re.MULTILINE)
    assert found
    return parents, _descriptors(twin.enclave.pid), int(found[1])


def _descriptors(pid: int) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except PermissionError:  # the enclave keeps others of its own user out, too
        return 0
