"""
A chat template: the messages of a question as one text, of which the template's own part is known.

Rendered in jinja2's immutable sandbox, with the settings and helpers that transformers has.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NoReturn

from jinja2 import TemplateError, meta, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.enclave.engine.own_text import OwnText, join
from app.protocol.errors import UnsupportedError, WeightsError
from app.protocol.question import Message, Thinking, ToolCall

_LOOPS: Final = "jinja2.ext.loopcontrols"
_SWITCHES: Final = frozenset(("enable_thinking", "thinking"))  # whether a model thinks first
_EFFORT: Final = "reasoning_effort"  # how much


class ChatTemplate:
    """
    The template that a model was made with.

    Args:
        source: Its text.

        names: Texts that it may name, such as `bos_token`; they are its own, too.

    Raises:
        WeightsError: It cannot be read.
    """

    def __init__(self, source: str, names: dict[str, str]) -> None:
        environment = _Environment()
        try:
            self._template = environment.from_string(source)
            variables = meta.find_undeclared_variables(environment.parse(source))
        except (TemplateError, SyntaxError) as error:
            raise WeightsError("the chat template cannot be read") from error
        self._names = {name: OwnText.whole(text) for name, text in names.items()}
        self._switches = variables & _SWITCHES
        self._has_effort = _EFFORT in variables

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[object] | None = None,
        thinking: Thinking = "auto",
        asks: bool = True,
    ) -> str:
        """
        Give the text of *messages*.

        Args:
            tools: What the model may call, as the OpenAI API has it.

            thinking: What `can_think` allows.

            asks: Up to where an answer begins, else up to the end of the last message.

        Raises:
            UnsupportedError: The template refuses these roles in this order.
        """
        given = {
            "add_generation_prompt": asks,
            "tools": tools,
            **self._names,
            **self._thinking(thinking),
        }
        try:
            try:
                return self._template.render(messages=describe(messages), **given)
            except TypeError:  # some templates put arguments into their text as they are
                described = describe(messages, arguments_as_text=True)
                return self._template.render(messages=described, **given)
        except TemplateError:
            raise UnsupportedError(
                "the model's template refuses these roles", numbers=(0,)
            ) from None

    def can_think(self, thinking: Thinking) -> bool:
        """Tell whether the template knows how to have the model think as *thinking* says."""
        switched = thinking in {"auto", "on", "off"} and self._switches != set()
        return (
            thinking == "auto" or switched or (self._has_effort and thinking not in {"on", "off"})
        )

    def _thinking(self, thinking: Thinking) -> dict[str, object]:
        """Give the names by which templates know of thinking."""
        switch = {} if thinking == "auto" else dict.fromkeys(self._switches, thinking != "off")
        effort = thinking not in {"auto", "on", "off"} and self._has_effort
        return {**switch, **({_EFFORT: thinking} if effort else {})}


def describe(
    messages: Sequence[Message], *, arguments_as_text: bool = False
) -> list[dict[str, object]]:
    """Give *messages* as templates take them; what is content stays so."""
    names = {call.id: call.name for message in messages for call in message.calls}
    described = []
    for message in messages:
        given: dict[str, object] = {"role": OwnText.whole(message.role), "content": message.text}
        if message.role == "tool":
            given["tool_call_id"] = message.call_id
        if name := message.name or names.get(message.call_id, ""):
            given["name"] = name
        if message.reasoning:
            given["reasoning_content"] = message.reasoning
        if message.calls:
            given["tool_calls"] = [
                _describe_call(call, arguments_as_text=arguments_as_text) for call in message.calls
            ]
        described.append(given)
    return described


def _describe_call(call: ToolCall, *, arguments_as_text: bool) -> dict[str, object]:
    arguments = call.arguments if arguments_as_text else _parse_arguments(call.arguments)
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _parse_arguments(text: str) -> object:
    """Give the object that *text* is, as templates want it; what is none stays text."""
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return arguments if isinstance(arguments, dict) else text


class _Marking(CodeGenerator):
    """Compiles templates so that all text of the template's own is `OwnText`."""

    environment: "_Environment"

    def _own(self, text: str) -> str:
        self.environment.own.append(OwnText.whole(text))
        return f"environment.own[{len(self.environment.own) - 1}]"

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:  # noqa: N802 - jinja2's
        value = node.as_const(frame.eval_ctx)
        if isinstance(value, str):
            self.write(self._own(value))
        else:
            super().visit_Const(node, frame)

    def visit_TemplateData(self, node: nodes.TemplateData, frame: Frame) -> None:  # noqa: N802
        self.write(self._own(node.as_const(frame.eval_ctx)))

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.concat((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _output_const_repr(self, group: Iterable[object]) -> str:
        return self._own("".join(map(str, group)))


class _Environment(ImmutableSandboxedEnvironment):
    """
    Where one template lives.

    Attributes:
        own: The texts that are the template's own.
    """

    code_generator_class = _Marking

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_LOOPS])
        self.own: list[OwnText] = []
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _refuse
        self.globals["strftime_now"] = _now

    @staticmethod
    def concat(pieces: Iterable[object]) -> str:
        """Give what a template has written."""
        return join(pieces)


def _to_json(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - as transformers has it
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """Write *value* as templates expect it: not escaped for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now(UTC).strftime(pattern)
