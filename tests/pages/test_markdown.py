"""Answers in Markdown on the page, in a real browser: safe, bounded, and ready to be copied."""

import random
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from app.chatbot.console import clean
from app.chatbot.terminal.margin import Margin
from app.chatbot.terminal.markdown import Markdown
from tests.markdown import CASES, HOSTILE
from tests.pages.conftest import PHONE, Opening, OpenPage
from tests.scripted_twin import ScriptedTwin, run_scripted_twin

WHOLE = "^Receipt verified: this answer, whole"
# Draws an answer that comes in pieces of so many characters, and gives its elements as text.
DRAW = """async ([source, size]) => {
    const { Markdown } = await import('/markdown.js');
    const root = document.createElement('div');
    const markdown = new Markdown(root);
    for (let at = 0; at < source.length; at += size) markdown.feed(source.slice(at, at + size));
    markdown.end();
    root.normalize();
    const quote = (text) => `'${text.replace(/['\\\\]/g, '\\\\$&').replaceAll('\\n', '\\\\n')}'`;
    const outline = (node) => [...node.childNodes].map((child) => {
        if (child instanceof Text) return quote(child.data);
        const name = [child.localName, ...child.classList].join('.');
        return `${name}(${outline(child)})`;
    }).join(' ');
    return outline(root);
}"""
MEASURE = """async ([source, size]) => {
    const { Markdown } = await import('/markdown.js');
    const root = document.createElement('div');
    const markdown = new Markdown(root);
    for (let at = 0; at < source.length; at += size) markdown.feed(source.slice(at, at + size));
    markdown.end();
    let deepest = 0;
    for (const node of root.querySelectorAll('*')) {
        let depth = 0;
        for (let up = node; up !== root; up = up.parentNode) depth += 1;
        deepest = Math.max(deepest, depth);
    }
    const text = root.textContent.replaceAll(/[^\\p{L}]/gu, '').length;
    return [root.querySelectorAll('*').length, deepest, text];
}"""
ATOMS = [
    *"ab1*_`~[]()|#>-+.\\: \t\n漢。é", "**", "``", "```\n", "\n- ", "\n1. ", "\n> ", "](b)", "  ",
    "***",
    "| a | b |\n|--|--|\n", "\n\n", "https://x/", "~~", "__", "\n    ", "\n  ",
]  # fmt: skip
# Gives each letter of each answer with its styles, numbered as a terminal numbers them.
LETTERS = """async ([texts, size]) => {
    const { Markdown } = await import('/markdown.js');
    const styles = {strong: '1', th: '1', heading: '1', language: '2', em: '3', del: '9'};
    const read = (node, style) => [...node.childNodes].flatMap((child) => {
        if (child instanceof Text) {
            return [...child.data].filter((one) => /\\p{L}/u.test(one)).map((one) => one + style);
        }
        const own = styles[child.localName] ?? styles[child.className] ?? '';
        return read(child, [...new Set([...style, ...own])].sort().join(''));
    });
    return texts.map((text) => {
        const root = document.createElement('div');
        const markdown = new Markdown(root);
        for (let at = 0; at < text.length; at += size) markdown.feed(text.slice(at, at + size));
        markdown.end();
        return read(root, '');
    });
}"""
ANSWER = """# Leave

Ask **by form**, see [the page](https://leave.example/form?u=jdoe):

1. Fill it in
2. Send it to `hr@example.com`
   - with *all* days

> Nobody else reads it. ![seal](https://leave.example/seal.png)

| days | paid |
|---|---|
| 10 | yes |

| first_day_of_the_leave | last_day_of_the_leave | who_does_the_work_meanwhile |
|---|---|---|
| 23 November | 24 November | nobody |

```python
print("<img src=x onerror=alert(1)>")\u202e
```

<script>alert(1)</script> and <a href="https://x.example">x</a>"""


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedTwin]:
    """A twin whose model says what is scripted."""
    with run_scripted_twin(tmp_path_factory.mktemp("markdown")) as running:
        running.script({"says": [ANSWER[at : at + 3] for at in range(0, len(ANSWER), 3)]})
        yield running


def write_at_random(chance: random.Random) -> str:
    """Write what nobody would: marks, letters and blocks in any order."""
    return "".join(chance.choice(ATOMS) for _ in range(chance.randint(1, 40)))


def read_terminal(text: str) -> list[str]:
    """Give each letter of *text* at a terminal, with the styles it has there."""
    markdown = Markdown(Margin(4000))
    shown = markdown.feed(clean(text)) + markdown.end()
    letters, styles = [], ""
    for code, letter in re.findall(r"\x1b\[(\d)m|(.)", shown):
        styles = "" if code == "0" else "".join(sorted({*styles, code}))
        letters += [letter + styles] * letter.isalpha()
    return letters


def test_page_and_terminal_agree(opening: Opening, scripted: ScriptedTwin) -> None:
    """Whatever the text and however it is cut, both show the same letters in the same styles."""
    chance = random.Random(20261127)  # noqa: S311 - nothing is secret here
    texts = [write_at_random(chance).replace("![", "[") for _ in range(600)]
    with opening(scripted.twin.connect) as opened:
        whole, cut = (opened.page.evaluate(LETTERS, [texts, size]) for size in (10_000, 1))
        for text, one, other in zip(texts, whole, cut, strict=True):
            assert one == other, text
            assert one == read_terminal(text), text


