"""Documents on the page: chosen, dropped, shown, taken away and asked about, in a real browser."""

import base64
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from app.chatbot.documents.document import MAX_FILE_BYTES
from app.protocol.question import Options
from local.twin.twin import Twin
from tests.files import make_docx, make_pdf, paragraph
from tests.pages.conftest import PHONE, Opening, OpenPage

WHOLE = "^Receipt verified"
LETTER = "I can't access my email."
# A drop, as a person's: the browser lets no test drag a file in from outside.
DROP = """([name, data]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const given = new DataTransfer();
    given.items.add(new File([bytes], name));
    const event = (kind) => new DragEvent(kind, {
        dataTransfer: given, bubbles: true, cancelable: true });
    const kept = [event("dragenter"), event("dragover"), event("drop")];
    return kept.map((one) => { document.getElementById("log").dispatchEvent(one);
                               return one.defaultPrevented; });
}"""


def write(folder: Path, **files: bytes) -> list[Path]:
    """Write files named as *files* are, the first `_` of each name a dot."""
    paths = []
    for name, data in files.items():
        path = folder / name.replace("_", ".", 1)
        path.write_bytes(data)
        paths.append(path)
    return paths


def test_a_file_is_shown_before_it_is_sent(opened: OpenPage, tmp_path: Path) -> None:
    """
    What was read is told with its text; the question goes with it, and its bubble names it.
    """
    page = opened.page
    [path] = write(tmp_path, letter_pdf=make_pdf([LETTER, "", "My user name is jdoe."]))
    page.locator("#chosen").set_input_files(path)
    says = page.locator("#files .says")
    expect(says).to_have_text("PDF, 3 pages, 45 characters; page 2: no text, scanned perhaps")
    page.locator("#files summary").press("Enter")
    expect(page.locator("#files .clear")).to_contain_text("My user name is jdoe.")
    opened.keep("file")
    assert opened.find_barriers() == []
    page.get_by_label("Pages, such as 1-3,7").fill("1")
    page.get_by_label("Pages, such as 1-3,7").press("Enter")
    expect(says).to_have_text("PDF, 1 of 3 pages, 24 characters")
    opened.ask("What is this about?")
    opened.expect_outcome(WHOLE)
    expect(page.locator(".question .with")).to_have_text("With letter.pdf, 1 page")
    expect(page.locator("#files li")).to_have_count(0)
    asked = opened.session.history[0].text
    assert LETTER in asked
    assert "jdoe" not in asked
    assert asked.endswith("\n\nWhat is this about?")
    opened.keep("file-asked")


def test_a_dropped_file_is_read_and_not_opened(opened: OpenPage) -> None:
    """
    A drop anywhere is taken in; the browser shows the page as before, and fetches nothing.
    """
    page = opened.page
    before = len([response for response in opened.responses if "/api/" not in response.url])
    text = b"<html><img src=http://192.0.2.1/x.png><p onclick=alert(1)>I can't <b>access</b> it."
    data = base64.b64encode(text).decode()
    assert page.evaluate(DROP, ["a<b>.html", data]) == [True, True, True]
    expect(page.locator("#files .name")).to_have_text("a<b>.html")
    expect(page.locator("#files .says")).to_have_text(re.compile("^HTML, .* 1 picture not read$"))
    page.locator("#files summary").press("Enter")
    expect(page.locator("#files .clear")).to_have_text("I can't access it.")
    assert page.locator("#files b").count() == 0
    after = len([response for response in opened.responses if "/api/" not in response.url])
    assert after == before


