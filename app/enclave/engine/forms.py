"""
Forms: how a model writes answers and calls tools, found by rendering its own template.

A template says how it writes what was said before, and so what the model has learned to write.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.enclave.engine.template import ChatTemplate
from app.protocol.question import Message, Thinking, ToolCall

Pieces = tuple[str | int, ...]  # text, and control tokens

_TEXT: Final = "probe words"
_NAME: Final = "probe_name"
_QUESTION: Final = Message("user", _TEXT)
_IDS: Final = ("probeid01", "probeid02")  # as Mistral's templates want them
_ARGUMENTS: Final = '{"probe_key": "probe_value"}'
_WRITTEN: Final = re.compile(r'\{\s*"probe_key"\s*:\s*"probe_value"\s*\}')
_THOUGHT: Final = re.compile(r"([<\[])(think|THINK|seed:think)([>\]])\s*$")  # begun by a prompt
_ID: Final = re.compile(r',\s*"id"\s*:\s*"probeid0\d"')
_TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": _NAME,
            "description": "probes",
            "parameters": {
                "type": "object",
                "properties": {"probe_key": {"type": "string"}},
                "required": ["probe_key"],
            },
        },
    }
]


@dataclass(frozen=True, slots=True)
class CallForm:
    """
    How a model calls tools: a call is a name, what comes between, and arguments as JSON.

    Attributes:
        before: What comes before the first call's name.

        between: Between name and arguments.

        again: Between a call's arguments and the next one's name; None if there is but one call.

        after: After the last call's arguments, up to where an answer ends.
    """

    before: Pieces
    between: Pieces
    again: Pieces | None
    after: Pieces


@dataclass(frozen=True, slots=True)
class Forms:
    """
    How a model writes.

    Attributes:
        answer: What comes between a prompt and an answer's text.

        shows_tools: Whether the template shows the model its tools.

        call: How it calls them; None where that is not known.
    """

    answer: Pieces
    shows_tools: bool
    call: CallForm | None


PLAIN: Final = Forms((), shows_tools=False, call=None)  # of a model without a template


def find_forms(
    template: ChatTemplate,
    controls: Mapping[int, str],
    *,
    ends: Collection[int],
    thinking: Thinking,
) -> Forms:
    """Give how the model of *template* writes when it thinks as *thinking* says."""
    prober = _Prober(template, controls, ends, thinking)
    return Forms(prober.find_answer(), prober.shows_tools(), prober.find_call())


class _Prober:
    """Renders one template with texts that are easy to find again."""

    def __init__(
        self,
        template: ChatTemplate,
        controls: Mapping[int, str],
        ends: Collection[int],
        thinking: Thinking,
    ) -> None:
        self._template = template
        self._thinking = thinking
        self._ends = ends
        self._numbers = {spelling: number for number, spelling in controls.items()}
        longest_first = sorted(self._numbers, key=len, reverse=True)
        self._controls = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def find_answer(self) -> Pieces:
        """Give what comes between a prompt and an answer's text."""
        before, found, _ = self._written(Message("assistant", _TEXT)).partition(_TEXT)
        return self._split(before) if found else ()

    def shows_tools(self) -> bool:
        """Tell whether a prompt has the name of a tool that there is."""
        return _NAME in self._render([_QUESTION], self._thinking)

    def find_call(self) -> CallForm | None:
        """Give how tools are called; None where that cannot be seen."""
        written = _ID.sub("", self._written(_call(_IDS[:1])))
        arguments = _WRITTEN.search(written)
        name = written.find(_NAME)
        if arguments is None or not 0 <= name < arguments.start():
            return None
        between = written[name + len(_NAME) : arguments.start()]
        after = self._split(written[arguments.end() :])
        end = next((at for at, piece in enumerate(after) if piece in self._ends), len(after))
        if _IDS[0] in written:
            return None
        return CallForm(
            self._split(written[:name]), self._split(between), self._find_again(), after[:end]
        )

    def _find_again(self) -> Pieces | None:
        """Give what comes between a call's arguments and the next one's name."""
        written = _ID.sub("", self._written(_call(_IDS)))
        first = _WRITTEN.search(written)
        if first is None or not _WRITTEN.search(written, first.end()):
            return None
        again, found, _ = written[first.end() :].partition(_NAME)
        return self._split(again) if found else None

    def _written(self, message: Message) -> str:
        """Give what the template writes of an answer; "" where it does not go on from a prompt."""
        whole = self._render([_QUESTION, message], self._thinking, whole=True)
        opened = _THOUGHT.search(self._render([_QUESTION], self._thinking))
        # A prompt may end with a thought, empty or begun, which no past answer has.
        for thinking in (self._thinking, "auto"):
            prompt = self._render([_QUESTION], thinking)
            for begun in (prompt, _THOUGHT.sub("", prompt)):
                if begun and whole.startswith(begun):
                    closing = (
                        f"{opened[1]}/{opened[2]}{opened[3]}\n\n"
                        if opened and begun != prompt
                        else ""
                    )
                    return closing + whole[len(begun) :]
        return ""

    def _render(
        self, messages: Sequence[Message], thinking: Thinking, *, whole: bool = False
    ) -> str:
        try:
            rendered = self._template.render(messages, tools=_TOOLS, thinking=thinking, whole=whole)
        except Exception:  # noqa: BLE001 - whatever a template raises, it does not know of this
            return ""
        return str.__str__(rendered)

    def _split(self, text: str) -> Pieces:
        pieces: list[str | int] = []
        at = 0
        for found in self._controls.finditer(text):
            pieces += [text[at : found.start()], self._numbers[found[0]]]
            at = found.end()
        return tuple(piece for piece in (*pieces, text[at:]) if piece != "")


def _call(ids: Sequence[str]) -> Message:
    calls = tuple(ToolCall(identity, _NAME, _ARGUMENTS) for identity in ids)
    return Message("assistant", "", calls=calls)
