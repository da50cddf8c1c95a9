"""
A shape: a question as long as those that people and programs ask, made of text of our own.

Desk chats are the demo model's corpus, put together; letters, tools and schemas are written here
in the form and at the size that public clients have them. Nothing is taken from anyone's chat.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

from app.protocol.question import Message, Options, Question, ToolCall
from local.demo_model.corpus import Entry, read_corpus

_SENTENCE: Final = (
    "In answer to your letter of last month we would like to tell you how your request was "
    "decided, which papers we still need, and by when you can lodge an objection. "
)
_DESCRIPTION: Final = (
    "Looks up what is asked for in the records of the desk and gives the matching entries, the "
    "newest first. Use it when the person asks about something that only the records can know."
)
_ANSWER_FACTOR: Final = 3  # a larger model's answers are about so much longer than the demo's


@dataclass(frozen=True, slots=True)
class Shape:
    """
    One question, and what it stands for.

    Attributes:
        kind: `chat`, `letter`, `schema`, `tools` or `agent`.
    """

    kind: str
    name: str
    question: Question


def make_shapes() -> Iterator[Shape]:
    """Give every shape."""
    entries = read_corpus()
    for turns in (1, 2, 3, 5, 8, 12, 20, 40):
        yield Shape("chat", f"a chat, turn {turns}", Question(_chat(entries, turns)))
    for kilobytes in (2, 6, 14, 30, 60):
        text = (_SENTENCE * 1000)[: kilobytes * 1000]
        name = f"a letter of {kilobytes} kB to sum up"
        yield Shape("letter", name, Question((Message("user", f"Sum up: {text}"),)))
    letter = Message("user", (_SENTENCE * 100)[:4000])
    for fields in (4, 12, 40):
        options = Options(schema=_schema(fields))
        yield Shape("schema", f"a form of {fields} fields", Question((letter,), options))
    for count in (1, 4, 12, 40):
        options = Options(tools=_tools(count))
        yield Shape("tools", f"a chat with {count} tools", Question(_chat(entries, 3), options))
    for steps in (1, 5, 20):
        yield Shape("agent", f"an agent at step {steps}", _agent(steps))


def _chat(entries: list[Entry], turns: int) -> tuple[Message, ...]:
    messages = [Message("system", "You are the help desk. Be brief and polite.")]
    for entry in islice(cycle(entries), turns - 1):
        messages.append(Message("user", entry.wordings[0]))
        messages.append(Message("assistant", " ".join([entry.answer] * _ANSWER_FACTOR)))
    return (*messages, Message("user", entries[turns].wordings[0]))


def _schema(fields: int) -> str:
    properties = {
        f"field_{number}": {
            "type": "string",
            "description": "What the letter says of it, in its own words, or an empty text.",
            "maxLength": 200,
        }
        for number in range(fields)
    }
    return json.dumps({"type": "object", "properties": properties, "required": [*properties]})


def _tools(count: int) -> str:
    parameters = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Of the person, as in the records."},
            "since": {
                "type": "string",
                "format": "date",
                "description": "Leave out what is older.",
            },
            "limit": {"type": "integer", "minimum": 1, "maximum": 50},
        },
        "required": ["name"],
    }
    return json.dumps(
        [
            {
                "type": "function",
                "function": {
                    "name": f"find_record_{number}",
                    "description": _DESCRIPTION,
                    "parameters": parameters,
                },
            }
            for number in range(count)
        ]
    )


def _agent(steps: int) -> Question:
    """A coding assistant's: long instructions, a dozen tools, a file's worth of result a step."""
    messages = [Message("system", (_SENTENCE * 100)[:9000]), Message("user", "Mend the test.")]
    for number in range(steps):
        call = ToolCall(f"call_{number}", "read_file", json.dumps({"path": f"src/{number}.py"}))
        messages.append(Message("assistant", "", reasoning=_SENTENCE, calls=(call,)))
        result = (_SENTENCE * 100)[:3000]
        messages.append(Message("tool", result, "read_file", call_id=call.id))
    return Question(tuple(messages), Options(tools=_tools(12)))