def ask(opened: OpenPage) -> None:
    opened.expect_mark("Demo")
    opened.ask("How do I ask for leave?")
    opened.expect_outcome(WHOLE)


def test_what_becomes_of_it(opening: Opening, scripted: ScriptedTwin) -> None:
    """Each kind of Markdown is shown as it is meant, however it is cut; the rest stays text."""
    with opening(scripted.twin.connect) as opened:
        for case in CASES:
            for size in (1, 2, 7, 1000):
                assert opened.page.evaluate(DRAW, [case.source, size]) == case.page, (case, size)


def test_lines_that_end_in_two_characters(opening: Opening, scripted: ScriptedTwin) -> None:
    """A line's end that two pieces share is one; a carriage return alone is none."""
    with opening(scripted.twin.connect) as opened:
        drawn = {opened.page.evaluate(DRAW, ["a\r\n\r\nb\rc\r", size]) for size in (1, 2, 3, 99)}
    assert drawn == {"p('a') p('b\ufffdc\ufffd')"}


def test_hostile_answers_are_bounded(opening: Opening, scripted: ScriptedTwin) -> None:
    """No answer makes elements without end, nor nests them deeply; and none of its letters goes."""
    with opening(scripted.twin.connect) as opened:
        for name, text in HOSTILE.items():
            made, deepest, letters = opened.page.evaluate(MEASURE, [text, 40])
            assert made < 25_000, name
            assert deepest < 60, name
            assert letters >= sum(map(str.isalpha, text)), name


def test_an_answer_loads_nothing_and_leads_nowhere(
    opening: Opening, scripted: ScriptedTwin
) -> None:
    """Links and images are text with their target; nothing of an answer is fetched or clickable."""
    with opening(scripted.twin.connect) as opened:
        ask(opened)
        answer = opened.page.locator(".answer")
        shown = answer.inner_text()
        for text in (
            "the page (https://leave.example/form?u=jdoe)",
            "seal (image, not loaded: https://leave.example/seal.png)",
            "<script>alert(1)</script>",
            '<a href="https://x.example">x</a>',
        ):
            assert text in shown
        assert answer.locator("a, img, script, iframe, [href], [src], [style]").count() == 0
        assert answer.locator("strong").inner_text() == "by form"
        assert all(response.url.startswith(opened.url) for response in opened.responses)
        assert opened.find_barriers() == []
        opened.keep("markdown")


def test_what_is_shown_stays_while_it_comes(opening: Opening, scripted: ScriptedTwin) -> None:
    """An element that stands for a whole line is never made again, whatever comes after it."""
    with opening(scripted.twin.connect) as opened:
        kept: bool = opened.page.evaluate(
            """async (source) => {
                const { Markdown } = await import('/markdown.js');
                const root = document.createElement('div');
                const markdown = new Markdown(root);
                const [first, ...rest] = source.split(/(?<=\\n\\n)/);
                markdown.feed(first);
                const before = [...root.children];
                for (const piece of rest.join('')) markdown.feed(piece);
                return before.length > 0 && before.every((node, at) => root.children[at] === node);
            }""",
            ANSWER,
        )
        assert kept


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_markdown_fits_a_phone(opening: Opening, scripted: ScriptedTwin, *, dark: bool) -> None:
    """At the width of a phone nothing is wider than the page, in light and dark; tables scroll."""
    with opening(scripted.twin.connect, size=PHONE, dark=dark) as opened:
        ask(opened)
        widths = opened.page.evaluate(
            "[document.documentElement.scrollWidth, document.querySelector('.log').scrollWidth]"
        )
        assert max(widths) <= PHONE[0]
        wide = "(box) => box.scrollWidth > box.clientWidth"
        assert [box.evaluate(wide) for box in opened.page.locator(".table").all()] == [False, True]
        opened.page.locator(".answer").scroll_into_view_if_needed()
        opened.keep(f"markdown-phone-{'dark' if dark else 'light'}")


def test_copying(opening: Opening, scripted: ScriptedTwin) -> None:
    """An answer is copied as Markdown, code as it is; without what reorders a line where pasted."""
    with opening(scripted.twin.connect) as opened:
        page = opened.page
        page.evaluate(
            """() => {
                window.copied = [];
                navigator.clipboard.writeText = async (text) => { window.copied.push(text); };
            }"""
        )
        ask(opened)
        page.get_by_label("Copy this code").click()
        expect(page.get_by_label("Copy this code")).to_have_attribute("data-done", "yes")
        page.get_by_label("Copy this answer, as Markdown").click()
        expect(page.get_by_label("Copy this answer, as Markdown")).to_have_attribute(
            "data-done", "yes"
        )
        code, answer = page.evaluate("window.copied")
        assert code == 'print("<img src=x onerror=alert(1)>")\ufffd'
        assert answer == ANSWER.replace("\u202e", "\ufffd")
        page.evaluate(
            "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }"
        )
        page.get_by_label("Copy this code").click()
        expect(page.get_by_label("Copy this code")).to_have_attribute("data-done", "no")
