"""
The arithmetic of the engine's benchmark; timings themselves are never asserted.
"""

import json
import os
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest

from app.enclave.engine.load import load_engine
from benchmarks.engine.contender import Answers
from benchmarks.engine.figures import GOALS, Figure, judge, make_figure, roofline_share
from benchmarks.engine.hollow_enclave import load_hollow
from benchmarks.engine.machine import process_seconds
from benchmarks.engine.rivals import RIVALS
from benchmarks.engine.runs import Run, Runs, plan_turns
from benchmarks.engine.settings import _PAGE, _RESULTS, LINES, _put_in, write_table
from benchmarks.engine.soak import Sample, summarise
from benchmarks.engine.table import put_table


def _figure(total: float, *, askers: int = 1) -> Figure:
    return Figure(askers, total, total, 0.1, 0.1, 1.0, 1, (total, total))


def test_the_table_of_settings_is_what_was_measured() -> None:
    """
    The page has the table of the results that are kept, and a line for each that is measured.
    """
    report = json.loads(_RESULTS.read_text())
    assert "\n".join(write_table(report)) in _PAGE.read_text()
    assert {line["setting"] for line in report["lines"]} == {line.setting for line in LINES}


_ANEW = "the demo model and these lines, measured anew"
_FIRST, _NEXT = (repr(line.setting) for line in LINES[:2])


def test_lines_measured_anew_are_told() -> None:
    """
    A table of several runs says which lines the time of the later ones was for.
    """
    kept = {**json.loads(_RESULTS.read_text()), "seconds": 548.0}
    kept.pop("before", None)
    kept.pop("anew", None)
    assert "548 s in all." in write_table(kept)
    for at, named in (
        (0, f"9 s for {_ANEW}: {_FIRST}."),
        (2, f"18 s for {_ANEW}: {_FIRST}, {_NEXT}."),
    ):
        report = {**kept, "lines": kept["lines"][at : at + 1], "seconds": 9.0}
        _put_in(kept, report)
        told = " ".join(write_table(report))
        assert report["lines"] == kept["lines"]
        assert named in told
        assert "when all took 548 s" in told
        kept = report


def test_a_figure_is_the_median_of_its_runs() -> None:
    """
    One slow run of three changes no figure but the spread.
    """
    runs = [
        Answers(seconds=2.0, first_seconds=[0.5], tokens=[128]),
        Answers(seconds=2.1, first_seconds=[0.6], tokens=[128]),
        Answers(seconds=64.0, first_seconds=[32.0], tokens=[128]),
    ]
    figure = make_figure(runs)
    assert figure.askers == 1
    assert figure.total_tokens_per_second == pytest.approx(128 / 2.1)
    assert figure.decode_tokens_per_second == pytest.approx(127 / 1.5)
    assert figure.first_seconds == 0.6
    assert figure.spread == (2.0, 64.0)


def test_many_askers_are_counted_together() -> None:
    """
    The total is all new tokens by the time of the last answer's end; who waited longest is shown.
    """
    figure = make_figure([Answers(seconds=4.0, first_seconds=[0.5, 1.0, 3.0], tokens=[128] * 3)])
    assert figure.total_tokens_per_second == pytest.approx(96)
    assert figure.decode_tokens_per_second == pytest.approx(381)  # in the last second
    assert (figure.first_seconds, figure.last_first_seconds) == (1.0, 3.0)


def test_runs_of_different_askers_are_no_figure() -> None:
    """
    Runs that cannot be compared are refused, and so are none.
    """
    one, two = Answers(1.0, [0.1], [8]), Answers(1.0, [0.1, 0.1], [8, 8])
    with pytest.raises(ValueError, match=r"\[1, 2\] askers"):
        make_figure([one, two])
    with pytest.raises(ValueError, match=r"\[\] askers"):
        make_figure([])


def test_the_roofline_is_bandwidth_by_weights() -> None:
    """
    Half of what memory allows is 0.5, the time of the prompt included.
    """
    alone = make_figure([Answers(2.0, [0.5], [40])])
    assert roofline_share(alone, weights_bytes=1e9, bytes_per_second=40e9) == 0.5


def test_goals_are_ratios_of_totals() -> None:
    """
    Eight askers are held to one, and to another engine's eight; what was not measured is no goal.
    """
    figures = {
        ("ours-private", 1): _figure(20.0),
        ("ours-private", 8): _figure(99.0, askers=8),
        ("llama-Q8_0", 8): _figure(33.0, askers=8),
    }
    outcomes = {(o.goal.askers, o.goal.theirs): o for o in judge(figures)}
    assert set(outcomes) == {(8, "ours-private"), (8, "llama-Q8_0")}
    assert outcomes[8, "ours-private"].ratio == pytest.approx(4.95)
    assert not outcomes[8, "ours-private"].reached
    assert outcomes[8, "llama-Q8_0"].reached  # exactly what was aimed at
    assert judge({}) == []
    assert len(set(GOALS)) == len(GOALS)


