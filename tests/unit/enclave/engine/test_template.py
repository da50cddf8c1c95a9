import json

import pytest

from app.enclave.engine.own_text import own_spans
from app.enclave.engine.template import ChatTemplate
from app.protocol.errors import QuestionError, UnsupportedError, WeightsError
from app.protocol.question import Message, Thinking

NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
TURNS = (Message("user", "<U>"), Message("assistant", " <A> "), Message("user", "<V>"))


def render(source: str) -> tuple[str, str]:
    """Give what *source* makes of TURNS, and the same with dots for what is the template's own."""
    text = ChatTemplate(source, NAMES).render(TURNS)
    dotted = list(text)
    for begin, end in own_spans(text):
        dotted[begin:end] = "." * (end - begin)
    return str.__str__(text), "".join(dotted)


@pytest.mark.parametrize(
    ("body", "text", "dotted"),
    [
        ("<{{ m.role }}>{{ m.content }}", "<user><U>", "......<U>"),
        ("{{ '<' + m['role'] + '>' + m['content'] + eos_token }}",
         "<user><U></s>", "......<U>...."),
        ("{{ '<' ~ m.role ~ '>' ~ m.content ~ 1 }}", "<user><U>1", "......<U>1"),
        ("{{ ('<x>' + m.content) | trim }}", "<x><U>", "...<U>"),
        ("{% set x = '<x>' %}{{ x }}{{ m.content }}", "<x><U>", "...<U>"),
        ("{% set x %}<x>{{ m.content }}{% endset %}{{ x }}", "<x><U>", "...<U>"),
        ("{% macro f(c) %}<x>{{ c }}{% endmacro %}{{ f(m.content) }}", "<x><U>", "...<U>"),
        ("{% set n = namespace(t='') %}{% set n.t = n.t + '<x>' + m.content %}{{ n.t }}",
         "<x><U>", "...<U>"),
        ("{{ m.content if m.content else '<x>' }}{{ '<y>' if true }}", "<U><y>", "<U>..."),
        ("{{ bos_token }}{{ m | tojson }}", '<s>{"role": "user", "content": "<U>"}',
         '...{"role": "user", "content": "<U>"}'),
        ("{% if '<U>' in m.content %}{{ m.content.split('<U>') | length }}{% endif %}", "2", "2"),
        ("{% with %}<x>{{ m.content }}{% endwith %}", "<x><U>", "...<U>"),
        ("{{ '<{}>'.format(m.content) | trim }}", "<<U>>", "<<U>>"),
        ("{{ ['<x>', m.content] | join }}", "<x><U>", "<x><U>"),
    ],
)  # fmt: skip
def test_own_text_is_known(body: str, text: str, dotted: str) -> None:
    """
    Whatever way a template puts its own text beside content, the two are told apart; and where that
    is lost, the template's text counts as content, never the reverse.
    """
    source = f"{{% for m in messages %}}{{% if loop.first %}}{body}{{% endif %}}{{% endfor %}}"
    assert render(source) == (text, dotted)


def test_content_is_compared_as_it_is() -> None:
    """
    A template sees content's own characters: it can split an answer where a thought ends.
    """
    source = (
        "{% for m in messages %}{% if '<A>' in m.content %}"
        "{{ m.content.split('<A>')[-1].lstrip(' ') }}!{% endif %}{% endfor %}"
    )
    assert render(source) == ("!", ".")


def test_names_are_the_template_s() -> None:
    """
    What a template calls by the names it is given is its own.
    """
    assert render("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}")[1] == "...<U>...."


def test_many_templates_live_apart() -> None:
    """
    A template that is compiled later changes nothing of an earlier one.
    """
    first = ChatTemplate("<one>{{ messages[0].content }}", NAMES)
    ChatTemplate("{{ '<two>' + messages[0].content + '<three>' }}", NAMES)
    assert first.render(TURNS) == "<one><U>"


@pytest.mark.parametrize("source", ["{% if %}", "{% break %}", "{{ 1 | nothing }}"])
def test_unreadable(source: str) -> None:
    """
    A template that cannot be compiled is refused when it is read.
    """
    with pytest.raises(WeightsError):
        ChatTemplate(source, NAMES)


def test_refused() -> None:
    """
    Roles that a template refuses are refused, without its words or the content.
    """
    with pytest.raises(UnsupportedError) as caught:
        ChatTemplate("{{ raise_exception('no ' + messages[0].content) }}", NAMES).render(TURNS)
    assert "<U>" not in str(caught.value)


