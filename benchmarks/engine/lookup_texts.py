"""
What is written with prompt lookup, and to which prompts: a letter to correct, to quote, to ignore.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_LONGEST: Final = 5  # characters of a token, about as many as a vocabulary's have in English
_FIRST_ID: Final = 100  # ids of tokens; lower ones are special ones' in some models
_ELSEWHERE: Final = 5000  # what misleads is followed by tokens from here on

LETTER: Final = """\
Dear Mrs Okafor, thank you for your call on Tuesday about the delivery to our branch in Leeds. I \
have looked into what happened. The order left our warehouse on the third of March with all \
forty-two chairs, and the driver's list shows that thirty-six were unloaded. The remaining six \
were taken on to Bradford by mistake, where they still stand in the storage room. Our carrier \
will bring them to you on Friday between nine and noon, without any charge, and will take back \
the two chairs whose legs were damaged on the way. I have asked accounts to lower the invoice by \
four hundred and twenty pounds, which covers the damaged chairs and the days for which you had \
to rent others. You do not need to send us photographs or fill in a form. If Friday does not \
suit you, please let my colleague Daniel Hughes know by Thursday noon; he has all the details \
and can be reached at the number below. I am sorry for the trouble that this has caused you and \
your team, and I hope to see you at the trade fair in May. Yours sincerely, Marta Lindqvist, \
customer service"""
# What the letter says before it is corrected.
_MISTAKES: Final = (
    ("thank you", "thank's"), ("delivery", "delivry"), ("warehouse", "wharehouse"),
    ("unloaded", "unloded"), ("remaining", "remaning"), ("where they", "were they"),
    ("without any", "with out any"), ("whose legs", "who's legs"), ("accounts", "acounts"),
    ("photographs", "photografs"), ("suit you", "suits you"), ("colleague", "collegue"),
    ("reached", "reachd"), ("sincerely", "sincerly"),
)  # fmt: skip
_NEW: Final = """\
Sourdough needs time more than work. Feed the starter the evening before, equal weights of rye \
flour and lukewarm water, and leave it covered near the oven. In the morning it should have \
doubled and smell of apples. Mix it with strong wheat flour, salt and cool water until no dry \
patches are left, then wait for half an hour before you fold the dough for the first time. Four \
such turns, each thirty minutes after the last, build enough strength for an open crumb. Shape a \
round loaf, set it into a floured basket and let it rise until a gentle poke springs back \
slowly. Heat a heavy pot to two hundred and forty degrees, score the top with a razor, and bake \
with the lid on for twenty-five minutes. Take the lid off, lower the heat a little, and go on \
until the crust is as dark as chestnuts. It sings while it cools; cutting too early makes the \
inside gummy, so keep your hands off for an hour at least. Leftover slices toast well for a \
week, and stale ends turn into crumbs or soup"""
# What leads to each quotation, and where that begins and ends.
_QUOTES: Final = (
    ("The letter says this about each point. On the missing chairs: ", "The rem", "storage room. "),
    ("As for when they come: ", "Our carrier", "on the way. "),
    ("About money it promises: ", "I have asked", "rent others. "),
    ("And should that day be bad: ", "please let my", "number below. "),
)


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt and the answer to it, in tokens."""

    name: str
    prompt: Sequence[int]
    answer: Sequence[int]


def make_tasks() -> list[Task]:
    """Give all tasks, those first that copy most."""
    ids: dict[str, int] = {}

    def encode(*texts: str) -> list[int]:
        return [ids.setdefault(piece, _FIRST_ID + len(ids)) for piece in _cut(texts)]

    wrong = LETTER
    for right, mistake in _MISTAKES:
        wrong = wrong.replace(right, mistake, 1)
    quoted = "".join(lead + _from_letter(begin, end) for lead, begin, end in _QUOTES)
    new = encode(_NEW)
    return [
        Task("a letter, corrected", encode("Correct this: ", wrong, "\n\n"), encode(LETTER)),
        Task("passages quoted from it", encode("Answer: ", LETTER, "\n\n"), encode(quoted)),
        Task("another text", encode("Write of bread, not of this: ", LETTER, "\n\n"), new),
        Task("every guess is wrong", [*_mislead(new), *encode("\n\n")], new),
    ]


def _from_letter(begin: str, end: str) -> str:
    return LETTER[LETTER.index(begin) : LETTER.index(end) + len(end)]


def _cut(texts: Iterable[str]) -> Iterable[str]:
    for word in re.findall(r" ?\w+|[^\w]", "".join(texts)):
        yield from (word[at : at + _LONGEST] for at in range(0, len(word), _LONGEST))


def _mislead(answer: Sequence[int]) -> Iterable[int]:
    """Give all pairs of *answer*, each followed by what never follows it there."""
    for at, pair in enumerate(pairwise(answer)):
        yield from (*pair, _ELSEWHERE + at)
