"""
The models and questions of the engine's benchmark.
"""

from pathlib import Path

import pytest
import tokenizers

from app.enclave.engine.prompt import plain_transcript
from app.protocol.question import Message
from benchmarks.engine import prompts
from benchmarks.engine.made_tokenizer import write_tokenizer
from benchmarks.engine.shapes import SPECIAL_TOKENS, Shape, source_of

_TOKENS = 20_000
_SHAPE = Shape("small", "bloom", _TOKENS, {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    Give a source folder with a tokenizer of the made-up words.
    """
    monkeypatch.setattr("benchmarks.engine.shapes.CACHE", tmp_path)
    source = source_of(_SHAPE)
    source.mkdir(parents=True)
    write_tokenizer(source, _TOKENS)
    return source


def test_every_token_is_a_text_of_its_own(folder: Path) -> None:
    """
    The made-up tokenizer is as large as the model's vocabulary, and no two tokens look alike.
    """
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == _TOKENS
    assert tokenizer.decode(range(len(SPECIAL_TOKENS))) == ""
    ids = range(_TOKENS // 2, _TOKENS)
    assert len({tokenizer.decode([number]) for number in ids}) == len(ids)
    text = " Straße, 12 µg \U0001f600 bada lemika"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_prompts_have_exactly_as_many_tokens(folder: Path) -> None:
    """
    What the engine makes of a question has 128 tokens; each asker's is another, the same each run.
    """
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    made = prompts.make_prompts(_SHAPE, 4, 128)
    assert len({prompt.text for prompt in made}) == 4
    for prompt in made:
        encoded = tokenizer.encode(plain_transcript([Message("user", prompt.text)])).ids
        assert encoded == list(prompt.tokens)
        assert len(encoded) == 128
    assert made == prompts.make_prompts(_SHAPE, 4, 128)
    with pytest.raises(ValueError, match="exactly 2 tokens"):
        prompts.make_prompts(_SHAPE, 1, 2)
