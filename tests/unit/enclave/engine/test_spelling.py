from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from app.enclave.engine.spelling import Speller

DEMO = Path(__file__).parents[4] / "local" / "demo_model" / "weights" / "tokenizer.json"
TEXT = "Don't stop: naïve 東京 🙂\n\tone  two"


def metaspace() -> tokenizers.Tokenizer:
    """Make a tokenizer as Llama 2 has one: pieces with a sign for spaces, and bytes."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁one", "two", "▁two"]
    tokenizer = tokenizers.Tokenizer(
        models.BPE({piece: n for n, piece in enumerate(pieces)}, [], byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.add_tokens(["▁▁"])
    return tokenizer


def test_bytes_of_a_text() -> None:
    """
    The bytes of a text's tokens, one after the other, are the text's: half characters, too.
    """
    tokenizer = tokenizers.Tokenizer.from_file(str(DEMO))
    spell = Speller(tokenizer)
    numbers = tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert b"".join(map(spell, numbers)) == TEXT.encode()


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        ("▁one", b" one"),
        ("two", b"two"),
        ("▁", b" "),
        ("<0xF0>", b"\xf0"),
        ("<0x0A>", b"\n"),
        ("</s>", b"</s>"),
        ("▁▁", b"  "),
    ],
)
def test_pieces_with_a_sign_for_spaces(piece: str, expected: bytes) -> None:
    """
    A token's bytes are those that it adds to a text that has begun, so with its space.
    """
    tokenizer = metaspace()
    number = tokenizer.token_to_id(piece)
    assert number is not None
    assert Speller(tokenizer)(number) == expected


def test_words_with_a_sign_for_their_middle() -> None:
    """
    So it is where the pieces of a word are marked instead.
    """
    vocabulary = {"[UNK]": 0, "play": 1, "##ing": 2}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    assert [Speller(tokenizer)(n) for n in (1, 2)] == [b" play", b"ing"]


def test_no_such_token() -> None:
    """
    A number that the vocabulary does not have has no bytes.
    """
    assert Speller(metaspace())(10_000) == b""
