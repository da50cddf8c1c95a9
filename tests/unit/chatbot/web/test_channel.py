"""The program's end of a page's channel, against a page written for this test."""

import pytest
from cryptography.exceptions import InvalidTag

from app.chatbot.web.channel import Channel
from app.protocol.errors import EnvelopeError
from tests.page_end import PageEnd, number


@pytest.fixture
def page() -> PageEnd:
    return PageEnd()


@pytest.fixture
def channel(page: PageEnd) -> Channel:
    return Channel(page.public_key)


def test_all_directions_in_their_order(page: PageEnd, channel: Channel) -> None:
    """Commands open once and in order; replies bear their number; events count by themselves."""
    commands, replies, events = (
        page.key(name, channel.public_key) for name in ("commands", "replies", "events")
    )
    for turn, text in enumerate((b"first", b"second")):
        record = commands.encrypt(number(turn), text, None)
        assert channel.take(record) == text
        assert replies.decrypt(number(turn), channel.reply(b"taken"), None) == b"taken"
        with pytest.raises(EnvelopeError):
            channel.take(record)
    for turn in range(3):
        assert events.decrypt(number(turn), channel.tell(b"news"), None) == b"news"


def test_what_is_no_next_command_changes_nothing(page: PageEnd, channel: Channel) -> None:
    """Other bytes, a later number, another direction are refused; the next one still opens."""
    commands = page.key("commands", channel.public_key)
    whole = commands.encrypt(number(0), b"ask", None)
    others = (
        b"",
        whole[:-1],
        bytes([whole[0] ^ 1]) + whole[1:],
        commands.encrypt(number(1), b"ask", None),
        page.key("events", channel.public_key).encrypt(number(0), b"ask", None),
        PageEnd().key("commands", channel.public_key).encrypt(number(0), b"ask", None),
    )
    for record in others:
        with pytest.raises(EnvelopeError):
            channel.take(record)
    assert channel.take(whole) == b"ask"


def test_each_page_has_keys_of_its_own(page: PageEnd, channel: Channel) -> None:
    """Who opens again with the same key gets other ones: nothing of one page opens in another."""
    again = Channel(page.public_key)
    with pytest.raises(InvalidTag):
        page.key("events", again.public_key).decrypt(number(0), channel.tell(b"news"), None)


@pytest.mark.parametrize("key", [b"", b"\x04" + bytes(64), b"\x00", bytes(65)])
def test_a_key_that_is_no_point_is_refused(key: bytes) -> None:
    """Nor is the point at infinity taken, or one off the curve."""
    with pytest.raises(EnvelopeError):
        Channel(key)
