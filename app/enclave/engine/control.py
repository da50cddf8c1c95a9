"""
Control tokens: those that a prompt's template may set, and no content may spell.

A tokenizer takes the spelling of an added token for the token wherever it stands. Here a prompt is
encoded by a tokenizer in which such tokens have names that nobody can know. Where the template
itself has spelled one, its name is put. Whatever else spells it is encoded as the text that it is.
"""

import json
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Final, cast

# Read when a prompt is encoded: in the asker's own thread, and in no pool of the library's.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers

from app.enclave.engine.own_text import Spans, own_spans
from app.protocol.errors import TooLongError

_NAME_BYTES: Final = 16  # what cannot be guessed
_WORD: Final = re.compile(r"\w")
SPACES: Final = re.compile(r"[\s▁]*")  # SentencePiece writes a space so


class PromptTokenizer:
    """
    Encodes prompts with the tokens of *tokenizer*, of which those of *texts* are control tokens.

    Attributes:
        tokenizer: What encodes; it has other names and numbers for added tokens.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        added = tokenizer.get_added_tokens_decoder()
        nonce = secrets.token_hex(_NAME_BYTES)
        # All of one length, so that none begins with another; with the first and the last character
        # of the token, at which the library looks. Spaces control nothing.
        names = {
            token.content: f"{token.content[0]}{nonce}{at:08}{token.content[-1]}"
            for at, token in enumerate(added.values())
            if not SPACES.fullmatch(token.content)
        }
        parts = cast("dict[str, dict[str, object]]", json.loads(tokenizer.to_str()))
        others = _hide_all(parts["model"], names)
        self.tokenizer = tokenizers.Tokenizer.from_str(_without_added(parts))
        # All at once: each time the library makes its search anew.
        self.tokenizer.add_tokens([_rename(token, names) for token in added.values()])
        self._numbers = {  # by those that the renamed tokens have
            self._number(names.get(token.content, token.content)): number
            for number, token in added.items()
        }
        self._named = {self._number(name) for name in names.values()}
        if not self._named.isdisjoint(others):
            raise ValueError("a control token has the number of another: the vocabulary has gaps")
        words = {token.content for token in added.values() if token.single_word}
        self._every = _Spellings(names, words)
        # Whether others are found depends on what normalising makes of the text about them.
        normalized = {token.content for token in added.values() if token.normalized}
        rest = {spelling: name for spelling, name in names.items() if spelling not in normalized}
        self._not_normalized = _Spellings(rest, words)

    def encode(self, text: str, *, add_special_tokens: bool, limit: int | None = None) -> list[int]:
        """
        Give the tokens of *text*, in which only a template's own text spells control tokens.

        Other threads run meanwhile.

        Raises:
            TooLongError: They are *limit* or more; numbers are how many, and *limit*.
        """
        named, count = self._every.name(text)
        numbers = self._encode(named, limit, add_special_tokens=add_special_tokens)
        if sum(number in self._named for number in numbers) < count:
            named, _ = self._not_normalized.name(text)
            numbers = self._encode(named, limit, add_special_tokens=add_special_tokens)
        return [self._numbers.get(number, number) for number in numbers]

    def _number(self, token: str) -> int:
        number = self.tokenizer.token_to_id(token)
        assert number is not None  # noqa: S101 - it was added
        return number

    def _encode(self, text: str, limit: int | None, *, add_special_tokens: bool) -> list[int]:
        """`encode` would keep all threads waiting until it has ended; so would too many numbers."""
        (encoding,) = self.tokenizer.encode_batch_fast(
            [text], add_special_tokens=add_special_tokens
        )
        if limit is not None and len(encoding) >= limit:
            raise TooLongError(numbers=(len(encoding), limit))
        return list(encoding.ids)


class _Spellings:
    """
    Finds where a text's own part spells one of *names*, the longest that begins there.

    Args:
        words: Those that are found where no letter or digit stands beside them.
    """

    def __init__(self, names: Mapping[str, str], words: Collection[str]) -> None:
        self._names = names
        self._words = words
        lengths: dict[str, set[int]] = defaultdict(set)
        for spelling in names:
            lengths[spelling[0]].add(len(spelling))
        self._lengths = {first: sorted(some, reverse=True) for first, some in lengths.items()}

    def name(self, text: str) -> tuple[str, int]:
        """Give *text* with names in place of its own part's spellings, and how many there were."""
        plain = str.__str__(text)  # to cut one that knows its parts takes a look at all of them
        pieces: list[str] = []
        at = 0
        for begin, end in self._find(plain, own_spans(text)):
            pieces += (plain[at:begin], self._names[plain[begin:end]])
            at = end
        return "".join((*pieces, plain[at:])), len(pieces) // 2

    def _find(self, text: str, spans: Spans) -> Iterator[tuple[int, int]]:
        for begin, end in spans:
            at = begin
            while at < end:
                length = self._length_at(text, at, end)
                if length:
                    yield at, at + length
                at += length or 1

    def _length_at(self, text: str, at: int, end: int) -> int:
        """Give the length of the longest spelling at *at* that ends by *end*; 0 for none."""
        for length in self._lengths.get(text[at], ()):
            spelling = text[at : at + length]
            if at + length <= end and spelling in self._names:
                beside = text[max(0, at - 1) : at] + text[at + length : at + length + 1]
                inside = spelling in self._words and _WORD.search(beside)
                return 0 if inside else length
        return 0


def _rename(token: tokenizers.AddedToken, names: Mapping[str, str]) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(
        names.get(token.content, token.content),
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=token.special,
    )


def _hide_all(model: dict[str, object], names: Mapping[str, str]) -> Collection[int]:
    """Make *model* unable to make *names*; give the numbers of all its other tokens."""
    hidden = {token: f"{name}'" for token, name in names.items()}  # spellings that no text has
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        numbers = [
            (hidden[token], vocabulary.pop(token)) for token in hidden if token in vocabulary
        ]
        others = set(vocabulary.values())
        vocabulary.update(numbers)
    else:
        scored = cast("list[tuple[str, float]]", vocabulary)
        others = {number for number, (token, _) in enumerate(scored) if token not in hidden}
        model["vocab"] = [(hidden.get(token, token), score) for token, score in scored]
    if "merges" in model:
        merges = cast("list[tuple[str, str]]", model["merges"])
        model["merges"] = [
            (left, right) for left, right in merges
            if not (left in names or right in names or left + right in names)
        ]  # fmt: skip
    unknown = model.get("unk_token")
    if isinstance(unknown, str):
        model["unk_token"] = hidden.get(unknown, unknown)
    return others


def _without_added(parts: Mapping[str, object]) -> str:
    return json.dumps({**parts, "added_tokens": [], "truncation": None, "padding": None})