def test_a_file_that_cannot_be_read(opened: OpenPage, tmp_path: Path) -> None:
    """
    It says why, nothing is asked with it, and it can be taken away by keys alone.
    """
    page = opened.page
    bad, good = write(tmp_path, bad_pdf=b"%PDF-1.7 nothing", good_docx=make_docx(paragraph(LETTER)))
    page.locator("#chosen").set_input_files([bad, good])
    expect(page.locator("#files .says").first).to_contain_text("bad.pdf cannot be read: it is")
    expect(page.locator("#files .says").last).to_have_text("DOCX, 1 part, 24 characters")
    opened.keep("file-refused")
    opened.ask("What is this about?")
    expect(page.locator("#problem")).to_contain_text("A file could not be read.")
    expect(page.locator(".question")).to_have_count(0)
    page.get_by_role("button", name="Remove bad.pdf").press("Enter")
    expect(page.locator("#files li")).to_have_count(1)
    expect(page.locator("#attach")).to_be_focused()
    opened.ask("What is this about?")
    opened.expect_outcome(WHOLE)
    assert opened.session.history[0].text.count(LETTER) == 1


def test_a_file_that_is_too_long_probably(opened: OpenPage, tmp_path: Path) -> None:
    """
    It is told beside what was read, with both numbers.
    """
    [path] = write(tmp_path, long_txt=b"leave\n" * 3000)
    opened.page.locator("#chosen").set_input_files(path)
    says = re.compile(r"^text, 6 parts, 18,000 characters\. About 4,\d+ tokens, .* too long\.$")
    expect(opened.page.locator("#files .says")).to_have_text(says)


def test_too_many_and_too_large(opened: OpenPage, tmp_path: Path) -> None:
    """
    What is too large is told without being sent; so is one file too many.
    """
    page = opened.page
    large, *small = write(
        tmp_path, large_txt=bytes(MAX_FILE_BYTES + 1), **{f"a{n}_txt": b"a" for n in range(9)}
    )
    page.locator("#chosen").set_input_files(large)
    expect(page.locator("#problem")).to_contain_text("large.txt has over 16 MiB")
    page.locator("#chosen").set_input_files(small)
    expect(page.locator("#problem")).to_have_text("At most 8 files go with a question.")
    expect(page.locator("#files li[data-state=read]")).to_have_count(8)


def test_a_file_for_the_next_question(opening: Opening, talkative: Twin, tmp_path: Path) -> None:
    """
    A file that is given while an answer comes is read meanwhile, and goes with the next question.
    """
    first, second = write(tmp_path, one_txt=b"The first.", two_txt=b"The second.")
    with opening(talkative.connect, options=Options(max_tokens=300)) as opened:
        page = opened.page
        opened.expect_mark("Demo")
        page.locator("#chosen").set_input_files(first)
        expect(page.locator("#files li[data-state=read]")).to_have_count(1)
        opened.ask("What is this about?")
        opened.expect_outcome("^Answering")
        expect(page.locator("#files")).to_be_hidden()
        page.locator("#chosen").set_input_files(second)
        expect(page.locator("#files li:visible .says")).to_have_text("text, 1 part, 11 characters")
        opened.expect_outcome(WHOLE)
        expect(page.locator("#files .name")).to_have_text("two.txt")
        opened.ask("And this?")
        opened.expect_outcome(WHOLE, number=1)
        asked = [message.text for message in opened.session.history if message.role == "user"]
        assert ["The first." in text for text in asked] == [True, False]
        assert ["The second." in text for text in asked] == [False, True]


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_files(opening: Opening, twin: Twin, tmp_path: Path, *, dark: bool) -> None:
    """
    On a narrow screen all of it can be seen, and nobody is kept out.
    """
    with opening(twin.connect, size=PHONE, dark=dark) as opened:
        opened.expect_mark("Demo")
        [path] = write(tmp_path, letter_pdf=make_pdf([LETTER, "b"]))
        opened.page.locator("#chosen").set_input_files(path)
        expect(opened.page.locator("#files .says")).to_contain_text("PDF, 2 pages")
        assert opened.find_barriers() == []
        width = opened.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE[0]
        opened.keep(f"file-phone{'-dark' if dark else ''}")
