"""
Open WebUI in Chromium: its first user signs up, and asks, with what it sets by default.

Its page sends tools of its own with each message, and asks the model for a title.
"""

import json
import os
import re
import secrets
import shutil
import time
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright
from scenario import MODEL, QUESTION, free_port, report, results, running

ROOT = Path(__file__).resolve().parents[3]
SHOTS = ROOT / "build" / "clients"  # screenshots, kept to be looked at
TITLE = "Booking leave"  # as the scripted model titles every chat
_PROGRAM = ROOT / ".venv-clients-webui" / "bin" / "open-webui"
_START_SECONDS = 240
_SECONDS = 60  # for an answer, however busy the machine is
_LOOK_SECONDS = 0.05


def sign_up(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_role("button", name="Get started").click()
    page.get_by_placeholder("Enter Your Full Name").fill("A Clerk")
    page.get_by_placeholder("Enter Your Email").fill("clerk@example.org")
    page.get_by_placeholder("Enter Your Password").first.fill(secrets.token_hex())
    page.get_by_role("button", name="Create Admin Account").click()
    page.get_by_role("button", name="Okay, Let's Go!").click()
    expect(page.get_by_role("button", name=MODEL).first).to_be_visible()


def ask(page: Page, question: str, last: str) -> list[str]:
    """Ask in a new chat, until what the answer ends with is shown; give how it grew, in pieces."""
    page.goto(page.url.split("/c/")[0])
    page.locator("#chat-input").click()
    page.keyboard.type(question)
    page.keyboard.press("Enter")
    answer = page.locator(".chat-assistant")
    shown = [""]
    for _ in range(int(_SECONDS / _LOOK_SECONDS)):
        text = (answer.all_inner_texts() or [""])[-1].strip()
        shown += [text] if text.startswith(shown[-1]) and text != shown[-1] else []
        if text.endswith(last):
            return [after[len(before) :] for before, after in pairwise(shown)]
        time.sleep(_LOOK_SECONDS)
    raise AssertionError(f"it ends as {shown[-1]!r}")


def ask_plainly(page: Page) -> list[str]:
    got = ask(page, f"{QUESTION} CALL nothing", "under Time off.")
    expect(page).to_have_title(re.compile(TITLE))
    page.screenshot(path=SHOTS / "open-webui-chat.png")
    return got


def ask_tool(page: Page) -> str:
    ask(page, "What time is it? CALL get_current_timestamp", "}")
    expect(page.get_by_text("View Result from get_current_timestamp")).to_be_visible()
    page.screenshot(path=SHOTS / "open-webui-tools.png")
    told = page.locator(".chat-assistant").last.inner_text().strip()
    result = told[told.index("{") :]
    assert json.loads(result)["current_timestamp"] > 0
    results.append(result)
    return told[told.index("The tool said: ") :]


port = free_port()
url = f"http://127.0.0.1:{port}"
data = Path("data").absolute()
data.mkdir()
SHOTS.mkdir(parents=True, exist_ok=True)
with (
    running(
        (str(_PROGRAM), "serve", "--host", "127.0.0.1", "--port", str(port)),
        f"{url}/health",
        seconds=_START_SECONDS,
        log=SHOTS / "open-webui.log",
        OPENAI_API_BASE_URL=os.environ["OPENAI_BASE_URL"],
        DATA_DIR=str(data),
        WEBUI_SECRET_KEY=secrets.token_hex(),
        OFFLINE_MODE="true",
    ),
    sync_playwright() as playwright,
):
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # root gets no sandbox
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
    first = browser.new_page(viewport={"width": 1280, "height": 850})
    first.set_default_timeout(_SECONDS * 1000)
    expect.set_options(timeout=_SECONDS * 1000)
    sign_up(first, url)
    plainly = cache(partial(ask_plainly, first))
    report(chat=lambda: "".join(plainly()), stream=plainly, tools=lambda: ask_tool(first))
    browser.close()
