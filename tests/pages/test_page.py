"""The page as a person meets it, in a real browser, on the running twin."""

import re

import pytest
from playwright.sync_api import Browser, expect

from app.chatbot.session.session import Session
from app.protocol.constants import FRAME_COUNT_BUCKETS
from app.protocol.question import Options
from local.demo import last_exchange
from local.twin.twin import Twin
from tests.pages.conftest import PHONE, SHOTS, SUGGESTIONS, Opening, OpenPage

QUESTION = "I can't access my email. My user name is jdoe."
WHOLE = "^Receipt verified: this answer, whole, to this question; [0-9]+ tokens"
WATCH = """() => {
    window.lengths = [];
    new MutationObserver(() => {
        const answer = document.querySelector('.answer');
        if (answer) window.lengths.push(answer.textContent.replace(/[^\\p{L}]/gu, '').length);
    }).observe(document.getElementById('exchanges'), {childList: true, subtree: true});
}"""
STEPS = ["Chain", "Signature", "Freshness", "Not debug", "Image", "Manifest", "Key"]


def test_an_answer_streams(opening: Opening, talkative: Twin) -> None:
    """The text comes in pieces, each after the other, and no letter that was shown goes."""
    options = Options(temperature=2, seed=1, max_tokens=1500)  # of a thousand bytes a frame
    with opening(talkative.connect, options=options) as opened:
        page = opened.page
        opened.expect_mark("Demo")
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
    checks = page.locator("#checks > summary")
    expect(checks).to_have_text(f"{len(STEPS)} of {len(STEPS)} checks passed")
    steps = page.locator("#steps > li")
    expect(steps.first).to_be_hidden()
    checks.press("Enter")
    expect(steps.first).to_be_visible()
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


def test_what_the_server_saw_stands_beside_what_the_asker_saw(opened: OpenPage, twin: Twin) -> None:
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
    words = re.findall(r"\w{4,}", f"{QUESTION}\n{page.locator('.answer').inner_text()}")
    sought = f"Of the {len(set(words))} words of four letters or more"
    said = f"{sought} that you wrote and read, it saw none."
    expect(page.locator("#sight-lead")).to_contain_text(said)


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
    assert len(opened.session.history) == 4


def test_an_answer_is_stopped_and_the_conversation_goes_on(opened: OpenPage) -> None:
    """Escape ends the answer, it is called unfinished, and the next question is answered."""
    opened.ask(QUESTION)
    opened.expect_outcome("^Answering")
    opened.page.keyboard.press("Escape")
    opened.expect_outcome("^Stopped; not whole, and not in the conversation$")
    expect(opened.page.locator(".failure:visible")).to_have_count(0)
    opened.ask(SUGGESTIONS[1])
    opened.expect_outcome(WHOLE)
    assert len(opened.session.history) == 2


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
    assert opened.visit._session is None


def test_a_new_conversation_has_keys_of_its_own(opened: OpenPage) -> None:
    """What was asked before is gone from the page and from the conversation."""
    opened.ask(QUESTION)
    opened.expect_outcome(WHOLE)
    session = opened.session
    before = session.conversation
    opened.page.get_by_role("button", name="New conversation", exact=True).click()
    expect(opened.page.locator("#empty")).to_be_visible()
    expect(opened.page.locator(".question")).to_have_count(0)
    expect(opened.page.locator("#sight-body")).to_be_hidden()
    assert session.conversation != before
    assert session.history == ()


def test_a_suggestion_is_asked(opened: OpenPage) -> None:
    """One click from an empty page to a verified answer."""
    opened.page.get_by_role("button", name=SUGGESTIONS[1]).click()
    opened.expect_outcome(WHOLE)


