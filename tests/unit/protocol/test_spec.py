"""
What SPEC.md says of the code, read from both.
"""

import re
from pathlib import Path

import pytest

from app.protocol.answer import SEALED_FRAME_BYTES
from app.protocol.asker.envelope import seal_question
from app.protocol.asker.sealing import seal_request
from app.protocol.constants import MAX_QUESTION_BYTES
from app.protocol.messages import Kind
from app.protocol.weights import Kind as WeightsKind
from tests.samples import AUTHORIZATION, CONVERSATION, DATA_KEY, KEY_ARN, make_question

ROOT = Path(__file__).parents[3]
SPEC = (ROOT / "SPEC.md").read_text()
PROTOCOL = ROOT / "app" / "protocol"
HEADINGS = re.findall(r"^###? ([0-9](?:\.[0-9])?)\.? (.+)$", SPEC, re.MULTILINE)
READERS = SPEC.partition("## 10. Where")[2]


def test_every_module_reads_a_section() -> None:
    """
    Section 10 names every module of both halves, each once, and nothing else.
    """
    rows = re.findall(r"^\|[^|]+\|([^|]*)\|([^|]*)\|$", READERS, re.MULTILINE)[2:]
    for folder, column in ((PROTOCOL, 0), (PROTOCOL / "asker", 1)):
        named = [name for row in rows for name in re.findall(r"`(\w+\.py)`", row[column])]
        there = {path.name for path in folder.glob("*.py")}
        there -= {"__init__.py", "constants.py", "package.py", "releases.py"}
        assert sorted(named) == sorted(there)


@pytest.mark.parametrize("number", [n for n, _ in HEADINGS if n not in {"2", "4", "5", "6", "10"}])
def test_every_section_has_its_reader(number: str) -> None:
    """
    Section 10 says of each section where it is read; of 6.5, nothing is.
    """
    assert (
        re.search(rf"(?<![0-9.]){re.escape(number)}(?![0-9]|\.[0-9])", READERS) or number == "6.5"
    )


@pytest.mark.parametrize(
    "path", sorted(PROTOCOL.rglob("*.py")), ids=lambda path: path.relative_to(PROTOCOL).as_posix()
)
def test_cited_sections_exist(path: Path) -> None:
    """
    A module cites sections that the page has.
    """
    numbers = {number for number, _ in HEADINGS} | {"10"}
    for cited in re.findall(
        r"SPEC\.md[^0-9]{1,12}sections? ([0-9]+(?:\.[0-9]+)?)", path.read_text()
    ):
        assert cited in numbers


def test_kinds_of_messages() -> None:
    """
    Section 2.1 lists every kind of message, and no other.
    """
    section = SPEC.partition("### 2.1")[2].partition("### 2.2")[0]
    listed = {
        int(kind, 16) for kind in re.findall(r"^\| (0x[0-9a-f]{2}) \|", section, re.MULTILINE)
    }
    assert listed == set(Kind) | set(WeightsKind)
    assert not set(Kind) & set(WeightsKind)


def test_lengths_that_the_network_sees() -> None:
    """
    Section 6.5 states the lengths that requests and frames have.
    """
    section = SPEC.partition("### 6.5")[2].partition("\n## ")[0]
    seen = {
        len(
            seal_request(
                AUTHORIZATION,
                seal_question(
                    make_question("a" * size),
                    data_key=DATA_KEY,
                    key_arn=KEY_ARN,
                    conversation=CONVERSATION,
                    turn=7,
                ),
                public_key=bytes(31) + b"\x09",
                manifest_digest=bytes(32),
            )
        )
        for size in (1, 20_000, MAX_QUESTION_BYTES - 400)
    }
    stated = re.findall(r"[0-9]{2,3},[0-9]{3}", section.partition("bytes")[0])
    assert sorted(seen) == [int(number.replace(",", "")) for number in stated]
    assert f"frames of {4 + 1 + SEALED_FRAME_BYTES:,} bytes" in section
