import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import pytest

from app.chatbot.openai.conversations import Conversations
from app.chatbot.session.session import Session
from app.protocol.errors import (
    AppError,
    AttestationError,
    BusyError,
    ReceiptError,
    TruncatedError,
)
from app.protocol.question import Message, Options, Question, ToolCall
from tests.patience import PATIENCE_SECONDS


class FakeSession:
    """As much of a session as `Conversations` touches."""

    def __init__(self) -> None:
        self.history: tuple[Message, ...] = ()
        self.tools: str | None = None
        self.begun = 0
        self.doubted = 0
        self.users = 0

    def new_conversation(self, history: tuple[Message, ...] = ()) -> None:
        self.history = history
        self.begun += 1

    def doubt(self) -> None:
        self.doubted += 1


def connect() -> Session:
    return cast("Session", FakeSession())


def messages(*texts: str) -> tuple[Message, ...]:
    """Give a history that ends with an answer at each place."""
    return tuple(Message("assistant", text) for text in texts)


def asked(*texts: str, tools: str | None = None) -> Question:
    """Give a question after such a history."""
    return Question((*messages(*texts), Message("user", "?")), Options(tools=tools))


@contextmanager
def take(conversations: Conversations, question: Question) -> Iterator[Session]:
    """Take a session for *question*, and leave in it the history before that."""
    with conversations.take(question) as session:
        yield session
        session.history = question.messages[:-1]


def test_the_longest_history_that_is_continued_wins() -> None:
    """Of several that hold a beginning of what is sent, the one that holds most goes on."""
    conversations = Conversations(connect(), connect)
    with take(conversations, asked("a")) as one, take(conversations, asked("a", "b")) as two:
        assert one is not two
    with take(conversations, asked("a", "b", "c")) as found:
        assert found is two
        assert found.history == messages("a", "b")  # until there is an answer
    with take(conversations, asked("a", "x")) as found:
        assert found is one


def test_nothing_is_shared_with_a_history_that_differs() -> None:
    """A history that another does not begin with gets a conversation of its own."""
    conversations = Conversations(connect(), connect)
    with take(conversations, asked("a", "b")) as first:
        pass
    for other in (asked(), asked("a"), asked("a", "x", "c"), asked("b", "a")):
        with take(conversations, other) as session:
            assert session is not first


def test_what_clients_change_of_an_answer_makes_no_difference() -> None:
    """An answer that comes back without its reasoning, or with calls spelled anew, is the same."""
    conversations = Conversations(connect(), connect)
    call = ToolCall("abcdefghi", "book", '{"a": 1, "b": "é"}')
    held = (Message("user", "a"), Message("assistant", "b\n", "", "why", (call,)))
    with conversations.take(Question(held[:1], Options(tools="[]"))) as first:
        first.history = held
    back = Message("assistant", "b", calls=(replace(call, arguments='{"b":"\\u00e9","a":1}'),))
    result = Message("tool", "done", call_id="abcdefghi")
    sent = Question((held[0], back, result), Options(tools="[]"))
    with conversations.take(sent) as session:
        assert session is first
    other = Message("assistant", "b", calls=(replace(call, arguments='{"a":2}'),))
    with conversations.take(Question((held[0], other, result), Options(tools="[]"))) as session:
        assert session is not first


def test_other_tools_are_another_conversation() -> None:
    """What shows the model other tools, or none, shares nothing."""
    conversations = Conversations(connect(), connect)
    with take(conversations, asked("a", tools="[1]")) as first:
        pass
    for tools in (None, "[2]"):
        with take(conversations, asked("a", tools=tools)) as session:
            assert session is not first
    with take(conversations, asked("a", tools="[1]")) as session:
        assert session is first


def test_a_history_without_its_answer_is_not_continued() -> None:
    """What ends with a question, such as one that failed, is no conversation to go on in."""
    conversations = Conversations(connect(), connect)
    failed = Message("user", "a")
    with conversations.take(Question((failed,))) as first:
        pass
    after = (failed, Message("assistant", "b"), Message("user", "c"))
    begun = cast("FakeSession", first).begun
    with conversations.take(Question(after)) as session:
        assert session is not first or cast("FakeSession", session).begun == begun + 1


def test_the_oldest_forgets_where_there_is_no_room() -> None:
    """With all sessions idle and holding other histories, the one unused longest begins anew."""
    conversations = Conversations(connect(), connect, limit=2)
    with take(conversations, asked("a")) as one, take(conversations, asked("b")) as two:
        pass
    assert conversations._idle == [two, one]
    with take(conversations, asked("c")) as session:
        assert session is two
        assert cast("FakeSession", session).begun == 1
        with take(conversations, asked("d")) as other:
            assert other is one
            with pytest.raises(BusyError), take(conversations, asked("e")):
                pass


@pytest.mark.parametrize("kind", [AttestationError, ReceiptError])
def test_an_untrusted_enclave_is_doubted_by_all(kind: type[AppError]) -> None:
    """Once an enclave or a receipt fails to verify, every session verifies again; else none."""
    conversations = Conversations(connect(), connect)
    with take(conversations, asked("a")) as one:
        with pytest.raises(TruncatedError), take(conversations, asked("b")) as two:
            raise TruncatedError
        assert not cast("FakeSession", one).doubted
        with pytest.raises(kind), take(conversations, asked("b", "c")):
            raise kind
    assert cast("FakeSession", one).doubted
    assert cast("FakeSession", two).doubted


def test_a_session_that_cannot_be_opened_takes_no_room() -> None:
    """A failed connection leaves the count as it was."""

    def refuse() -> Session:
        raise AttestationError

    conversations = Conversations(connect(), refuse, limit=2)
    with take(conversations, asked("a")) as first:
        for _ in range(3):
            with pytest.raises(AttestationError), take(conversations, asked("b")):
                pass
    assert cast("FakeSession", first).doubted


def test_no_session_has_two_users() -> None:
    """Under many threads, each session is one thread's at a time, and the limit holds."""
    conversations = Conversations(connect(), connect, limit=3)
    seen: set[int] = set()
    faults: list[str] = []

    def work(number: int) -> None:
        for turn in range(30):
            try:
                with take(conversations, asked(f"{number}", *map(str, range(turn)))) as session:
                    fake = cast("FakeSession", session)
                    fake.users += 1
                    seen.add(id(session))
                    time.sleep(0.0005)
                    if fake.users != 1:
                        faults.append("shared")
                    fake.users -= 1
            except BusyError:
                time.sleep(0.001)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert faults == []
    assert 1 < len(seen) <= 3
