"""The page as a person meets it, in a real browser, on the running twin."""

import re

import pytest
from playwright.sync_api import Browser, expect

from app.protocol.constants import FRAME_COUNT_BUCKETS
from app.protocol.question import Options
from local.demo import last_exchange
from local.twin.twin import Twin
from tests.pages.conftest import PHONE, Opening, OpenPage

QUESTION = "I can't access my email. My user name is jdoe."
WHOLE = "^Receipt verified: this answer, whole, to this question; [0-9]+ tokens"
WATCH = """() => {
    window.lengths = [];
    new MutationObserver(() => {
        const answer = document.querySelector('.answer');
        if (answer) window.lengths.push(answer.textContent.length);
    }).observe(document.getElementById('exchanges'), {childList: true, subtree: true});
}"""
STEPS = ["Chain", "Signature", "Freshness", "Not debug", "Image", "Manifest", "Key"]


def test_an_answer_streams(opening: Opening, talkative: Twin) -> None:
    """The text comes in pieces, each after the other."""
    options = Options(temperature=2, seed=1, max_tokens=600)
    with opening(talkative.connect, options=options) as opened:
        page = opened.page
        opened.expect_state("Verified: release")
        page.evaluate(WATCH)
        opened.ask(QUESTION)
        opened.expect_outcome("^Receipt verified")
        lengths = page.evaluate("window.lengths")
        assert len({length for length in lengths if length}) >= 3
        assert lengths == sorted(lengths)


def test_an_answer_proves_itself(opened: OpenPage) -> None:
    """When the text is whole, its receipt is told and stands in the proof."""
    page = opened.page
    opened.keep("verified")
    opened.ask(QUESTION)
    opened.expect_outcome("^Answering")
    opened.keep("answering")
    opened.expect_outcome(WHOLE)
    assert "password" in page.locator(".answer").inner_text()
    expect(page.locator("#receipt-steps .what")).to_have_text("Receipt, passed.")
    opened.keep("answered")


def test_the_proof_shows_every_step_and_its_values(opened: OpenPage, twin: Twin) -> None:
    """Each step says in words what it means; the raw values open behind it."""
    page = opened.page
    steps = page.locator("#steps > li")
    said = page.locator("#steps .what").all_text_contents()
    assert [text.removesuffix(", passed.") for text in said] == STEPS
    image = steps.nth(STEPS.index("Image"))
    pcr0 = image.locator("dt", has_text="PCR0 attested").locator("xpath=following-sibling::dd[1]")
    expect(pcr0).to_be_hidden()
    image.locator("summary").press("Enter")
    expect(pcr0).to_be_visible()
    assert pcr0.inner_text() == twin.release.measurements.pcr0.hex()
    steps.nth(0).locator("summary").click()
    assert steps.nth(0).locator("dd").count() == 5  # certificates, from the root to the leaf
    opened.keep("proof")
    expect(page.locator("#notice")).to_contain_text("This is the demo")


def test_what_the_parent_saw_stands_beside_what_the_asker_saw(opened: OpenPage, twin: Twin) -> None:
    """Sizes, frames and ciphertext are those that crossed the parent, and no word is in them."""
    page = opened.page
    opened.ask(QUESTION)
    opened.expect_outcome(WHOLE)
    request, crossed = last_exchange(twin)
    assert page.locator("#wrote").inner_text() == QUESTION
    assert page.locator("#read").inner_text() == page.locator(".answer").inner_text()
    assert page.locator("#request-bytes").inner_text() == request[:64].hex(" ") + " …"
    assert page.locator("#request-size").inner_text() == f"carried {len(request):,} bytes"
    assert bytes.fromhex(page.locator("#answer-bytes").inner_text().removesuffix(" …")) in crossed
    frames = page.locator("#lane-theirs rect").count()
    assert frames in FRAME_COUNT_BUCKETS
    assert 0 < page.locator("#lane-yours rect").count() < frames
    expect(page.locator("#sight-lead")).to_contain_text("saw this of them: none of your words")


