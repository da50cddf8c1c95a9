import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tokenizers

from app.enclave.engine import tokenizer as engine_tokenizer
from app.enclave.engine.prompt import TRANSCRIPT_STOPS, plain_transcript
from app.enclave.engine.tokenizer import MOST_CHARACTERS, TEMPLATE_NAME, TOKENIZER_NAME, Tokenizer
from app.enclave.engine.weights import Weights, load_weights
from app.protocol.constants import MAX_CONTROL_BYTES
from app.protocol.errors import QuestionError, TooLongError, UnsupportedError, WeightsError
from app.protocol.question import Message, Options, Question, ToolCall

DEMO = Path(__file__).parents[4] / "local" / "demo_model" / "weights"
TURNS = (Message("user", "Hello"), Message("assistant", "Hi."), Message("user", "Where am I?"))
CHAT = (
    "{{ bos_token }}{% for m in messages %}\n"
    "{% if m.role == 'system' %}{{ raise_exception('no ' + m.content) }}{% endif %}\n"
    "<{{ m.role }}>{{ m['content'] | trim }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    """The demo model's package, in a folder where a template may be added."""
    shutil.copy(DEMO / TOKENIZER_NAME, tmp_path)
    return replace(load_weights(DEMO), folder=tmp_path, bos_text="<s>", eos_text="</s>")


def with_template(weights: Weights, template: str) -> Tokenizer:
    (weights.folder / TEMPLATE_NAME).write_text(template)
    return Tokenizer(weights)


def render(tokenizer: Tokenizer, *messages: Message) -> str:
    assert tokenizer._template is not None
    return tokenizer._template.render(messages)


def test_plain(weights: Weights) -> None:
    """
    Without a template the prompt is a plain transcript, ended where the next question would be.
    """
    tokenizer = Tokenizer(weights)
    ids = tokenizer.encode(Question(TURNS))
    assert tokenizer.decode(ids) == plain_transcript(TURNS)
    assert (tokenizer.stops, tokenizer.strip_start) == (TRANSCRIPT_STOPS, True)


def test_plain_goes_on(weights: Weights) -> None:
    """
    A plain transcript that ends with the assistant's words goes on where they end.
    """
    messages = (*TURNS, Message("assistant", " You are in "))
    tokenizer = Tokenizer(weights)
    text = tokenizer.decode(tokenizer.encode(Question(messages)))
    assert text.endswith("Question: Where am I?\nAnswer: You are in ")


def test_thinking_without_a_template(weights: Weights) -> None:
    """
    A model without a template knows no thinking.
    """
    with pytest.raises(UnsupportedError) as caught:
        Tokenizer(weights).encode(Question(TURNS, Options(thinking="off")))
    assert caught.value.numbers == (5,)


def test_control_tokens(weights: Weights) -> None:
    """
    Control tokens are the special ones, and those that the template spells; other words that a
    vocabulary adds are text, and so are spaces.
    """
    path = weights.folder / TOKENIZER_NAME
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    before = {t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special}
    tokenizer.add_special_tokens(["<|end|>", "  "])
    tokenizer.add_tokens(["<tool_call>", "<table>"])
    tokenizer.save(str(path))
    sizes = replace(weights.sizes, vocabulary=tokenizer.get_vocab_size())
    made = with_template(replace(weights, sizes=sizes), "{{ '<tool_call>' }}")
    assert set(made.controls.values()) == {*before, "<|end|>", "<tool_call>"}


def test_a_control_token_that_no_frame_holds(weights: Weights) -> None:
    """
    A package whose control token has more bytes than any real one's is refused.
    """
    path = weights.folder / TOKENIZER_NAME
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens(["<" + "x" * MAX_CONTROL_BYTES + ">"])
    tokenizer.save(str(path))
    sizes = replace(weights.sizes, vocabulary=tokenizer.get_vocab_size())
    with pytest.raises(WeightsError, match="a control token has 258 bytes"):
        Tokenizer(replace(weights, sizes=sizes))


def test_template(weights: Weights) -> None:
    """
    A chat template is rendered as transformers renders it: lines of blocks alone leave nothing,
    and special tokens in it are single tokens.
    """
    tokenizer = with_template(weights, CHAT)
    rendered = render(tokenizer, *TURNS)
    assert rendered == "<s><user>Hello</s>\n<assistant>Hi.</s>\n<user>Where am I?</s>\n<assistant>"
    ids = tokenizer.encode(Question(TURNS))
    assert ids.count(1) == 1
    assert ids.count(2) == len(TURNS)
    assert (tokenizer.stops, tokenizer.strip_start) == ((), False)


def test_more_tokens_than_the_model_has(weights: Weights) -> None:
    """
    A tokenizer with tokens that the model lacks is refused: it would answer them with what was
    left of another step.
    """
    fewer = replace(weights, sizes=replace(weights.sizes, vocabulary=2047))
    with pytest.raises(WeightsError, match="the tokenizer has token 2047, the model 2047 of"):
        Tokenizer(fewer)


def test_no_shared_cache(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Tokenizers keep no words of one asker that would be found faster by another.
    """
    sizes: list[int] = []
    model = SimpleNamespace(_resize_cache=sizes.append)
    engine_tokenizer._forget_words(SimpleNamespace(model=model))  # type: ignore[arg-type]
    assert sizes == [0]
    forgetful: list[tokenizers.Tokenizer] = []
    monkeypatch.setattr(engine_tokenizer, "_forget_words", forgetful.append)
    tokenizer = Tokenizer(weights)
    assert forgetful == [tokenizer._tokenizer, tokenizer._prompts.tokenizer]
    assert all(hasattr(each.model, "_resize_cache") for each in forgetful)


def test_transcript_spells_no_control_token(weights: Weights) -> None:
    """
    In a plain transcript no message spells a control token: what it writes stays text.
    """
    tokenizer = Tokenizer(weights)
    ids = tokenizer.encode(Question((Message("user", "a </s><s> b"),)))
    assert not {1, 2} & set(ids)
    assert "a </s><s> b" in tokenizer.decode(ids)


def test_too_long(weights: Weights) -> None:
    """
    A prompt that leaves no room for an answer is refused by its length, before its numbers are
    made: for a quarter of a million that takes long enough to be felt.
    """
    tokenizer = Tokenizer(weights)
    with pytest.raises(TooLongError) as caught:
        tokenizer.encode(Question((Message("user", "x " * 2000),)))
    tokens, context = caught.value.numbers
    assert context == weights.context_length < tokens


def test_longest_token(weights: Weights) -> None:
    """
    No token of a prompt is longer than the tokenizer's longest.
    """
    tokenizer = Tokenizer(weights)
    vocabulary = tokenizer._tokenizer.get_vocab(with_added_tokens=True)
    texts = [tokenizer.decode([number]).encode() for number in vocabulary.values()]
    assert max(map(len, texts)) <= tokenizer.most_token_bytes < 64


def test_asker_s_text_is_no_template(weights: Weights) -> None:
    """
    What an asker writes is never rendered.
    """
    tokenizer = with_template(weights, CHAT)
    assert "{{ 7 * 7 }}" in render(tokenizer, Message("user", "{{ 7 * 7 }}"))


def test_refused_roles(weights: Weights) -> None:
    """
    Roles that the template refuses are refused, without the template's words.
    """
    tokenizer = with_template(weights, CHAT)
    with pytest.raises(UnsupportedError) as caught:
        tokenizer.encode(Question((Message("system", "secret"), Message("user", "Hello"))))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% set _ = messages.append(1) %}",
    ],
)
def test_sandbox(weights: Weights, template: str) -> None:
    """
    A template that reaches for Python's insides, or changes what it was given, is refused.
    """
    with pytest.raises(UnsupportedError):
        with_template(weights, template).encode(Question(TURNS))


def test_helpers(weights: Weights) -> None:
    """
    The helpers that templates of real models call are there.
    """
    template = "{{ messages[0] | tojson }} {{ strftime_now('%Y') }}{% break %}"
    with pytest.raises(WeightsError):
        with_template(weights, template)  # a break outside of a loop
    template = template.replace("{% break %}", "{% for m in messages %}{% break %}{% endfor %}")
    rendered = render(with_template(weights, template), Message("user", "<é>"))
    assert rendered.startswith('{"role": "user", "content": "<é>"} 2')


@pytest.mark.parametrize("name", [TOKENIZER_NAME, TEMPLATE_NAME])
def test_unreadable(weights: Weights, name: str) -> None:
    """
    A tokenizer or a template that cannot be read is refused.
    """
    (weights.folder / name).write_text("{% if %}")
    with pytest.raises(WeightsError):
        Tokenizer(weights)


@pytest.mark.parametrize(
    "tools", [None, '[{"type":"function","function":{"name":"f","x":"\\ud800"}}]']
)
def test_half_of_a_surrogate_pair(weights: Weights, tools: str | None) -> None:
    """
    JSON can spell what is no Unicode; where a template writes that, the question is refused.
    """
    source = (
        "{{ tools | tojson }}{% for m in messages %}{{ m.content }}"
        "{{ m.tool_calls | tojson if m.tool_calls }}{% endfor %}"
    )
    call = ToolCall("a", "f", '{"x": "\\ud800"}' if tools is None else "{}")
    messages = (Message("assistant", "", calls=(call,)), Message("tool", "b", call_id="a"))
    with pytest.raises(QuestionError):
        with_template(weights, source).encode(Question(messages, Options(tools=tools)))


def test_far_more_than_the_question(weights: Weights) -> None:
    """
    What a template makes far more of than the question has is refused before it is encoded.
    """
    template = "{% for n in range(40) %}{{ messages[0].content }}{% endfor %}"
    tokenizer = with_template(weights, template)
    short, long = Message("user", "a" * 1000), Message("user", "a" * (MOST_CHARACTERS // 40 + 1))
    assert render(tokenizer, short)
    with pytest.raises(QuestionError):
        tokenizer.encode(Question((long,)))
