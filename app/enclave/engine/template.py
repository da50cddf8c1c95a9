"""
A chat template: the messages of a question as one text, of which the template's own part is known.

Rendered in jinja2's immutable sandbox, with the settings and helpers that transformers has.
"""

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, NoReturn

from jinja2 import TemplateError, meta, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.enclave.engine.own_text import OwnText, join
from app.protocol.errors import QuestionError, UnsupportedError, WeightsError
from app.protocol.question import FIELDS, Message, Thinking, ToolCall

THINKING: Final = FIELDS.index("thinking")
# The variables that templates have for it: Qwen and others; DeepSeek and Granite; gpt-oss.
_SWITCHES: Final = ("enable_thinking", "thinking")
_EFFORT: Final = "reasoning_effort"
_MARK_BYTES: Final = 16  # what no message has by chance
_LOOPS: Final = "jinja2.ext.loopcontrols"
_MOST_GROWN: Final = 32  # times that indents may make JSON as long as it is without


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
            self._asks = meta.find_undeclared_variables(environment.parse(source))
        except (TemplateError, SyntaxError) as error:
            raise WeightsError("the chat template cannot be read") from error
        self._names = {name: OwnText.whole(text) for name, text in names.items()}

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[object] | None = None,
        thinking: Thinking = "auto",
        whole: bool = False,
    ) -> str:
        """
        Give the text of *messages*, up to where an answer begins, or goes on.

        Args:
            tools: What the model may call, as the OpenAI API has it.

            whole: Give all that the template writes of the last message, and nothing after it.

        Raises:
            UnsupportedError: The template refuses these roles in this order, does not write the
                message that is to be continued, or does not know such *thinking*; numbers say
                which.
        """
        mark = secrets.token_hex(_MARK_BYTES)
        continued = messages[-1].role == "assistant" and not whole
        if continued:
            last = replace(messages[-1], text=f"{messages[-1].text}{mark} ")
            messages = (*messages[:-1], last)
        given = {
            "add_generation_prompt": not continued and not whole,
            "tools": tools,
            **self._names,
            **self._switch(thinking),
        }
        try:
            try:
                text = self._template.render(messages=describe(messages), **given)
            except TypeError:  # some put arguments into their text as they are
                described = describe(messages, arguments_as_text=True)
                text = self._template.render(messages=described, **given)
        except TemplateError:
            raise UnsupportedError(
                "the model's template refuses these roles", numbers=(0,)
            ) from None
        return _cut_at(mark, text) if continued else text

    def can_think(self, thinking: Thinking) -> bool:
        """Tell whether the template knows such *thinking*."""
        try:
            self._switch(thinking)
        except UnsupportedError:
            return False
        return True

    def _switch(self, thinking: Thinking) -> dict[str, object]:
        """Give the variables by which the template is told of *thinking*."""
        if thinking == "auto":
            return {}
        wanted = thinking != "off"
        switches: dict[str, object] = {name: wanted for name in _SWITCHES if name in self._asks}
        has_efforts = _EFFORT in self._asks
        if thinking in {"low", "medium", "high"} and has_efforts:
            return {**switches, _EFFORT: OwnText.whole(thinking)}
        # A template that asks for the effort alone is of a model that always thinks.
        if (switches and thinking in {"on", "off"}) or (thinking == "on" and has_efforts):
            return switches
        raise UnsupportedError(
            f"the model's template does not know thinking {thinking}", numbers=(THINKING,)
        )


def describe(
    messages: Sequence[Message], *, arguments_as_text: bool = False
) -> list[dict[str, object]]:
    """Give *messages* as templates know them; what they do not read is left out of the prompt."""
    tools = {call.id: call.name for message in messages for call in message.calls}
    return [
        _describe(message, tools.get(message.call_id, ""), as_text=arguments_as_text)
        for message in messages
    ]


def _describe(message: Message, tool: str, *, as_text: bool) -> dict[str, object]:
    optional = {
        "name": message.name or tool,
        "reasoning_content": message.reasoning,
        "thinking": message.reasoning,
        "tool_calls": [_describe_call(call, as_text=as_text) for call in message.calls],
        "tool_call_id": message.call_id,
    }
    return {
        "role": OwnText.whole(message.role),
        "content": message.text,
        **{name: value for name, value in optional.items() if value},
    }


def _describe_call(call: ToolCall, *, as_text: bool) -> dict[str, object]:
    arguments = call.arguments if as_text else _parse_arguments(call.arguments)
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _parse_arguments(text: str) -> object:
    """Give the object that *text* is, as templates want it; what is none stays text."""
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return arguments if isinstance(arguments, dict) else text


def _cut_at(mark: str, text: str) -> str:
    """
    Cut *text* at *mark*, which stands where the last message ends.

    Where the template has trimmed the blank after it, it would have trimmed blanks before it.
    """
    at = text.rfind(mark)
    if at < 0:
        raise UnsupportedError("the model's template does not write the message", numbers=(0,))
    trimmed = not text.startswith(" ", at + len(mark))
    return text[:at].rstrip() if trimmed else text[:at]


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
    """
    Write *value* as templates expect it: not escaped for HTML.

    Raises:
        QuestionError: It is so deep that its indents are more than anybody's.
    """
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    if indent is None:
        return encoder.encode(value)
    left = _MOST_GROWN * len(json.dumps(value, ensure_ascii=ensure_ascii))
    pieces = []
    for piece in encoder.iterencode(value):
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            raise QuestionError("what the template writes as JSON is too deep")
    return "".join(pieces)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now(UTC).strftime(pattern)