def test_each_answer_keeps_what_belongs_to_it(opened: OpenPage) -> None:
    """The panels show the last answer's receipt and traffic, or those of the one selected."""
    page = opened.page
    opened.ask(QUESTION)
    opened.expect_outcome(WHOLE)
    first = page.locator("#request-bytes").inner_text()
    opened.ask("Still nothing. Who can help me?")
    opened.expect_outcome(WHOLE, number=1)
    opened.keep("conversation")
    assert page.locator("#wrote").inner_text() == "Still nothing. Who can help me?"
    assert page.locator("#request-bytes").inner_text() != first
    page.locator(".outcome").first.click()
    expect(page.locator("#wrote")).to_have_text(QUESTION)
    assert page.locator("#request-bytes").inner_text() == first
    pressed = page.locator(".outcome[aria-pressed=true]")
    expect(pressed).to_have_count(1)
    assert opened.visit._session is not None
    assert len(opened.visit._session.history) == 4


def test_an_answer_is_stopped_and_the_conversation_goes_on(opened: OpenPage) -> None:
    """Escape ends the answer, it is called unfinished, and the next question is answered."""
    opened.ask(QUESTION)
    opened.expect_outcome("^Answering")
    opened.page.keyboard.press("Escape")
    opened.expect_outcome("^Stopped; not whole, and not in the conversation$")
    expect(opened.page.locator(".failure:visible")).to_have_count(0)
    opened.ask("How do I book leave?")
    opened.expect_outcome(WHOLE)
    assert opened.visit._session is not None
    assert len(opened.visit._session.history) == 2


def test_the_button_stops_too(opened: OpenPage) -> None:
    """Stop stands where Ask stood, only while there is something to stop."""
    page = opened.page
    stop = page.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_hidden()
    opened.ask(QUESTION)
    stop.click()
    opened.expect_outcome("^Stopped")
    expect(stop).to_be_hidden()
    expect(page.locator("#text")).to_be_focused()


def test_leaving_the_page_stops_the_answer(opened: OpenPage) -> None:
    """Nobody generates for a page that has gone."""
    opened.ask(QUESTION)
    opened.expect_outcome("^Answering")
    answer = opened.visit._answer
    assert answer is not None
    opened.page.goto("about:blank")
    opened.page.wait_for_timeout(1000)
    assert answer.stopped
    assert not opened.visit._using.locked()


def test_a_new_conversation_has_keys_of_its_own(opened: OpenPage) -> None:
    """What was asked before is gone from the page and from the conversation."""
    opened.ask(QUESTION)
    opened.expect_outcome(WHOLE)
    session = opened.visit._session
    assert session is not None
    before = session.conversation
    opened.page.get_by_role("button", name="New conversation").click()
    expect(opened.page.locator("#empty")).to_be_visible()
    expect(opened.page.locator(".question")).to_have_count(0)
    expect(opened.page.locator("#sight-body")).to_be_hidden()
    assert session.conversation != before
    assert session.history == ()


def test_a_suggestion_is_asked(opened: OpenPage) -> None:
    """One click from an empty page to a verified answer."""
    opened.page.get_by_role("button", name="How do I book leave?").click()
    opened.expect_outcome(WHOLE)


def test_what_is_asked_stays_text(opened: OpenPage) -> None:
    """Markup in a question, or in an answer, is shown and never becomes a part of the page."""
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script> How do I book leave?"
    opened.ask(markup)
    opened.expect_outcome(WHOLE)
    question = opened.page.locator(".question")
    assert question.inner_text().endswith(markup)
    assert opened.page.locator(".exchanges img, .exchanges script").count() == 0
    assert (
        opened.page.evaluate(
            """() => {
            const answer = document.querySelector('.answer');
            try { answer.innerHTML = '<b>' } catch (error) { return error.name }
        }"""
        )
        == "TypeError"
    )  # trusted types: no markup from text, not even by mistake
    opened.complaints.clear()  # of that attempt


def test_two_lines_and_a_long_word(opened: OpenPage) -> None:
    """Shift and Enter break the line; nothing is wider than its column."""
    page = opened.page
    page.locator("#text").fill("How do I book leave?")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("x" * 300)
    expect(page.locator(".question")).to_have_count(0)
    page.keyboard.press("Enter")
    opened.expect_outcome(WHOLE)
    assert page.locator(".question").inner_text().count("\n") >= 1
    assert overflow(opened) == 0


def overflow(opened: OpenPage) -> int:
    """Give how many pixels stand out of the window."""
    width: int = opened.page.evaluate(
        """() => Math.max(...[...document.querySelectorAll('body *:not(.hidden)')]
            .filter((element) => element.checkVisibility())
            .map((element) => element.getBoundingClientRect().right)) - window.innerWidth"""
    )
    return max(0, int(width))


