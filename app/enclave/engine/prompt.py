"""
A prompt: the messages of a conversation as the one text that a model continues.

A model made for chat brings its own template, which its tokenizer renders; this is the text
for every other model, such as bloom.
"""

from collections.abc import Sequence
from typing import Final

from app.protocol.question import Message

# Where a completion of `plain_transcript` has gone on to write the next question itself.
TRANSCRIPT_STOPS: Final = ("\n\nQuestion:", "\nQuestion:")


def plain_transcript(messages: Sequence[Message]) -> str:
    """Write *messages* as a transcript that ends where the next answer begins, or goes on."""
    *before, last = messages
    if last.role == "assistant":
        return "".join(map(_paragraph, before)) + f"Answer: {last.text.lstrip()}"
    return "".join(map(_paragraph, messages)) + "Answer:"


def _paragraph(message: Message) -> str:
    text = message.text.strip()
    match message.role:
        case "system":
            return f"{text}\n\n"
        case "user":
            return f"Question: {text}\n"
        case "assistant":
            return f"Answer: {text}\n\n"
        case "tool":
            return f"Result: {text}\n\n"
