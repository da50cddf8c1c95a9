"""`bin/demo --web` as somebody meets it who has read nothing else."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, expect

from local.processes.supervise import ROOT
from tests.patience import PATIENCE_SECONDS


@contextmanager
def demo(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run `bin/demo --web`; it is ended whatever happens."""
    command = (sys.executable, "-m", "local.demo", "--web", "--folder", str(folder))
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_from_one_command_to_a_verified_answer(tmp_path: Path, browser: Browser) -> None:
    """The printed link, one click on a question, a proven answer; Ctrl-C, and the page says so."""
    context = browser.new_context()
    with demo(tmp_path) as process:
        assert process.stderr is not None
        link = next(
            found[0] for line in process.stderr if (found := re.search(r"http://\S+", line))
        )
        page = context.new_page()
        page.goto(link)
        page.get_by_role("button", name="I can't access my email").click()
        expect(page.locator(".outcome")).to_have_text(re.compile("^Receipt verified"))
        process.send_signal(signal.SIGINT)
        expect(page.locator("#refusal h2")).to_have_text("The program has ended")
        expect(page.locator("#mark")).to_have_text("Closed")
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0
        assert "Traceback" not in said
    context.close()
