"""
Calls as real models' templates write them, read by the chatbot from what the enclave would send.
"""

import json
import os
from collections.abc import Iterator

import pytest
import tokenizers

from app.chatbot.reading.parts import Part, collect_calls
from app.chatbot.reading.reader import Reader
from app.enclave.engine.control import PromptTokenizer
from app.enclave.engine.template import ChatTemplate
from app.enclave.engine.tokenizer import _control_tokens
from app.protocol.piece import Piece
from app.protocol.question import Message, ToolCall
from tests.engine.real_tokenizers import FOLDER, read_family

ARGUMENTS = {"city": "Köln", "days": [1, 2.5, None], "text": "</tool_call> \n\"'[ARGS]"}
CALLS = (
    ToolCall("abcdefghi", "get_weather", json.dumps(ARGUMENTS)),
    ToolCall("bcdefghij", "book", "{}"),
)
TOOLS: list[object] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "A tool.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    for name in ("get_weather", "book")
]
NAMES: dict[str, dict[str, object]] = {"get_weather": {}, "book": {}}


class Model:
    """A model's template and tokenizer, as far as they say how it writes."""

    def __init__(self, name: str) -> None:
        family = read_family(name)
        self._template = ChatTemplate(family.template, family.names)
        self._tokenizer = tokenizers.Tokenizer.from_file(str(family.tokenizer))
        self._prompts = PromptTokenizer(self._tokenizer)
        self._controls = _control_tokens(self._tokenizer, family.template)

    def write(self, answer: Message) -> list[Piece]:
        """Give *answer* as the model would make it, token by token."""
        asked = Message("user", "Weather?")
        prompt = self._encode(self._template.render([asked], tools=TOOLS))
        whole = self._encode(self._template.render([asked, answer], tools=TOOLS, whole=True))
        assert whole[: len(prompt)] == prompt
        return list(self._pieces(whole[len(prompt) :]))

    def _encode(self, text: str) -> list[int]:
        return self._prompts.encode(text, add_special_tokens=False)

    def _pieces(self, tokens: list[int]) -> Iterator[Piece]:
        made: list[int] = []
        for token in tokens:
            if token in self._controls:
                yield Piece(self._tokenizer.decode(made))
                yield Piece(self._controls[token], control=True)
                made = []
            else:
                made.append(token)
        yield Piece(self._tokenizer.decode(made))


def read(pieces: list[Piece]) -> list[Part]:
    reader = Reader(NAMES)
    parts = [part for piece in pieces for part in reader.feed(piece.text, control=piece.control)]
    return [*parts, *reader.end()]


@pytest.mark.skipif(not FOLDER.is_dir() and not os.environ.get("CI"), reason="no real tokenizers")
@pytest.mark.parametrize("family", ["qwen3", "mistral_nemo"])
def test_what_a_template_writes_is_read(family: str) -> None:
    """A call that a real model's own template writes is read as the call that it is."""
    model = Model(family)
    for calls in (CALLS[:1], CALLS[1:], CALLS):
        parts = read(model.write(Message("assistant", "", calls=calls)))
        found = collect_calls(parts)
        assert [(call.name, json.loads(call.arguments)) for call in found] == [
            (call.name, json.loads(call.arguments)) for call in calls
        ]
        assert len(parts) == 2 * len(calls)  # and nothing else is said