def test_what_is_asked_stays_text(opened: OpenPage) -> None:
    """Markup in a question, or in an answer, is shown and never becomes a part of the page."""
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script> How do I request vacation?"
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
    page.locator("#text").fill("How do I request vacation?")
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
        opened.expect_mark("Demo")
        opened.ask(QUESTION)
        opened.expect_outcome(WHOLE)
        narrow = page.get_by_role("navigation").is_visible()
        assert narrow == (size[0] < 896)
        for name, part in [("Proof", "#proof"), ("Server", "#sight"), ("Conversation", "#log")]:
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
        opened.expect_mark("Demo")
        assert opened.find_barriers() == []
        opened.ask(QUESTION)
        opened.expect_outcome(WHOLE)
        assert opened.find_barriers() == []
        if size == PHONE:
            page.get_by_role("navigation").get_by_role("button", name="Server").click()
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
    page.locator("#checks > summary").press("Enter")
    page.locator("#text").focus()
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
    assert opened.page.context.cookies() == []
    other = browser.new_context()
    page = other.new_page()
    for link in (opened.link, opened.url):
        page.goto("about:blank")
        page.goto(link)
        expect(page.locator("#mark")).to_have_text("Closed")
        expect(page.locator("#refusal h2")).to_have_text("This link does not open the page")
        expect(page.locator("#text")).to_be_disabled()
    page.screenshot(path=SHOTS / "link-used.png")
    other.close()
    opened.expect_mark("Demo")


def test_a_reload_opens_the_page_again(opened: OpenPage) -> None:
    """And so does the link, in the browser that used it; each time with keys of its own."""
    opened.ask(QUESTION)
    opened.expect_outcome(WHOLE)
    session = opened.session
    opened.page.reload()
    require_anew(opened, session)
    session = opened.session
    opened.page.goto(opened.link)
    require_anew(opened, session)


def require_anew(opened: OpenPage, before: Session) -> None:
    """Require that the page has begun again, with another session."""
    opened.expect_mark("Demo")
    expect(opened.page.locator(".question")).to_have_count(0)
    assert opened.page.url == f"{opened.url}/"
    assert opened.session is not before


def test_a_second_tab_takes_over(opened: OpenPage) -> None:
    """The first one says so, keeps what stands in it, and is not told that the program has gone."""
    opened.ask(QUESTION)
    opened.expect_outcome(WHOLE)
    opened.page.locator("#text").fill("What I was about to ask")
    second = opened.page.context.new_page()
    second.goto(opened.url)
    expect(second.locator("#mark")).to_have_text("Demo")
    opened.page.bring_to_front()
    opened.expect_mark("Closed")
    expect(opened.page.locator("#refusal h2")).to_have_text("This page is open in another tab")
    expect(opened.page.locator("body")).not_to_contain_text("has gone")
    opened.expect_outcome(WHOLE)
    expect(opened.page.locator("#text")).to_have_value("What I was about to ask")
    expect(opened.page.locator("#text")).not_to_be_editable()
    expect(opened.page.get_by_role("button", name="Ask")).to_be_disabled()
    assert opened.find_barriers() == []
    opened.keep("replaced")
    second.bring_to_front()
    second.locator("#text").fill(QUESTION)
    second.keyboard.press("Enter")
    expect(second.locator(".outcome")).to_have_text(re.compile(WHOLE))


def test_a_browser_that_cannot_seal_sends_nothing(opened: OpenPage) -> None:
    """Without WebCrypto the page closes before it has sent its token, and says why."""
    page = opened.page.context.new_page()
    page.add_init_script("Object.defineProperty(crypto, 'subtle', {value: undefined})")
    posted: list[str] = []
    page.on("request", lambda request: posted.append(request.method))
    page.goto(opened.url)
    expect(page.locator("#refusal h2")).to_have_text("This browser cannot seal what you write")
    expect(page.locator("#text")).to_be_disabled()
    assert "POST" not in posted
    assert opened.page.evaluate("[isSecureContext, location.hostname]") == [True, "127.0.0.1"]
    opened.expect_mark("Demo")
