"""
A chat template: the messages of a question as one text, of which the template's own part is known.

Rendered in jinja2's immutable sandbox, with the settings and helpers that transformers has.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.enclave.engine.own_text import OwnText, join
from app.protocol.errors import UnsupportedError, WeightsError
from app.protocol.question import Message

_LOOPS: Final = "jinja2.ext.loopcontrols"


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
        try:
            self._template = _Environment().from_string(source)
        except (TemplateError, SyntaxError) as error:
            raise WeightsError("the chat template cannot be read") from error
        self._names = {name: OwnText.whole(text) for name, text in names.items()}

    def render(self, messages: Sequence[Message]) -> str:
        """
        Give the text of *messages*, up to where an answer begins.

        Raises:
            UnsupportedError: The template refuses these roles in this order.
        """
        given = [{"role": OwnText.whole(m.role), "content": m.text} for m in messages]
        try:
            return self._template.render(
                messages=given, add_generation_prompt=True, tools=None, **self._names
            )
        except TemplateError:
            raise UnsupportedError(
                "the model's template refuses these roles", numbers=(0,)
            ) from None


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


def _to_json(value: object, indent: int | None = None) -> str:
    """Write *value* as templates expect it: not escaped for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now(UTC).strftime(pattern)
