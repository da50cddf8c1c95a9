"""`bin/demo --cheat`: a server that cheats, as the asker's program sees it."""

from pathlib import Path

import pytest

from local import demo
from local.cheats.cheats import CHEATS
from local.demo_model.corpus import read_corpus
from local.demo_model.suggestions import DEMO_QUESTION
from tests.written import REMEDY, normalise, read_sample, shape

(ANSWER,) = {e.answer for e in read_corpus() if DEMO_QUESTION.startswith(e.wordings)}
NOT_SENT = "nothing else: the question was not sent, not even sealed"
SENT = "0 of its words readable"
# Name, exit code, the reason given.
SEEN = [
    ("other-image", 3, "not on your approved list", "PCR0 is"),
    ("debug", 3, "debug mode", "PCR0 is all zeros"),
    ("replayed-document", 3, "could not be verified", "nonce"),
    ("altered-answer", 4, "Bytes were altered on the way", "frame 0"),
    ("truncated-answer", 4, "The answer is incomplete", "final frame"),
    ("honest", 0, "receipt   verified", "on the approved list"),
]


@pytest.mark.parametrize(("name", "code", "says", "reason"), SEEN)
def test_a_cheat_is_refused_for_its_reason(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    code: int,
    says: str,
    reason: str,
) -> None:
    """
    The asker's program names what is wrong. It sends nothing before, and shows nothing after.

    The same server, when it does not cheat, gets a question and gives an answer.
    """
    assert demo.main(["--cheat", name, "--folder", str(tmp_path)]) == code
    answer, notes = capsys.readouterr()
    assert says in notes
    assert reason in notes
    assert f"(exit code {code})" in notes
    if name != "truncated-answer":  # how much of it has come by then depends on the machine
        assert answer.strip() == (ANSWER if name == "honest" else "")
    assert ("receipt   verified" in notes) == (name == "honest")
    assert (NOT_SENT in notes) == (code == 3)
    assert (SENT in notes) == (code != 3)
    if name == "other-image":
        shown = read_sample("bin/demo --cheat other-image")
        assert normalise(shape(notes)) == normalise(shown), REMEDY
    assert bool(list((tmp_path / "parent_saw").iterdir())) == (code != 3)


def test_every_cheat_is_tried() -> None:
    """None is offered that no test has seen refused."""
    assert {cheat.name for cheat in CHEATS} == {name for name, *_ in SEEN}


def test_the_list_says_what_each_tries(capsys: pytest.CaptureFixture[str]) -> None:
    """`--cheat list` starts nothing, and has each name with what it does and what comes of it."""
    assert demo.main(["--cheat", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(cheat.tries in listed and cheat.outcome in listed for cheat in CHEATS)