@pytest.mark.parametrize("size", [PHONE, (320, 640), (768, 1024), (1280, 800)])
def test_every_width_shows_everything(opening: Opening, twin: Twin, size: tuple[int, int]) -> None:
    """On a phone one part at a time, beyond that two or three; nothing is cut off."""
    with opening(twin.connect, size=size) as opened:
        page = opened.page
        opened.expect_state("Verified")
        opened.ask(QUESTION)
        opened.expect_outcome(WHOLE)
        narrow = page.get_by_role("navigation").is_visible()
        assert narrow == (size[0] < 896)
        for name, part in [("Proof", "#proof"), ("Parent", "#sight"), ("Conversation", "#log")]:
            if narrow:
                page.get_by_role("navigation").get_by_role("button", name=name).click()
            expect(page.locator(part)).to_be_visible()
            assert overflow(opened) == 0
            opened.keep(f"{size[0]}-{name.lower()}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), PHONE], ids=["desktop", "phone"])
def test_nobody_is_kept_out(
    opening: Opening, twin: Twin, size: tuple[int, int], *, dark: bool
) -> None:
    """axe-core finds nothing: on the empty page, on an answer, with all values open."""
    with opening(twin.connect, size=size, dark=dark) as opened:
        page = opened.page
        opened.expect_state("Verified")
        assert opened.find_barriers() == []
        opened.ask(QUESTION)
        opened.expect_outcome(WHOLE)
        assert opened.find_barriers() == []
        if size == PHONE:
            page.get_by_role("navigation").get_by_role("button", name="Parent").click()
            assert opened.find_barriers() == []
            page.get_by_role("navigation").get_by_role("button", name="Proof").click()
        page.evaluate("document.querySelectorAll('details').forEach((part) => part.open = true)")
        assert opened.find_barriers() == []
        opened.keep(f"all-{size[0]}-{'dark' if dark else 'light'}")


def test_keys_alone_reach_everything(opened: OpenPage) -> None:
    """The question has the focus; Tab goes on through the whole page and comes round."""
    page = opened.page
    expect(page.locator("#text")).to_be_focused()
    opened.ask(QUESTION)
    opened.expect_outcome(WHOLE)
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.innerText?.split('\\n')[0] ?? ''"))
    said = " ".join(reached)
    for name in ("New conversation", "Skip to the question", "Receipt verified", "Verify again"):
        assert name in said
    assert {"Chain", "Image"} <= {text.partition(",")[0] for text in reached}
    assert "Answer: " in page.locator("#spoken").inner_text()


def test_nobody_else_is_asked_for_anything(opened: OpenPage) -> None:
    """Everything comes from this port, under a policy that allows nothing else."""
    opened.ask(QUESTION)
    opened.expect_outcome(WHOLE)
    assert len(opened.responses) > 8
    for response in opened.responses:
        assert response.url.startswith(f"{opened.url}/")
        headers = response.headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


def test_the_browser_helps_with_nothing(opened: OpenPage) -> None:
    """Nothing typed or shown is offered to what checks, completes or translates elsewhere."""
    text = opened.page.locator("#text")
    for name, value in (("spellcheck", "false"), ("writingsuggestions", "false")):
        expect(text).to_have_attribute(name, value)
    expect(text).to_have_attribute("translate", "no")
    expect(opened.page.locator("html")).to_have_attribute("translate", "no")


def test_the_link_works_once(opened: OpenPage, browser: Browser) -> None:
    """The token leaves the address at once; a second browser that has it gets nothing."""
    assert opened.page.url == f"{opened.url}/"
    [cookie] = opened.page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert opened.page.evaluate("document.cookie") == ""
    other = browser.new_context()
    page = other.new_page()
    for link in (opened.link, opened.url):
        answer = page.goto(link)
        assert answer is not None
        assert answer.status == 403
        expect(page.locator("body")).to_contain_text("This link does not open the page")
    assert other.cookies() == []
    page.screenshot(path="build/pages/link-used.png")
    other.close()
    opened.page.goto(opened.link)
    opened.expect_state("Verified")
    assert opened.page.url == f"{opened.url}/"


def test_only_the_page_that_verified_last_may_ask(opened: OpenPage) -> None:
    """A second window begins anew; the first one's next question is refused, and says so."""
    second = opened.page.context.new_page()
    second.goto(opened.url)
    expect(second.locator("#state")).to_have_text(re.compile("Verified"))
    opened.ask(QUESTION)
    expect(opened.page.locator(".failure:visible")).to_contain_text("answered 403")
    opened.complaints.clear()  # the browser's own, of the 403
