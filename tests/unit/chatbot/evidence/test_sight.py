from app.chatbot.evidence.sight import count_words, describe_messages
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


def test_words_are_counted_wherever_they_stand() -> None:
    """A word in the request or in any frame counts once; short ones do not."""
    assert count_words(QUESTION, make_seen(b"\0\1", b"\2\3")) == 0
    assert count_words(QUESTION, make_seen(b"..jdoe..", b"my is it")) == 1
    assert count_words(QUESTION, make_seen(b"..jdoe..", b"..name..", b"stays")) == 3
    assert count_words(QUESTION, make_seen(b"jd", b"oe")) == 0  # of no one message


def test_messages_are_told_from_any_number_on() -> None:
    """The header is called that; times and sizes are those seen."""
    seen = make_seen(b"request", b"four", b"four")
    assert describe_messages(seen, 0) == [
        (0.2, 6, "header"),
        (0.25, 4, "frame"),
        (0.3, 4, "frame"),
    ]
    assert describe_messages(seen, 2) == [(0.3, 4, "frame")]
