from collections.abc import Mapping

import pytest

from app.enclave.engine.forms import CallForm, Pieces, find_forms
from app.enclave.engine.own_text import own_spans
from app.enclave.engine.template import ChatTemplate
from app.protocol.question import Message, Thinking, ToolCall

# In words of our own, and the shapes of the families that are named.
_TURN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}\n<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
)
HERMES = (
    "{% if tools %}<|im_start|>system\nThese may be called:\n"
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    + _TURN
    + "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if m.role == 'user' and tools %}{{ tools | tojson(indent=4) }}\n{% endif %}"
    "{% if m.tool_calls %}"
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('one at a time') }}{% endif %}"
    '{"name": "{{ m.tool_calls[0].function.name }}", '
    '"parameters": {{ m.tool_calls[0].function.arguments | tojson }}}'
    "{% else %}{{ m.content }}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "[INST]{{ m.content }}[/INST]{% elif m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}"
    "{% if c.id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}"
    '{"name": {{ c.function.name | tojson }}, "arguments": {{ c.function.arguments | tojson }}, '
    '"id": "{{ c.id }}"}{{ ", " if not loop.last }}{% endfor %}]{{ eos_token }}'
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
HARMONY = (
    "{% if tools %}<|start|>developer<|message|>{% for t in tools %}type {{ t.function.name }}"
    "{% endfor %}<|end|>{% endif %}{% for m in messages %}"
    "{% if m.tool_calls %}{% set call = m.tool_calls[0].function %}"
    "<|start|>assistant<|channel|>commentary to=functions.{{ call.name }} <|constrain|>json"
    "<|message|>{{ call.arguments | tojson }}<|call|>"
    "{% elif m.role == 'assistant' %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}"
    "<|return|>{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
TEXTS = (  # some put arguments into their text, and fail with an object
    "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
    "{% for m in messages %}<u>{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ '<call>' + c.function.name + ':' + c.function.arguments }}{% endfor %}<e>{% endfor %}"
    "{% if add_generation_prompt %}<u>{% endif %}"
)
TAGS = (  # arguments that are no JSON
    "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
    "{% for m in messages %}<u>{{ m.content }}{% for c in m.tool_calls or [] %}<call>"
    "{{ c.function.name }}{% for k, v in c.function.arguments.items() %}<{{ k }}>{{ v }}"
    "{% endfor %}{% endfor %}<e>{% endfor %}{% if add_generation_prompt %}<u>{% endif %}"
)
SILENT = "{% for m in messages %}<u>{{ m.content }}<e>{% endfor %}<u>"
REFUSING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
    "{{ m.content }}{% endfor %}{{ tools[0].function.name if tools }}"
)
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
MARKS = (
    "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<think>", "</think>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<s>", "</s>", "[TOOL_CALLS]",
    "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "<|start|>", "<|channel|>",
    "<|message|>", "<|constrain|>", "<|call|>", "<|return|>", "<|end|>", "<u>", "<e>", "<call>",
)  # fmt: skip
CONTROLS: Mapping[int, str] = dict(enumerate(MARKS, 1000))
NUMBERS = {spelling: number for number, spelling in CONTROLS.items()}
ENDS = [NUMBERS[mark] for mark in ("<|im_end|>", "<|eot_id|>", "</s>", "<|call|>", "<e>")]


def shown(pieces: Pieces | None) -> str | None:
    """Give pieces as a text, control tokens as they are spelled."""
    if pieces is None:
        return None
    return "".join(CONTROLS[piece] if isinstance(piece, int) else piece for piece in pieces)


def form_of(call: CallForm | None) -> tuple[str | None, ...] | None:
    if call is None:
        return None
    return shown(call.before), shown(call.between), shown(call.again), shown(call.after)


@pytest.mark.parametrize(
    ("source", "thinking", "answer", "call"),
    [
        (
            HERMES,
            "off",
            "",
            (
                '<tool_call>\n{"name": "',
                '", "arguments": ',
                '}\n</tool_call><tool_call>\n{"name": "',
                "}\n</tool_call>",
            ),
        ),
        (LLAMA3, "auto", "", ('{"name": "', '", "parameters": ', None, "}")),
        (
            MISTRAL,
            "auto",
            "",
            ('[TOOL_CALLS][{"name": "', '", "arguments": ', '}, {"name": "', "}]"),
        ),
        (
            HARMONY,
            "auto",
            "<|channel|>final<|message|>",
            (
                "<|channel|>commentary to=functions.",
                " <|constrain|>json<|message|>",
                None,
                "",
            ),
        ),
        (TEXTS, "auto", "", ("<call>", ":", "<call>", "")),
        (TAGS, "auto", "", None),
    ],
    ids=["hermes", "llama3", "mistral", "harmony", "texts", "tags"],
)
def test_families(
    source: str, thinking: Thinking, answer: str, call: tuple[str | None, ...] | None
) -> None:
    """
    How a model writes answers and calls is found from its template alone.
    """
    forms = find_forms(ChatTemplate(source, NAMES), CONTROLS, ends=ENDS, thinking=thinking)
    assert (shown(forms.answer), forms.shows_tools) == (answer, True)
    assert form_of(forms.call) == call


