import json
from pathlib import Path

from app.chatbot.openai.responses.held import (
    HELD_SECONDS,
    MOST_BYTES,
    MOST_RESPONSES,
    HeldResponses,
)
from app.chatbot.openai.responses.items import Item, parse_held
from tests.support import Clock


def make_items(text: str = "Who?") -> list[Item]:
    return parse_held(json.dumps([{"id": "msg_in", "role": "user", "content": text}]).encode())


def make_response(name: str, text: str = "Nobody.") -> dict[str, object]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"id": f"msg_{name}", "type": "message", "role": "assistant", "content": [part]}
    return {"id": name, "status": "completed", "output": [{**message, "status": "completed"}]}


def test_what_is_held() -> None:
    """A response is given as it was made, with what came before it, and its items by their ids."""
    held = HeldResponses()
    response = make_response("resp_1")
    held.put(response, make_items())
    assert held.response("resp_1") == response
    assert held.input_items("resp_1") == [
        {
            "id": "msg_in",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_text", "text": "Who?"}],
        }
    ]
    messages = [item.to_message() for item in held.conversation("resp_1") or ()]
    assert [(message.role, message.text) for message in messages] == [
        ("user", "Who?"),
        ("assistant", "Nobody."),
    ]
    item = held.item("msg_resp_1")
    assert item is not None
    assert item.to_message().text == "Nobody."
    for absent in ("resp_2", "msg_resp_1", ""):
        assert (held.response(absent), held.input_items(absent)) == (None, None)
        assert held.conversation(absent) is None
    assert held.item("msg_in") is None


def test_dropping() -> None:
    """What is dropped is gone, with its items, once."""
    held = HeldResponses()
    held.put(make_response("resp_1"), make_items())
    assert held.drop("resp_1")
    assert not held.drop("resp_1")
    assert (held.response("resp_1"), held.item("msg_resp_1")) == (None, None)


def test_the_number_is_bounded() -> None:
    """With too many, the one goes that was not used for longest."""
    held = HeldResponses(most=2)
    for name in ("a", "b"):
        held.put(make_response(name), make_items())
    assert held.item("msg_a") is not None
    held.put(make_response("c"), make_items())
    assert (held.response("b"), held.item("msg_b")) == (None, None)
    assert held.response("a") is not None
    assert held.response("c") is not None


def test_the_bytes_are_bounded() -> None:
    """However large each is, what is held stays within its bytes."""
    held = HeldResponses(most_bytes=10_000)
    for name in ("a", "b", "c"):
        held.put(make_response(name), make_items("x" * 1500))
    assert held.response("a") is None
    assert held.response("c") is not None
    held.put(make_response("d", "x" * 20_000), make_items())
    assert [held.response(name) for name in "abcd"] == [None] * 4
    held.put(make_response("e"), make_items())
    assert held.response("e") is not None


def test_the_time_is_bounded() -> None:
    """It goes some time after it was last used, and the time of the next is told."""
    clock = Clock()
    held = HeldResponses(seconds=10, clock=clock)
    assert held.expire() is None
    held.put(make_response("a"), make_items())
    clock.now += 6
    held.put(make_response("b"), make_items())
    assert held.expire() == 4
    assert held.response("a") is not None
    clock.now += 9
    assert held.expire() == 1
    clock.now += 1
    assert held.expire() is None
    assert held.response("a") is held.response("b") is None


def test_the_documents_know_the_bounds() -> None:
    """Whoever reads how much is held, and for how long, reads what the code does."""
    hours, mebibytes = HELD_SECONDS // 3600, MOST_BYTES // 2**20
    for page in ("docs/clients.md", "SECURITY.md"):
        text = " ".join(Path(page).read_text().split())
        assert f"{hours} hours after it was last used" in text
        assert f"{MOST_RESPONSES:,} responses" in text
        assert f"{mebibytes} MiB" in text