def test_goals_without_prompts() -> None:
    """
    Where only generated tokens count, the time of the prompts does not.
    """
    alone, eight = Answers(2.0, [1.0], [101]), Answers(4.0, [2.0] * 8, [101] * 8)
    figures = {("ours-bare", 1): make_figure([alone]), ("ours-bare", 8): make_figure([eight])}
    (outcome,) = judge(figures)
    assert outcome.goal.decode
    assert outcome.ratio == pytest.approx(4.0)


def test_turns_begin_with_what_should_not_be_missing() -> None:
    """
    All rounds of one asker come first, then many before few; slow contenders have one round of
    many, and who answers one after the other has none.
    """
    chosen = [rival for rival in RIVALS if rival.name in {"original", "llama-Q8_0", "ours-bare"}]
    turns = [(n, count, rival.name) for n, count, rival in plan_turns(chosen, (1, 4, 8), 2)]
    assert turns[:6] == [(n, 1, rival.name) for n in (1, 2) for rival in chosen]
    assert turns[6:] == [
        (1, 8, "llama-Q8_0"), (1, 8, "ours-bare"), (1, 4, "llama-Q8_0"), (1, 4, "ours-bare"),
        (2, 8, "ours-bare"), (2, 4, "ours-bare"),
    ]  # fmt: skip


def test_runs_go_on_where_they_were_left(tmp_path: Path) -> None:
    """
    What has been measured is there at the next start, and is not measured again.
    """
    path = tmp_path / "runs" / "shape.json"
    first = Runs(path)
    first.add_bandwidth(20e9)
    first.add(Run("ours-bare", 2, 1, 0.25, Answers(2.0, [0.1, 0.2], [8, 8], [5])))
    first.add(Run("ours-bare", 2, 2, 0.75, Answers(1.0, [0.1, 0.2], [8, 8])))
    again = Runs(path)
    assert again.has("ours-bare", 2, 2)
    assert not again.has("ours-bare", 2, 3)
    assert not again.has("ours-bare", 1, 1)
    assert [answers.seconds for answers in again.by_key()["ours-bare", 2]] == [2.0, 1.0]
    assert again.most_other_cores(("ours-bare", 2)) == 0.75
    assert (again.bandwidth(), again.machine) == (20e9, first.machine)
    assert make_figure(again.by_key()["ours-bare", 2]).spread == (8, 16)


def test_contenders_are_forgotten(tmp_path: Path) -> None:
    """
    What some have measured is forgotten; of all, where that was, too.
    """
    runs = Runs(tmp_path / "shape.json")
    runs.add_bandwidth(20e9)
    for name in ("ours-bare", "llama-Q8_0"):
        runs.add(Run(name, 1, 1, 0.0, Answers(1.0, [0.1], [8])))
    runs.forget(["ours-bare"])
    assert list(runs.by_key()) == [("llama-Q8_0", 1)]
    assert runs.bandwidth() == 20e9
    runs.forget(["llama-Q8_0"])
    assert runs.by_key() == {}
    assert runs.bandwidth() is None


def test_the_hollow_engine_is_loaded_as_the_real_one() -> None:
    """
    The enclave's program, which knows nothing of it, calls it as it calls the real one.
    """
    hollow, real = signature(load_hollow), signature(load_engine)
    assert list(hollow.parameters.values()) == list(real.parameters.values())


def test_a_table_is_put_between_its_marks(tmp_path: Path) -> None:
    """
    What stood there is replaced, and nothing else of the page is touched.
    """
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table x -->\nold\n<!-- end of x -->\nb <!-- table y -->\n")
    put_table(page, "x", ["new", "lines"])
    put_table(page, "x", ["newer"])
    assert page.read_text() == (
        "a\n<!-- table x -->\nnewer\n<!-- end of x -->\nb <!-- table y -->\n"
    )
    for missing in ("y", "z"):
        with pytest.raises(ValueError, match=f"no place for the table {missing}"):
            put_table(page, missing, [])


def test_growth_leaves_out_the_start() -> None:
    """
    A process that fills up and then stays flat grows by nothing; one that leaks, by its leak.
    """
    flat = [Sample(n, min(n, 25) * 2**20, 5 * 2**20, 1000 * n) for n in range(1, 101)]
    assert summarise(flat, "enclave")["bytes_a_request"] == pytest.approx(0, abs=1e-6)
    assert summarise(flat, "enclave")["last_mib"] == 25
    assert summarise(flat, "parent")["peak_mib"] == 5
    assert summarise(flat, "chatbot")["bytes_a_request"] == pytest.approx(1000)


def test_processor_time_is_that_of_a_process_and_its_children() -> None:
    """
    Work of this process is seen, and so is that of a child that has ended.
    """
    before = process_seconds(os.getpid())
    assert sum(number * number for number in range(2_000_000))
    between = process_seconds(os.getpid())
    assert between > before
    subprocess.run((sys.executable, "-c", "sum(range(10_000_000))"), check=True)
    assert process_seconds(os.getpid()) > between
