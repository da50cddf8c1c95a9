"""
A grammar: what an answer may be, so that it is of a schema or calls a tool. Pure.

Written in llguidance's form of Lark, with JSON schemas in it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from app.enclave.engine.forms import Forms, Pieces
from app.protocol.question import FIELDS
from app.protocol.schema import Schema

# A space or a new line with its indent, at most once in a place: white space never goes on.
_SPACE: Final = r" |\n {0,12}"
_WAYS: Final = {"x-guidance": {"whitespace_pattern": _SPACE}}
# Tokens are as the model chooses them: the library forces none, and needs no tokenizer.
_HEAD: Final = '%llguidance {"no_forcing": true}'


@dataclass(frozen=True, slots=True)
class Grammar:
    """
    What an answer has to be.

    Attributes:
        option: Which of a question's options asks for it: its number.
    """

    text: str = field(repr=False)
    option: int


def write_grammar(
    forms: Forms, *, schema: Schema | None, parameters: Mapping[str, Schema], many: bool
) -> Grammar:
    """
    Give the grammar of an answer of *schema*, or one that calls a tool.

    Args:
        forms: How the model writes; how it calls, too, if there are *parameters*.

        parameters: What each tool's arguments have to be, by its name.

        many: Whether it may call several.
    """
    starts, rules = [], []
    if schema is not None:
        starts.append(f"{_write(forms.answer)} answer")
        rules.append(f"answer: {_write_schema(schema)}")
    if parameters and forms.call is not None:
        call = forms.call
        more = f"({_write(call.again)} call)*" if many and call.again else ""
        starts.append(f"{_write(call.before)} call {more} {_write(call.after)}")
        rules.append("call: " + " | ".join(f"call_{at}" for at in range(len(parameters))))
        rules += (
            f"call_{at}: {json.dumps(name)} {_write(call.between)} {_write_schema(of)}"
            for at, (name, of) in enumerate(parameters.items())
        )
    text = "\n".join((_HEAD, f"start: {' | '.join(starts)}", *rules, ""))
    return Grammar(text, FIELDS.index("tool_choice" if schema is None else "schema"))


def _write(pieces: Pieces) -> str:
    return " ".join(
        f"<[{piece}]>" if isinstance(piece, int) else json.dumps(piece, ensure_ascii=False)
        for piece in pieces
    )


def _write_schema(schema: Schema) -> str:
    given = {**schema, **_WAYS} if isinstance(schema, dict) else schema
    return f"%json {json.dumps(given, ensure_ascii=False)}"