BEGUN = (Message("user", "<U>"), Message("assistant", "It is <A> "))
CHAT = (
    "{% for m in messages %}<{{ m.role }}>CONTENT<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize(
    ("content", "end"),
    [
        ("{{ m.content }}", "<assistant>It is <A> "),
        ("{{ m.content | trim }}", "<assistant>It is <A>"),
        ("{{ m.content.rstrip() }}{{ m.content | length }}", "<assistant>It is <A>"),
        ("{% if loop.last %}<think></think>{% endif %}{{ m['content'] }}",
         "<assistant><think></think>It is <A> "),
    ],
)  # fmt: skip
def test_an_answer_is_continued(content: str, end: str) -> None:
    """
    Where the last message is the assistant's, the prompt ends where it does: nothing that the
    template writes behind it is there, nor blanks that it trims; and it stays content.
    """
    text = ChatTemplate(CHAT.replace("CONTENT", content), NAMES).render(BEGUN)
    assert text.endswith(end)
    assert "<end>" not in text.removeprefix("<user>").partition("<assistant>")[2]
    assert all("It is" not in text[begin:stop] for begin, stop in own_spans(text))


@pytest.mark.parametrize("content", ["", "{{ m.content | upper }}", "{{ m.content[:5] }}"])
def test_an_answer_that_is_not_written_is_not_continued(content: str) -> None:
    """
    A template that does not write the message cannot continue it, and says so.
    """
    with pytest.raises(UnsupportedError) as caught:
        ChatTemplate(CHAT.replace("CONTENT", content), NAMES).render(BEGUN)
    assert caught.value.numbers == (0,)


SWITCH = "{% if enable_thinking is defined %}{{ 'on' if enable_thinking else 'off' }}{% endif %}"
DEEPSEEK = "{{ 'on' if thinking else 'off' }}"
EFFORT = "{% if not reasoning_effort %}{% set reasoning_effort = 'way' %}{% endif %}"
EFFORT += "{{ reasoning_effort }}"


@pytest.mark.parametrize(
    ("source", "thinking", "expected"),
    [
        (SWITCH, "auto", ""),
        (SWITCH, "on", "on"),
        (SWITCH, "off", "off"),
        (SWITCH, "low", None),
        (DEEPSEEK, "auto", "off"),
        (DEEPSEEK, "on", "on"),
        (DEEPSEEK, "off", "off"),
        (EFFORT, "auto", "way"),
        (EFFORT, "on", "way"),
        (EFFORT, "off", None),
        (EFFORT, "high", "high"),
        (SWITCH + EFFORT, "low", "onlow"),
        (SWITCH + EFFORT, "off", "offway"),
        ("no word of it", "auto", "no word of it"),
        ("no word of it", "off", None),
        ("no word of it", "medium", None),
    ],
)
def test_thinking(source: str, thinking: Thinking, expected: str | None) -> None:
    """
    A template is told how to think in the words that it knows, and of what it does not know
    nothing is promised.
    """
    template = ChatTemplate(source, NAMES)
    if expected is not None:
        assert template.render(TURNS, thinking=thinking) == expected
        return
    with pytest.raises(UnsupportedError) as caught:
        template.render(TURNS, thinking=thinking)
    assert caught.value.numbers == (5,)


def test_names_and_reasoning() -> None:
    """
    A template that writes names, or what was thought, has them, as content; one that does not
    leaves them out.
    """
    messages = (
        Message("user", "Hello", name="<Ada>"),
        Message("assistant", "Hi.", reasoning="<why>"),
        Message("user", "And?"),
    )
    source = (
        "{% for m in messages %}{{ m.name or 'nobody' }}:{{ m.reasoning_content }}{{ m.thinking }} "
        "{% endfor %}"
    )
    text = ChatTemplate(source, NAMES).render(messages)
    assert text == "<Ada>: nobody:<why><why> nobody: "
    assert all("<" not in text[begin:stop] for begin, stop in own_spans(text))
    assert ChatTemplate("{{ messages[0].content }}", NAMES).render(messages) == "Hello"


@pytest.mark.parametrize("levels", [40, 200, 900])
def test_deep_json_does_not_grow(levels: int) -> None:
    """
    Indents of JSON that is deeper than anybody's are not written: of a question they would make
    hundreds of times as much.
    """
    template = ChatTemplate("{{ tools | tojson(indent=4) }}", {})
    tools = json.loads("[" * levels + "1," * 5000 + "1" + "]" * levels)
    with pytest.raises(QuestionError):
        template.render(TURNS, tools=tools)


def test_indented_json() -> None:
    """
    Tools as people have them are indented as transformers does it.
    """
    template = ChatTemplate("{{ tools | tojson(indent=4) }}", {})
    choice = {"type": "integer", "enum": [1, 2, 3, 4, 5, 6, 7, 8, 9]}
    schema = {"type": "array", "items": {"type": "object", "properties": {"é": choice}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    text = template.render(TURNS, tools=tools)
    assert str.__str__(text) == json.dumps(tools, ensure_ascii=False, indent=4)
