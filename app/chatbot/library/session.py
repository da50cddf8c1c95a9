"""
A session as a Python program has it: a verified enclave, and one conversation with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar

from app.chatbot.documents.document import Document
from app.chatbot.documents.frame import compose
from app.chatbot.evidence.proof import Step, prove_enclave
from app.chatbot.library.form import Form
from app.chatbot.library.tools import Tools
from app.chatbot.session import session as verified
from app.chatbot.session.exchange import Answer
from app.chatbot.session.trust import VerifiedEnclave
from app.protocol.question import Message, Options, Question, ToolCall

_Value = TypeVar("_Value")


class Session:
    """
    A verified enclave, and one conversation with it; made by `connect`. A context manager.

    For one thread and one question at a time, but for `Answer.stop`.
    """

    def __init__(self, session: verified.Session) -> None:
        self._session = session
        self._options = Options()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def ask(
        self,
        text: str,
        options: Options | None = None,
        *,
        tools: Tools | None = None,
        documents: Sequence[Document] = (),
    ) -> Answer:
        """
        Ask *text*, and give the answer: iterate over it for its text, piece by piece.

        It is whole, and part of the conversation, only when the iteration ends without raising.
        Nothing is sent before the first piece is asked for, and all that follows is raised there.

        Args:
            options: How the answer is made.

            tools: What the model may call: `Answer.calls` has the calls, `give` takes the results.

            documents: What the question is about, as `read_file` gives it.

        Raises:
            QuestionError: The question is empty.

            UnsupportedError: The enclave's model cannot honour an option; names all of them.

            ConfigError: The session is closed, or your list of approved releases is gone or
                malformed; nothing was sent.

            TooLongError: The conversation exceeds a limit; `numbers` are (size, limit).

            AttestationError: The enclave changed and is not trusted now. Nothing was sent, or,
                where `sent` is set, only a copy sealed to the enclave verified before.

            ReceiptError, EnvelopeError, ProtocolError: What came back cannot be relied on.

            TruncatedError: The answer ended before its end, or was stopped.

            DeniedError, KmsError, BusyError, DeadlineError, UnavailableError: As they say.
        """
        self._options = _with_tools(options or Options(), tools)
        return self._session.ask(_with_documents(text, documents), self._options)

    def give(self, results: Mapping[ToolCall, str]) -> Answer:
        """
        Give the results of the calls that the last answer made, and give what the model says to
        them, with the same options and tools.

        Args:
            results: By call, of all of `Answer.calls`; text, such as JSON.

        Raises:
            AppError: As `ask`, while iterating.
        """
        messages = [
            Message("tool", result, call.name, call_id=call.id) for call, result in results.items()
        ]
        options = self._options
        if options.tools is not None:
            options = replace(options, tool_choice="auto")  # who had to call has done so
        return self._session.ask_question(Question((*self.history, *messages), options))

    def fill(
        self,
        form: type[_Value],
        text: str,
        options: Options | None = None,
        *,
        documents: Sequence[Document] = (),
    ) -> _Value:
        """
        Ask *text*, have the answer be of *form*, and give it as that.

        Args:
            form: What pydantic can read from JSON: a model, a dataclass, a TypedDict, `list[int]`.

        Raises:
            FormError: The answer is not of the form: it was cut off, or breaks a rule that no
                schema can say.

            UnsupportedError: A schema cannot say the form; says where.

            AppError: As `ask`.
        """
        wanted = Form(form)
        answer = self.ask(text, wanted.shape(options or Options()), documents=documents)
        for _ in answer:
            pass
        return wanted.read(answer)

    def new_conversation(self, history: tuple[Message, ...] = ()) -> None:
        """Forget the conversation so far and begin another, after *history*, with its own keys."""
        self._session.new_conversation(history)

    @property
    def history(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return self._session.history

    @property
    def enclave(self) -> VerifiedEnclave:
        """The enclave as it was last verified: release, attestation, manifest, document."""
        return self._session.enclave

    def prove(self) -> tuple[Step, ...]:
        """Give the steps by which the enclave was last verified, in words and with raw values."""
        return prove_enclave(self._session)

    def close(self) -> None:
        """Close the connections; whoever asks afterwards gets an error, and sends nothing."""
        self._session.close()


def _with_tools(options: Options, tools: Tools | None) -> Options:
    return options if tools is None else replace(options, tools=tools.json)


def _with_documents(text: str, documents: Sequence[Document]) -> str:
    return compose(documents, text) if documents else text