def test_hermes_without_a_switch() -> None:
    """
    A prompt after which the template has an answer begin with an empty thought: so do ours.
    """
    source = HERMES.replace("<|im_start|>{{ m.role }}\n{{ m.content }}", (
        "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content }}"
    ))  # fmt: skip
    forms = find_forms(ChatTemplate(source, NAMES), CONTROLS, ends=ENDS, thinking="auto")
    assert forms.answer == (NUMBERS["<think>"], "\n\n", NUMBERS["</think>"], "\n\n")


@pytest.mark.parametrize("past", ["", "<think>\n\n</think>\n\n"])
def test_begun_thought(past: str) -> None:
    """
    A thought that a prompt has begun is closed before an answer that is held to something, whether
    past answers have one or not.
    """
    source = (
        "{% for m in messages %}<u>{% if m.role == 'assistant' %}"
        + past.replace("\n", "{{ '\n' }}")
        + "{% endif %}{{ m.content }}<e>{% endfor %}{% if add_generation_prompt %}<u><think>"
        "{{ '\n' }}{% endif %}"
    )
    forms = find_forms(ChatTemplate(source, NAMES), CONTROLS, ends=ENDS, thinking="auto")
    assert (shown(forms.answer) or "").strip() == "</think>"


@pytest.mark.parametrize(("source", "shows"), [(SILENT, False), (REFUSING, True)])
def test_unknown(source: str, *, shows: bool) -> None:
    """
    A template that shows no tools, or writes no calls, gives no form of one.
    """
    forms = find_forms(ChatTemplate(source, NAMES), CONTROLS, ends=ENDS, thinking="auto")
    assert (forms.shows_tools, forms.call, forms.answer) == (shows, None, ())


@pytest.mark.parametrize(
    "source", [HERMES, LLAMA3, MISTRAL, HARMONY], ids=["hermes", "llama3", "mistral", "harmony"]
)
def test_content_is_no_template_s(source: str) -> None:
    """
    Names, descriptions, arguments, results and ids are content, whatever they spell, however the
    template writes them.
    """
    spelled = "".join(MARKS)
    tools = [{"type": "function", "function": {
        "name": spelled, "description": spelled, "parameters": {spelled: [spelled]},
    }}]  # fmt: skip
    call = ToolCall("a" * 9, spelled, f'{{"{spelled}": "{spelled}"}}')
    messages = (
        Message("user", spelled, name=spelled),
        Message("assistant", "", reasoning=spelled, calls=(call,)),
        Message("tool", spelled, call_id="a" * 9),
    )
    template = ChatTemplate(source, NAMES)
    text = template.render(messages, tools=tools)
    plain = template.render(
        tuple(
            Message(m.role, m.text.replace(spelled, "x"), calls=m.calls[:0] or tuple(
                ToolCall(c.id, "x", '{"x": "x"}') for c in m.calls
            ))
            for m in messages
        ),
        tools=[{"type": "function", "function": {"name": "x", "parameters": {"x": ["x"]}}}],
    )  # fmt: skip
    own = [text[begin:end] for begin, end in own_spans(text)]
    wanted = [plain[begin:end] for begin, end in own_spans(plain)]
    marks = [mark for piece in own for mark in MARKS if mark in piece]
    assert marks == [mark for piece in wanted for mark in MARKS if mark in piece]
    assert marks != []
    assert spelled in str.__str__(text)


def test_arguments() -> None:
    """
    Arguments reach a template as an object; what is none stays as it was written.
    """
    source = "{% for m in messages %}{{ m.tool_calls[0].function.arguments | tojson }}{% endfor %}"
    template = ChatTemplate(source, NAMES)
    for written, rendered in (
        ('{"a":  [1, {"b": null}]}', '{"a": [1, {"b": null}]}'),
        ("[1]", '"[1]"'),
        ("{", '"{"'),
        ("[" * 9000, f'"{"[" * 9000}"'),
    ):
        message = Message("assistant", "", calls=(ToolCall("1", "f", written),))
        assert str.__str__(template.render([message, message], whole=True)) == rendered * 2


def test_results_name_their_tool() -> None:
    """
    A result is named by the call that it is the result of, where it has no name itself.
    """
    template = ChatTemplate(
        "{% for m in messages %}{{ m.name }}:{{ m.tool_call_id }};{% endfor %}", {}
    )
    messages = (
        Message("assistant", "", calls=(ToolCall("1", "f", "{}"), ToolCall("2", "g", "{}"))),
        Message("tool", "a", call_id="2"),
        Message("tool", "b", "other", call_id="1"),
    )
    assert str.__str__(template.render(messages)) == ":;g:2;other:1;"
