"""
Open WebUI in Chromium: its first user signs up, and asks, with what it sets by default.

Its page sends tools of its own with each message, and asks the model for a title.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright
from scenario import MODEL, QUESTION, report, results

ROOT = Path(__file__).resolve().parents[3]
SHOTS = ROOT / "build" / "clients"  # screenshots, kept to be looked at
TITLE = "Booking leave"  # as the scripted model titles every chat
_PROGRAM = ROOT / ".venv-clients-webui" / "bin" / "open-webui"
_START_SECONDS = 240
_SECONDS = 60  # for an answer, however busy the machine is
_LOOK_SECONDS = 0.05


@contextmanager
def running() -> Iterator[str]:
    """Run Open WebUI; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    data = Path("data").absolute()
    data.mkdir()
    environment = {
        **os.environ,
        "OPENAI_API_BASE_URL": os.environ["OPENAI_BASE_URL"],
        "DATA_DIR": str(data),
        "WEBUI_SECRET_KEY": secrets.token_hex(),
        "OFFLINE_MODE": "true",
    }
    command = (str(_PROGRAM), "serve", "--host", "127.0.0.1", "--port", str(port))
    SHOTS.mkdir(parents=True, exist_ok=True)
    with (
        (SHOTS / "open-webui.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            _wait(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).read()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise RuntimeError(f"Open WebUI did not start: see {SHOTS}/open-webui.log")


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
            return [after[len(before) :] for before, after in zip(shown, shown[1:], strict=False)]
        time.sleep(_LOOK_SECONDS)
    raise AssertionError(f"it ends as {shown[-1]!r}")


@cache
def ask_plainly() -> list[str]:
    page = opened()
    got = ask(page, f"{QUESTION} CALL nothing", "under Time off.")
    expect(page).to_have_title(re.compile(TITLE))
    page.screenshot(path=SHOTS / "open-webui-chat.png")
    return got


def chat() -> str:
    return "".join(ask_plainly())


def tools() -> str:
    page = opened()
    ask(page, "What time is it? CALL get_current_timestamp", "}")
    expect(page.get_by_text("View Result from get_current_timestamp")).to_be_visible()
    page.screenshot(path=SHOTS / "open-webui-tools.png")
    told = page.locator(".chat-assistant").last.inner_text().strip()
    result = told[told.index("{") :]
    assert json.loads(result)["current_timestamp"] > 0
    results.append(result)
    return told[told.index("The tool said: ") :]


with running() as url, sync_playwright() as playwright:
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # root gets no sandbox
    browser = playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=arguments
    )
    first = browser.new_page(viewport={"width": 1280, "height": 850})
    first.set_default_timeout(_SECONDS * 1000)
    expect.set_options(timeout=_SECONDS * 1000)
    sign_up(first, url)

    def opened() -> Page:
        return first

    report(chat=chat, stream=ask_plainly, tools=tools)
    browser.close()
