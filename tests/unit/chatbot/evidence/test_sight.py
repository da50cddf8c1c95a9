import time

from app.chatbot.evidence.sight import Words, describe_messages, describe_sight, search_words
from app.chatbot.session.exchange import Seen, SeenMessage
from app.protocol.messages import Kind

QUESTION = "my user name is jdoe and jdoe it stays"


def make_seen(request: bytes, *frames: bytes) -> Seen:
    seen = Seen()
    seen.send(request, 0.1)
    seen.messages.append(SeenMessage(0.2, Kind.ANSWER_HEADER, b"header"))
    for number, frame in enumerate(frames):
        seen.messages.append(SeenMessage(0.25 + number / 20, Kind.ANSWER_FRAME, frame))
    return seen


def test_words_are_found_wherever_they_stand() -> None:
    """A word in the request or in any frame counts once; short ones are not sought."""
    assert search_words(QUESTION, make_seen(b"\0\1", b"\2\3")) == Words(4, 0)
    assert search_words(QUESTION, make_seen(b"..jdoe..", b"my is it")) == Words(4, 1)
    assert search_words(QUESTION, make_seen(b"..jdoe..", b"..name..", b"stays")) == Words(4, 3)
    assert search_words(QUESTION, make_seen(b"jd", b"oe")) == Words(4, 0)  # of no one message
    assert search_words(QUESTION, make_seen(b"stay", b"names")) == Words(4, 1)


def test_a_word_is_found_without_what_stands_round_it() -> None:
    """Punctuation is no part of a word; letters of any script are."""
    assert search_words("Größe? (größer!)", make_seen("xgrößerx".encode())) == Words(2, 1)


def test_megabytes_are_searched_for_thousands_of_words_at_once() -> None:
    """The time does not grow with the product of both."""
    words = " ".join(f"{number}word" for number in range(1000, 6000))
    seen = make_seen(b"", *[bytes([number % 251]) * 1040 for number in range(2000)], b"4999word")
    started = time.monotonic()
    assert search_words(words, seen) == Words(5000, 1)
    assert time.monotonic() - started < 8


def test_a_sight_has_the_first_bytes_of_each_direction() -> None:
    """The header, which KMS encrypted, is no frame of the answer."""
    sight = describe_sight(make_seen(b"request", b"frame"), QUESTION, "off")
    assert sight["request_start"] == b"request".hex(" ")
    assert sight["answer_start"] == b"frame".hex(" ")
    assert describe_sight(make_seen(b"request"), QUESTION, "off")["answer_start"] == ""


def test_messages_are_told_from_any_number_on() -> None:
    """The header is called that; times and sizes are those seen."""
    seen = make_seen(b"request", b"four", b"four")
    assert describe_messages(seen, 0) == [
        (0.2, 6, "header"),
        (0.25, 4, "frame"),
        (0.3, 4, "frame"),
    ]
    assert describe_messages(seen, 2) == [(0.3, 4, "frame")]
