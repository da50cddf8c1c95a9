"""Nothing on the page disagrees with anything else on it, at any moment of any answer."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from app.chatbot.session.session import Session
from app.protocol.question import Options
from local.twin.twin import Twin
from tests.pages.conftest import Opening, OpenPage

QUESTION = "I can't access my email. My user name is jdoe."
LONG = Options(temperature=2, seed=1, max_tokens=120, padding="constant")
# After each picture that was drawn: what it says, wherever it says it.
WATCH = """() => {
    const text = (id) => document.getElementById(id).textContent;
    const shown = (id) => document.getElementById(id).checkVisibility();
    const rows = () => Object.fromEntries([...document.querySelectorAll('#numbers dt')]
        .map((name) => [name.textContent, name.nextElementSibling.textContent]));
    window.moments = [];
    new MutationObserver(() => window.moments.push({
        mark: text('mark'), title: document.title,
        outcome: document.querySelector('.outcome')?.textContent ?? '',
        answer: document.querySelector('.answer')?.textContent ?? '',
        streaming: document.querySelectorAll('[data-streaming]').length,
        stop: shown('stop'), send: shown('send'), again: document.getElementById('again').disabled,
        wrote: text('wrote'), read: text('read'), lanes: text('lanes-words'),
        size: text('answer-size'), lead: text('sight-lead'), receipt: shown('receipt'),
        yours: document.querySelectorAll('#lane-yours rect').length,
        theirs: document.querySelectorAll('#lane-theirs rect').length,
        rows: shown('sight-body') ? rows() : null,
    })).observe(document.body, {childList: true, subtree: true, characterData: true});
}"""


def require_agreement(moment: dict[str, Any]) -> None:
    """Require that all that stands on the page at one moment is of one piece."""
    assert moment["title"] == f"{moment['mark']} · enclave-llm"
    under_way = moment["streaming"] == 1
    assert (moment["stop"], moment["send"]) == (under_way, not under_way)
    verified = moment["outcome"].startswith("Receipt verified")
    assert moment["receipt"] == verified
    assert not (under_way and verified)
    if moment["rows"] is None:
        return
    assert moment["wrote"] == QUESTION
    assert letters(moment["read"]) == letters(moment["answer"])  # of Markdown, marks are not shown
    pieces, frames = moment["yours"], moment["theirs"]
    assert f"in {pieces:,} piece" in moment["lanes"]
    assert f"carried {frames:,} frame" in moment["lanes"]
    rows = moment["rows"]
    assert rows["Frames of the answer"] == f"{frames:,}"
    assert rows["…with text in them, which it cannot tell"] == f"{pieces:,}"
    sent = rows["Bytes of the answer, as the server saw it"]
    assert moment["size"].startswith(f"carried {sent} byte")
    seconds = re.findall(r"\d+\.\d(?= s)", moment["lanes"])
    told = re.findall(r"\d+\.\d(?= s)", moment["outcome"])
    assert told in ([], seconds)
    assert ("Time from question to end" in rows) == (not under_way)
    assert ("So far" in moment["lead"]) == under_way


def letters(text: str) -> str:
    """Give the letters of *text*."""
    return "".join(filter(str.isalpha, text))


def require_moments(opened: OpenPage) -> list[dict[str, Any]]:
    """Require agreement of all the moments that were seen."""
    moments: list[dict[str, Any]] = opened.page.evaluate("window.moments")
    for moment in moments:
        require_agreement(moment)
    return moments


def test_all_agrees_while_an_answer_comes(opening: Opening, talkative: Twin) -> None:
    """From the question to the receipt; an answer that was cut is not called whole."""
    with opening(talkative.connect, options=LONG) as opened:
        opened.expect_mark("Demo")
        opened.page.evaluate(WATCH)
        opened.ask(QUESTION)
        opened.expect_outcome(
            "^Receipt verified: .*, cut short after 120 tokens by [^;]+, [0-9.]+ s$"
        )
        expect(opened.page.locator(".outcome")).not_to_contain_text("whole")
        moments = require_moments(opened)
        assert len({moment["theirs"] for moment in moments}) > 5
        assert {moment["mark"] for moment in moments} == {"Demo"}


def test_all_agrees_when_an_answer_is_stopped(opening: Opening, talkative: Twin) -> None:
    with opening(talkative.connect, options=LONG) as opened:
        opened.expect_mark("Demo")
        opened.page.evaluate(WATCH)
        opened.ask(QUESTION)
        opened.expect_outcome("^Answering")
        opened.page.keyboard.press("Escape")
        opened.expect_outcome("^Stopped; not whole, and not in the conversation$")
        require_moments(opened)


def test_all_agrees_when_the_program_goes(opening: Opening, talkative: Twin) -> None:
    """An answer under way is not whole, nothing looks alive, and no mark says verified."""
    with opening(talkative.connect, options=LONG) as opened:
        page = opened.page
        opened.expect_mark("Demo")
        page.evaluate(WATCH)
        opened.ask(QUESTION)
        opened.expect_outcome("^Answering")
        page.route("**/api/command", lambda route: route.abort())
        page.keyboard.press("Escape")
        opened.expect_mark("Closed")
        opened.expect_outcome("^Not whole, and not in the conversation$")
        expect(page.locator("#refusal h2")).to_have_text("The program behind this page has gone")
        expect(page.locator("#refusal")).to_be_focused()
        expect(page.locator("#proof-lead")).to_contain_text("says nothing of who answers")
        expect(page.locator("#text")).to_be_disabled()
        expect(page.locator("#new")).to_be_disabled()
        expect(page.locator("#again")).to_be_hidden()
        assert opened.find_barriers() == []
        opened.keep("gone")
        require_moments(opened)
        opened.complaints.clear()  # the browser's own, of the connection


def test_a_question_that_fails_is_kept_to_be_mended(opened: OpenPage) -> None:
    """One that is longer than the model's context is refused, and stands where it was typed."""
    question = "How do I request vacation? " * 400
    opened.ask(question)
    expect(opened.page.locator(".failure h3")).to_have_text("The question is too long")
    expect(opened.page.locator("#text")).to_have_value(question)
    opened.ask(QUESTION)
    opened.expect_outcome("^Receipt verified")
    expect(opened.page.locator("#text")).to_have_value("")


