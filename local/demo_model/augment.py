"""
Variation: how a question of the corpus is worded anew each time training shows it.

People ask in lower case, mistype, greet first and give their user name; the answer stays.
"""

import random
import re
from typing import Final

from local.demo_model.corpus import IT_TOPICS, Entry

# Ways to begin that mean the same, longest first where one contains another.
_HOW: Final = (
    "How do I ", "How can I ", "How would I ", "Can you tell me how to ", "What's the way to ",
    "Please explain how to ", "I'd like to know how to ", "Tell me how to ", "Is there a way to ",
    "Do you know how to ", "I don't know how to ",
)  # fmt: skip
_CAN: Final = (
    "Can I ", "May I ", "Am I allowed to ", "Is it possible to ", "Could I ", "Is it okay to ",
)  # fmt: skip
_WANT: Final = ("I want to ", "I would like to ", "I need to ", "I'd like to ")
_WHERE: Final = ("Where is ", "Where can I find ", "Where do I find ", "Where's ")
_NOUN: Final = (
    "What is ", "Explain ", "What does {} mean?", "Tell me about ", "What's ",
    "Can you explain ", "How does {} work?",
)  # fmt: skip
_NEED: Final = ("I need ", "I want ", "I'd like ", "Can I get ", "I would like ", "How do I get ")
_OPENINGS: Final = (_HOW, _CAN, _WANT, _WHERE, _NEED)
# Exchanged for one another; a group's first entry found in the text is what goes.
_SWAPS: Final = (
    ("cannot", "can't", "am unable to", "can not"),
    (
        "does not work",
        "isn't working",
        "doesn't work",
        "is not working",
        "stopped working",
        "not working",
        "won't work",
        "is down",
    ),
    ("does not connect", "isn't connecting", "not connecting", "is not working", "not working"),
    ("is broken", "is not working", "broke"),
    ("do not", "don't"),
    ("does not", "doesn't", "won't"),
    ("is not", "isn't"),
    ("I am", "I'm"),
    ("I have", "I've"),
    ("colleague", "coworker", "teammate"),
    ("laptop", "computer", "notebook"),
    ("health plan", "health insurance", "medical plan", "medical insurance"),
    ("retirement plan", "401k", "401(k)", "retirement account"),
    ("change", "update", "edit"),
    ("add", "put in"),
    ("covered", "paid by the plan"),
    ("company", "employer"),
    ("vacation", "time off", "holiday"),
    ("mailbox", "inbox"),
    ("meeting", "call"),
    ("document", "file"),
    ("program", "application", "app"),
    ("stolen", "lost"),
)
_GREETINGS: Final = (
    "Hi, ", "Hello, ", "Hello! ", "Please help: ", "Hi there, ", "Hey, ",
    "Can you help me? ", "I have a question: ", "Quick question: ", "I hope you can help. ",
    "Help! ", "Good morning, ", "OK. ", "Thanks! ", "Thanks! And ",
)  # fmt: skip
_CLOSINGS: Final = (
    " Please help.", " Thanks.", " Thank you!", " What should I do?", " Can you help?", " please",
    " What can I do?", " today",
)  # fmt: skip
_USER_NAMES: Final = (
    "My user name is {}.", "My username is {}.", "User name: {}", "I am {}.", "My login is {}.",
    "My user name is {}", "(user name {})", "My ID is {}.",
)  # fmt: skip
_SYLLABLES: Final = (
    "an", "ber", "car", "da", "el", "far", "go", "han", "is", "jo", "kim", "lo", "mar", "ne", "ol",
    "per", "qui", "ros", "sam", "ta", "ul", "vin", "wil", "xu", "ya", "zed", "doe", "smi", "th",
)  # fmt: skip
_SMALL: Final = frozenset(("a", "an", "the", "my", "to", "is", "of", "for", "do", "i", "me"))


def vary(entry: Entry, rng: random.Random) -> str:
    """Give one of the entry's wordings as somebody else might type it."""
    text = rng.choice(entry.wordings)
    if entry.topic not in ("small talk", "other"):
        text = _reopen(text, rng)
        text = _swap(text, rng)
        if rng.random() < 0.2:
            text = _drop_word(text, rng)
        if rng.random() < 0.15:
            text = rng.choice(_GREETINGS) + text
        if rng.random() < 0.12:
            text = _end_sentence(text) + rng.choice(_CLOSINGS)
    if entry.topic in IT_TOPICS and rng.random() < 0.2:
        text = f"{_end_sentence(text)} {rng.choice(_USER_NAMES).format(make_user_name(rng))}"
    return _mistype(text, rng)


def make_user_name(rng: random.Random) -> str:
    """Make up a user name such as `jdoe`, `mar.kim` or `svin27`."""
    first, last = ("".join(rng.choices(_SYLLABLES, k=rng.randint(1, 2))) for _ in range(2))
    shape = rng.choice(("{i}{last}", "{first}.{last}", "{first}", "{last}{n}", "{i}{last}{n}"))
    name = shape.format(i=first[0], first=first, last=last, n=rng.randint(1, 99))
    return name.upper() if rng.random() < 0.05 else name


def _reopen(text: str, rng: random.Random) -> str:
    """Begin with other words of the same meaning."""
    if rng.random() < 0.5:
        return text
    for group in _OPENINGS:
        opening = next((o for o in group if text.startswith(o)), None)
        if opening is not None:
            return rng.choice(group) + text.removeprefix(opening)
    noun = re.fullmatch(r"(?:What is|Explain|What are) (.+?)\??", text)
    if noun is None:
        return text
    chosen = rng.choice(_NOUN)
    return chosen.format(noun[1]) if "{}" in chosen else f"{chosen}{noun[1]}?"


def _swap(text: str, rng: random.Random) -> str:
    """Exchange words for others of the same meaning."""
    for group in _SWAPS:
        found = next((w for w in group if re.search(rf"\b{re.escape(w)}(?!\w)", text)), None)
        if found is not None and rng.random() < 0.25:
            text = text.replace(found, rng.choice(group), 1)
    return text


def _drop_word(text: str, rng: random.Random) -> str:
    """Leave out a small word, or in a longer text now and then any word."""
    words = text.split(" ")
    everywhere = len(words) > 5 and rng.random() < 0.25
    places = [i for i, word in enumerate(words) if everywhere or word.lower() in _SMALL]
    if places and len(words) > 3:
        del words[rng.choice(places)]
    return " ".join(words)


def _end_sentence(text: str) -> str:
    return text if text[-1] in ".?!" else f"{text}."


def _mistype(text: str, rng: random.Random) -> str:
    """Change case and punctuation, or hit a wrong key, each now and then."""
    if rng.random() < 0.2:
        text = text.lower()
    elif rng.random() < 0.02:
        text = text.upper()
    if rng.random() < 0.25:
        text = text.rstrip(".?!")
    elif text[-1] not in ".?!" and rng.random() < 0.3:
        text += rng.choice(".?!")
    if rng.random() < 0.05:
        text = text.replace("'", "")
    if rng.random() < 0.08 and len(text) > 12:
        at = rng.randrange(1, len(text) - 2)
        wrong = (text[at + 1] + text[at], text[at + 1], text[at] + text[at : at + 2])
        text = text[:at] + rng.choice(wrong) + text[at + 2 :]
    return text
