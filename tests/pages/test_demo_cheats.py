"""`bin/demo --web` with a server that cheats."""

import re
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Browser, expect

from local.processes.supervise import ROOT


def test_a_page_refuses_a_server_that_cheats(tmp_path: Path, browser: Browser) -> None:
    """The page of the product says so, and there is nothing to type into."""
    command = (sys.executable, "-m", "local.demo", "--web", "--cheat", "other-image")
    context = browser.new_context()
    with subprocess.Popen(
        (*command, "--folder", str(tmp_path)), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            link = next(
                found[0] for line in process.stderr if (found := re.search(r"http://\S+", line))
            )
            page = context.new_page()
            page.goto(link)
            refusal = page.locator("#refusal")
            expect(refusal.get_by_role("heading").first).to_have_text(
                "This enclave runs something else"
            )
            expect(page.locator("#text")).to_be_disabled()
        finally:
            process.kill()
    assert list((tmp_path / "parent_saw").iterdir()) == []
    context.close()
