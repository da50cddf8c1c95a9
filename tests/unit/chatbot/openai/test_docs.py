import re
from pathlib import Path

import pytest

from app.chatbot.openai.files import MAX_ENCODED_BYTES
from app.chatbot.openai.response import Limit, fail
from app.protocol.errors import WIRE_ERRORS, AppError
from tests.samples import ERROR_KINDS

PAGE = (Path(__file__).parents[4] / "docs/clients.md").read_text()
TABLE = PAGE.partition("| status, `code` |")[2].partition("\n\n")[0]
# What never comes up while the API is served, or crosses the wire under another's code.
ELSEWHERE = {"clock", "document", "engine", "form", "nsm", "weights"}


@pytest.mark.parametrize("kind", sorted({*ERROR_KINDS, *WIRE_ERRORS.values()}, key=str))
def test_every_code_stands_in_the_table(kind: type[AppError]) -> None:
    """What fails in the enclave, on the way or here is told by a status and code of the page."""
    failure = fail(kind("x"), Limit("messages", 8192))
    code = str(failure.error["code"])
    rows = [row for row in TABLE.splitlines() if f"`{code}`" in row.split("|")[1]]
    assert rows or code in ELSEWHERE
    assert all(re.search(rf"\b{failure.status} [^;|]*`{code}`", row) for row in rows)


def test_the_page_says_how_long_a_body_may_be() -> None:
    """The room for files is told in megabytes."""
    assert f"2 MiB and {MAX_ENCODED_BYTES // 1_000_000} MB" in TABLE