def test_a_question_over_the_limit_is_not_sent(opened: OpenPage) -> None:
    """It stays where it is, and the numbers are told; what is shorter goes out."""
    page = opened.page
    page.locator("#text").fill("ä" * 200_000)
    posted: list[str] = []
    page.on("request", lambda request: posted.append(request.url))
    page.locator("#text").press("Enter")
    said = "This is 400,000 bytes long, and the limit is 262,140. Shorten it."
    expect(page.locator("#problem")).to_have_text(said)
    assert len(page.locator("#text").input_value()) == 200_000
    assert posted == []
    assert opened.find_barriers() == []
    opened.ask(QUESTION)
    opened.expect_outcome("^Receipt verified")
    expect(page.locator("#problem")).to_be_empty()


def test_half_a_letter_is_no_fault(opened: OpenPage) -> None:
    """Half of a surrogate pair, which some input methods leave, is replaced before it is sent."""
    opened.page.evaluate(
        "(text) => { document.getElementById('text').value = text + '\\ud83d' }", QUESTION
    )
    opened.page.locator("#text").press("Enter")
    opened.expect_outcome("^Receipt verified")
    expect(opened.page.locator("#text")).to_have_value("")


@pytest.mark.parametrize("key", ["{isComposing: true}", "{keyCode: 229}"], ids=["most", "safari"])
def test_an_input_methods_keys_are_its_own(opening: Opening, talkative: Twin, key: str) -> None:
    """Enter that confirms its text does not ask; Escape that cancels it does not stop."""
    press = f"""(name) => document.getElementById('text').dispatchEvent(new KeyboardEvent(
        'keydown', {{key: name, bubbles: true, cancelable: true, ...{key}}}))"""
    with opening(talkative.connect, options=LONG) as opened:
        page = opened.page
        opened.expect_mark("Demo")
        page.locator("#text").fill(QUESTION)
        assert page.evaluate(press, "Enter")  # not prevented: it is the input method's
        expect(page.locator("#text")).to_have_value(QUESTION)
        page.locator("#text").press("Enter")
        opened.expect_outcome("^Answering")
        page.evaluate(press, "Escape")
        opened.expect_outcome("^Receipt verified")


def test_a_composition_is_not_sent(opened: OpenPage) -> None:
    """The same with Chromium's own composition, as an input method drives it."""
    page = opened.page
    page.locator("#text").focus()
    browser = page.context.new_cdp_session(page)
    browser.send(
        "Input.imeSetComposition", {"text": "にほんご", "selectionStart": 4, "selectionEnd": 4}
    )
    for kind in ("rawKeyDown", "keyUp"):
        event = {"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
        browser.send("Input.dispatchKeyEvent", event)
    browser.send("Input.insertText", {"text": "日本語"})
    expect(page.locator("#text")).to_have_value("日本語")
    expect(page.locator(".question")).to_have_count(0)


def test_the_page_itself_never_scrolls(opening: Opening, twin: Twin) -> None:
    """With all details open, a wheel over the conversation moves no part out of sight."""
    with opening(twin.connect, size=(1280, 800)) as opened:
        page = opened.page
        opened.expect_mark("Demo")
        opened.ask(QUESTION)
        opened.expect_outcome("^Receipt verified")
        page.evaluate("document.querySelectorAll('details').forEach((part) => part.open = true)")
        page.mouse.move(300, 300)
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(300)
        measured = "[scrollY, document.documentElement.scrollHeight - innerHeight]"
        assert page.evaluate(measured) == [0, 0]
        assert page.evaluate("document.body.scrollTop") == 0


@pytest.mark.parametrize("size", [(320, 640), (390, 844), (1440, 900)])
def test_the_demo_is_marked_at_any_width(
    opening: Opening, twin: Twin, size: tuple[int, int]
) -> None:
    """One mark, in sight, and never the word that a deployment earns."""
    with opening(twin.connect, size=size) as opened:
        opened.expect_mark("Demo")
        expect(opened.page.locator("#mark")).to_be_in_viewport(ratio=1)
        expect(opened.page.locator("header")).not_to_contain_text("Verified")
        expect(opened.page.locator("body")).not_to_contain_text("A Nitro Secure Module signed")


def test_a_deployment_is_marked_verified(
    opening: Opening, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where hardware signs, the mark says so; nothing speaks of a demo, no question is offered."""
    monkeypatch.setattr(Session, "is_demo", False)
    with opening(twin.connect, suggestions=()) as opened:
        opened.expect_mark("Verified")
        expect(opened.page.locator("body")).to_contain_text("A Nitro Secure Module signed")
        expect(opened.page.locator("body")).to_contain_text("Only the enclave can read it")
        expect(opened.page.locator("#notice")).to_be_hidden()
        expect(opened.page.locator("#suggestions button")).to_have_count(0)
        opened.keep("deployment")


def test_who_asks_for_no_motion_gets_none(opened: OpenPage) -> None:
    opened.page.emulate_media(reduced_motion="reduce")
    opened.ask(QUESTION)
    expect(opened.page.locator("[data-streaming]")).to_be_visible()
    moving = "document.getAnimations().filter((one) => one.playState === 'running').length"
    assert opened.page.evaluate(moving) == 0
    opened.expect_outcome("^Receipt verified")
