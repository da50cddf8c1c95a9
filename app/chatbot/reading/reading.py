"""
The reading of a question's answers, of which there may be several: pieces in, parts out.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.chatbot.reading.calls import Tools
from app.chatbot.reading.parts import Part, Tokens
from app.chatbot.reading.reader import MARKS, Reader
from app.protocol.piece import Piece, TokenLogprob
from app.protocol.question import Options


@dataclass(slots=True)
class Reading:
    """
    Reads the answers to a question with *options*.

    Args:
        options: They say which calls may be made.
    """

    options: Options
    _readers: dict[int, Reader] = field(default_factory=dict)
    _tokens: dict[int, Reader] = field(default_factory=dict)

    def feed(self, piece: Piece) -> Iterator[Part]:
        """Read *piece*, and give what is certain to be said by it."""
        if piece.text:
            reader = self._readers.setdefault(piece.index, self._make(piece.index))
            yield from reader.feed(piece.text, control=piece.control)
        if piece.logprobs:
            made = tuple(filter(lambda token: self._is_content(token, piece.index), piece.logprobs))
            yield from [Tokens(made, piece.index)] if made else []

    def end(self) -> Iterator[Part]:
        """Give what was held back; all answers are over."""
        for reader in self._readers.values():
            yield from reader.end()

    def _make(self, index: int) -> Reader:
        must = self.options.tool_choice not in {"auto", "none"}
        most = 1 if self.options.tool_calls == "one" else None
        return Reader(callable_tools(self.options), must, most, index)

    def _is_content(self, token: TokenLogprob, index: int) -> bool:
        """Tell whether *token* is content, by reading it as it was made."""
        reader = self._tokens.setdefault(index, self._make(index))
        text = token.token.decode(errors="replace")
        control = text in MARKS
        for _ in reader.feed(text, control=control):
            pass
        return not control and reader.mode in {"start", "content"}


def callable_tools(options: Options) -> Tools:
    """Give those tools of *options* that the model may call."""
    if options.tools is None or options.tool_choice == "none":
        return {}
    functions = [tool["function"] for tool in json.loads(options.tools)]
    return {function["name"]: function.get("parameters") or {} for function in functions}
